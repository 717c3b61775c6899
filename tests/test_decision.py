"""The decision: threshold and smallest lesion, chosen on the selection set and by nothing else."""

from dataclasses import asdict
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from scipy import ndimage

from metaseg_nb.inference.decision import (
    MIN_LESIONS_MM3,
    THRESHOLDS,
    UNDECIDED,
    Decision,
    choose_decision,
    decision_of,
    dice_by_decision,
)
from metaseg_nb.layout import NOTEBOOKS, RunLayout
from metaseg_nb.training.checkpoints import load_checkpoint, save_checkpoint

SHAPE = (32, 32, 32)


class Given(torch.nn.Module):
    """Its probabilities are the image's values."""

    def __init__(self):
        super().__init__()
        self.windows = 0

    def forward(self, x):
        self.windows += len(x)
        return torch.logit(x[:, :1], eps=1e-6)


@pytest.fixture
def choose(store, tiny_training):
    """Choose on cases of (probability, truth); the same probabilities and truth in all voxels of a cube."""

    def call(*cases, network=None):
        stored = [store(f"case{i}", *case) for i, case in enumerate(cases)]
        return choose_decision(network or Given(), stored, tiny_training(), torch.device("cpu"))

    return call


def case(*cubes):
    """Probabilities and truth of cubes of (corner, shape, probability, is lesion); 0.01 elsewhere."""
    probability, truth = np.full(SHAPE, 0.01), np.zeros(SHAPE, bool)
    for corner, shape, value, is_lesion in cubes:
        place = tuple(slice(start, start + n) for start, n in zip(corner, shape, strict=True))
        probability[place], truth[place] = value, is_lesion
    return probability, truth


A, B, C = (2, 2, 2), (12, 12, 12), (22, 22, 22)
LESION = (4, 4, 4)


def test_the_threshold_is_the_one_that_tells_lesions_apart(choose):
    assert choose(case((A, LESION, 0.32, True), (B, LESION, 0.22, False))) == Decision(0.3, 0.0)
    assert choose(case((A, LESION, 0.98, True), (B, LESION, 0.88, False))) == Decision(0.9, 0.0)


def test_of_equals_the_threshold_nearest_a_half_is_taken(choose):
    assert choose(case((A, LESION, 0.92, True), (B, LESION, 0.12, False))) == Decision(0.5, 0.0)


def test_it_is_the_mean_over_cases_that_decides(choose):
    """A threshold of 0.3 serves one case, one above 0.3 the two others."""
    faint = case((A, LESION, 0.32, True))
    doubtful = case((A, LESION, 0.92, True), (B, (8, 8, 8), 0.32, False))
    assert choose(faint) == Decision(0.3, 0.0)
    assert choose(faint, doubtful) == Decision(0.3, 0.0)  # (1 + 2 * 64 / (64 + 64 + 512)) / 2 against (0 + 1) / 2
    assert choose(faint, doubtful, doubtful) == Decision(0.5, 0.0)  # (1 + 0.2 + 0.2) / 3 against (0 + 1 + 1) / 3


@pytest.mark.parametrize(("speck", "smallest_mm3"), [((2, 2, 1), 5.0), ((2, 2, 2), 10.0), ((3, 2, 2), 20.0)])
def test_the_smallest_volume_that_takes_false_specks_away_is_chosen(choose, speck, smallest_mm3):
    assert choose(case((A, LESION, 0.99, True), (B, speck, 0.99, False))) == Decision(0.5, smallest_mm3)


def test_small_lesions_that_are_true_are_kept(choose):
    true = (A, LESION, 0.99, True), (B, (2, 2, 1), 0.99, True)
    assert choose(case(*true)) == Decision(0.5, 0.0)
    assert choose(case(*true, (C, (2, 1, 1), 0.99, False))) == Decision(0.5, 0.0)  # 4 mm³ weigh more than 2 mm³


def test_a_case_without_lesion_counts(choose):
    """The second case asks for a threshold that marks nothing in it."""
    lesion = case((A, LESION, 0.97, True))
    assert choose(lesion) == Decision(0.5, 0.0)
    assert choose(lesion, case((B, LESION, 0.62, False))) == Decision(0.65, 0.0)


def test_without_a_lesion_there_is_nothing_to_choose_by(choose):
    network = Given()
    assert choose(case((A, LESION, 0.9, False)), case(), network=network) == UNDECIDED == Decision(0.5, 0.0)


def test_where_nothing_is_predicted_at_any_threshold_it_is_a_half(choose):
    assert choose(case((A, LESION, 0.02, True))) == UNDECIDED


