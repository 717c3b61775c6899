"""How far an image lies from the training cases: computed by hand, and told of another scanner."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from metaseg_nb.evaluation.calibration import flags_of_failures
from metaseg_nb.inference.ensemble import image_statistics, learn_likeness, unlikeness
from metaseg_nb.inference.predict import likeness_in_words


def test_statistics_by_hand():
    """Values of 0.2 and 0.4 in turn along X, constant along Y and Z."""
    image, reach = np.zeros((2, 8, 8, 9)), np.ones((8, 8, 9), bool)
    image[0, ..., 1:] = np.where(np.arange(8) % 2, 0.4, 0.2)[:, None, None]
    reach[..., 0] = False  # background
    found = image_statistics(image, reach)
    assert found[:9] == pytest.approx(0.2)  # every second voxel is looked at
    assert found[9:12] == pytest.approx(np.log([0.2, 1e-6, 1e-6]))
    assert np.isnan(found[12:]).all()  # a missing sequence


def head(seed, noise=0.02, top=0.5):
    """A ball of two tissues with noise, as a scanner shows it."""
    rng, places = np.random.default_rng(seed), np.indices((32, 32, 32)).reshape(3, -1).T - 15.5
    far = np.linalg.norm(places, axis=1).reshape(32, 32, 32)
    return np.where(far < 14, np.where(far < 8, top, top / 2) + rng.normal(0, noise, far.shape), 0).clip(0, 1)


@pytest.fixture
def cases(store):
    label = np.zeros((32, 32, 32), bool)
    label[15:18, 15:18, 15:18] = True
    return [store(f"c{i}", head(i, 0.02 + 0.001 * (i % 3), 0.5 + 0.01 * (i % 4)), label) for i in range(12)]


def test_the_farthest_case_of_the_selection_set_has_1_and_another_scanner_more(cases, store):
    learned = learn_likeness(cases[:8], cases[8:])
    of_selection = [unlikeness(learned, case.image, case.reach) for case in cases[8:]]
    assert max(of_selection) == pytest.approx(1) or learned["limit"] == 1
    again = unlikeness(learned, cases[0].image, cases[0].reach)
    for name, other in (("noisy", head(20, noise=0.08)), ("contrast", head(20, top=0.8))):
        case = store(name, other, np.zeros((32, 32, 32), bool))
        assert unlikeness(learned, case.image, case.reach) > 2 * max(1, again)


def test_images_that_are_all_equal_can_be_learned_from(cases):
    learned = learn_likeness(cases[:1], cases[:1])
    assert unlikeness(learned, cases[0].image, cases[0].reach) == 0
    assert np.isfinite(unlikeness(learned, cases[1].image, cases[1].reach))


def of_two_sequences(i, flair=True, noise=0.02, top=0.6):
    """A head as two sequences, the second of them perhaps missing."""
    first = head(100 + i, 0.02 + 0.001 * (i % 3), 0.5 + 0.01 * (i % 4))
    second = head(200 + i, noise + 0.001 * (i % 3), top + 0.01 * (i % 4)) if flair else np.zeros_like(first)
    return SimpleNamespace(scans=np.stack([first, second]), reach=np.ones(first.shape, bool))


@pytest.mark.parametrize("training_has_gap", [False, True])
@pytest.mark.parametrize("selection_has_gap", [False, True])
def test_a_missing_sequence_is_neither_far_nor_hides_what_is(training_has_gap, selection_has_gap):
    training = [of_two_sequences(i, flair=i or not training_has_gap) for i in range(12)]
    learned = learn_likeness(training, [of_two_sequences(i, flair=i > 12 or not selection_has_gap) for i in (12, 13)])
    assert learned["limit"] < 2
    far = {
        "usual": of_two_sequences(20),
        "without": of_two_sequences(21, flair=False),
        "noisy": of_two_sequences(22, noise=0.08),
        "bright": of_two_sequences(23, top=0.9),
    }
    far = {name: unlikeness(learned, case.scans, case.reach) for name, case in far.items()}
    assert max(far["usual"], far["without"]) < 1.5
    assert min(far["noisy"], far["bright"]) > 4


def test_a_sequence_that_no_training_case_has_does_not_count():
    learned = learn_likeness([of_two_sequences(i, flair=False) for i in range(8)], [])
    case, without = of_two_sequences(9), of_two_sequences(9, flair=False)
    assert unlikeness(learned, case.scans, case.reach) == unlikeness(learned, without.scans, without.reach) < 2


def test_flags_are_compared_with_failures_by_hand():
    dice, far = [0.2, 0.4, 0.8, 0.9], [1.5, 0.7, 0.6, 1.2]
    metrics = pd.DataFrame({"model": "unet", "patient": list("abcd"), "dice": dice, "unlikeness": far})
    other = metrics.assign(model="unetr", unlikeness=np.nan)  # made before it was measured
    (row,) = flags_of_failures(pd.concat([metrics, other]), "unlikeness", ["unet", "unetr"], 500, 0).itertuples()
    assert (row.model, row.patients, row.failures) == ("unet", 4, 2)
    # a beats c and d, b beats c and not d
    assert row.auroc == pytest.approx(3 / 4)
    assert np.isnan(row.auroc_low) and row.answer == "too few failures to tell"


def test_what_predict_says():
    assert likeness_in_words(float("nan")) == ""
    assert "with care" in likeness_in_words(1.3)
    assert "with care" not in likeness_in_words(0.9)
