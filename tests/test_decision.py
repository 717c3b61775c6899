"""The decision: threshold, peak and smallest lesion, chosen on the selection set and by nothing else."""

from dataclasses import asdict, replace
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from scipy import ndimage

from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.evaluation.lesion_metrics import detection_counts, lesion_metrics
from metaseg_nb.inference import decision as decisions
from metaseg_nb.inference.decision import (
    MIN_LESIONS_MM3,
    OPERATING_POINTS,
    PEAKS,
    PRIOR,
    THRESHOLDS,
    UNDECIDED,
    Decision,
    best_decision,
    decision_of,
    native_mask,
    outcome_of,
    standing,
)
from metaseg_nb.inference.sliding_window import choose_decisions
from metaseg_nb.layout import NOTEBOOKS, RunLayout
from metaseg_nb.preprocessing.grid import Grid
from metaseg_nb.preprocessing.steps import remove_specks
from metaseg_nb.training.checkpoints import ENOUGH_PATIENTS, keep_weights, load_checkpoint, save_checkpoint

SHAPE = (32, 32, 32)
MM = (1.0, 1.0, 1.0)


class Given(torch.nn.Module):
    """Its probabilities are the image's values."""

    def __init__(self):
        super().__init__()
        self.windows = 0

    def forward(self, x):
        self.windows += len(x)
        return torch.logit(x[:, :1], eps=1e-6)


def case(*cubes):
    """Probabilities and truth of cubes of (corner, shape, probability, is lesion); 0.01 elsewhere."""
    probability, truth = np.full(SHAPE, 0.01), np.zeros(SHAPE, bool)
    for corner, shape, value, is_lesion in cubes:
        place = tuple(slice(start, start + n) for start, n in zip(corner, shape, strict=True))
        probability[place], truth[place] = value, is_lesion
    return probability, truth


A, B, C = (2, 2, 2), (12, 12, 12), (22, 22, 22)
LESION = (4, 4, 4)


def lesion_dice(outcome):
    """Of each decision; 1 where there is no lesion and none is predicted."""
    counted = outcome.n_lesions + outcome.false
    return np.where(counted > 0, outcome.dice / np.maximum(counted, 1), 1.0)


def choose(*cases, false_weight=1.0):
    return best_decision([outcome_of(*one, MM) for one in cases], false_weight)


@pytest.fixture
def freely(monkeypatch):
    """Choose as a large selection set does: the distance from the prior costs next to nothing."""
    monkeypatch.setattr(decisions, "PENALTY", 1e-6)
    return choose


def test_a_threshold_or_a_peak_tells_lesions_from_false_ones(freely):
    found = freely(case((A, LESION, 0.32, True), (B, LESION, 0.22, False)))
    assert (found.threshold, found.peak) == (0.3, 0.3)
    assert freely(case((A, LESION, 0.97, True), (B, LESION, 0.94, False))) == Decision(0.5, 0.95, 0.0)


def test_a_low_threshold_contours_what_a_high_one_finds(freely):
    """The lesion's border is faint, and so is a false lesion: neither threshold alone can tell them apart."""
    probability, truth = case((A, LESION, 0.35, True), (B, LESION, 0.35, False))
    probability[3:5, 3:5, 3:5] = 0.97
    found = freely((probability, truth))
    assert found == Decision(0.3, 0.95, 0.0)
    assert np.array_equal(standing(probability, found) >= found.threshold, truth)


def test_few_cases_do_not_move_the_decision_far_and_many_do():
    faint = case((A, LESION, 0.32, True), (B, LESION, 0.97, True), (C, LESION, 0.22, False))
    one, many = choose(faint), choose(*[faint] * 40)
    assert (one.threshold, one.peak) == (0.5, 0.95), "half of what can be gained is not worth the way"
    assert (many.threshold, many.peak) == (0.3, 0.3)


@pytest.mark.parametrize(("speck", "smallest_mm3"), [((2, 2, 1), 5.0), ((2, 2, 2), 10.0), ((3, 2, 2), 20.0)])
def test_the_smallest_volume_that_takes_false_specks_away_is_chosen(speck, smallest_mm3):
    assert choose(case((A, LESION, 0.99, True), (B, speck, 0.99, False))) == Decision(0.5, 0.95, smallest_mm3)


