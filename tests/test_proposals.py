"""Which cases wait to be annotated, in which order, with which help; and that proposals are made once and ahead."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from metaseg_nb.annotation import proposals
from metaseg_nb.annotation.proposals import RANDOMISED, Waiting, assistance_of, cases_to_annotate
from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.files import read_table, write_table
from metaseg_nb.layout import StudyLayout

SHAPE = (12, 10, 8)


@pytest.fixture
def layout(tmp_path):
    return StudyLayout("mine", tmp_path)


@pytest.fixture
def cohort(tmp_path):
    """Four cases without a mask and one with."""
    cases = []
    for name in ("a", "b", "c", "d", "known"):
        label = np.zeros(SHAPE, np.uint8)
        label[2:4, 2:4, 2:4] = 1
        for kind, array in (("image", np.full(SHAPE, len(cases), np.int16)), ("label", label)):
            nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / f"{name}_{kind}.nii.gz")
        mask = tmp_path / f"{name}_label.nii.gz" if name == "known" else None
        cases.append(Case(name, (tmp_path / f"{name}_image.nii.gz",), mask, f"p_{name}", "unknown"))
    return Cohort("mine", "", cases[4:], cases[:4])


def names(cases):
    return [case.name for case in cases]


def test_without_names_cases_without_a_mask_wait_in_the_order_of_rank(layout, cohort):
    assert names(cases_to_annotate(layout, cohort, [])) == ["a", "b", "c", "d"]
    layout.root.mkdir(parents=True)
    write_table(layout.next_patients_table, pd.DataFrame({"patient": ["p_c", "p_a", "p_d"], "rank": [1, 2, 3]}))
    assert names(cases_to_annotate(layout, cohort, [])) == ["c", "a", "d", "b"], "who is not ranked comes last"


def test_any_case_can_be_named_and_unknown_names_are_all_said_at_once(layout, cohort):
    assert names(cases_to_annotate(layout, cohort, ["known", "b"])) == ["known", "b"]
    assert names(cases_to_annotate(layout, cohort, ["b", "b"])) == ["b"]
    with pytest.raises(CohortError) as error:
        cases_to_annotate(layout, cohort, ["A", "b", "x"])
    assert "A" in str(error.value)
    assert "case x" in str(error.value)


def test_a_cohort_without_cases_to_annotate_says_what_to_do(layout, cohort):
    with pytest.raises(CohortError, match="to correct their masks"):
        cases_to_annotate(layout, Cohort("mine", "", cohort.cases, []), [])


def test_a_random_order_gives_half_of_the_cases_a_proposal_and_holds(layout, cohort):
    cases = cohort.unlabelled
    first = assistance_of(layout, cases[:2], "R1", RANDOMISED, 5)
    assert sorted(first) == ["nothing", "proposal"]
    both = assistance_of(layout, cases, "R1", RANDOMISED, 6)  # another seed, and two more cases
    assert both[:2].equals(first), "what was drawn holds"
    assert sorted(both[2:]) == ["nothing", "proposal"]
    kept = read_table(layout.by_hand / "R1/assistance.csv")
    assert kept["assistance"].tolist() == both.tolist()


def test_readers_and_seeds_get_different_draws(tmp_path, cohort):
    draws = set()
    for i, (reader, seed) in enumerate([(reader, seed) for reader in ("R1", "R2") for seed in range(8)]):
        draws.add(
            tuple(assistance_of(StudyLayout("s", tmp_path / str(i)), cohort.unlabelled, reader, RANDOMISED, seed))
        )
    assert len(draws) == 4, "all that two draws of a pair can give"


class FakeEnsemble:
    def __init__(self, paths):
        self.paths = paths


@pytest.fixture
def predicted(layout, monkeypatch):
    """Cases that the networks predicted, in order; a lesion of eight voxels of probability 0.75 in each."""
    done = []

    def predict_image(ensemble, case, device, mask, probability):
        assert not (mask.exists() or probability.exists()), "the real one replaces no file that it does not know"
        done.append(case.image.name[0])
        array = np.zeros(SHAPE, np.uint8)
        array[5:7, 5:7, 5:7] = 1
        mask.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, np.eye(4)), mask)
        nib.save(nib.Nifti1Image(array * np.float32(0.75), np.eye(4)), probability)

    checkpoint = layout.root / "unet/fold0/best.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"weights")
    monkeypatch.setattr(proposals, "load_ensemble", lambda path, device: FakeEnsemble([checkpoint]))
    monkeypatch.setattr(proposals, "predict_image", predict_image)
    return done


@pytest.fixture
def waiting():
    """Make the queue of a cohort's cases; its thread ends with the test, or it would predict for the next one too."""
    made = []

    def make(layout, cohort, how="proposal", model="unet"):
        cases = [*cohort.unlabelled, *cohort.cases]
        help_of = pd.Series(how, names(cases))
        made.append(Waiting(layout, cohort, cases, help_of, True, model, torch.device("cpu")))
        return made[-1]

    yield make
    for queue in made:
        queue.close()


