"""Cheaper annotations: what they say of each voxel, by hand; who is annotated; and what is never assumed."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import torch

from metaseg_nb.annotation.partial import Work, annotate, label_of_boxes, label_of_points, work_of_slices
from metaseg_nb.annotation.ranking import as_much_foreground, follow_ranking, rank_patients, summarise
from metaseg_nb.annotation.training_set import annotated_training_set
from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.folds import Split
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.layout import StudyLayout
from metaseg_nb.preprocessing.case_store import UNKNOWN, StoredCase
from metaseg_nb.preprocessing.grid import Grid, resample_lesions
from metaseg_nb.settings import ParameterError, Train
from metaseg_nb.training.patches import PatchBatches

MM = (1.0, 1.0, 1.0)
KINDS = get_args(Train.model_fields["annotation"].annotation)
# Of the image, on which the two lesions of `mask` lie.
SLICES = [8, 3]


@pytest.fixture
def mask():
    """Two lesions: a cube of 8 voxels' edge, and one of 3, far from it."""
    mask = np.zeros((60, 60, 40), bool)
    mask[5:13, 5:13, 5:13] = True
    mask[50:53, 50:53, 30:33] = True
    return mask


def made(mask, settings, slices=SLICES):
    """An annotation on an image that is bright where the mask is."""
    grid = Grid(MM, mask.shape)
    return annotate(mask, mask.astype(np.float32), grid, grid, settings, slices)


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind != "lines"]
)  # masks of lines are grown, and may be wrong
def test_what_is_called_lesion_is_lesion_and_what_is_called_background_is_not(mask, kind, tiny_training):
    label, _ = made(mask, tiny_training(annotation=kind))
    assert mask[label == 1].all()
    assert not mask[label == 0].any()
    assert (label == 1).any()
    assert (label == 0).any()


@pytest.mark.parametrize(
    ("kind", "work"),
    [
        ("full", Work(2, n_contoured=2, n_slices=8 + 3)),
        ("largest", Work(2, n_contoured=1, n_slices=8)),
        # every 5th slice from the middle of the larger one: of its slices 0..7 that is 4, and then 1 of the smaller's
        ("slices", Work(2, n_contoured=2, n_slices=2)),
        ("boxes", Work(2, n_boxes=2)),
        ("points", Work(2, n_points=2)),
        ("lines", Work(2, n_lines=2)),
    ],
)
def test_the_work_is_counted(mask, kind, work, tiny_training):
    assert made(mask, tiny_training(annotation=kind))[1] == work


@pytest.mark.parametrize(
    ("kind", "work"),
    [
        ("full", Work(3, n_contoured=3, n_slices=2 + 1 + 1)),
        ("largest", Work(3, n_contoured=1, n_slices=2)),
        ("slices", Work(3, n_contoured=3, n_slices=2 + 1 + 1)),
        ("boxes", Work(3, n_boxes=3)),
        ("points", Work(3, n_points=3)),
        ("lines", Work(3, n_lines=3)),
    ],
)
def test_the_work_is_that_on_the_images_own_slices_and_lesions(mask, kind, work, tiny_training):
    """Thick slices; and two lesions of the image touch on the study grid."""
    assert made(mask, tiny_training(annotation=kind, slice_step=1), [2, 1, 1])[1] == work


def test_of_the_largest_lesion_the_surroundings_are_known_and_no_other_lesion(mask, tiny_training):
    mask[16:18, 5:8, 5:8] = True  # within 10 mm of the largest
    label, _ = made(mask, tiny_training(annotation="largest"))
    assert (label[5:13, 5:13, 5:13] == 1).all()
    assert label[22, 8, 8] == 0  # 10 mm from it
    assert label[23, 8, 8] == UNKNOWN
    assert (label[16:18, 5:8, 5:8] == UNKNOWN).all()
    assert (label[50:53, 50:53, 30:33] == UNKNOWN).all()


def test_with_no_more_lesions_than_are_contoured_all_is_known(mask, tiny_training):
    full, work = made(mask, tiny_training())
    largest, work_of_largest = made(mask, tiny_training(annotation="largest", n_largest=2))
    np.testing.assert_array_equal(largest, full)
    assert work_of_largest == work


