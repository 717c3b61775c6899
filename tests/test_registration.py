"""Registration finds where a head lies, and sequences of other grids end on the first one."""

from dataclasses import replace
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nbformat
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from nibabel.affines import apply_affine
from nilearn.datasets import load_mni152_template
from scipy.spatial.transform import Rotation

import metaseg_nb
from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.checks import require_sound_headers
from metaseg_nb.cohort.head import head_mask
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import Volume, read_volume
from metaseg_nb.figures.raw_images import draw_registrations
from metaseg_nb.layout import NOTEBOOKS, StudyLayout
from metaseg_nb.parameters import resolve
from metaseg_nb.preprocessing import registration
from metaseg_nb.preprocessing.grid import Grid, resample
from metaseg_nb.preprocessing.registration import Registration, along_axes, register_volume
from metaseg_nb.preprocessing.steps import NOT_REGISTERED, image_recipe, naming, prepare_image, read_images
from metaseg_nb.settings import Preprocess

RAS = np.array([[0, 1], [1, 1], [2, 1]])
# Where the second image is seen from: thicker slices, and another field of view.
THICK = np.diag([1.5, 1.5, 4.0, 1.0])


def rigid(turned_degrees, moved_mm):
    """A rotation about the world's origin, and a shift."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(np.radians(turned_degrees)).as_matrix()
    matrix[:3, 3] = moved_mm
    return matrix


@pytest.fixture(scope="module")
def template():
    image = load_mni152_template(resolution=2)
    return Volume(np.asarray(image.dataobj, np.float32) * 500, image.affine, RAS)


@pytest.fixture
def coarse(monkeypatch):
    """Registration ends at voxels of 4 mm: near enough, in a fraction of the time."""
    monkeypatch.setattr(registration, "LEVELS_MM", registration.LEVELS_MM[:2])


def grid_of(volume):
    return Grid(volume.spacing_mm, volume.array.shape)


def seen_again(volume, matrix, contrast=None):
    """The same head after a movement, on thick slices that cut through it obliquely, with another contrast."""
    tilted = rigid((8.0, -5.0, 3.0), (-95.0, -130.0, -75.0)) @ THICK
    empty = Volume(np.zeros((130, 150, 48), np.float32), tilted, RAS)
    array, place = (
        contrast(volume.array) if contrast else volume.array,
        along_axes(np.linalg.inv(matrix), empty, volume),
    )
    return Volume(resample(array, grid_of(volume), grid_of(empty), "linear", place), tilted, RAS)


def dark_fluid(array):
    """Other tissues bright than in a T1."""
    return np.where(array > 0, 600 - array, 0).astype(np.float32)


@pytest.mark.parametrize(
    ("degrees", "mm"),
    [((4, -3, 6), (5, -8, 3)), ((-9, 8, 8), (-9, 8, 8)), ((0, 0, 15), (0, 15, 0))],
)
def test_a_known_movement_is_found_to_half_a_millimetre_and_half_a_degree(template, degrees, mm):
    matrix = rigid(degrees, mm)
    found = register_volume(template, seen_again(template, matrix, dark_fluid))
    points = apply_affine(template.affine, np.argwhere(head_mask(template.array))[::500])
    off_mm = np.linalg.norm(apply_affine(found.matrix, points) - apply_affine(matrix, points), axis=1)
    off = Rotation.from_matrix(found.matrix[:3, :3].T @ matrix[:3, :3]).magnitude()
    assert off_mm.mean() < 0.5
    assert np.degrees(off) < 0.5
    assert found.failure == ""
    assert found.agreeing >= 0.5


def test_what_lies_right_already_stays_there(template, coarse):
    lower = template.affine.copy()
    lower[2, 3] += 10 * 2
    for second in (template, Volume(dark_fluid(template.array[:, :, 10:]), lower, RAS)):
        found = register_volume(template, second)
        assert found.failure == ""
        assert found.moved_mm < 0.1


def test_heads_far_apart_in_their_headers_find_each_other(template, coarse):
    far = rigid((0, 5, 0), (220, -150, 90))
    found = register_volume(template, Volume(template.array, far @ template.affine, RAS))
    np.testing.assert_allclose(found.matrix, far, atol=0.3)


def test_an_image_without_a_head_is_refused(template):
    with pytest.raises(ValueError, match="no head stands out"):
        register_volume(template, Volume(np.zeros((20, 20, 20), np.float32), np.eye(4), RAS))


def test_noise_is_no_place_for_a_head(template, coarse):
    noise = np.random.default_rng(0).uniform(400, 500, (20, 20, 20)).astype(np.float32)
    found = register_volume(template, Volume(np.pad(noise, 9), np.diag([2.0, 2.0, 2.0, 1.0]), RAS))
    assert "place" in found.failure


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"degrees": 90.0}, "implausible"),
        ({"apart_mm": 90.0}, "implausible"),
        ({"agreeing": 0.125}, "uncertain"),
    ],
)
def test_what_cannot_be_right_is_a_failure(change, words):
    sound = {"matrix": np.eye(4), "moved_mm": 1.0, "degrees": 1.0, "apart_mm": 5.0, "agreeing": 1.0}
    assert Registration(**sound).failure == ""
    assert words in Registration(**sound | change).failure


def test_an_end_with_less_information_than_the_headers_place_is_none(template, monkeypatch):
    """Climbs that all end 20 mm beside the image itself: no start agrees with the headers' place, which is kept."""

    def astray(level, start):
        end = sitk.Euler3DTransform([0.0] * 3)
        end.SetTranslation((20.0, 0.0, 0.0))
        return end, -1.0

    monkeypatch.setattr(registration, "_optimised", astray)
    found = register_volume(template, template)
    np.testing.assert_array_equal(found.matrix, np.eye(4))
    assert (found.moved_mm, found.agreeing) == (0, 0)
    assert found.failure.startswith("an uncertain place: only 0%")