def test_a_case_begins_with_what_the_networks_find(layout, cohort, predicted, waiting):
    ready = waiting(layout, cohort).prepared("a")
    assert (ready.beginning.how, ready.beginning.mask.sum(), ready.beginning.by_chance) == ("proposal", 8, True)
    assert ready.beginning.networks[0].startswith("unet/fold0/")
    assert ready.probability.max() == 0.75


def test_a_case_with_a_mask_begins_with_that_mask(layout, cohort, predicted, waiting):
    ready = waiting(layout, cohort).prepared("known")
    assert ready.beginning.how == "mask"
    assert np.argwhere(ready.beginning.mask).min() == 2


def test_who_corrects_a_mask_gets_no_help_of_networks_that_know_it(layout, cohort, predicted, waiting):
    """All folds would take part: most learned from this mask, and one is tested on it. The record names no network."""
    ready = waiting(layout, cohort).prepared("known")
    assert ready.probability.shape == SHAPE
    assert not ready.probability.any(), "a region grows by brightness alone"
    assert ready.beginning.networks == []
    assert predicted == []


@pytest.mark.parametrize(("how", "model"), [("nothing", "unet"), ("proposal", "")])
def test_without_help_the_networks_take_no_part(layout, cohort, predicted, how, model, waiting):
    """Also not in regions grown from a click: or else the time without a proposal is not that without a network."""
    ready = waiting(layout, cohort, how, model).prepared("a")
    assert (ready.beginning.how, ready.beginning.mask.any(), ready.probability.any()) == ("nothing", False, False)
    assert predicted == []


def test_the_next_three_are_made_ready_meanwhile_and_only_once(layout, cohort, predicted, waiting):
    queue = waiting(layout, cohort)
    queue.prepared("a")
    end = time.monotonic() + 20
    while len(predicted) < 4 and time.monotonic() < end:
        time.sleep(0.05)
    assert predicted == ["a", "b", "c", "d"]
    queue.prepared("b")
    assert waiting(layout, cohort).prepared("a").beginning.mask.sum() == 8, "another notebook reads what was made"
    assert predicted[:4] == ["a", "b", "c", "d"]
    assert "a" not in predicted[4:]


def test_a_case_opened_out_of_turn_does_not_wait_for_those_before_it(layout, cohort, predicted, waiting, monkeypatch):
    begun, go = threading.Event(), threading.Event()
    at_once = proposals.predict_image

    def predict_image(*given):
        begun.set()
        assert go.wait(20)
        at_once(*given)

    monkeypatch.setattr(proposals, "predict_image", predict_image)
    queue = waiting(layout, cohort)
    with ThreadPoolExecutor(2) as readers:
        first = readers.submit(queue.prepared, "a")
        assert begun.wait(20)
        out_of_turn = readers.submit(queue.prepared, "d")
        while "known" not in queue._ready:  # the case after it, asked for last
            time.sleep(0.01)
        go.set()
        assert out_of_turn.result().case.name == "d"
        assert first.result().case.name == "a"
    assert predicted[:2] == ["a", "d"]


def test_another_image_is_predicted_again(layout, cohort, predicted, waiting):
    waiting(layout, Cohort("mine", "", [], cohort.unlabelled[:1])).prepared("a")
    nib.save(nib.Nifti1Image(np.full(SHAPE, 9, np.int16), np.eye(4)), cohort.unlabelled[0].image)
    waiting(layout, Cohort("mine", "", [], cohort.unlabelled[:1])).prepared("a")
    assert predicted == ["a", "a"]


def test_a_network_that_is_not_trained_says_how_to_go_on_without(layout, cohort, waiting):
    with pytest.raises(FileNotFoundError, match="assistance: nothing"):
        waiting(layout, cohort).prepared("a")


def test_other_weights_or_a_damaged_proposal_are_predicted_again(layout, cohort, predicted, waiting):
    waiting(layout, Cohort("mine", "", [], cohort.unlabelled[:1])).prepared("a")
    (layout.root / "unet/fold0/best.pt").write_bytes(b"other weights")
    waiting(layout, Cohort("mine", "", [], cohort.unlabelled[:1])).prepared("a")
    mask = layout.proposals / "unet/a.nii.gz"
    mask.write_bytes(mask.read_bytes()[:-4])
    waiting(layout, Cohort("mine", "", [], cohort.unlabelled[:1])).prepared("a")
    assert predicted == ["a"] * 3


def test_an_image_that_cannot_be_read_is_an_error_where_it_is_opened(layout, cohort, predicted, waiting):
    cohort.unlabelled[1].image.write_bytes(b"no image")
    queue = waiting(layout, cohort)
    queue.prepared("a")
    sound = cohort.unlabelled[0].image.read_bytes()
    with pytest.raises(CohortError, match="b_image"):
        queue.prepared("b")
    cohort.unlabelled[1].image.write_bytes(sound)
    assert queue.prepared("b").beginning.how == "proposal", "once it is mended, it opens"