def test_a_small_lesion_counts_as_much_as_a_large_one():
    """By voxels, 12 mm³ would hardly count beside 512."""
    small = (B, (3, 2, 2), 0.99, True)
    assert choose(case((A, (8, 8, 8), 0.99, True), small, (C, (2, 2, 2), 0.99, False))).min_lesion_mm3 == 10.0


def test_a_case_without_lesion_counts(freely):
    lesion = case((A, LESION, 0.97, True))
    assert freely(lesion) == PRIOR
    assert freely(case((A, LESION, 0.985, True)), case((B, LESION, 0.97, False))).peak == 0.98


def test_operating_points_weigh_false_lesions(freely):
    """One more lesion at the cost of three false ones."""
    corners = C, (2, 2, 20), (20, 2, 2)
    trade = case((A, LESION, 0.97, True), (B, LESION, 0.6, True), *((corner, LESION, 0.6, False) for corner in corners))
    points = {name: freely(trade, false_weight=weight).peak for name, weight in OPERATING_POINTS.items()}
    assert points["sensitive"] <= 0.6 < points["balanced"] == points["specific"] == 0.95


def test_without_a_lesion_there_is_nothing_to_choose_by():
    assert choose(case((A, LESION, 0.9, False)), case()) == PRIOR == Decision(0.5, 0.95, 0.0)


def test_a_network_that_is_sure_of_nothing_still_finds_lesions():
    """Its highest probability is 0.35, far below the peak of the prior."""
    unsure = choose(case((A, LESION, 0.35, True), (B, LESION, 0.25, False)))
    assert unsure.peak == 0.3
    assert unsure.threshold == 0.3


def test_where_nothing_is_predicted_at_any_threshold_the_prior_is_kept():
    assert choose(case((A, LESION, 0.02, True))) == PRIOR


def test_each_case_is_predicted_once_for_all_operating_points(store, tiny_training):
    network = Given()
    cases = [case((A, LESION, 0.98, True)), case((B, LESION, 0.97, True))]
    stored = [store(f"case{i}", *one) for i, one in enumerate(cases)]
    decisions = choose_decisions(network, stored, tiny_training(), torch.device("cpu"))
    assert network.windows == 2
    assert decisions == dict.fromkeys(OPERATING_POINTS, PRIOR)


@pytest.mark.parametrize(
    ("patients", "peak"), [(["p"], 0.95), (["p", "p"], 0.95), (["p", "p", "p"], 0.95), (["p", "q"], 0.7)]
)
def test_two_dates_of_one_patient_are_no_more_evidence_than_one(store, tiny_training, patients, peak):
    """One lesion of seven more is worth the way to a peak of 0.7 for two patients, and not for one."""
    corners = [(2, y, z) for y in (2, 12) for z in (2, 12, 22)]
    one = case(*((corner, LESION, 0.97, True) for corner in corners), ((2, 22, 2), LESION, 0.72, True))
    dates = [replace(store(f"case{i}", *one), patient=patient) for i, patient in enumerate(patients)]
    decisions = choose_decisions(Given(), dates, tiny_training(), torch.device("cpu"))
    assert decisions["balanced"] == Decision(0.5, peak, 0.0)


def chosen_by(monkeypatch, stored, settings):
    """The outcomes that the decision is chosen by."""
    seen = []
    monkeypatch.setattr(decisions, "best_decision", lambda outcomes, weight: seen.append(outcomes))
    choose_decisions(Given(), stored, settings, torch.device("cpu"))
    return seen[0]


