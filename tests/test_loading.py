"""Where patches are cut: cases that stay on a device give the batches of streamed ones, to the last bit."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_patches import ALL_RANDOM, SAMPLINGS, same
from test_restoration import tiny_pretraining  # noqa: F401  # a fixture

from metaseg_nb.preprocessing.case_store import UNKNOWN, store_annotation
from metaseg_nb.training import patches
from metaseg_nb.training.losses import build_loss
from metaseg_nb.training.patches import PatchBatches
from metaseg_nb.training.pretraining import RestorationBatches

CPU, GPU = torch.device("cpu"), torch.device("cuda")
# Smaller than a patch along some axes, as large, and larger.
EDGES = st.integers(20, 48)


@pytest.fixture
def both_ways(monkeypatch):
    """A run's batches from a step on: of streamed cases, and of cases that stay on the device, here the CPU."""

    def make(batches, first=0):
        streamed = list(batches.loader(first, CPU))
        with monkeypatch.context() as patch:
            patch.setattr(patches, "stays_on_gpu", lambda *_: True)
            return streamed, list(batches.loader(first, CPU))

    return make


def random_case(store, name, shape, rng):
    """Two sequences and up to three lesions of a voxel or some, which may lie at the border or in a corner."""
    label = np.zeros(shape, bool)
    for _ in range(rng.integers(4)):
        first = [int(rng.choice([0, edge - 1, rng.integers(edge)])) for edge in shape]
        label[tuple(slice(start, start + rng.integers(1, 9)) for start in first)] = True
    return store(name, rng.random((2, *shape)), label)


@given(
    shapes=st.lists(st.tuples(EDGES, EDGES, EDGES), min_size=1, max_size=3),
    seed=st.integers(0, 2**16),
    sampling=st.sampled_from(SAMPLINGS),
    augmentation=st.sampled_from(["study", "strong"]),
    first=st.integers(0, 2),
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_cases_on_the_device_give_the_batches_of_streamed_ones(
    both_ways, store, tiny_training, shapes, seed, sampling, augmentation, first
):
    rng = np.random.default_rng(seed)
    cases = [random_case(store, f"case{i}", shape, rng) for i, shape in enumerate(shapes)]
    changes = {"sampling": sampling, "augmentation": augmentation, "seed": seed, "patches_per_case": 2, **ALL_RANDOM}
    batches = PatchBatches(cases, tiny_training(epochs=3, batch_size=2, **changes))
    streamed, staying = both_ways(batches, first)
    assert len(streamed) == len(staying) == len(batches) - first
    assert all(map(same, streamed, staying))


def annotated_above(store_blobs, folder):
    """A case of which only the upper half is annotated."""
    case = store_blobs("half")

    def make():
        label = np.array(case.label)
        label[..., :18] = UNKNOWN
        return label, None

    return store_annotation(folder, case, {"upper": "half"}, make)


def test_partial_annotations_on_the_device_are_those_of_the_annotation(both_ways, store_blobs, tiny_training, tmp_path):
    case = annotated_above(store_blobs, tmp_path / "annotations")
    streamed, staying = both_ways(PatchBatches([case], tiny_training(epochs=4, batch_size=1, **ALL_RANDOM)))
    assert all(map(same, streamed, staying))
    assert all((labels == UNKNOWN).any() for _, labels in staying)


def test_pretraining_on_the_device_is_that_of_streamed_cases(both_ways, store, tiny_pretraining):  # noqa: F811
    cases = [random_case(store, f"case{i}", (40, 20, 36), np.random.default_rng(i)) for i in range(2)]
    streamed, staying = both_ways(RestorationBatches(cases, tiny_pretraining(pretraining_epochs=3, **ALL_RANDOM)))
    assert len(staying) == 3
    assert all(map(same, streamed, staying))


def test_cases_on_the_device_need_no_files(store_blobs, tiny_training, monkeypatch):
    batches = PatchBatches([store_blobs("a"), store_blobs("b")], tiny_training(epochs=3))
    monkeypatch.setattr(patches, "stays_on_gpu", lambda *_: True)
    steps = batches.loader(0, CPU)
    next(steps)
    for file in batches.cases[0].folder.parent.glob("*/*"):
        file.unlink()
    assert len(list(steps)) == 2


def test_patches_are_copies_of_cases_on_the_device(store_blobs, tiny_training):
    batches = PatchBatches([store_blobs("a")], tiny_training(batch_size=1)).on(CPU)
    (image,) = (case.image_with_whole_lesions.clone() for case in batches.cases)
    for tensor in batches[0]:
        tensor.fill_(7)
    assert torch.equal(batches.cases[0].image_with_whole_lesions, image)


@pytest.mark.parametrize(("spare", "stay"), [(0.001, True), (-0.001, False)])
def test_cases_stay_where_they_fit_beside_a_step_with_a_tenth_to_spare(
    store_blobs, tiny_training, monkeypatch, spare, stay
):
    cases = [store_blobs(name, shape=shape) for name, shape in (("a", (40, 44, 36)), ("b", (50, 40, 30)))]
    batches = PatchBatches(cases, tiny_training())
    monkeypatch.setattr(patches, "network_cost", lambda settings, channels: SimpleNamespace(memory_gb=0.002))
    # a step, two bytes of each voxel's image, and one of its label
    free = (2e6 + 3 * (40 * 44 * 36 + 50 * 40 * 30)) / 0.9 * (1 + spare)
    # a tenth of it was taken by an earlier training of this process, and is free again
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0.9 * free, 10 * free))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0.3 * free)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0.2 * free)
    assert patches.stays_on_gpu(batches, GPU) is stay


def test_on_a_cpu_cases_are_streamed(store_blobs, tiny_training):
    assert not patches.stays_on_gpu(PatchBatches([store_blobs("a")], tiny_training()), CPU)


@pytest.mark.parametrize(("name", "partly"), product(["dice_ce", "blob"], [False, True]))
def test_unknown_voxels_are_looked_for_only_where_there_may_be_some(name, partly, store_blobs, tiny_training, tmp_path):
    case = annotated_above(store_blobs, tmp_path / "annotations") if partly else store_blobs("whole")
    batches = PatchBatches([store_blobs("other"), case], tiny_training(loss=name))
    images, labels = batches[0]
    assert bool((labels == UNKNOWN).any()) is partly
    assert torch.equal(batches.loss()(images, labels), build_loss(name)(images, labels))
