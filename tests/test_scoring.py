"""Scoring files and volumes: grids, label values, JSON."""

import json

import nibabel as nib
import numpy as np
import pytest

from metaseg_nb.__main__ import main
from metaseg_nb.cohort.cases import LesionRule
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import read_volume
from metaseg_nb.evaluation.lesion_metrics import lesion_metrics, mets_2026
from metaseg_nb.evaluation.scoring import score, score_files
from metaseg_nb.evaluation.voxel_metrics import voxel_metrics

SPACING_MM = (0.8, 1.1, 2.5)


def masks():
    truth, prediction = np.zeros((2, 20, 18, 12), np.uint8)
    truth[2:6, 2:6, 2:5] = truth[12:15, 10:13, 7:9] = 1
    prediction[3:7, 2:6, 2:5] = 1
    return truth, prediction


def write(path, array, axes="RAS", shift_mm=0.0):
    """Write an array that is in RAS order as a file with the given axes."""
    affine = np.diag([*SPACING_MM, 1.0])
    affine[:3, 3] = (-10 + shift_mm, 5, 7)
    image = nib.Nifti1Image(array, affine)
    native = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt(axes)
    )
    nib.save(image.as_reoriented(native), path)
    return path


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAL"])
def test_files_score_as_their_arrays(tmp_path, axes):
    truth, prediction = masks()
    found = score_files(write(tmp_path / "t.nii.gz", truth), write(tmp_path / "p.nii.gz", prediction, axes))
    lesions = found.pop("lesions")
    summary, table = lesion_metrics(truth, prediction, SPACING_MM)
    all_metrics = {
        **voxel_metrics(truth, prediction, SPACING_MM),
        **summary,
        **mets_2026(truth, prediction, SPACING_MM),
    }
    assert found == pytest.approx(all_metrics, rel=1e-6)
    assert [lesion["detected"] for lesion in lesions] == [True, False]
    assert lesions[1] == pytest.approx(table.iloc[1].to_dict(), rel=1e-6)


def test_result_is_plain_json(tmp_path):
    truth, prediction = masks()
    found = score_files(write(tmp_path / "t.nii", truth), write(tmp_path / "p.nii", prediction))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    expected = {"dice", "hd95_mm", "pooled_hd95_mm", "nsd_1mm", "lesion_dice", "n_false", "lesions"}
    assert expected <= set(found)


def test_empty_masks_are_plain_json_too(tmp_path):
    path = write(tmp_path / "t.nii.gz", np.zeros((5, 5, 5), np.uint8))
    found = score_files(path, path)
    assert json.loads(json.dumps(found, allow_nan=False))["lesions"] == []
    assert (found["dice"], found["hd95_mm"], found["lesion_dice"]) == (1, 0, 1)


def test_different_grids_are_both_described(tmp_path):
    truth, prediction = masks()
    truth_path = write(tmp_path / "t.nii.gz", truth)
    with pytest.raises(CohortError) as shifted:
        score_files(truth_path, write(tmp_path / "p7.nii.gz", prediction, shift_mm=1.5))
    for words in ("case p7", "origin (-10.0, 5.0, 7.0)", "origin (-8.5, 5.0, 7.0)", "native grid", str(truth_path)):
        assert words in str(shifted.value)
    with pytest.raises(CohortError, match=r"shape \(20, 18, 11\).*shape \(20, 18, 12\)"):
        score_files(truth_path, write(tmp_path / "p.nii.gz", prediction[:, :, :11]))
    with pytest.raises(CohortError, match=r"found a prediction on the grid shape.*, up to 0\.02 mm away; expected"):
        score_files(truth_path, write(tmp_path / "near.nii.gz", prediction, shift_mm=0.02))


def test_other_values_are_an_error_unless_named(tmp_path):
    truth, prediction = masks()
    truth_path = write(tmp_path / "t.nii.gz", truth)
    labelled = prediction.copy()
    labelled[10, 10, 10], labelled[prediction == 1] = 2, 3
    path = write(tmp_path / "p.nii.gz", labelled)
    with pytest.raises(
        CohortError,
        match=r"p.nii.gz: found label values 2, 3 \(1, 48 voxels\); expected only the declared values 0, 1.*lesion_v",
    ):
        score_files(truth_path, path)
    named = score_files(truth_path, path, LesionRule((1, 3), (2,)))
    assert named == score_files(truth_path, write(tmp_path / "q.nii.gz", prediction))


def test_the_command_prints_all_metrics_as_json(tmp_path, capsys):
    truth, prediction = masks()
    paths = write(tmp_path / "t.nii.gz", truth), write(tmp_path / "p.nii.gz", prediction * 3)
    assert main(["score", *map(str, paths)]) == 2
    assert "--lesion-values" in capsys.readouterr().err
    assert main(["score", *map(str, paths), "--lesion-values", "1", "3"]) == 0
    assert json.loads(capsys.readouterr().out) == score_files(*paths, LesionRule((1, 3)))