def test_a_patients_cases_are_averaged_and_a_single_case_stays_as_it_is(store, tiny_training, monkeypatch):
    whole = store("whole", *case((A, LESION, 0.97, True), (B, LESION, 0.6, True), (C, LESION, 0.8, False)))
    empty = store("empty", *case((C, (3, 3, 3), 0.97, False)))
    as_they_are = [outcome_of(one.image[0].astype(np.float32), one.label > 0, MM) for one in (whole, empty)]
    one_each = chosen_by(monkeypatch, [whole, empty], tiny_training())
    assert [one.n_lesions for one in one_each] == [2, 0]
    for one, as_it_is in zip(one_each, as_they_are, strict=True):
        np.testing.assert_array_equal(one.dice, as_it_is.dice, "to the last bit")
        np.testing.assert_array_equal(one.false, as_it_is.false)
    (mean,) = chosen_by(monkeypatch, [replace(one, patient="p") for one in (whole, empty)], tiny_training())
    assert mean.n_lesions == 1
    assert (mean.dice == (as_they_are[0].dice + as_they_are[1].dice) / 2).all()
    assert (mean.false == (as_they_are[0].false + as_they_are[1].false) / 2).all()


def test_the_outcome_of_every_decision_is_what_lesion_metrics_say_of_its_mask():
    rng = np.random.default_rng(0)
    probability = ndimage.gaussian_filter(rng.random((30, 26, 22)), 1.2)
    probability = (probability - probability.min()) / np.ptp(probability)
    truth = probability + ndimage.gaussian_filter(rng.normal(size=probability.shape), 1.0) > 0.85
    spacing_mm = (1.0, 0.9, 1.2)
    outcome, seen = outcome_of(probability, truth, spacing_mm), set()
    for (i, threshold), (j, peak), (k, smallest) in [
        (one, two, three)
        for one in enumerate(THRESHOLDS)
        for two in list(enumerate(PEAKS))[::2]
        for three in enumerate(MIN_LESIONS_MM3)
        if peak_of(two) >= peak_of(one)
    ]:
        mask = remove_specks(
            standing(probability, Decision(threshold, peak, smallest)) >= threshold, spacing_mm, smallest
        )
        expected, _ = lesion_metrics(truth, mask, spacing_mm)
        assert (outcome.n_lesions, outcome.false[i, j, k]) == (expected["n_truth"], expected["n_false"])
        assert lesion_dice(outcome)[i, j, k] == pytest.approx(expected["lesion_dice"])
        seen.add((round(expected["lesion_dice"], 6), expected["n_false"]))
    assert outcome.n_lesions > 3
    assert len(seen) > 20, "decisions hardly differ: the test tests nothing"


def peak_of(numbered):
    return numbered[1]


def test_empty_masks_have_an_outcome():
    nothing = np.zeros(SHAPE)
    assert (lesion_dice(outcome_of(nothing, nothing > 0, MM)) == 1).all()
    assert (lesion_dice(outcome_of(nothing, case((A, LESION, 1.0, True))[1], MM)) == 0).all()
    assert (lesion_dice(outcome_of(case((A, LESION, 0.99, False))[0], nothing > 0, MM)) == 0).all()


def test_the_smallest_volume_is_in_mm3():
    probability = np.zeros(SHAPE)
    probability[2, 2, 2] = 1  # with voxels of 2 mm: 8 mm³
    dice = lesion_dice(outcome_of(probability, probability > 0, (2.0, 2.0, 2.0)))
    assert dice[0, 0].tolist() == [1, 1, 0, 0]  # 0 and 5 mm³ keep it, 10 and 20 do not
    probability[2, 2, 2:7] = 1  # with voxels of 1 mm: 5 mm³, which is enough for 5
    assert lesion_dice(outcome_of(probability, probability > 0, MM))[0, 0].tolist() == [1, 1, 0, 0]


def test_on_a_coarse_grid_no_volume_is_small():
    """A voxel of 2.8 mm has 22 mm³, more than the largest choice, as docs/methods.md says."""
    specks = case((A, LESION, 0.99, True), (B, (1, 1, 1), 0.99, False))
    for edge_mm, smallest_mm3 in ((2.0, 10.0), (2.7, 20.0), (2.8, 0.0)):
        assert best_decision([outcome_of(*specks, (edge_mm,) * 3)]).min_lesion_mm3 == smallest_mm3


