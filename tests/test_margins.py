"""Margins: what grown contours cover and treat, how near organs are, and synthetic patients through DICOM and back."""

from dataclasses import replace

import matplotlib.pyplot as plt
import nbformat
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import metaseg_nb
from metaseg_nb.checksums import write_record
from metaseg_nb.cohort.cases import Case, Cohort, LesionRule
from metaseg_nb.cohort.head import find_head
from metaseg_nb.cohort.lesions import box_around, distance_mm, surface_distance_mm
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import Volume, read_volume, write_volume
from metaseg_nb.evaluation.lesion_metrics import lesion_metrics
from metaseg_nb.figures.case_figures import draw_margin
from metaseg_nb.layout import NOTEBOOKS, StudyLayout
from metaseg_nb.radiotherapy import margins
from metaseg_nb.radiotherapy.importing import ORGANS, RECORD
from metaseg_nb.radiotherapy.margins import (
    SECOND_READER,
    Targets,
    covered_lead,
    covered_shares,
    margin_needed,
    margin_table,
    study_coverage,
)
from metaseg_nb.radiotherapy.organs import REFERENCE_MODEL, organ_distances
from metaseg_nb.radiotherapy.round_trip import round_trip

MM = (1.0, 1.0, 1.0)


def cubes():
    """A cube of 10 mm whose last two slices the prediction lacks, and a lesion of 3 mm³ that it misses."""
    reference, prediction = np.zeros((2, 20, 20, 20), dtype=bool)
    reference[5:15, 5:15, 5:15] = True
    prediction[5:15, 5:15, 5:13] = True
    reference[1, 1, 1:4] = True
    return reference, prediction


def test_a_margin_covers_what_lies_within_it():
    reference, prediction = cubes()
    lesions, _ = Targets.of(reference, MM).coverage(prediction, [0, 1, 2])
    small, cube = lesions.sort_values("volume_mm3").itertuples()
    assert (small.detected, cube.detected) == (False, True)
    assert (cube.covered_0, cube.covered_1, cube.covered_2) == pytest.approx((0.8, 0.9, 1.0))
    assert (cube.needed_95_mm, cube.needed_98_mm) == (1.5, 1.5)
    assert np.isinf(small.needed_95_mm), "no margin makes up for a missed lesion"
    assert small.covered_2 == 0


def test_a_margin_counts_millimetres_and_not_voxels():
    reference, prediction = cubes()
    lesions, _ = Targets.of(reference, (1.0, 1.0, 3.0)).coverage(prediction, [1, 1.5, 4.4, 4.5])
    cube = lesions.sort_values("volume_mm3").iloc[1]
    assert cube[["covered_1", "covered_1.5", "covered_4.4", "covered_4.5"]].tolist() == [0.8, 0.9, 0.9, 1.0]


def test_a_margin_below_a_voxel_grows_the_contour_too():
    """With voxels of 1.2 mm the centre of the next one is 0.6 mm from the contour."""
    reference, prediction = cubes()
    lesions, _ = Targets.of(reference, (1.2, 1.2, 1.2)).coverage(prediction, [0.5, 0.6, 1.8])
    cube = lesions.sort_values("volume_mm3").iloc[1]
    assert cube[["covered_0.5", "covered_0.6", "covered_1.8"]].tolist() == [0.8, 0.9, 1.0]
    assert cube["needed_95_mm"] == pytest.approx(1.8)