def test_each_case_is_predicted_once(choose):
    network = Given()
    choose(case((A, LESION, 0.9, True)), case((B, LESION, 0.4, True)), network=network)
    assert network.windows == 2


def test_dice_of_all_decisions_by_another_way():
    rng = np.random.default_rng(0)
    probability = ndimage.gaussian_filter(rng.random((30, 26, 22)), 1.2)
    probability = ((probability - probability.min()) / np.ptp(probability)).astype(np.float32) ** 2
    truth = ndimage.gaussian_filter(rng.random(probability.shape), 1.5) + 0.1 * probability > 0.56
    spacing_mm = (1.0, 0.9, 1.2)
    found = dice_by_decision(probability, truth, spacing_mm)
    assert found.shape == (len(THRESHOLDS), len(MIN_LESIONS_MM3))
    for i, threshold in enumerate(THRESHOLDS):
        labels, n = ndimage.label(probability >= threshold, np.ones((3, 3, 3)))
        for j, smallest in enumerate(MIN_LESIONS_MM3):
            kept = [lesion for lesion in range(1, n + 1) if (labels == lesion).sum() * np.prod(spacing_mm) >= smallest]
            mask = np.isin(labels, kept)
            assert found[i, j] == pytest.approx(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
    assert (np.diff(found, axis=1) != 0).any(), "no component is small: the test tests nothing"


def test_lesions_beyond_what_is_predicted_count_as_missed():
    probability, truth = np.zeros(SHAPE), np.zeros(SHAPE, bool)
    probability[2:4, 2:4, 2:4] = 1
    truth[2:4, 2:4, 2:4] = truth[20:22, 20:22, 20:22] = True
    assert dice_by_decision(probability, truth, (1.0, 1.0, 1.0))[:, 0] == pytest.approx(2 / 3)
    assert (dice_by_decision(0 * probability, truth, (1.0, 1.0, 1.0)) == 0).all()
    assert (dice_by_decision(0 * probability, truth & False, (1.0, 1.0, 1.0)) == 1).all()


def test_the_smallest_volume_is_in_mm3():
    probability = np.zeros(SHAPE)
    probability[2, 2, 2] = 1  # with voxels of 2 mm: 8 mm³
    dice = dice_by_decision(probability, probability > 0, (2.0, 2.0, 2.0))
    assert dice[0].tolist() == [1, 1, 0, 0]  # 0 and 5 mm³ keep it, 10 and 20 do not
    probability[2, 2, 2:7] = 1  # with voxels of 1 mm: 5 mm³, which is enough for 5
    assert dice_by_decision(probability, probability > 0, (1.0, 1.0, 1.0))[0].tolist() == [1, 1, 0, 0]


def test_a_checkpoint_keeps_a_decision(tmp_path, choose):
    decision = choose(case((A, LESION, 0.32, True), (B, LESION, 0.22, False)))
    identity = {"settings": {}, "recipe": {}}
    save_checkpoint(tmp_path / "best.pt", {"identity": identity, "network": {}, "decision": asdict(decision)})
    assert decision_of(load_checkpoint(tmp_path / "best.pt")) == decision
    assert decision_of({}) is None


def test_the_last_epochs_weights_predict_with_a_decision_of_their_own(tmp_path):
    """Run the cell of notebook 03 that predicts the test set: here networks and decisions are words."""
    run, predicted, case = RunLayout(tmp_path), [], SimpleNamespace(name="c0")
    run.last_checkpoint.touch()
    ms = SimpleNamespace(
        device=lambda: "cpu",
        evaluation=SimpleNamespace(score_probability=lambda *_: None),
        inference=SimpleNamespace(
            choose_decision=lambda network, selection, *_: f"chosen for {network} on {selection}",
            predict_case=lambda network, stored, settings, decision, *_: predicted.append((network, decision)),
        ),
        training=SimpleNamespace(network_of=lambda checkpoint, _: checkpoint, load_checkpoint=lambda path: path.stem),
    )
    names = {
        "ms": ms,
        "run": run,
        "finished": False,
        "predictor": "best",
        "decision": "chosen for best",
        "test": [case],
    }
    names |= {"parts": SimpleNamespace(test=[case]), "cohort": SimpleNamespace(rule=None), "settings": None}
    names |= {"selection": "the selection set", "tqdm": lambda cases, desc: cases}
    (cell,) = [c.source for c in nbformat.read(NOTEBOOKS / "03_train.ipynb", 4).cells if "last_predictor" in c.source]
    exec(cell, names)
    assert predicted == [("best", "chosen for best"), ("last", "chosen for last on the selection set")]