# In a case


@pytest.fixture
def settings():
    values = {**resolve("02_preprocess_n4", "demo"), "bias_correction": "none", "workers": 1}
    return Preprocess.check(values)


def save(folder, name, volume):
    path = folder / f"{name}.nii.gz"
    nib.save(nib.Nifti1Image(volume.array, volume.affine), path)
    return path


@pytest.fixture
def case(tmp_path, template):
    """A head with a bright ball, and a second sequence of it that was moved, on oblique thick slices."""
    array = template.array.copy()
    x, y, z = np.indices(array.shape)
    array[(x - 60) ** 2 + (y - 70) ** 2 + (z - 50) ** 2 < 36] = 900
    first = Volume(array, template.affine, RAS)
    moved = seen_again(first, rigid((5, -4, 8), (10, -6, 4)))
    images = save(tmp_path, "t1c", first), save(tmp_path, "flair", moved)
    return Case("head", images, None, "p", "unknown")


def test_a_moved_sequence_lies_on_the_first_one(case, settings):
    prepared = prepare_image(read_images(case), image_recipe(settings, 2))
    assert prepared.registrations[0] is None
    assert prepared.registrations[1].moved_mm > 5
    first, second = prepared.array
    assert second[first > 0.97].mean() > 0.85, "the ball is where it was"
    inside = prepared.head
    assert np.corrcoef(first[inside], second[inside])[0, 1] > 0.9


def test_another_grid_of_a_sequence_is_a_note_and_of_a_mask_an_error(case, tmp_path):
    assert [(problem.severity, "registers" in problem.fix) for problem in require_sound_headers(case)] == [
        ("note", True)
    ]
    label = Volume(np.ones((9, 9, 9), np.uint8), np.eye(4), RAS)
    with pytest.raises(CohortError, match="label"):
        require_sound_headers(Case("head", case.images, save(tmp_path, "label", label), "p", "unknown"))


def test_sequences_of_one_grid_are_registered_only_if_all_are_asked_for(case, settings, template, tmp_path, coarse):
    array = resample(template.array, *[grid_of(template)] * 2, "linear", rigid((0, 0, 0), (6, 0, 0)))
    moved = Volume(array, template.affine, RAS)
    both = Case("head", (case.image, save(tmp_path, "t1", moved)), None, "p", "unknown")
    as_given = prepare_image(read_images(both), image_recipe(settings, 2))
    asked = prepare_image(read_images(both), image_recipe(settings.model_copy(update={"register_sequences": "all"}), 2))
    assert as_given.registrations == [None, None]
    assert asked.registrations[1].moved_mm == pytest.approx(6, abs=0.5)


@pytest.mark.parametrize("registered", [True, False])
def test_pictures_say_what_was_registered_and_what_was_not(case, registered):
    facts = {"image_facts": {"registrations": [None, {"matrix": np.eye(4).tolist(), "moved_mm": 3.0}]}}
    figure = draw_registrations([case], [SimpleNamespace(**facts) if registered else None])
    titles = [axes.get_title().splitlines()[1:] for axes in figure.axes if axes.get_visible()]
    expected = [["flair", "by the headers"], ["flair", "registered: moved by 3.0 mm"]]
    assert titles == (expected if registered else [["flair", "not registered"]])
    assert all(axes.images for axes in figure.axes if axes.get_visible()), "no picture is called unreadable"
    plt.close(figure)