def test_what_is_treated_besides_is_counted_against_the_reference_grown_alike():
    reference, prediction = np.zeros((2, 12, 12, 12), dtype=bool)
    reference[4:8, 4:8, 4:8] = True
    prediction[4:8, 4:8, 4:9] = True
    prediction[0, 0, 0:4] = True  # a false lesion
    _, treated = Targets.of(reference, MM).coverage(prediction, [0, 1])
    assert treated["unneeded_cm3"][0] == pytest.approx((16 + 4) / 1000)
    assert treated["target_cm3"].tolist() == pytest.approx([0.064, (64 + 6 * 16) / 1000])
    # with 1 mm: the slice beyond, the sides of the added slice, and the false line with its neighbours
    assert treated["unneeded_cm3"][1] == pytest.approx((16 + 4 * 4 + (4 + 2 * 4 + 1)) / 1000)
    assert treated["false"].tolist() == [1, 1]
    head = np.zeros_like(reference)
    head[2:, :, :8] = True  # the air: the false line, and all from the added slice on
    _, treated = Targets.of(reference, MM).coverage(prediction, [0, 1], head)
    assert treated["unneeded_cm3"].tolist() == [0, 0]
    assert treated["target_cm3"].tolist() == pytest.approx([0.064, (64 + 5 * 16) / 1000])


def test_without_any_contour_nothing_is_covered_and_no_margin_is_enough():
    reference, _ = cubes()
    lesions, treated = Targets.of(reference, MM).coverage(np.zeros_like(reference), [0, 5])
    assert not lesions["detected"].any()
    assert np.isinf(lesions["needed_95_mm"]).all()
    assert treated["unneeded_cm3"].tolist() == [0, 0]


def test_without_any_lesion_all_that_is_drawn_is_false():
    _, prediction = cubes()
    lesions, treated = Targets.of(np.zeros_like(prediction), MM).coverage(prediction, [0])
    assert lesions.empty
    assert treated.loc[0, ["false", "target_cm3"]].tolist() == [1, 0]


masks = arrays(bool, (7, 6, 5), elements=st.sampled_from([True, False, False, False, False]))


@settings(max_examples=60, deadline=None)
@given(masks, masks)
def test_lesions_are_counted_as_in_notebook_04(reference, prediction):
    summary, scored = lesion_metrics(reference, prediction, MM)
    lesions, treated = Targets.of(reference, MM).coverage(prediction, [0.0, 1.0, 2.0])
    assert lesions["detected"].tolist() == scored["detected"].tolist()
    assert lesions["diameter_mm"].tolist() == pytest.approx(scored["diameter_mm"].tolist())
    assert lesions["lesion"].tolist() == scored["lesion"].tolist()
    assert ((~lesions["detected"]).sum(), treated.loc[0, "false"]) == (summary["n_missed"], summary["n_false"])
    shares = lesions[["covered_0", "covered_1", "covered_2"]].to_numpy() if len(lesions) else np.empty((0, 3))
    assert (np.diff(shares, axis=1) >= 0).all(), "a larger margin covers no less"
    assert (np.diff(treated["target_cm3"]) >= 0).all()


@given(arrays(bool, (4, 4, 4)))
def test_the_distance_is_that_to_the_nearest_centre(mask):
    found = distance_mm(mask, (1.0, 2.0, 3.0))
    places = np.argwhere(mask) * (1.0, 2.0, 3.0)
    for voxel in np.ndindex(4, 4, 4):
        away = np.sqrt(((places - np.array(voxel) * (1.0, 2.0, 3.0)) ** 2).sum(axis=1))
        assert found[voxel] == pytest.approx(away.min() if len(away) else np.inf, abs=1e-4)


@given(arrays(bool, (4, 4, 4)))
def test_the_surface_of_a_mask_lies_half_way_to_its_neighbours(mask):
    spacing = np.array([1.0, 2.0, 3.0])
    found, marked = surface_distance_mm(mask, tuple(spacing)), np.argwhere(mask)
    half_way = [marked + 0.5 * side * axis for axis in np.eye(3) for side in (-1, 0, 1)]
    places = np.concatenate(half_way) * spacing
    for voxel in np.ndindex(4, 4, 4):
        away = np.linalg.norm(places - voxel * spacing, axis=1)
        assert found[voxel] == pytest.approx(away.min() if len(away) else np.inf, abs=1e-4)


