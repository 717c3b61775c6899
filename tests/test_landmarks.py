"""Intensities by landmarks: computed by hand, order kept, and nothing of a tested case in them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from metaseg_nb.inference.sliding_window import predict_probability
from metaseg_nb.layout import RunLayout
from metaseg_nb.preprocessing.intensity import landmarks_of, standard_of, with_landmarks
from metaseg_nb.training.checkpoints import load_checkpoint, network_of
from metaseg_nb.training.fit import train
from metaseg_nb.training.patches import PatchBatches


def test_landmarks_by_hand():
    """Eleven even steps from 0.2 to 0.7: a tenth of them is one step. 0 and what is out of reach do not count."""
    image, reach = np.zeros((2, 30, 2, 2)), np.ones((30, 2, 2), bool)
    image[0, 0:22:2, 0, 0] = np.linspace(0.2, 0.7, 11)
    image[0, 24, 0, 0], reach[24, 0, 0] = 1, False
    found = landmarks_of(image, reach)
    assert found[0] == pytest.approx(np.linspace(0.25, 0.65, 9))
    assert np.isnan(found[1]).all()  # a sequence that the patient lacks
    other = np.stack([found[0] / 2, np.full(9, 0.5)])
    assert standard_of([found, other])[0] == pytest.approx(0.75 * found[0])
    assert standard_of([found, other])[1] == pytest.approx(np.full(9, 0.5))


def test_z_scored_voxels_count_on_both_sides_of_0():
    """What is darkest is background, also below 0."""
    image = np.random.default_rng(0).normal(0, 1, (1, 40, 40, 40))
    image[0, :20] = image.min()
    tenths = [-1.28, -0.84, -0.52, -0.25, 0, 0.25, 0.52, 0.84, 1.28]  # of the normal distribution
    assert landmarks_of(image, np.ones((40, 40, 40), bool))[0] == pytest.approx(tenths, abs=0.1)


def test_an_image_gets_the_standards_landmarks_and_keeps_its_order():
    rng = np.random.default_rng(0)
    image = rng.beta(2, 5, (1, 40, 40, 40)).astype(np.float16)
    own, standard = landmarks_of(image, np.ones((40, 40, 40), bool)), np.linspace(0.1, 0.9, 9)[None] ** 2
    mapped = with_landmarks(image, own, standard)
    assert mapped.dtype == image.dtype
    assert landmarks_of(mapped, np.ones((40, 40, 40), bool)) == pytest.approx(standard, abs=2e-3)
    order = np.argsort(image.ravel(), kind="stable")
    assert (np.diff(mapped.ravel()[order].astype(float)) >= 0).all()
    assert with_landmarks(np.array([[[[0.0, 1.0]]]]), own, standard).tolist() == [[[[0.0, 1.0]]]]
    lacking = with_landmarks(image, np.full((1, 9), np.nan), standard)
    assert (lacking == image).all()


def test_a_sequence_that_an_image_lacks_does_not_count():
    one, other = np.full((2, 9), 0.2), np.array([np.full(9, 0.4), np.full(9, np.nan)])
    assert standard_of([one, other]) == pytest.approx(np.array([np.full(9, 0.3), np.full(9, 0.2)]))
    assert standard_of([other, other])[1] == pytest.approx(np.arange(1, 10) / 10), "a number: weights must be finite"


@pytest.fixture
def cases(store):
    """Three cases of one scanner, and a fourth that is much brighter; all with a lesion."""
    rng, label = np.random.default_rng(1), np.zeros((40, 40, 40), bool)
    label[18:22, 18:22, 18:22] = True
    images = [rng.uniform(0.1, top, label.shape) for top in (0.3, 0.4, 0.5, 0.95)]
    return [store(f"c{i}", np.where(label, 0.99, of), label, intensity_scaling="nyul") for i, of in enumerate(images)]


def test_only_the_training_set_sets_the_standard_and_patches_are_brought_to_it(cases, tiny_training):
    batches = PatchBatches(cases[:2], tiny_training(), selection=cases[2:3])
    of = [landmarks_of(case.image, case.reach) for case in cases]
    assert (batches.standard == (of[0] + of[1]) / 2).all()
    assert not np.allclose(batches.standard, np.mean(of, axis=0), atol=0.05)
    images, _ = batches[0]
    whole = with_landmarks(cases[0].image, of[0], batches.standard)
    assert np.isin(images[0].numpy().astype(np.float16), [0, *np.unique(whole)]).mean() > 0.2


def test_cases_on_a_device_are_mapped_once(cases, tiny_training):
    batches = PatchBatches(cases, tiny_training())
    streamed, staying = batches[0], batches.on(torch.device("cpu"))[0]
    assert all(map(torch.equal, streamed, staying))


def test_a_network_carries_its_landmarks_to_where_it_predicts(cases, tiny_training, tmp_path):
    run, batches = RunLayout(tmp_path / "unet/fold0"), PatchBatches(cases[:2], tiny_training(epochs=1))
    train(run, batches, lambda network: 0.5)
    network = network_of(load_checkpoint(run.best_checkpoint), torch.device("cpu"))
    assert network.landmarks.numpy() == pytest.approx(batches.standard)
    tested, settings = cases[3], batches.settings
    found = predict_probability(network, tested.image, tested.reach, settings, torch.device("cpu"))
    mapped = with_landmarks(tested.image, landmarks_of(tested.image, tested.reach), batches.standard)
    del network.landmarks
    expected = predict_probability(network, mapped, tested.reach, settings, torch.device("cpu"))
    assert np.allclose(found, expected, atol=1e-3)
    assert not np.allclose(
        found, predict_probability(network, tested.image, tested.reach, settings, torch.device("cpu"))
    )


def test_other_scalings_have_no_landmarks(cases, tiny_training):
    facts = {**cases[0].image_facts, "recipe": {**cases[0].image_facts["recipe"], "intensity_scaling": "percentiles"}}
    assert PatchBatches([replace(cases[0], image_facts=facts)], tiny_training()).standard is None
