"""Planted lesions: where they lie, what is learned of them, what is never read, and what nobody pays for."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from budget_fakes import settings_with

from metaseg_nb.annotation import planting
from metaseg_nb.annotation.planting import LESIONS, NECROTIC, NOISE, bright_spots, plant, with_planted_lesions
from metaseg_nb.annotation.results import run_effort
from metaseg_nb.annotation.training_set import annotated_training_set
from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.folds import Split
from metaseg_nb.cohort.lesions import find_lesions
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.inference.decision import PRIOR
from metaseg_nb.inference.sliding_window import choose_decisions
from metaseg_nb.layout import StudyLayout
from metaseg_nb.preprocessing.case_store import UNKNOWN, store_label
from metaseg_nb.settings import ParameterError
from metaseg_nb.training.patches import PatchBatches

CPU, EDGE_MM = torch.device("cpu"), (2.0, 2.0, 2.0)
SHAPE, MIDDLE, RADIUS = (60, 60, 60), 30, 26


@pytest.fixture(scope="module")
def head():
    """A ball of tissue around a dark ventricle, at 2 mm, with a bright ball and a thin bright vessel, which follow."""
    x, y, z = np.indices(SHAPE) - MIDDLE
    image = np.where(x**2 + y**2 + z**2 < RADIUS**2, 0.5, 0.0) * np.random.default_rng(0).normal(1, 0.02, SHAPE)
    ball, vessel = (x - 14) ** 2 + y**2 + z**2 <= 9, ((x + 12) // 2 == 0) & (y // 2 == 0) & (abs(z) < 15)
    image[x**2 + y**2 + z**2 < 36] = 0.1
    image[ball | vessel] = 0.9
    return image.astype(np.float32), ball, vessel


@pytest.fixture(scope="module")
def planted(head):
    image = head[0]
    voxels = np.argwhere(image > 0.05)
    return plant(image, voxels, EDGE_MM, EDGE_MM, np.random.default_rng(1))


def test_lesions_lie_apart_in_the_brain_and_change_nothing_else(head, planted):
    image, ball, _ = head
    changed, label = planted
    lesions = find_lesions(label == 1, EDGE_MM)
    assert 4 <= lesions.n <= LESIONS
    assert lesions.table["diameter_mm"].between(2, 44).all()
    assert (image[label == 1] > 0.05).all(), "none reaches into air"
    near_ball = np.linalg.norm(np.argwhere(label == 1) - np.argwhere(ball).mean(axis=0), axis=1).min() * 2
    assert near_ball > 6, "nor into what may be a lesion already"
    assert np.abs(changed - image)[label == 1].mean() > 0.1
    same = np.abs(changed - image) < 1e-6
    assert same[image == 0].mean() > 0.99
    assert same.mean() > 0.6
    assert (changed.min(), changed.max()) == (image.min(), pytest.approx(image.max()))


def test_what_may_be_a_lesion_is_unknown_and_a_vessel_is_background(head, planted):
    _, ball, vessel = head
    label = planted[1]
    assert (label[ball] == UNKNOWN).all()
    assert (label[vessel] == 0).all()
    assert (label == UNKNOWN).sum() < 8 * ball.sum(), "only its surroundings"


@pytest.mark.parametrize("change", [lambda x: 700 * x + 40, lambda x: 3 * x - 1])
def test_brightness_is_relative_to_the_image(head, change):
    image = head[0]
    voxels = np.argwhere(image > 0.05)
    one, other = (plant(i, voxels, EDGE_MM, EDGE_MM, np.random.default_rng(1)) for i in (image, change(image)))
    assert (one[1] == other[1]).mean() > 0.999
    np.testing.assert_allclose(other[0], change(one[0]), atol=0.02 * np.ptp(other[0]))


def test_thick_slices_blur_along_their_axis_alone(head):
    image = head[0]
    voxels = np.argwhere(image > 0.05)

    def steps(native_mm):
        changed = plant(image, voxels, EDGE_MM, native_mm, np.random.default_rng(1))[0] - image
        return [np.abs(np.diff(changed, axis=axis)).mean() for axis in range(3)]

    thin, thick = steps(EDGE_MM), steps((2.0, 2.0, 8.0))
    assert thick[2] < 0.8 * thin[2]
    assert thick[2] < 0.9 * thick[0]


def test_the_noise_of_a_case_is_drawn_between_two_levels(head, monkeypatch):
    """All else that is drawn stays the same, so noise is to noise of level 1 as its level is to 1."""
    image = head[0]
    voxels = np.argwhere(image > 0.05)

    def planted_with(noise, seed):
        monkeypatch.setattr(planting, "NOISE", noise)
        return plant(image, voxels, EDGE_MM, EDGE_MM, np.random.default_rng(seed))[0]

    levels = []
    for seed in range(2):
        none, one, drawn = (planted_with(noise, seed) for noise in ((0.0, 0.0), (1.0, 1.0), NOISE))
        noisy = np.abs(one - none) > 0.01
        levels.append(np.median((drawn - none)[noisy] / (one - none)[noisy]))
    assert min(levels) > 0.39 and max(levels) < 1.21
    assert np.ptp(levels) > 0.1, levels


def test_a_quarter_of_those_that_are_not_solid_are_necrotic_within_a_thin_rim():
    rng = np.random.default_rng(0)
    plans = [planting._plan(rng) for _ in range(3000)]
    hollow = [plan for plan in plans if plan.kind != "solid"]
    assert len(hollow) > 1000
    assert np.mean([plan.kind == NECROTIC for plan in hollow]) == pytest.approx(0.25, abs=0.03)
    assert {plan.kind for plan in hollow} == {"ring", "haemorrhagic", NECROTIC}
    assert min(plan.diameter_mm for plan in hollow) >= 9, "small ones have not outgrown their blood supply"


def test_an_image_without_brain_gets_no_lesion():
    image = np.random.default_rng(0).uniform(0, 1, (20, 20, 20)).astype(np.float32)
    same, label = plant(image, np.argwhere(image > 0.5), EDGE_MM, EDGE_MM, np.random.default_rng(0))
    assert not label.any()
    np.testing.assert_array_equal(same, image)


def test_bright_skin_is_no_spot(head):
    image, ball, _ = head
    brain = np.linalg.norm(np.indices(SHAPE) - MIDDLE, axis=0) < RADIUS - 3
    assert not bright_spots(np.where(brain, 1.0, 2.0), brain, EDGE_MM).any()
    assert bright_spots(image / 0.5, brain, EDGE_MM)[ball].all()


@pytest.fixture
def parts(store, head, tmp_path, monkeypatch):
    """A fold of three cases to train on, one to select on, one to test on, and its study."""
    monkeypatch.setenv("METASEG_HOME", str(tmp_path / "home"))
    layout = StudyLayout("tiny")
    layout.root.mkdir(parents=True)
    (tmp_path / "cases").mkdir()
    layout.case_store.symlink_to(tmp_path / "cases")
    image, ball, _ = head
    for i in range(5):
        store(f"c{i}", image, ball)
    cases = [Case(f"c{i}", (), None, f"p{i}", "lung", 0, 1) for i in range(5)]
    cases = [replace(case, label=tmp_path / "label") for case in cases]
    return Split(cases[:3], cases[3:4], cases[4:]), layout


@pytest.fixture
def learn(parts, tiny_training):
    split, layout = parts

    def make(share, seed=0):
        settings = tiny_training(annotated_share=share, unannotated="planted", seed=seed)
        return annotated_training_set(split, settings, layout, layout.run("unet", 0, "planted", seed), CPU)

    return make


def test_without_annotation_all_is_planted_and_a_physician_did_nothing(learn, tiny_training):
    found = learn(0.0)
    assert [case.name for case in found.cases] == ["c0", "c1", "c2"]
    assert found.table["annotation"].tolist() == ["planted"] * 3 + ["none"]
    assert found.absent == ["lung"]
    effort = run_effort(found.table, settings_with(), {})
    assert (effort["patients"], effort["minutes"], effort["cases"]) == (0, 0, 0)
    assert found.n_selecting == 0
    network = torch.nn.Conv3d(1, 1, 1)
    chosen = choose_decisions(network, found.selection, tiny_training(), CPU)
    assert set(chosen.values()) == {PRIOR}, "planted lesions choose nothing"


def test_beside_annotations_only_the_others_are_planted(learn, tiny_training):
    found = learn(0.67)
    assert found.table.query("role == 'training'")["annotation"].value_counts().to_dict() == {"full": 2, "planted": 1}
    assert found.n_selecting == 1
    planted, known = (next(case for case in found.cases if bool(case.annotation) == is_) for is_ in (True, False))
    assert not np.array_equal(planted.image, known.image)
    assert planted.grid == known.grid
    _, labels = PatchBatches([planted], tiny_training(patches_per_case=4, lesion_share=1.0), 2)[0]
    assert (labels == 1).any(dim=(1, 2, 3, 4)).all(), "patches lie on planted lesions"


def test_seed_and_case_decide_what_is_planted_and_the_mask_is_never_read(learn, parts, tmp_path):
    def arrays(seed):
        return {case.name: (np.array(case.image), np.array(case.label)) for case in learn(0.0, seed).cases}

    first, other = arrays(0), arrays(1)
    assert not np.array_equal(first["c0"][1], other["c0"][1])
    assert not np.array_equal(first["c0"][1], first["c1"][1]), "of images that are equal"
    for name in first:
        facts = {"recipe": {}, "sources": ["another"], "slices": [3]}
        store_label(tmp_path / "cases", name, np.random.default_rng(5).random(SHAPE) > 0.9, facts)
    again = arrays(0)
    for name, pair in first.items():
        for before, after in zip(pair, again[name], strict=True):
            np.testing.assert_array_equal(before, after)


def test_test_cases_are_not_opened(learn, parts):
    (parts[1].case_store / "c4" / "image.json").unlink()
    assert len(learn(0.0).cases) == 3


def test_several_sequences_are_refused(store, head, tmp_path):
    case = store("two", np.stack([head[0], head[0]]), head[1])
    with pytest.raises(CohortError, match=r"case two, .*2 sequences; expected one, a T1c"):
        with_planted_lesions(case, 0, tmp_path / "planted")


def test_a_head_with_skull_and_one_without_contrast_are_refused(store, head, tmp_path):
    image, rng = head[0], np.random.default_rng(0)
    with pytest.raises(ValueError, match="skull and scalp, so that the brain seems to have 5012 cm³"):
        plant(image, np.argwhere(image > 0.05), (4.0, 4.0, 4.0), EDGE_MM, rng)
    case = store("flat", np.where(image > 0.05, 1.0, 0.0), head[1])
    with pytest.raises(CohortError, match=r"case flat, .*a head without contrast; expected a brain"):
        with_planted_lesions(case, 0, tmp_path / "planted")


def test_no_annotation_is_only_for_arms_that_plant(tiny_training):
    with pytest.raises(ParameterError, match="key 'unannotated': found 'unused'; expected: planted"):
        tiny_training(annotated_share=0.0)