@pytest.mark.parametrize("edge_mm", [0.5, 1.0, 1.2])
@pytest.mark.parametrize("margin_mm", [2.0, 3.0, 5.0])
def test_a_sphere_grown_by_a_margin_has_a_radius_larger_by_the_margin(edge_mm, margin_mm):
    n = int(30 / edge_mm)
    places = (np.indices((n, n, n)) - n / 2 + 0.7) * edge_mm
    sphere = np.linalg.norm(places, axis=0) <= 6
    grown = surface_distance_mm(sphere, (edge_mm,) * 3) <= margin_mm
    radii = [(3 * mask.sum() * edge_mm**3 / (4 * np.pi)) ** (1 / 3) for mask in (sphere, grown)]
    assert radii[1] - radii[0] == pytest.approx(margin_mm, abs=0.25 * edge_mm)


@settings(max_examples=60, deadline=None)
@given(masks, masks, st.floats(0, 3))
def test_a_part_of_the_grid_says_as_much_as_the_whole(reference, prediction, margin):
    whole = np.zeros((2, 20, 20, 20), bool)
    whole[:, 7:14, 7:13, 7:12] = reference, prediction
    box = box_around(whole.any(axis=0), margin, MM)
    part = [Targets.of(mask[box], MM).coverage(other[box], [margin]) for mask, other in (whole, whole[::-1])]
    full = [Targets.of(mask, MM).coverage(other, [margin]) for mask, other in (whole, whole[::-1])]
    for (lesions, treated), (of_part, treated_of_part) in zip(full, part, strict=True):
        pd.testing.assert_frame_equal(treated, treated_of_part)
        of_part[["x", "y", "z"]] += [axis.start for axis in box]
        pd.testing.assert_frame_equal(lesions, of_part)


def rows(needed, detected=True, patient="p", weight=1.0):
    columns = {"detected": detected, "patient": patient, "network": "U-Net", "weight": weight}
    return pd.DataFrame({"needed_95_mm": needed, **columns})


def test_the_margin_needed_covers_95_of_100_detected_lesions():
    many = rows([*np.arange(1.0, 101.0)])
    found, low, high = margin_needed(pd.concat([many, rows([np.inf], False)]), 100, 0)
    assert found == 95  # the missed lesion does not count
    assert np.isnan([low, high]).all(), "one patient says nothing about others"
    assert margin_needed(rows([0.0, 0.0, 3.0]), 100, 0)[0] == 3, "two of three are not 95 %"
    assert np.isnan(margin_needed(rows([np.inf], False), 100, 0)).all()


def test_the_interval_of_the_margin_resamples_patients_and_has_an_upper_limit_from_72_lesions():
    lesions = [rows([1.0] * 71, patient="a"), rows([4.0] * 5, patient="b")]
    assert margin_needed(pd.concat(lesions), 500, 0) == (4, 1, 4)
    few = pd.concat([lesions[0][:66], lesions[1]])
    assert margin_needed(few, 500, 0) == (4, 1, np.inf)


def test_few_lesions_limit_the_margin_from_below():
    """Eight patients with two lesions each: the true margin of exponential values is -log(0.05)."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(200):
        lesions = rows(rng.exponential(size=16)).assign(patient=np.repeat(np.arange(8), 2))
        held += margin_needed(lesions, 200, 1)[1] <= -np.log(0.05)
    assert held >= 190


def test_07_says_in_its_table_which_end_the_interval_lacks():
    many = [rows([1.0] * 71, patient="a"), rows([4.0] * 5, patient="b")]
    few = rows([2.0] * 9).assign(network="UNETR")
    groups = pd.concat([*many, few, *(few.assign(network="SegResNet", patient=name) for name in "ab")])
    names = {"ms": metaseg_nb, "margins": margin_table(groups, ["network"], 500, 0)}
    (cell,) = [of for of in nbformat.read(NOTEBOOKS / "07_radiotherapy.ipynb", 4).cells if of["id"] == "07-09b"]
    exec(cell.source, names)
    assert names["interval"].tolist() == ["2.0 to no limit", "1.0 to 4.0", "none: too few patients"]


def test_the_interval_of_the_margin_holds_the_true_one():
    """The true margin of exponential values is -log(0.05); 200 patients with two lesions each."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(100):
        lesions = rows(rng.exponential(size=400)).assign(patient=np.repeat(np.arange(200), 2))
        _, low, high = margin_needed(lesions, 200, 1)
        held += low <= -np.log(0.05) <= high
    assert held >= 88