def test_a_mask_that_holds_nan_is_an_error(tmp_path):
    truth, prediction = masks()
    broken = np.where(prediction, np.nan, 0).astype(np.float32)
    with pytest.raises(CohortError, match="found 48 NaN or infinite voxels"):
        score_files(write(tmp_path / "t.nii.gz", truth), write(tmp_path / "p.nii.gz", broken))


def test_mask_of_0_and_255_is_an_error(tmp_path):
    truth, _ = masks()
    path = write(tmp_path / "t.nii.gz", truth * 255)
    with pytest.raises(CohortError, match="found label values 255"):
        score_files(path, path)


def test_every_undeclared_value_of_both_masks_is_listed_with_its_voxels(tmp_path, capsys):
    truth, prediction = masks()
    paths = write(tmp_path / "t.nii.gz", truth * 4), write(tmp_path / "p.nii.gz", prediction * 3)
    assert main(["score", *map(str, paths)]) == 2
    printed = capsys.readouterr().err
    for words in ("2 problem(s)", "t.nii.gz: found label values 4 (66 voxels)", "label values 3 (48 voxels)"):
        assert words in printed
    for flag in ("--lesion-values", "--prediction-lesion-values", "--other-values"):
        assert flag in printed


WAYS = {
    "behind": "{t} {p} --lesion-values 4 --prediction-lesion-values 3 --other-values 2 5",
    "before": "--lesion-values 4 --prediction-lesion-values 3 --other-values 2 5 {t} {p}",
    "between": "{t} --lesion-values 4 --other-values 2 5 {p} --prediction-lesion-values 3",
    "commas": "--other-values 2,5 --lesion-values 4 --prediction-lesion-values=3 {t} {p}",
    "more than there are": "--lesion-values 4 6 --prediction-lesion-values 3 7 {t} {p} --other-values 2,5",
}


@pytest.mark.parametrize("line", WAYS.values(), ids=WAYS)
def test_values_of_lesions_may_differ_between_the_two_masks(tmp_path, capsys, line):
    truth, prediction = masks()
    plain = score_files(write(tmp_path / "a.nii.gz", truth), write(tmp_path / "b.nii.gz", prediction))
    labelled, other = truth * 4, prediction * 3
    labelled[10, 2, 2], other[9, 2, 2] = 2, 5  # oedema
    t, p = write(tmp_path / "t.nii.gz", labelled), write(tmp_path / "p.nii.gz", other)
    assert main(["score", *line.format(t=t, p=p).split()]) == 0
    assert json.loads(capsys.readouterr().out) == plain


def test_a_value_declared_for_one_mask_is_no_lesion_of_the_other(tmp_path):
    truth, prediction = masks()
    paths = write(tmp_path / "t.nii.gz", truth * 4), write(tmp_path / "p.nii.gz", prediction * 4)
    with pytest.raises(CohortError, match=r"p\.nii\.gz: found label values 4") as error:
        score_files(*paths, LesionRule((4,)), LesionRule((3,)))
    assert len(error.value.problems) == 1


@pytest.mark.parametrize("given", ["0", "-1", "1.0", "1.5", "one", ",", "1,,2"])
def test_a_value_that_cannot_be_lesion_shows_the_usage(tmp_path, capsys, given):
    with pytest.raises(SystemExit) as stop:
        main(["score", "t.nii.gz", "p.nii.gz", f"--lesion-values={given}"])
    assert stop.value.code == 2
    assert f"--lesion-values: found {given!r}; expected whole numbers above 0" in capsys.readouterr().err


def test_rounding_after_resampling_is_no_other_value(tmp_path):
    truth, prediction = masks()
    exact = score_files(write(tmp_path / "a.nii.gz", truth), write(tmp_path / "b.nii.gz", prediction))
    rng = np.random.default_rng(0)
    resampled = (prediction + rng.uniform(-1e-3, 1e-3, prediction.shape)).astype(np.float32)
    assert score_files(tmp_path / "a.nii.gz", write(tmp_path / "p.nii.gz", resampled)) == exact
    assert score_files(write(tmp_path / "t.nii.gz", truth * np.float32(0.9999)), tmp_path / "b.nii.gz") == exact


def test_a_grey_mask_is_refused_until_a_threshold_cuts_it(tmp_path, capsys):
    truth, prediction = masks()
    exact = score_files(write(tmp_path / "t.nii.gz", truth), write(tmp_path / "q.nii.gz", prediction))
    grey = np.where(prediction, 0.7, 0.3).astype(np.float32)
    paths = [str(tmp_path / "t.nii.gz"), str(write(tmp_path / "p.nii.gz", grey))]
    assert main(["score", *paths]) == 2
    assert "--label-threshold" in capsys.readouterr().err
    assert main(["score", *paths, "--label-threshold", "0.5"]) == 0
    assert json.loads(capsys.readouterr().out) == exact