def test_02_shows_every_failed_registration_and_says_what_was_not_registered(case):
    """Run the cell of notebook 02: five cases failed, six are registered, one has two sequences on one grid."""
    failed, moved = [f"failed{i}" for i in range(5)], [f"moved{i}" for i in range(6)]
    facts = {"registrations": [None, {"matrix": np.eye(4).tolist(), "moved_mm": 3.0}]}
    names = {"Markdown": str, "layout": StudyLayout("s")}
    names["cohort"] = SimpleNamespace(all_cases=[replace(case, name=name) for name in (*failed, *moved, "same")])
    names["stored"] = {name: SimpleNamespace(image_facts=facts) for name in moved}
    names["stored"]["same"] = SimpleNamespace(image_facts={})
    names["failures"] = pd.DataFrame({"case": failed, "found": f"{NOT_REGISTERED} (sequence 2): uncertain"})
    agreeing = [0.9, 0.5, 0.6, 0.3, 0.7, 0.8, np.nan]
    names["table"] = pd.DataFrame({"case": [*moved, "same"], "moved_mm": [3.0] * 6 + [np.nan], "agreeing": agreeing})
    drawn = []
    names["ms"] = SimpleNamespace(
        preprocessing=metaseg_nb.preprocessing,
        figures=SimpleNamespace(draw_registrations=lambda *of: drawn.append(of), save_figure=lambda *_: None),
    )
    cells = nbformat.read(NOTEBOOKS / "02_preprocess_n4.ipynb", 4).cells
    (cell,) = [cell.source for cell in cells if "02_registration" in cell.source]
    exec(cell, names)
    ((cases, stored),) = drawn
    assert [case.name for case in cases] == [*failed, "moved3", "moved1", "moved2", "moved4"]
    assert [of is None for of in stored] == [True] * 5 + [False] * 4
    assert "6 cases were registered; 5 failed" in names["words"]
    assert "lowest share of agreeing starts 30%" in names["words"]
    assert "1 sequence(s) on the grid of the first were not registered: `register_sequences: all`" in names["words"]


def test_a_failed_registration_names_the_case(case, settings, tmp_path, coarse):
    noise = np.random.default_rng(0).uniform(50, 99, (20, 20, 20)).astype(np.float32)
    noise = Volume(np.pad(noise, 9), np.diag([2.0, 2.0, 2.0, 1.0]), RAS)
    bad = Case("head", (case.image, save(tmp_path, "noise", noise)), None, "p", "unknown")
    words = r"case head.*not registered to the first sequence .sequence 2.*place.*null"
    with pytest.raises(CohortError, match=words), naming(bad):
        prepare_image(read_images(bad), image_recipe(settings, 2))


def test_where_a_sequence_does_not_reach_it_is_as_dark_as_its_background(case, settings, template, tmp_path, coarse):
    """Also z-scores, where 0 is the mean of the head."""
    upper = template.affine.copy()
    upper[2, 3] += 40 * 2
    half = Volume(template.array[:, :, 40:], upper, RAS)
    both = Case("head", (case.image, save(tmp_path, "upper", half)), None, "p", "unknown")
    settings = settings.model_copy(update={"intensity_scaling": "z_score"})
    prepared = prepare_image(read_images(both), image_recipe(settings, 2))
    assert np.allclose(prepared.array[1][:, :, :5], prepared.array[1].min(), atol=0.05)


def test_a_sequence_of_few_slices_is_named(case, template, tmp_path):
    thin = save(tmp_path, "thin", Volume(template.array[:, :, 40:43], template.affine, RAS))
    with pytest.raises(CohortError, match=r"thin\.nii\.gz.*at least 4 voxels"):
        read_images(Case("head", (case.image, thin), None, "p", "unknown"))


@pytest.mark.parametrize("edges_mm", [(1.0, 1.0, 5.0), (2.0, 2.0, 5.0)])
def test_a_mask_keeps_its_volume_on_a_coarser_grid(edges_mm):
    mask = np.zeros((120, 120, 150), bool)
    mask[30:90, 30:90, 50:110] = True
    target = Grid(edges_mm, tuple(int(n / edge) for n, edge in zip(mask.shape, edges_mm, strict=True)))
    found = resample(mask, Grid((1.0, 1.0, 1.0), mask.shape), target, "nearest", np.eye(4)) > 0
    assert found.sum() * np.prod(edges_mm) == pytest.approx(mask.sum(), rel=0.1)


@pytest.mark.slow
def test_real_sequences_that_were_moved_are_found_again(shared_data):
    """The truth of a real pair is not known, but a movement put on top of it is."""
    first, other = (read_volume(shared_data / f"raw_sequences/{name}.nii.gz", name) for name in ("t1c", "fla"))
    points = apply_affine(first.affine, np.argwhere(head_mask(first.array))[::5000])
    before = register_volume(first, other)
    for degrees, mm in [((5, 0, 3), (4, -3, 0)), ((-8, 10, 8), (9, -8, 9))]:
        matrix = rigid(degrees, mm)
        found = register_volume(first, Volume(other.array, matrix @ other.affine, other.native_orientation))
        off = apply_affine(found.matrix, points) - apply_affine(matrix @ before.matrix, points)
        assert np.linalg.norm(off, axis=1).mean() < 0.5