def test_tables_of_margins_and_of_shares_count_what_is_missed():
    lesions = pd.concat([rows([0.0, 2.0], patient="a"), rows([np.inf], False, "b")])
    (row,) = margin_table(lesions, ["network"], 100, 0).itertuples()
    assert (row.network, row.patients, row.lesions, row.missed, row.margin_mm) == ("U-Net", 2, 3, 1, 2)
    shares = covered_shares(lesions.assign(needed_98_mm=lesions["needed_95_mm"] + 1), ["network"], [0, 2], 100, 0)
    found = shares.set_index(["covered_by", "margin_mm"])["share"]
    assert found[95].tolist() == pytest.approx([1 / 3, 2 / 3])
    assert found[98].tolist() == pytest.approx([0, 1 / 3])
    assert (shares["low"] <= shares["share"]).all()
    assert (shares["share"] <= shares["high"]).all()


def test_the_lead_of_a_network_is_counted_patient_by_patient():
    """U-Net covers one lesion of three more than SegResNet, in each of five patients or in all but one of them."""
    own = [rows([0.0, 1.0, 5.0], patient=name) for name in "abcde"]
    other = [rows([9.0, 1.0, 5.0], patient=name).assign(network="SegResNet") for name in "abcde"]
    lesions = pd.concat([*own, *other])
    alike = (1 / 3, np.nan, np.nan)  # all resamples are equal: no interval
    assert covered_lead(lesions, 2.0, ("U-Net", "SegResNet"), 200, 0) == pytest.approx(alike, nan_ok=True)
    lesions.loc[(lesions["network"] == "U-Net") & (lesions["patient"] == "a"), "needed_95_mm"] = [9.0, 1.0, 5.0]
    lead, low, high = covered_lead(lesions, 2.0, ("U-Net", "SegResNet"), 2000, 0)
    assert lead == pytest.approx(4 / 15)
    assert (low, high) == pytest.approx((1 / 15, 1 / 3)), "4 of 5 draws or more are the one: 0.7 %; z 3.10: 0.1 %"


def test_a_patient_with_two_cases_counts_as_one_with_one_case():
    """Patient a has the same lesion in two cases, b one lesion: each is half of what is counted."""
    lesions = pd.concat([rows([4.0, 4.0], patient="a", weight=0.5), rows([1.0], patient="b")])
    shares = covered_shares(lesions.assign(needed_98_mm=5.0), ["network"], [2], 100, 0)
    assert shares["share"].tolist() == pytest.approx([0.5, 0])
    mostly = pd.concat([rows([9.0], patient="a", weight=0.05), rows([1.0], patient="b")])
    assert margin_needed(mostly, 100, 0)[0] == 1, "0.05 of 1.05 is less than 5 %"


def test_the_picture_of_a_margin_is_as_wide_as_asked_and_names_the_margin(study):
    layout, cohort, _ = study
    lesions, _ = study_coverage(layout, cohort, ["unet"], [0.0])
    row = lesions.loc[lesions["diameter_mm"].idxmax()]
    for margin, edge in ((1.0, 20.0), (40.0, 100.0)):
        figure = draw_margin(layout, cohort, row["case"], "unet", margin, tuple(row[["x", "y", "z"]]), edge)
        assert [np.ptp(panel.get_xlim()) for panel in figure.axes[:3]] == pytest.approx([edge] * 3)
        assert f"prediction with {margin} mm" in [text.get_text() for text in figure.legends[0].get_texts()]
        plt.close(figure)


