"""The mask of an earlier date as one more sequence: where it lies, who sees whose, and what it never shows."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from nibabel.affines import apply_affine

import metaseg_nb
from metaseg_nb.annotation import training_set
from metaseg_nb.annotation.training_set import annotated_training_set
from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.folds import Split
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import Volume, read_volume, write_volume
from metaseg_nb.demo_cohort.dates import plan_dates, render_date
from metaseg_nb.evaluation.scoring import score_follow_up
from metaseg_nb.figures.raw_images import draw_earlier_dates
from metaseg_nb.inference.decision import UNDECIDED
from metaseg_nb.inference.ensemble import image_statistics, load_ensemble
from metaseg_nb.inference.predict import predict, predict_image
from metaseg_nb.inference.sliding_window import after_other_masks, predict_case
from metaseg_nb.layout import NOTEBOOKS, StudyLayout
from metaseg_nb.parameters import resolve
from metaseg_nb.preprocessing import registration
from metaseg_nb.preprocessing.case_store import open_case
from metaseg_nb.preprocessing.prepare import prepare_cohort
from metaseg_nb.preprocessing.registration import SAME_HEAD, earlier_dates
from metaseg_nb.settings import ParameterError, Preprocess, Pretrain
from metaseg_nb.training.checkpoints import save_checkpoint
from metaseg_nb.training.networks import build_network
from metaseg_nb.training.patches import PatchBatches
from metaseg_nb.training.pretraining import RestorationBatches

CPU, SPACING_MM = torch.device("cpu"), 3.0
# A case whose earlier date lies where it lies itself.
IN_PLACE = SimpleNamespace(earlier={"place": np.eye(4), "alike": 1.0})


@pytest.fixture(scope="module", autouse=True)
def coarse():
    """Registration ends at voxels of 4 mm: near enough for lesions of several voxels, in a fraction of the time."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(registration, "LEVELS_MM", registration.LEVELS_MM[:2])
        yield


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Two dates of a synthetic patient whose head moved between them; the list names the later one first."""
    folder, cases = tmp_path_factory.mktemp("dates"), []
    for plan in plan_dates(3, 2, 2):
        coarse = replace(plan, spacing_mm=(2.0, 2.0, 2.0))
        image, label, *_ = render_date(coarse)
        files = [folder / f"{plan.case}_{name}.nii.gz" for name in ("image", "label")]
        write_volume(files[0], image)
        write_volume(files[1], label)
        cases.append(Case(plan.case, (files[0],), files[1], plan.patient, "lung", fold=0, day=plan.day))
    return Cohort("dates", "", cases[::-1])


@pytest.fixture(scope="module")
def settings():
    values = {**resolve("02_preprocess_n4", "demo"), "spacing_mm": SPACING_MM, "bias_correction": "none", "workers": 1}
    return Preprocess.check(values | {"earlier_mask": True})


@pytest.fixture(scope="module")
def stored(cohort, settings, tmp_path_factory):
    """First visit and follow-up."""
    folder = tmp_path_factory.mktemp("cases")
    assert prepare_cohort(cohort, folder, settings).problems == []
    return [open_case(folder, case.name) for case in reversed(cohort.cases)]


def lesion_mm(mask, stored):
    return stored.grid.centres_mm(np.argwhere(mask)).mean(axis=0)


def test_the_earlier_mask_lies_on_its_lesion_of_this_date(stored):
    _, later = stored
    seen = np.asarray(later.image[-1])
    assert 0 <= seen.min() < 0.5 < seen.max() <= 1
    # the largest lesion, which is there at both dates
    first, beyond = max(later.lesion_boxes, key=lambda box: np.prod(box[1] - box[0])).T
    around = tuple(slice(max(0, a - 3), b + 3) for a, b in zip(first, beyond, strict=True))
    places = [np.argwhere(array[around]) * SPACING_MM for array in (seen > 0.5, later.label == 1)]
    assert np.linalg.norm(places[0].mean(axis=0) - places[1].mean(axis=0)) < 2.5


def test_without_registration_it_would_lie_elsewhere(cohort, stored):
    """The head moved, so the same millimetres of both scanners are other places: the test above can fail."""
    later, earlier = cohort.cases
    own, before = (read_volume(case.label, case.name) for case in (later, earlier))
    places = apply_affine(np.linalg.inv(own.affine), apply_affine(before.affine, np.argwhere(before.array)))
    inside = ((places >= 0) & (places < np.array(own.array.shape) - 1)).all(axis=1)
    kept = own.array[tuple(places[inside].round().astype(int).T)].mean()
    _, follow_up = stored
    carried = (follow_up.label[np.asarray(follow_up.image[-1]) > 0.5] == 1).mean()
    assert carried > kept + 0.2


def test_a_first_visit_lacks_the_earlier_mask_and_scans_show_none(stored):
    first, later = stored
    assert (first.channels, later.channels) == (2, 2)
    assert (first.lacking, later.lacking) == ([2], [])
    assert not np.asarray(first.image[-1]).any()
    assert not later.scans[-1].any()
    np.testing.assert_array_equal(later.scans[0], later.image[0])
    assert np.isnan(image_statistics(later.scans, later.reach)[12:]).all()


def test_the_last_date_with_a_mask_before_a_case_is_its_earlier_one():
    def case(name, day, label="m", patient="p"):
        return Case(name, (Path(f"{name}.nii"),), label and Path(label), patient, "", day=day)

    known = [case("a", 0), case("c", 90), case("other", 30, patient="q")]
    unlabelled = [case("b", 60, None), case("d", 120, None), case("e", None, None)]
    found = {
        name: earlier.name for name, earlier in earlier_dates(Cohort("c", "", known, unlabelled=unlabelled)).items()
    }
    assert found == {"b": "a", "c": "a", "d": "c"}
    twice = Cohort("c", "", [*known, case("also c", 90)], unlabelled=unlabelled)
    assert earlier_dates(twice)["d"].name == "a", "of two cases of one date nobody knows which to take"


class LastChannel(torch.nn.Module):
    """A network that says what its last sequence shows."""

    def forward(self, images):
        return (images[:, -1:] - 0.5) * 100


def test_a_follow_up_is_predicted_after_the_predicted_mask_and_never_after_the_references(
    cohort, stored, tiny_training, tmp_path
):
    later, earlier = cohort.cases
    first, follow_up = stored
    network, settings = LastChannel(), tiny_training(patch_size=32)
    mask = tmp_path / f"{earlier.name}.nii.gz"
    predict_case(network, first, settings, {mask: UNDECIDED}, CPU)
    before = read_volume(mask, earlier.name)
    assert not before.array.any(), "a first visit has no earlier mask"
    assert predict_case(network, follow_up, settings, {}, CPU, mask).max() < 0.5, "nothing was predicted before"
    assert predict_case(network, follow_up, settings, {}, CPU).max() < 0.5
    drawn = read_volume(earlier.label, earlier.name)
    write_volume(mask, Volume(drawn.array, drawn.affine, drawn.native_orientation))
    found = predict_case(network, follow_up, settings, {}, CPU, mask)
    agree = (found > 0.5) == (np.asarray(follow_up.image[-1]) > 0.5)
    assert agree.mean() > 0.9999
    probabilities = after_other_masks(network, follow_up, settings, CPU) | {"predicted": found}
    table = score_follow_up(later, follow_up, probabilities, UNDECIDED, cohort.rule).set_index("earlier_mask")
    dice = table.loc[["none", "predicted", "reference"], "dice"].tolist()
    assert dice == pytest.approx([0, *[table.loc["reference", "dice"]] * 2], abs=1e-3)
    assert table.loc["reference", "dice"] > 0.5


def test_half_of_the_patches_show_no_earlier_mask_if_that_is_asked_for(stored, tiny_training):
    batches = PatchBatches([stored[1]], tiny_training(sequence_dropout=0.5, epochs=60, lesion_share=1.0))
    shown = [bool(image[-1].any()) for step in range(60) for image in batches[step][0]]
    assert 0.3 < np.mean(shown) < 0.7


def test_a_new_patient_is_predicted_as_at_a_first_visit(cohort, stored, tiny_training, tmp_path):
    own = tiny_training(patch_size=32)
    network = build_network(own.network, own.width, own.patch_size, 2)
    identity = {"settings": own.model_dump(), "recipe": stored[1].recipe}
    save_checkpoint(tmp_path / "unet/fold0/best.pt", {"identity": identity, "network": network.state_dict()})
    (line,) = predict(tmp_path / "unet/fold0/best.pt", [cohort.cases[0].image], tmp_path / "mask.nii.gz", None)
    assert "without" not in line, "no scan is missing"
    ensemble = load_ensemble(tmp_path / "unet/fold0/best.pt", CPU)
    volume_mm3, *_ = predict_image(ensemble, cohort.cases[0].without_label, CPU, tmp_path / "proposal.nii.gz")
    assert volume_mm3 >= 0
    images = [cohort.cases[0].image, cohort.cases[0].label]
    with pytest.raises(CohortError, match=r"found 2 image\(s\); expected 1, .* an earlier mask cannot be given"):
        next(predict(tmp_path / "unet/fold0/best.pt", images, tmp_path / "other.nii.gz", None))


def test_a_mask_has_no_intensities_that_landmarks_could_map():
    values = resolve("02_preprocess_n4", "demo") | {"earlier_mask": True, "intensity_scaling": "nyul"}
    with pytest.raises(ParameterError, match=r"earlier_mask.*intensity_scaling is nyul"):
        Preprocess.check(values)


def test_neither_pretraining_nor_an_arm_sees_masks_that_it_does_not_pay_for(
    cohort, stored, tiny_training, tmp_path, monkeypatch
):
    values = resolve("03b_pretrain", "demo_budget", "unet", 0) | {"patch_size": 32}
    with pytest.raises(CohortError, match=r"found an image with the mask of an earlier date.*pretrain in a study"):
        RestorationBatches(stored, Pretrain.check(values))
    monkeypatch.setattr(training_set, "open_cases", lambda *_: stored)
    parts = Split(cohort.cases[:1], cohort.cases[1:], [])
    arm = tiny_training(arm="patients_50", arm_title="half", annotated_share=0.5)
    layout = StudyLayout("s", tmp_path)
    with pytest.raises(CohortError, match="which this arm does not annotate"):
        annotated_training_set(parts, arm, layout, layout.run("unet", 0, "patients_50", 0), CPU)


def test_02_shows_the_follow_up_and_its_earlier_date(cohort, stored, home):
    """Run the cell of notebook 02; registered, the squares of the earlier date look like the follow-up beside them."""
    later, earlier = cohort.cases
    cells = nbformat.read(NOTEBOOKS / "02_preprocess_n4.ipynb", 4).cells
    (cell,) = [cell.source for cell in cells if "02_earlier" in cell.source]
    names = {"ms": metaseg_nb, "Markdown": str, "earlier_mask": True, "cohort": cohort, "layout": StudyLayout("dates")}
    names["images"] = {case.name: case for case in cohort.cases}
    names["stored"] = {case.name: of for case, of in zip((earlier, later), stored, strict=True)}
    facts = stored[1].earlier
    rows = [(earlier.name, None, np.nan, None), (later.name, facts["case"], facts["alike"], None)]
    rows.append(("other", None, np.nan, "p-000: another head"))
    names["table"] = pd.DataFrame(rows, columns=["case", "earlier", "alike", "not_registered"])
    shown = []
    names["display"] = shown.append
    exec(cell, names)
    assert "another head" in shown[0].to_html()
    assert names["words"].startswith("1 of 1 follow-ups have the mask")
    assert SAME_HEAD < facts["alike"] <= 1
    figure = draw_earlier_dates([later], [earlier], [stored[1]])
    by_headers, registered = figure.axes
    assert by_headers.get_title() == f"{later.name}\nby the headers"
    assert registered.get_title() == f"{later.name}\nregistered: alike {facts['alike']:.2f}"
    whole = draw_earlier_dates([later], [later], [IN_PLACE]).axes[1].images[0].get_array()
    far, near = (np.abs(axes.images[0].get_array() - whole).mean() for axes in (by_headers, registered))
    assert near < 0.85 * far, "noise and contrast differ anyway"
    plt.close("all")


def test_a_corrected_earlier_mask_makes_the_later_image_again(cohort, stored, settings):
    """The last test of this module: it changes the mask."""
    later, earlier = cohort.cases
    folder = stored[1].folder.parent
    assert prepare_cohort(cohort, folder, settings).made == []
    drawn = read_volume(earlier.label, earlier.name)
    write_volume(earlier.label, Volume(0 * drawn.array, drawn.affine, drawn.native_orientation))
    assert set(prepare_cohort(cohort, folder, settings).made) == {later.name, earlier.name}
    again = open_case(folder, later.name)
    assert not np.asarray(again.image[-1]).any()
    assert again.earlier and (again.earlier["case"], again.lacking) == (earlier.name, []), "without lesion it is a mask"