@pytest.mark.parametrize("native_mm", [(1.5, 1.5, 1.5), (0.9, 0.9, 6.0), (4.0, 4.0, 4.0)])
@pytest.mark.parametrize("decision", [PRIOR, Decision(0.1, 0.1, 0.0), Decision(0.8, 0.99, 20.0)])
def test_outside_the_head_nothing_is_predicted_and_a_lesion_of_41_mm_is_found(native_mm, decision):
    """A head of 120 mm on a study grid of 3 mm: probable at its rim all round, and in one large lesion; 0 outside."""

    def from_middle(grid):
        return np.linalg.norm(grid.centres_mm(np.argwhere(np.ones(grid.shape))) - 75, axis=1).reshape(grid.shape)

    grid = Grid((3.0, 3.0, 3.0), (50, 50, 50), (1.5, 1.5, 1.5))
    native = Grid(native_mm, tuple(int(150 / edge) for edge in native_mm), (0.4, 0.4, 0.4))
    from_here, truth = from_middle(grid), from_middle(native) <= 20.5
    noise = np.random.default_rng(0).uniform(0.0, 0.09, grid.shape)
    probability = np.where(from_here <= 20.5, 0.995, np.where(from_here > 55, 0.995, noise)) * (from_here <= 60)
    mask = native_mask(probability, grid, native, decision) > 0
    assert mask[from_middle(native) > 55].any(), "the test tests nothing"
    half_a_voxel_mm = np.linalg.norm(np.add(grid.spacing_mm, native_mm)) / 2
    assert not mask[from_middle(native) > 60 + half_a_voxel_mm].any()
    inside = mask & (from_middle(native) < 40)
    assert detection_counts(truth, inside, native_mm) == {"n_truth": 1, "n_detected": 1, "n_false": 0}
    assert 2 * (truth & inside).sum() > 0.9 * (truth.sum() + inside.sum())


def test_a_checkpoint_keeps_a_decision(tmp_path):
    decision = choose(case((A, LESION, 0.99, True), (B, (2, 2, 2), 0.99, False)))
    identity = {"settings": {}, "recipe": {}}
    save_checkpoint(tmp_path / "best.pt", {"identity": identity, "network": {}, "decision": asdict(decision)})
    assert decision_of(load_checkpoint(tmp_path / "best.pt")) == decision != UNDECIDED
    assert decision_of({}) is None


def test_a_decision_of_an_earlier_version_has_no_peak():
    earlier = {"threshold": 0.35, "min_lesion_mm3": 5.0}
    assert decision_of({"decision": earlier}) == Decision(0.35, 0.35, 5.0)


@pytest.mark.parametrize(
    ("decision", "said"), [(PRIOR, "it was not moved by 2 cases"), (Decision(0.3, 0.9, 5.0), "chosen on 2 cases")]
)
def test_notebook_03_says_whether_anything_was_chosen(decision, said):
    """A selection set without a lesion chooses nothing."""
    inference = SimpleNamespace(PRIOR=PRIOR, decision_of=lambda _: decision)
    ms = SimpleNamespace(training=SimpleNamespace(network_of=lambda *_: None), device=lambda: None, inference=inference)
    names = {"ms": ms, "best": {}, "finished": True, "selection": [1, 2], "operating_point": "balanced"}
    cells = [cell.source for cell in nbformat.read(NOTEBOOKS / "03_train.ipynb", 4).cells]
    (cell,) = [cell for cell in cells if "decision_of" in cell]
    exec(cell.replace("Markdown(", "said = str("), names)
    assert f"**balanced: {decision}**" in names["said"]
    assert said in names["said"]


@pytest.fixture
def ended(tmp_path):
    """A training that ended: epoch 2 was chosen, 3 was the last."""
    run, identity = RunLayout(tmp_path / "fold0"), {"settings": {}, "recipe": {}}
    run.root.mkdir()
    history = [{"epoch": epoch, "dice": epoch / 10} for epoch in (1, 2, 3)]
    chosen = {"identity": identity, "network": {"w": torch.tensor(2.0)}, "epoch": 2, "dice": 0.2, "history": history}
    save_checkpoint(run.best_checkpoint, chosen)
    save_checkpoint(run.last_checkpoint, {"identity": identity, "network": {"w": torch.tensor(3.0)}, "state": {}})
    return run