@pytest.fixture
def study(write_case, tmp_path, monkeypatch):
    """Two cases in two folds; a network that predicts every other voxel of them, and a second reader of one."""
    monkeypatch.setenv("METASEG_HOME", str(tmp_path / "home"))
    layout, cases = StudyLayout("tiny"), []
    for fold, name in enumerate(("c0", "c1")):
        case = write_case(name, seed=fold, axes="LPS")
        cases.append(Case(**{**vars(case), "fold": fold}))
        label = read_volume(case.label, name, np.uint8)
        short, voxels = label.array.copy(), np.argwhere(label.array)
        short[tuple(voxels[::2].T)] = 0
        drawn = {layout.run("unet", fold).predictions: short} | ({tmp_path / "second": label.array} if fold else {})
        for folder, array in drawn.items():
            write_volume(folder / f"{name}.nii.gz", Volume(array, label.affine, label.native_orientation))
    return layout, Cohort("tiny", "", cases), tmp_path / "second"


def test_each_case_is_measured_with_the_network_of_its_fold(study):
    layout, cohort, _ = study
    lesions, treated = study_coverage(layout, cohort, ["unet"], [0.0])
    assert treated["case"].tolist() == ["c0", "c1"]
    assert (lesions["covered_0"] < 1).any()
    assert lesions["detected"].dtype == bool


def test_air_around_the_head_is_not_treated(study, monkeypatch):
    layout, cohort, _ = study
    _, treated = study_coverage(layout, cohort, ["unet"], [20.0])
    monkeypatch.setattr(margins, "find_head", lambda *_: None)
    _, everywhere = study_coverage(layout, cohort, ["unet"], [20.0])
    for column in ("unneeded_cm3", "target_cm3"):
        assert (treated[column] <= everywhere[column]).all()
    for case, own in zip(cohort.cases, treated["target_cm3"], strict=True):
        image = read_volume(case.image, case.name)
        assert own <= find_head(image.array, image.spacing_mm).volume_cm3
    assert (everywhere["target_cm3"] > treated["target_cm3"]).all()


def test_with_a_second_reader_all_are_compared_on_the_cases_of_this_reader(study):
    layout, cohort, second = study
    lesions, treated = study_coverage(layout, cohort, ["unet"], [0.0], str(second))
    assert treated.groupby("model")["case"].agg(list).to_dict() == {SECOND_READER: ["c1"], "unet": ["c1"]}
    assert (lesions.loc[lesions["model"] == SECOND_READER, "covered_0"] == 1).all()


def test_masks_of_a_second_reader_that_belong_to_no_case_are_an_error(study, tmp_path):
    layout, cohort, second = study
    with pytest.raises(CohortError, match=r"no mask.*masks named as the cases, such as c0.nii.gz"):
        study_coverage(layout, cohort, ["unet"], [0.0], str(tmp_path))
    (second / "c1.nii.gz").rename(second / "C1.nii.gz")
    with pytest.raises(CohortError, match=r"found C1; expected masks named as the cases"):
        study_coverage(layout, cohort, ["unet"], [0.0], str(second))


def test_masks_of_a_second_reader_are_read_by_the_rule_of_the_study(study):
    layout, cohort, second = study
    for path in (second / "c1.nii.gz", *(case.label for case in cohort.cases)):
        label = read_volume(path, "c", np.uint8)
        write_volume(path, Volume(2 * label.array, label.affine, label.native_orientation))
    cohort = replace(cohort, rule=LesionRule(values=(2,)))
    lesions, _ = study_coverage(layout, cohort, ["unet"], [0.0], str(second))
    assert (lesions.loc[lesions["model"] == SECOND_READER, "covered_0"] == 1).all()