@pytest.mark.parametrize("empty", [(0, 1), (1, 0), (0, 0)])
def test_empty_masks_score_as_the_workbook_scores_them(tmp_path, empty):
    truth, prediction = (mask * keep for mask, keep in zip(masks(), empty, strict=True))
    found = score_files(write(tmp_path / "t.nii.gz", truth), write(tmp_path / "p.nii.gz", prediction), LesionRule((1,)))
    assert (found["dice"], found["hd95_mm"]) == ((1, 0) if empty == (0, 0) else (0, 374))


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    ("affine", "found"),
    [
        (np.diag([100.0, 100, 100, 1]), "extreme spacing of 100x100x100 mm"),
        (np.array([[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "26.6° off a right angle"),
    ],
    ids=["huge", "sheared"],
)
def test_a_header_that_01_refuses_is_refused_by_score(tmp_path, affine, found, which):
    truth, prediction = masks()
    paths = [write(tmp_path / "t.nii.gz", truth), write(tmp_path / "p.nii.gz", prediction)]
    nib.save(nib.Nifti1Image((truth, prediction)[which], affine), paths[which])
    with pytest.raises(CohortError, match=f"{paths[which].name}: found .*{found}"):
        score_files(*paths)


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1e-3), ("micron", 1e3)])
def test_distances_are_millimetres_whatever_the_unit_of_the_file(tmp_path, unit, factor):
    truth, prediction = masks()
    for name, mask in (("t", truth), ("p", prediction)):
        image = nib.load(write(tmp_path / f"{name}.nii.gz", mask))
        scaled = nib.Nifti1Image(mask, np.diag([factor, factor, factor, 1]) @ image.affine)
        scaled.header.set_xyzt_units(unit)
        nib.save(scaled, tmp_path / f"{name}_{unit}.nii.gz")
    exact = score_files(tmp_path / "t.nii.gz", tmp_path / "p.nii.gz")
    found = score_files(tmp_path / f"t_{unit}.nii.gz", tmp_path / f"p_{unit}.nii.gz")
    assert found["volume_truth_mm3"] == pytest.approx(66 * 0.8 * 1.1 * 2.5, rel=1e-5)
    assert found["hd95_mm"] == pytest.approx(exact["hd95_mm"], rel=1e-5)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(CohortError, match="no such file"):
        score_files(tmp_path / "t.nii.gz", tmp_path / "p.nii.gz")


def test_volumes_in_memory(tmp_path):
    truth, prediction = masks()
    volumes = [
        read_volume(write(tmp_path / name, mask), name) for name, mask in (("t.nii", truth), ("p.nii", prediction))
    ]
    scores, lesions = score(*volumes)
    assert scores | {"lesions": lesions.to_dict("records")} == score_files(tmp_path / "t.nii", tmp_path / "p.nii")


def test_published_volume_of_a_real_lesion(shared_data):
    """Volume of pyradiomics' brain1, as published with it."""
    path = shared_data / "real_t1c" / "labels" / "thick_brain1.nii.gz"
    found = score_files(path, path)
    assert found["volume_truth_mm3"] == pytest.approx(16412.66, abs=0.01)
    assert (found["dice"], found["hd95_mm"], found["lesion_dice"], found["n_false"]) == (1, 0, 1, 0)


@pytest.mark.parametrize("emptied", [0, 1])
def test_a_threshold_that_empties_a_mask_is_an_error(tmp_path, capsys, emptied):
    """Two masks that a threshold empties would agree perfectly."""
    paths = [write(tmp_path / f"{i}.nii.gz", mask * np.uint8(255)) for i, mask in enumerate(masks())]
    assert main(["score", *map(str, paths), "--label-threshold", "254"]) == 0
    capsys.readouterr()
    paths[emptied] = write(tmp_path / "small.nii.gz", masks()[emptied])
    assert main(["score", *map(str, paths), "--label-threshold", "1"]) == 2
    said = capsys.readouterr().err
    assert "small.nii.gz" in said
    assert "values from 0 to 1, none above the threshold 1" in said


@pytest.mark.parametrize("given", ["nan", "inf", "-1", "half"])
def test_a_threshold_that_is_no_number_from_0_on_shows_the_usage(capsys, given):
    with pytest.raises(SystemExit) as ended:
        main(["score", "t.nii.gz", "p.nii.gz", f"--label-threshold={given}"])
    assert ended.value.code == 2
    assert f"found '{given}'; expected a number from 0 on" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--lesion-values", "--prediction-lesion-values", "--other-values"])
def test_a_threshold_and_values_are_not_taken_together(tmp_path, capsys, option):
    """The threshold would win without a word, and oedema (2) would be scored as lesion."""
    paths = [str(write(tmp_path / f"{i}.nii.gz", mask * (i + 1))) for i, mask in enumerate(masks())]
    assert main(["score", *paths, "--label-threshold", "0.5", option, "2"]) == 2
    assert "--label-threshold makes all above it lesion" in capsys.readouterr().err


def test_a_value_is_lesion_or_something_else(tmp_path, capsys):
    paths = [str(write(tmp_path / f"{i}.nii.gz", mask)) for i, mask in enumerate(masks())]
    assert main(["score", *paths, "--lesion-values", "1", "2", "--other-values", "1"]) == 2
    assert "label values [1] are given as lesion and as other" in capsys.readouterr().err
