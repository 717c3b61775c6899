"""Figures of the review: pictures stand as a radiologist reads them, outlines lie on their masks."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.contour import ContourSet

from metaseg_nb.cohort.cases import Case, Cohort, LesionRule
from metaseg_nb.cohort.lesions import fullest_slice
from metaseg_nb.cohort.volumes import Volume
from metaseg_nb.figures.case_figures import draw_case_by_network, draw_test_case, pick_cases
from metaseg_nb.figures.reviewed import centre_of_largest
from metaseg_nb.figures.slices import draw_planes, draw_slice, picture, window_around
from metaseg_nb.figures.style import PREDICTION, REFERENCE, save_figure
from metaseg_nb.layout import StudyLayout

AXIAL, CORONAL, SAGITTAL = 2, 1, 0


@pytest.fixture(autouse=True)
def no_windows():
    plt.switch_backend("Agg")
    yield
    plt.close("all")


def ras(array, spacing_mm=(1.0, 1.0, 1.0)):
    return Volume(np.asarray(array), np.diag([*spacing_mm, 1.0]), np.array([[0, 1], [1, 1], [2, 1]]))


def seen_at(pixels):
    """Row from the top and column from the left of the one bright pixel, as shares of the picture."""
    rows, columns = np.nonzero(pixels)
    height, width = pixels.shape
    assert len(rows) == 1
    return 1 - (rows[0] + 0.5) / height, (columns[0] + 0.5) / width  # drawn with origin="lower"


@pytest.mark.parametrize("axis", [AXIAL, CORONAL, SAGITTAL])
def test_right_front_and_top_of_the_patient_are_at_the_upper_left(axis):
    # axial: right on the left, front up; coronal: right on the left, top up; sagittal: front on the left, top up
    array = np.zeros((10, 12, 14))
    array[9, 11, 13] = 1
    index = array.shape[axis] - 1
    top, left = seen_at(picture(array, axis, index))
    assert top < 0.1
    assert left < 0.1
    assert not picture(array, axis, index - 1).any()


@pytest.mark.parametrize(
    ("axis", "voxel", "top", "left"),
    [
        (AXIAL, (0, 11, 7), True, False),  # the patient's left front: upper right
        (AXIAL, (9, 0, 7), False, True),  # right back: lower left
        (CORONAL, (0, 6, 13), True, False),  # left top: upper right
        (CORONAL, (9, 6, 0), False, True),  # right bottom: lower left
        (SAGITTAL, (5, 0, 13), True, False),  # back top: upper right
        (SAGITTAL, (5, 11, 0), False, True),  # front bottom: lower left
    ],
)
def test_no_picture_is_mirrored(axis, voxel, top, left):
    array = np.zeros((10, 12, 14))
    array[voxel] = 1
    from_top, from_left = seen_at(picture(array, axis, voxel[axis]))
    assert (from_top < 0.5) == top
    assert (from_left < 0.5) == left


@pytest.mark.parametrize(("axis", "left", "right", "top"), [(2, "R", "L", "A"), (1, "R", "L", "S"), (0, "A", "P", "S")])
def test_letters_name_the_sides_of_the_picture(axis, left, right, top):
    axes = plt.figure().add_subplot()
    draw_slice(axes, ras(np.random.default_rng(0).random((10, 12, 14)), (9.0, 9.0, 9.0)), {}, axis, 5)
    places = {text.get_text(): text.get_position() for text in axes.texts}  # as shares of the picture
    assert places[left][0] < 0.1
    assert places[right][0] > 0.9
    assert places[top][1] > 0.9


def outlines(axes):
    """Extent in mm (x from, x to, y from, y to) and colour of each outline in a picture."""
    found = []
    for contour in [child for child in axes.get_children() if isinstance(child, ContourSet)]:
        points = np.concatenate([path.vertices for path in contour.get_paths()])
        (low_x, low_y), (high_x, high_y) = points.min(axis=0), points.max(axis=0)
        found.append(((low_x, high_x, low_y, high_y), to_hex(contour.get_edgecolor()[0])))
    return found


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        # voxels 2..4 of 10, 3..6 of 12, 5..9 of 14, edges 0.8, 1.1 and 3.0 mm; across, right or front comes first
        (AXIAL, ((10 - 5) * 0.8, (10 - 2) * 0.8, 3 * 1.1, 7 * 1.1)),
        (CORONAL, ((10 - 5) * 0.8, (10 - 2) * 0.8, 5 * 3.0, 10 * 3.0)),
        (SAGITTAL, ((12 - 7) * 1.1, (12 - 3) * 1.1, 5 * 3.0, 10 * 3.0)),
    ],
)
def test_an_outline_lies_on_its_mask_in_millimetres(axis, expected):
    mask = np.zeros((10, 12, 14), bool)
    mask[2:5, 3:7, 5:10] = True
    axes = plt.figure().add_subplot()
    image = ras(np.random.default_rng(0).random(mask.shape), (0.8, 1.1, 3.0))
    draw_slice(axes, image, {"reference": mask}, axis, 4 if axis == SAGITTAL else 6)
    ((extent, colour),) = outlines(axes)
    assert extent == pytest.approx(expected, abs=1e-6)
    assert colour == to_hex(REFERENCE)
    size = [n * edge for i, (n, edge) in enumerate(zip(mask.shape, (0.8, 1.1, 3.0), strict=True)) if i != axis]
    assert axes.images[0].get_extent() == pytest.approx([0, size[0], 0, size[1]])
    assert axes.get_aspect() == 1, "a millimetre is as long across as up"


@pytest.mark.parametrize("axis", [AXIAL, CORONAL, SAGITTAL])
def test_a_window_lies_around_its_voxel_in_millimetres_and_letters_stand_at_its_sides(axis):
    edges, voxel = (0.8, 1.1, 3.0), (2, 7, 9)
    mask = np.zeros((10, 12, 14), bool)
    mask[voxel] = True
    image = ras(np.random.default_rng(0).random(mask.shape), edges)
    window = window_around(image, voxel, axis, 5.0)
    axes = plt.figure().add_subplot()
    draw_slice(axes, image, {"reference": mask}, axis, voxel[axis], window)
    ((extent, _),) = outlines(axes)
    assert (np.mean(extent[:2]), np.mean(extent[2:])) == pytest.approx((np.mean(window[:2]), np.mean(window[2:])))
    assert (*axes.get_xlim(), *axes.get_ylim()) == pytest.approx(window)
    assert np.ptp(axes.get_xlim()) == pytest.approx(5.0)
    first = next(text for text in axes.texts if text.get_text() == ("A" if axis == SAGITTAL else "R"))
    x, _ = axes.transData.inverted().transform(first.get_transform().transform(first.get_position()))
    assert window[0] < x < window[0] + 1


def test_a_lesion_at_the_border_is_outlined_whole_and_colours_tell_masks_apart():
    truth, prediction = np.zeros((2, 10, 10, 10), bool)
    truth[0:3, 0:3, 5], prediction[7:, 7:, 5] = True, True
    axes = plt.figure().add_subplot()
    draw_slice(axes, ras(np.ones((10, 10, 10))), {"reference": truth, "prediction": prediction}, AXIAL, 5)
    assert [colour for _, colour in outlines(axes)] == [to_hex(REFERENCE), to_hex(PREDICTION)]
    assert [extent for extent, _ in outlines(axes)] == [
        pytest.approx((7, 10, 0, 3), abs=1e-6),
        pytest.approx((0, 3, 7, 10), abs=1e-6),
    ]


def test_a_slice_without_lesion_has_no_outline():
    mask = np.zeros((10, 10, 10), bool)
    mask[4, 4, 4] = True
    axes = plt.figure().add_subplot()
    draw_slice(axes, ras(np.zeros((10, 10, 10))), {"reference": mask}, AXIAL, 5)
    assert outlines(axes) == []


def test_three_planes_through_one_voxel():
    mask = np.zeros((10, 12, 14), bool)
    mask[3, 4, 5] = True
    figure = draw_planes(ras(np.random.default_rng(0).random(mask.shape)), {"prediction": mask}, (3, 4, 5), "a case")
    assert [axes.get_title() for axes in figure.axes] == ["axial", "coronal", "sagittal"]
    assert all(len(outlines(axes)) == 1 for axes in figure.axes)
    assert figure.get_suptitle() == "a case"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["prediction"]


def test_the_fullest_slice():
    mask = np.zeros((10, 10, 9), bool)
    assert fullest_slice(mask) == 4, "the middle, where there is nothing to show"
    mask[:2, :2, 7] = True
    mask[5, 5, :] = True
    assert fullest_slice(mask) == 7


def test_the_centre_of_the_largest_lesion_lies_in_it():
    mask = np.zeros((20, 20, 20), bool)
    assert centre_of_largest(mask) == (10, 10, 10)
    mask[2:5, 2:5, 2:5] = True
    mask[15, 15, 15:17] = True
    assert centre_of_largest(mask) == (3, 3, 3)
    ring = np.zeros((20, 20, 20), bool)
    ring[5:14, 5:14, 8] = True
    ring[7:12, 7:12, 8] = False
    assert ring[centre_of_largest(ring)]


@pytest.mark.parametrize("seed", range(20))
def test_picked_cases_are_worst_typical_and_best_and_none_twice(seed):
    rng = np.random.default_rng(seed)
    n_cases, n = int(rng.integers(1, 15)), int(rng.integers(1, 5))
    dice = rng.choice([0.0, 0.3, 0.5, 0.8, 0.9, 1.0], n_cases)
    metrics = pd.DataFrame({"case": [f"case{i}" for i in range(n_cases)], "dice": dice})
    picked = pick_cases(metrics, n)
    assert len(picked) <= min(3 * n, n_cases)
    value = metrics.set_index("case")["dice"]
    first, *_ = picked
    assert (picked[first], value[first]) == ("worst", dice.min())
    groups = {why: [value[name] for name in picked if picked[name] == why] for why in ("worst", "typical", "best")}
    assert sorted(groups["worst"]) == sorted(dice)[: min(n, n_cases)]
    if n_cases >= 2 * n:
        assert sorted(groups["best"]) == sorted(dice)[-n:]
    assert all(low <= high for low in groups["worst"] for high in groups["typical"] + groups["best"])
    assert list(picked.values()) == sorted(picked.values(), key=["worst", "typical", "best"].index)


def test_picked_cases_by_hand():
    metrics = pd.DataFrame({"case": list("abcde"), "dice": [0.9, 0.1, 0.5, 0.45, 0.7]})
    assert pick_cases(metrics, 1) == {"b": "worst", "c": "typical", "a": "best"}
    assert pick_cases(metrics, 9) == {"b": "worst", "d": "worst", "c": "worst", "e": "worst", "a": "worst"}


@pytest.fixture
def cases(write_case):
    """Three patients in three folds, on grids whose axes differ."""
    axes = ("RAS", "LPS", "PIL")
    return [
        Case(**{**vars(write_case(f"case{i}", seed=i, axes=axes[i], spacing_mm=(1, 1, 1.5))), "fold": i})
        for i in range(3)
    ]


@pytest.fixture
def predicted(cases, tmp_path, monkeypatch):
    """Predictions of two networks that equal the labels; returns layout, cohort, metrics."""
    monkeypatch.setenv("METASEG_HOME", str(tmp_path / "home"))
    layout, rows = StudyLayout("tiny"), []
    for model in ("unet", "unetr"):
        for i, case in enumerate(cases):
            mask = layout.run(model, case.fold).predictions / f"{case.name}.nii.gz"
            mask.parent.mkdir(parents=True)
            mask.write_bytes(case.label.read_bytes())
            rows.append({"model": model, "case": case.name, "patient": case.patient, "dice": 0.25 * (i + 1)})
    return layout, Cohort("tiny", "", cases), pd.DataFrame(rows)


def test_worst_and_best_of_a_test_set_are_shown_once_each(cases, predicted):
    layout, _, metrics = predicted
    unet = metrics[metrics["model"] == "unet"]
    folder = layout.run("unet", 0).predictions
    for case in cases:
        (folder / f"{case.name}.nii.gz").write_bytes(case.label.read_bytes())
    figure = draw_test_case(cases, unet, folder, LesionRule())
    assert [axes.get_title() for axes in figure.axes] == ["case0: Dice 0.25", "case2: Dice 0.75"]
    assert len(draw_test_case(cases[:1], unet[:1], folder, LesionRule()).axes) == 1


def test_networks_stand_side_by_side_with_their_dice_and_equal_masks_coincide(predicted):
    layout, cohort, metrics = predicted
    picked = {"case2": "worst", "case0": "best"}
    figure = draw_case_by_network(layout, cohort, metrics, ["unet", "unetr"], picked)
    titles = [
        (case, f"{network}: {dice}")
        for case, dice in (("case2, worst", 0.75), ("case0, best", 0.25))
        for network in ("U-Net", "UNETR")
    ]
    assert [tuple(axes.get_title().split("\n")) for axes in figure.axes] == titles
    for axes in figure.axes:
        (reference, _), (prediction, _) = outlines(axes)
        assert reference == pytest.approx(prediction)


def test_a_figure_is_saved_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("METASEG_HOME", str(tmp_path))
    layout = StudyLayout("tiny")
    figure, axes = plt.subplots()
    axes.plot([0, 1])
    save_figure(figure, layout, "04_dice")
    assert [path.name for path in layout.figures.iterdir()] == ["04_dice.png"]
    assert (layout.figures / "04_dice.png").read_bytes().startswith(b"\x89PNG")