def test_on_a_slice_that_is_looked_at_every_voxel_is_known_and_on_the_others_none(mask, tiny_training):
    label, _ = made(mask, tiny_training(annotation="slices", slice_step=7))
    looked_at = [2, 9, 16, 23, 30, 37]
    np.testing.assert_array_equal(label[..., looked_at], mask[..., looked_at])
    assert (np.delete(label, looked_at, axis=2) == UNKNOWN).all()


@pytest.mark.parametrize("step", [1, 5, 39, 1000])
def test_a_slice_hits_a_lesion_however_few_there_are(mask, step, tiny_training):
    assert made(mask, tiny_training(annotation="slices", slice_step=step))[1].n_slices >= 1


@pytest.mark.parametrize(
    ("native_mm", "spacing_mm", "n_slices", "known"),
    [
        # of 15 slices, every second from the middle, which are 1, 3 ... 13
        (1.0, 1.0, 7, [*range(0, 60, 2)]),
        (1.0, 2.0, 7, [*range(30)]),
        (1.0, 3.0, 7, [*range(20)]),
        # of the image's slices of 5 mm the ball lies on 5, 6 and 7: 0, 2, 4, 6, 8 and 10 are contoured
        (5.0, 1.0, 1, [z for z in range(60) if z // 5 % 2 == 0]),
    ],
)
def test_a_ball_takes_the_same_contours_whatever_the_study_grid(native_mm, spacing_mm, n_slices, known, tiny_training):
    native = Grid((1.0, 1.0, native_mm), (40, 40, round(60 / native_mm)), (0.5, 0.5, native_mm / 2))
    x, y, z = (native.centres_along(axis) - middle for axis, middle in enumerate((20.5, 20.5, 32.5)))
    own = np.sqrt(x[:, None, None] ** 2 + y[:, None] ** 2 + z**2) <= 7.5
    heights = [int(own.any(axis=(0, 1)).sum())]
    assert heights == [round(15 / native_mm)]
    edges = (spacing_mm,) * 3
    grid = Grid(edges, tuple(int(np.ceil(n / spacing_mm)) for n in (40, 40, 60)), tuple(edge / 2 for edge in edges))
    mask = resample_lesions(own, native, grid)
    settings = tiny_training(annotation="slices", slice_step=2)
    label, work = annotate(mask, mask.astype(np.float32), grid, native, settings, heights)
    assert work == Work(1, n_contoured=1, n_slices=n_slices)
    assert np.flatnonzero((label != UNKNOWN).all(axis=(0, 1))).tolist() == known
    assert ((label == UNKNOWN).all(axis=(0, 1)) | (label == mask).all(axis=(0, 1))).all()


def test_between_distant_contours_thick_slices_of_the_study_grid_are_unknown(tiny_training):
    native, grid = Grid(MM, (8, 8, 60)), Grid((3.0, 3.0, 3.0), (3, 3, 20), (1.0, 1.0, 1.0))
    mask = np.zeros(grid.shape, bool)
    mask[1, 1, 8:13] = True  # its middle is 31 mm high
    settings = tiny_training(annotation="slices", slice_step=5)
    label, _ = annotate(mask, mask.astype(np.float32), grid, native, settings, [15])
    contoured = range(1, 60, 5)
    assert [z for z in range(20) if (label[:, :, z] != UNKNOWN).all()] == [z // 3 for z in contoured]
    assert np.isin(label, [0, 1, UNKNOWN]).all()


@pytest.mark.parametrize("step", [1, 2, 5, 7])
def test_in_the_mean_every_nth_slice_is_contoured(step):
    cases = [np.sort(np.random.default_rng(i).integers(1, 25, 1 + i % 6))[::-1].tolist() for i in range(300)]
    contoured = sum(work_of_slices(slices, step).n_slices for slices in cases)
    assert contoured == pytest.approx(sum(map(sum, cases)) / step, rel=0.02)
    assert all(work_of_slices(slices, step).n_contoured >= 1 for slices in cases)
    assert work_of_slices([], step) == Work(0)


def test_in_a_box_an_ellipsoid_of_half_its_edges_is_lesion():
    label = label_of_boxes((40, 40, 40), [[[10, 30], [10, 20], [5, 6]]])
    voxels = np.argwhere(label == 1)
    # 20 voxels: half of that is 10 along x; 5 along y; and one slice is one slice
    np.testing.assert_array_equal(voxels.min(axis=0), [15, 13, 5])
    np.testing.assert_array_equal(voxels.max(axis=0), [24, 16, 5])
    assert (label[10:30, 10:20, 5] != 0).all()
    assert (label != 0).sum() == 200


def test_around_a_point_a_ball_is_lesion_a_shell_unknown_and_the_rest_background():
    label = label_of_points((50, 50, 50), (1.0, 1.0, 2.0), [[20, 20, 20]], [16.0])
    assert label[20:25, 20, 20].tolist() == [1] * 5  # to a quarter of 16 mm
    assert label[25, 20, 20] == UNKNOWN
    assert label[32, 20, 20] == UNKNOWN  # to three quarters
    assert label[33, 20, 20] == 0
    assert label[20, 20, 20:28].tolist() == [1, 1, 1, *[UNKNOWN] * 4, 0]  # slices of 2 mm


def test_a_point_at_the_edge_of_the_volume_is_no_problem():
    label = label_of_points((20, 20, 20), MM, [[0, 19, 10]], [8.0])
    assert label[0, 19, 10] == 1
    assert [np.unique(axis).tolist() for axis in np.nonzero(label)] == [[*range(7)], [*range(13, 20)], [*range(4, 17)]]


def test_two_boxes_that_overlap_keep_both_lesions():
    label = label_of_boxes((30, 30, 30), [[[0, 10], [0, 10], [0, 10]], [[4, 14], [4, 14], [4, 14]]])
    assert label[4, 4, 4] == label[9, 9, 9] == 1


def test_a_teacher_is_named_where_it_teaches_and_nowhere_else(tiny_training):
    with pytest.raises(ParameterError, match="an arm if `unannotated` is"):
        tiny_training(unannotated="self_training")
    with pytest.raises(ParameterError, match="otherwise no arm"):
        tiny_training(teacher="patients_25")


# Who is annotated


@pytest.fixture
def parts(store_blobs, tmp_path, monkeypatch):
    """A fold of twelve stored cases in training, two in selection, one in the test set."""
    monkeypatch.setenv("METASEG_HOME", str(tmp_path))
    layout = StudyLayout("tiny")
    layout.root.parent.mkdir()
    (tmp_path / "cases").mkdir()
    layout.root.symlink_to(tmp_path)
    cases = []
    for i in range(15):
        corners = [(9, 12, 8), (25, 20, 20)][: 1 + i % 2]
        store_blobs(f"c{i:02d}", corners, seed=i)
        cases.append(Case(f"c{i:02d}", (), tmp_path / "label", f"p{i:02d}", ["lung", "breast"][i % 2], 0, len(corners)))
    return Split(cases[:12], cases[12:14], cases[14:]), layout


def annotated(parts, settings):
    split, layout = parts
    return annotated_training_set(split, settings, layout, layout.run("unet", 0, "a", 0), torch.device("cpu"))


def test_without_an_arm_everything_is_there_and_no_volume_is_read(parts, tiny_training, monkeypatch):
    monkeypatch.delattr(StoredCase, "label")
    found = annotated(parts, tiny_training())
    assert [case.name for case in found.cases] == [case.name for case in parts[0].training]
    assert all(case.annotation is None for case in found.cases)
    own = found.table[(found.table["role"] == "training") & (found.table["annotation"] == "full")]
    assert (own["patient"].nunique(), own["n_lesions"].sum(), own["n_slices"].sum()) == (12, 18, 108)
    assert found.absent == []


def test_budgets_are_nested_and_their_selection_set_is_the_same(parts, tiny_training):
    found = [annotated(parts, tiny_training(annotated_share=share)) for share in (0.25, 0.5, 1.0)]
    names = [{case.name for case in one.cases} for one in found]
    assert [len(own) for own in names] == [3, 6, 12]
    assert names[0] < names[1] < names[2]
    selections = [one.table[one.table["role"] == "selection"].to_dict("records") for one in found]
    assert selections[0] == selections[1] == selections[2]
    assert {row["n_slices"] for row in selections[0]} == {6, 12}


def test_the_selection_set_grows_with_the_budget_and_has_two_patients_at_least(parts, tiny_training):
    split, layout = parts
    larger = Split(split.training[:6], [*split.training[6:], *split.selection], split.test), layout
    found = [annotated(larger, tiny_training(annotated_share=share)) for share in (1 / 3, 0.5, 1.0)]
    names = [[case.name for case in one.selection] for one in found]
    assert [len(own) for own in names] == [3, 4, 8]
    assert set(names[0]) < set(names[1]) < set(names[2])
    assert names[2] == [case.name for case in larger[0].selection], "all, in their order, where all is annotated"
    for one, own in zip(found, names, strict=True):
        table = one.table[one.table["role"] == "selection"].set_index("case")
        assert len(table) == 8
        assert set(table.index[table["annotation"] == "full"]) == set(own)
        assert not table.loc[table["annotation"] == "none", "n_slices"].any()
    few = annotated(parts, tiny_training(annotated_share=0.25)).selection
    assert len(few) == 2, "of two none is left out"


def test_who_is_not_annotated_took_no_work(parts, tiny_training):
    table = annotated(parts, tiny_training(annotated_share=0.25)).table
    rest = table[table["annotation"] == "none"]
    assert len(rest) == 9
    assert not rest[["n_contoured", "n_slices", "n_boxes", "n_points", "known_share"]].any(axis=None)
    assert (rest["n_lesions"] > 0).all()


def test_a_budget_of_one_patient_is_refused(parts, tiny_training):
    with pytest.raises(CohortError, match="at least 2 patients to train on"):
        annotated(parts, tiny_training(annotated_share=0.1))


def test_a_primary_without_annotated_patient_is_named(parts, tiny_training):
    split, layout = parts
    rare = replace(split.training[11], primary="skin")
    split = Split([*split.training[:11], rare], split.selection, split.test)
    found = [annotated((split, layout), tiny_training(annotated_share=0.25, seed=seed)).absent for seed in range(4)]
    assert ["skin"] in found


def test_an_annotation_is_made_once_and_again_when_its_way_changes(parts, tiny_training):
    first = annotated(parts, tiny_training(annotation="slices")).cases[0]
    written = (first.annotation / "label.npy").stat().st_mtime_ns
    again = annotated(parts, tiny_training(annotation="slices")).cases[0]
    assert (again.annotation / "label.npy").stat().st_mtime_ns == written
    other = annotated(parts, tiny_training(annotation="slices", slice_step=3)).cases[0]
    assert other.identity[0] == first.identity[0]
    assert other.identity[1] != first.identity[1]
    assert other.annotation != first.annotation


def test_patches_of_a_partly_annotated_case_hold_its_annotation_where_they_lie(parts, tiny_training):
    settings = tiny_training(annotation="slices", patches_per_case=4, patch_size=32)
    batches = PatchBatches(annotated(parts, settings).cases, settings)
    values = [np.unique(batches[step][1].numpy()).tolist() for step in range(3)]
    assert values == [[0, 1, UNKNOWN]] * 3


def test_a_lesion_patch_holds_a_lesion_voxel_that_is_known(parts, tiny_training):
    for kind in KINDS:
        settings = tiny_training(annotation=kind, lesion_share=1.0, patches_per_case=2)
        batches = PatchBatches(annotated(parts, settings).cases, settings)
        assert all((batches[step][1] == 1).flatten(1).any(1).all() for step in range(4)), kind


def test_few_cases_take_as_many_steps_as_all_of_them(parts, tiny_training):
    settings = tiny_training(annotated_share=0.25)
    batches = PatchBatches(annotated(parts, settings).cases, settings, epoch_cases=12)
    assert len(batches) == len(PatchBatches(annotated(parts, tiny_training()).cases, settings)) == 12
    seen = [case.name for step in range(6) for _, case in batches._cases_of(step)]
    assert {seen.count(name) for name in seen} == {4}


def test_a_training_set_without_lesion_is_refused(parts, tiny_training, store_blobs):
    for case in parts[0].training:
        store_blobs(case.name, ())
    with pytest.raises(CohortError, match="at least one lesion to learn from"):
        annotated(parts, tiny_training(annotation="boxes"))


# Which patient next


def test_uncertainty_is_the_entropy_of_the_most_uncertain_thousand_cubic_millimetres():
    probability = np.zeros((20, 20, 20), np.float32)
    probability[:5, :5, :10] = 0.5  # 250 voxels of 2 mm³, one bit each
    found = summarise(probability, (1.0, 1.0, 2.0))
    assert found["uncertainty_bits"] == pytest.approx(0.5, abs=1e-3)
    assert (found["found_mm3"], found["n_found"]) == (500.0, 1)
    assert (found["x"], found["z"]) == (0.1, 0.225)


def test_nothing_found_lies_in_the_middle():
    found = summarise(np.full((8, 8, 8), 0.1, np.float32), MM)
    assert [found[key] for key in ("n_found", "x", "y", "z")] == [0, 0.5, 0.5, 0.5]
    assert found["uncertainty_bits"] == pytest.approx(0.469, abs=1e-3)


def test_the_next_patient_is_uncertain_and_unlike_those_before():
    numbers = {"found_mm3": 0.0, "n_found": 0, "y": 0.5, "z": 0.5}
    rows = {
        "known": {"uncertainty_bits": 0.1, "x": 0.0},
        "like the known": {"uncertainty_bits": 0.9, "x": 0.01},
        "far": {"uncertainty_bits": 0.8, "x": 1.0},
        "far too": {"uncertainty_bits": 0.7, "x": 1.01},
        "sure": {"uncertainty_bits": 0.0, "x": 0.5},
    }
    table = rank_patients(pd.DataFrame({name: numbers | row for name, row in rows.items()}).T.astype(float), ["known"])
    assert table.index.tolist() == ["far", "like the known", "far too", "sure"]
    assert table["rank"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("preference", "most_alike"),
    [(0.0, 0.3), (1.0, 0.5), (50.0, 0.75)],  # of no volume, of more of it, and the largest first
)
def test_random_patients_have_as_much_lesion_as_those_of_a_ranking_and_are_others(preference, most_alike):
    """Nobody but the 40 largest has their volume: nine tenths of it leave place for 12 others."""
    rng = np.random.default_rng(1)
    volumes = rng.lognormal(6, 1, 200)
    order = np.argsort(-preference * np.log(volumes) - rng.gumbel(size=200))
    table = pd.DataFrame({"patient": [f"p{i}" for i in order], "found_mm3": volumes[order]})
    chosen = [as_much_foreground(table, 40, seed) for seed in range(12)]
    assert all(sorted(one) == sorted(table["patient"]) for one in chosen)
    reached = table.set_index("patient")["found_mm3"]
    shares = [reached[one[:40]].sum() / table["found_mm3"][:40].sum() for one in chosen]
    np.testing.assert_allclose(shares, 1, atol=0.1)
    assert np.mean([len({*one[:40]} & {*table["patient"][:40]}) for one in chosen]) <= most_alike * 40
    assert len({frozenset(one[:40]) for one in chosen}) == 12, "each seed takes others"
    assert as_much_foreground(table, 40, 3) == chosen[3]


def test_a_ranking_of_patients_with_nothing_to_see_is_drawn_from_those():
    volumes = np.r_[np.zeros(30), np.full(10, 500.0)]
    table = pd.DataFrame({"patient": [f"p{i}" for i in range(40)], "found_mm3": volumes})
    chosen = [as_much_foreground(table, 10, seed) for seed in range(5)]
    assert all({*one[:10]} <= {*table["patient"][:30]} for one in chosen)
    assert len({frozenset(one[:10]) for one in chosen}) == 5


@pytest.mark.parametrize("n", [0, 3, 40])
def test_where_volumes_say_nothing_chance_alone_decides(n):
    table = pd.DataFrame({"patient": [f"p{i}" for i in range(40)], "found_mm3": 0.0 if n == 3 else np.arange(40.0)})
    orders = [as_much_foreground(table, n, seed) for seed in range(20)]
    assert all(sorted(one) == sorted(table["patient"]) for one in orders)
    places = np.mean([[one.index(patient) for patient in table["patient"]] for one in orders], axis=0)
    assert abs(places[20:].mean() - places[:20].mean()) < 4


def test_a_ranking_is_followed_until_the_work_of_the_even_choice_is_spent():
    cases = [Case(name, (), None, name, "lung") for name in "abcdef"]
    slices = dict(zip("abcdef", (5, 5, 10, 4, 3, 20), strict=True))
    chosen = follow_ranking(cases, cases[:1], list("cdfbe"), slices, even=[cases[5]])
    # 5 + 10 = 15; with d 19, nearer to 20; f would make 39
    assert [case.name for case in chosen] == ["a", "c", "d"]
