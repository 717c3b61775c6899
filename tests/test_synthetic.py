"""The synthetic cohort: what is planned, what is rendered, what lies on disk."""

import json
import socket
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine

from metaseg_nb.cohort.head import find_head, head_mask
from metaseg_nb.cohort.lesions import distance_mm, label_lesions, lesion_table
from metaseg_nb.cohort.sources import read_cohort
from metaseg_nb.cohort.volumes import read_volume, same_grid, write_volume
from metaseg_nb.demo_cohort import files
from metaseg_nb.demo_cohort.anatomy import Deformation, load_template, sample
from metaseg_nb.demo_cohort.files import make_cohort
from metaseg_nb.demo_cohort.lesions import LESION_KINDS, push_tissue
from metaseg_nb.demo_cohort.patients import (
    MAX_LESIONS,
    PRIMARIES,
    grid_axes_mm,
    patient_rng,
    plan_patient,
    render_patient,
    true_bias_field,
)
from metaseg_nb.demo_cohort.raw_heads import demo_site, render_raw, true_motion

SEED = 0
# Stands for an image where only its file is of interest.
SMALL = np.zeros((4, 4, 4), np.uint8)
N_PATIENTS = 3


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Folder of a small cohort, made by two processes."""
    folder = tmp_path_factory.mktemp("cohort")
    make_cohort(folder, n_patients=N_PATIENTS, seed=SEED, workers=2)
    return folder


@pytest.fixture(scope="module", params=[0, 3, 17])
def rendered(request):
    """Plan, image, label and lesions of a patient with lesions of all sizes, only small ones, and 3 mm slices."""
    plan = plan_patient(SEED, request.param)
    return plan, *render_patient(plan)


@pytest.fixture(scope="module")
def plans():
    return [plan_patient(SEED, index) for index in range(500)]


def planned_diameters_mm(plan):
    return np.array([lesion.diameter_mm for lesion in plan.lesions])


def test_planned_number_of_lesions_follows_the_study(plans):
    counts = np.array([len(plan.lesions) for plan in plans])
    assert abs(counts.mean() - 3) < 0.5
    assert 1.5 < counts.std() < 2.6
    assert counts.max() <= MAX_LESIONS


def test_planned_diameters_follow_the_study(plans):
    diameters = np.concatenate([planned_diameters_mm(plan) for plan in plans])
    assert abs(diameters.mean() - 22) < 3
    assert abs(diameters.std() - 16) < 4
    assert (diameters < 5).mean() > 0.03


def test_primaries_and_kinds_all_occur(plans):
    assert {plan.primary for plan in plans} == {primary.name for primary in PRIMARIES}
    assert {lesion.kind for plan in plans for lesion in plan.lesions} == set(LESION_KINDS)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_twenty_patients_hold_one_without_lesions_and_several_with_only_small_ones(seed):
    twenty = [plan_patient(seed, index) for index in range(20)]
    assert sum(not plan.lesions for plan in twenty) == 1
    assert sum(bool(plan.lesions) and planned_diameters_mm(plan).max() < 10 for plan in twenty) >= 4
    assert all(plan.lesions for plan in twenty[:4])
    assert len({plan.axes for plan in twenty}) >= 4
    assert sum(max(plan.spacing_mm) == 3 for plan in twenty) == 2


def test_other_seeds_and_indices_give_other_patients():
    assert plan_patient(0, 4) != plan_patient(1, 4)
    assert plan_patient(0, 4).lesions != plan_patient(0, 24).lesions


def test_label_holds_exactly_the_planned_lesions(rendered):
    plan, _, label, lesions = rendered
    labels, n = label_lesions(label.array)
    assert n == len(plan.lesions)
    table = lesion_table(labels, n, plan.spacing_mm)
    assert (table["volume_mm3"] > 2).all()
    for lesion in lesions:
        voxel = np.rint(nib.affines.apply_affine(np.linalg.inv(label.affine), lesion.centre_mm)).astype(int)
        row = table.iloc[labels[tuple(voxel)] - 1]
        tolerance = 0.08 if lesion.plan.diameter_mm > 10 else 0.5
        volume_mm3 = 4 / 3 * np.pi * (lesion.shape.radii_mm() ** 3).mean()
        assert row["volume_mm3"] == pytest.approx(volume_mm3, rel=tolerance)
        # Corners of voxels are measured, so a lesion gains up to a voxel's diagonal.
        assert 0 < row["diameter_mm"] - lesion.plan.diameter_mm < np.linalg.norm(plan.spacing_mm) + 0.5


def test_lesions_lie_in_brain_tissue(rendered):
    plan, _, label, lesions = rendered
    template = load_template()
    deformation = Deformation.random(patient_rng(plan.seed, plan.index, "anatomy"))
    axes_mm = grid_axes_mm(label.array.shape, label.affine)
    positions_mm = deformation.on_axes(axes_mm)
    for lesion in lesions:
        push_tissue(positions_mm, lesion, deformation)
    inside = label.array > 0
    assert (sample(template.tissue, positions_mm[:, inside]) > 0.5).mean() > 0.97
    assert (sample(template.depth_mm, positions_mm[:, inside]) > 0).all()


def test_image_cannot_be_segmented_by_a_threshold(rendered):
    plan, image, label, _ = rendered
    corrected = image.array / true_bias_field(plan.seed, plan.index, image.array.shape, image.affine)
    lesion = label.array > 0
    for threshold in np.percentile(corrected, [97, 98, 99, 99.3, 99.6, 99.9]):
        bright = corrected > threshold
        assert 2 * (bright & lesion).sum() / (bright.sum() + lesion.sum()) < 0.75


def test_bias_field_is_the_same_on_every_grid():
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -60
    finer = affine @ np.diag([0.5, 0.5, 0.5, 1.0])
    coarse, fine = true_bias_field(0, 5, (20, 24, 22), affine), true_bias_field(0, 5, (40, 48, 44), finer)
    np.testing.assert_allclose(fine[::2, ::2, ::2], coarse, rtol=1e-5)
    assert coarse.min() > 0.3
    assert not np.allclose(coarse, true_bias_field(0, 6, (20, 24, 22), affine))


def test_template_needs_no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert load_template.__wrapped__().t1.max() > 0


def test_datalist_names_every_case(cohort):
    datalist = json.loads((cohort / "dataset.json").read_text())
    assert datalist["name"] == "synthetic"
    assert "not patients" in datalist["description"]
    assert datalist["labels"] == {"0": "background", "1": "metastasis"}
    assert [entry["patient"] for entry in datalist["training"]] == ["synthetic_001", "synthetic_002", "synthetic_003"]
    for index, entry in enumerate(datalist["training"]):
        assert entry["primary"] == plan_patient(SEED, index).primary
        assert (cohort / entry["image"]).is_file()
        assert (cohort / entry["label"]).is_file()
    assert not list(cohort.rglob(".*"))


def test_files_have_one_valid_grid_and_the_planned_axes(cohort):
    for index in range(N_PATIENTS):
        plan = plan_patient(SEED, index)
        image = nib.load(cohort / "images" / f"{plan.case}.nii.gz")
        label = nib.load(cohort / "labels" / f"{plan.case}.nii.gz")
        assert image.shape == label.shape
        np.testing.assert_array_equal(image.affine, label.affine)
        assert image.get_data_dtype() == np.int16
        assert label.get_data_dtype() == np.uint8
        assert image.header["sform_code"] > 0
        assert image.header["qform_code"] > 0
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-3)
        assert "".join(nib.aff2axcodes(image.affine)) == plan.axes
        assert np.asanyarray(image.dataobj).std() > 0
        assert set(np.unique(label.dataobj)) == {0, 1}


def test_patient_does_not_depend_on_the_cohort(cohort):
    index = N_PATIENTS - 1
    image, label, _ = render_patient(plan_patient(SEED, index))
    stored_image = read_volume(cohort / "images" / f"synthetic_{index + 1:03d}.nii.gz", "case", np.int16)
    stored_label = read_volume(cohort / "labels" / f"synthetic_{index + 1:03d}.nii.gz", "case", np.uint8)
    np.testing.assert_array_equal(stored_image.array, image.array)
    np.testing.assert_array_equal(stored_label.array, label.array)


def test_the_voxels_of_the_committed_demo_stay_the_same():
    """Raise `RECIPE_VERSION` where they must change; brightness is rounded, so another machine may differ by a few."""
    image, label, _ = render_patient(plan_patient(0, 3))
    assert image.array.shape == (188, 218, 86)
    assert label.array.sum() == 61
    assert int(image.array.sum(dtype=np.int64)) == pytest.approx(656_278_924, abs=1000)


def test_interrupted_cohort_is_completed_and_the_rest_kept(cohort):
    images = sorted((cohort / "images").iterdir())
    before = [path.stat().st_mtime_ns for path in images]
    images[1].unlink()
    make_cohort(cohort, n_patients=N_PATIENTS, seed=SEED, workers=1)
    after = [path.stat().st_mtime_ns for path in images]
    assert [a == b for a, b in zip(after, before, strict=True)] == [True, False, True]


def test_another_seed_does_not_reuse_the_files(cohort):
    with pytest.raises(ValueError, match=r"(?s)'seed': 0.*expected.*'seed': 1.*What to do"):
        make_cohort(cohort, n_patients=N_PATIENTS, seed=1)


def test_a_folder_of_unknown_origin_is_refused(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match="files with no recipe"):
        make_cohort(tmp_path)


@pytest.fixture(scope="module")
def raw():
    """A head as a hospital has it, of the patient that `plan_patient` plans."""
    return render_raw(plan_patient(SEED, 1))


def test_a_raw_head_has_a_skull_and_its_lesions_in_the_brain(raw):
    first, brain = raw.images["t1c"], raw.brain.array > 0
    head = find_head(first.array.astype(np.float32), first.spacing_mm)
    assert head.skull == "in the image"
    assert 1200 < brain.sum() * np.prod(first.spacing_mm) / 1000 < 2000
    lesions = raw.label.array > 0
    assert label_lesions(lesions)[1] == len(plan_patient(SEED, 1).lesions)
    assert not (lesions & ~brain).any()
    around = (distance_mm(lesions, first.spacing_mm) < 4) & ~lesions
    assert np.median(first.array[lesions]) > 1.1 * np.median(first.array[around])
    assert first.native_axes == demo_site(1).axes
    assert first.spacing_mm == pytest.approx(demo_site(1).spacing_mm)


def test_further_sequences_lie_on_other_grids_and_elsewhere_by_a_known_motion(raw):
    first = raw.images["t1c"]
    inside = np.argwhere(head_mask(first.array.astype(np.float32)))[::500]
    for name in ("flair", "t2"):
        other, motion = raw.images[name], true_motion(SEED, 1, name)
        assert not same_grid(first, other)
        np.testing.assert_allclose(motion[:3, :3] @ motion[:3, :3].T, np.eye(3), atol=1e-9)
        found, air = [], other.array[:3].mean()
        for place in (motion, np.eye(4)):
            voxels = np.rint(apply_affine(np.linalg.inv(other.affine) @ place @ first.affine, inside)).astype(int)
            voxels = voxels[((voxels >= 0) & (voxels < other.array.shape)).all(axis=1)]
            found.append((other.array[tuple(voxels.T)] > 3 * air).mean())
        assert found[0] > found[1] + 0.01
        assert found[0] > 0.97


def test_a_raw_cohort_is_a_list_of_three_sequences_with_sites_and_scanners(raw, tmp_path, monkeypatch):
    two = replace(raw, images={name: raw.images[name] for name in ("t1c", "t2")})
    monkeypatch.setattr(files, "render_raw", lambda plan: two if plan.index == 4 else raw)
    monkeypatch.setattr(files, "write_volume", lambda path, volume: write_volume(path, replace(volume, array=SMALL)))
    path = make_cohort(tmp_path / "raw", n_patients=5, seed=SEED, workers=1, n_unlabelled=1, images="raw")
    cohort, problems = read_cohort(str(path), base=tmp_path, missing="zero")
    assert problems == []
    assert [case.lacking for case in cohort.all_cases] == [(), (), (), (), (2,), ()]
    assert all(file.is_file() for case in cohort.all_cases for file in case.files)
    assert [case.label is None for case in cohort.all_cases] == [False] * 5 + [True]
    assert [case.site for case in cohort.all_cases] == ["north", "south"] * 3
    assert [case.scanner for case in cohort.all_cases] == ["synthetic 1.5 T", "synthetic 3 T"] * 3
    with pytest.raises(ValueError, match="images': 'raw'"):
        make_cohort(tmp_path / "raw", n_patients=5, seed=SEED)


def test_patients_without_masks_come_after_the_others_and_change_none(cohort, tmp_path):
    path = make_cohort(tmp_path / "more", n_patients=1, seed=SEED, workers=1, n_unlabelled=1)
    listed = json.loads(path.read_text(encoding="utf-8"))
    assert [entry["patient"] for entry in listed["training"]] == ["synthetic_001"]
    assert [(entry["patient"], "label" in entry) for entry in listed["testing"]] == [("synthetic_002", False)]
    for name in ("synthetic_001", "synthetic_002"):
        images = [np.asarray(nib.load(folder / f"images/{name}.nii.gz").dataobj) for folder in (cohort, path.parent)]
        assert np.array_equal(*images)