def test_a_cohort_without_lesions_is_an_error(study):
    layout, cohort, _ = study
    for case in cohort.cases:
        label = read_volume(case.label, case.name, np.uint8)
        write_volume(case.label, Volume(np.zeros_like(label.array), label.affine, label.native_orientation))
    with pytest.raises(CohortError, match="no lesion above 2 mm³"):
        study_coverage(layout, cohort, ["unet"], [0.0])


def test_a_mask_on_another_grid_is_an_error_that_names_the_case(study):
    layout, cohort, second = study
    mask = read_volume(second / "c1.nii.gz", "c1", np.uint8)
    write_volume(second / "c1.nii.gz", Volume(mask.array[1:], mask.affine, mask.native_orientation))
    with pytest.raises(CohortError, match=r"case c1.*draw it again on the grid of the image"):
        study_coverage(layout, cohort, ["unet"], [0.0], str(second))


def test_the_distance_to_an_organ_is_that_of_the_surfaces(study, tmp_path):
    layout, cohort, _ = study
    case = cohort.cases[0]
    label = read_volume(case.label, case.name, np.uint8)
    organ = np.zeros_like(label.array)
    lesion = np.argwhere(label.array)
    organ[0, 0, 0] = 1
    (tmp_path / "imported/c0").mkdir(parents=True)
    write_volume(tmp_path / "imported/c0" / ORGANS, Volume(organ, label.affine, label.native_orientation))
    write_record(tmp_path / "imported/c0" / RECORD, {"organs": ["brain stem"]}, [tmp_path / "imported/c0" / ORGANS])
    table = organ_distances(layout, cohort, tmp_path / "imported", ["unet"])
    assert set(table["case"]) == {"c0"}, "c1 was not imported"
    assert set(table["model"]) == {REFERENCE_MODEL, "unet"}
    assert set(table["organ"]) == {"brain stem"}
    nearest = table.loc[table["model"] == REFERENCE_MODEL, "distance_mm"].min()
    beyond = np.maximum(lesion - 1, 0) * label.spacing_mm
    assert nearest == pytest.approx(np.linalg.norm(beyond, axis=1).min(), abs=1e-4)
    assert not table["false"].any()
    moved = label.affine + np.diag([0, 0, 0.5, 0])
    write_volume(layout.run("unet", 0).predictions / "c0.nii.gz", Volume(label.array, moved, label.native_orientation))
    with pytest.raises(CohortError, match=r"case c0.*predict or draw it again on the grid of the image"):
        organ_distances(layout, cohort, tmp_path / "imported", ["unet"])


@pytest.mark.parametrize("axes", ["LPS", "LAS", "PSR"])
def test_synthetic_patients_come_back_from_dicom_voxel_by_voxel(study, axes):
    """Also those of files whose axes are left-handed, as those of no DICOM series are."""
    layout, cohort, _ = study
    predictions = [layout.run("unet", case.fold).predictions / f"{case.name}.nii.gz" for case in cohort.cases]
    for path in (*(of for case in cohort.cases for of in (case.image, case.label)), *predictions):
        volume = read_volume(path, "c")
        write_volume(path, Volume(volume.array, volume.affine, nib.orientations.axcodes2ornt(axes)))
    table = round_trip(layout, cohort.cases, LesionRule(), "unet")
    assert table["case"].tolist() == ["c0", "c1"]
    assert (table[["different", "prediction_different"]] == 0).all(axis=None)
    assert (table["regions"] > 0).all()
    assert len([*layout.radiotherapy.glob("unet/*.dcm")]) == 2


def test_a_lost_organ_is_an_error_that_says_what_to_do(study, tmp_path):
    layout, cohort, _ = study
    (tmp_path / "imported/c0").mkdir(parents=True)
    with pytest.raises(CohortError, match=r"case c0.*lost or damaged.*run notebook 01 again"):
        organ_distances(layout, cohort, tmp_path / "imported", ["unet"])