@pytest.mark.parametrize(
    ("patients", "weights", "epoch", "other"),
    [(ENOUGH_PATIENTS - 1, "last", 3, 2), (ENOUGH_PATIENTS, "chosen", 2, 3)],
)
def test_a_small_selection_set_chooses_no_epoch(ended, patients, weights, epoch, other):
    kept = keep_weights(ended, patients)
    assert (kept["weights"], kept["epoch"], kept["dice"]) == (weights, epoch, epoch / 10)
    assert load_checkpoint(ended.best_checkpoint)["network"]["w"] == epoch
    assert load_checkpoint(ended.other_checkpoint)["network"]["w"] == other
    again = keep_weights(ended, 3 * ENOUGH_PATIENTS)  # it was decided
    assert (again["weights"], again["network"]["w"], again["other_epoch"]) == (weights, epoch, other)


@pytest.mark.parametrize("patients", [ENOUGH_PATIENTS - 1, ENOUGH_PATIENTS])
def test_where_the_last_epoch_was_chosen_there_are_no_other_weights(ended, patients):
    chosen = load_checkpoint(ended.best_checkpoint)
    save_checkpoint(ended.best_checkpoint, chosen | {"epoch": 3, "dice": 0.3})
    kept = keep_weights(ended, patients)
    assert kept["epoch"] == kept["other_epoch"] == 3
    assert not ended.other_checkpoint.exists(), "they would predict the test set twice"


def test_a_run_that_an_earlier_version_finished_says_what_to_do(ended):
    ended.last_checkpoint.unlink()
    with pytest.raises(CohortError, match=r"an earlier version .*give the study another name and train it again"):
        keep_weights(ended, 2)


def test_weights_predict_by_a_decision_and_after_earlier_masks_of_their_own(tmp_path):
    """Run the cell of notebook 03 that predicts the test set: here networks and decisions are words.

    c1 is a follow-up of c0, and comes first in the list.
    """
    run, predicted = RunLayout(tmp_path), []
    cases = [
        SimpleNamespace(name="c1", day=30, earlier={"case": "c0"}),
        SimpleNamespace(name="c0", day=0, earlier=None),
    ]
    run.other_checkpoint.touch()

    def predict_case(network, stored, settings, masks, device, after):
        predicted.append((network, masks, after))

    decisions = ("balanced", "specific")
    ms = SimpleNamespace(
        device=lambda: "cpu",
        evaluation=SimpleNamespace(score_probability=lambda *_: None, score_follow_up=lambda *_: None),
        inference=SimpleNamespace(
            choose_decisions=lambda network, selection, *_: {
                point: f"{point} for {network} on {selection}" for point in decisions
            },
            predict_case=predict_case,
            after_other_masks=lambda *_: {},
        ),
        training=SimpleNamespace(network_of=lambda checkpoint, _: checkpoint, load_checkpoint=lambda path: path.stem),
    )
    names = {
        "ms": ms,
        "run": run,
        "finished": False,
        "predictor": "best",
        "decision": "chosen for best",
        "decisions": None,
        "operating_point": "balanced",
        "test": cases,
    }
    names |= {"parts": SimpleNamespace(test=cases), "cohort": SimpleNamespace(rule=None), "settings": None}
    names |= {"selection": "the selection set", "tqdm": lambda cases, desc: cases}
    (cell,) = [c.source for c in nbformat.read(NOTEBOOKS / "03_train.ipynb", 4).cells if "other_predictor" in c.source]
    exec(cell, names)
    kept = [
        ("best", {run.predictions / "c0.nii.gz": "chosen for best"}, None),
        ("best", {run.predictions / "c1.nii.gz": "chosen for best"}, run.predictions / "c0.nii.gz"),
    ]
    of_other = [
        {run.other_predictions / point / name: f"{point} for other on the selection set" for point in decisions}
        for name in ("c0.nii.gz", "c1.nii.gz")
    ]
    others = [
        ("other", of_other[0], None),
        ("other", of_other[1], run.other_predictions / "balanced" / "c0.nii.gz"),
    ]
    assert predicted == [*kept, *others], "so another operating_point later needs no deleted weights"
    predicted.clear()
    run.other_checkpoint.unlink()  # the last epoch was the chosen one
    exec(cell, names)
    assert predicted == kept
