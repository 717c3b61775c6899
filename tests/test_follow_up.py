"""Lesions over time: identity, growth and RANO-BM, by hand; how a network measures change."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nbformat
import nibabel as nib
import numpy as np
import pandas as pd
import pytest

import metaseg_nb
from metaseg_nb.cohort.cases import Case, Cohort, LesionRule
from metaseg_nb.cohort.lesions import axial_diameters, find_lesions
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import Volume, read_lesions, write_volume
from metaseg_nb.figures.raw_images import draw_lesions_over_time
from metaseg_nb.follow_up.change import DAYS_PER_MONTH, change_errors, confusion, kappa, with_growth
from metaseg_nb.follow_up.identity import follow
from metaseg_nb.follow_up.patients import (
    Followed,
    Measured,
    _changes,
    follow_masks,
    follow_study,
    place_dates,
    predicted_mm,
    several_dates,
)
from metaseg_nb.follow_up.response import (
    COMPLETE,
    FIRST,
    PARTLY,
    PROGRESSION,
    STABLE,
    UNRATED,
    best_responses,
    read_clinical,
    responses,
)
from metaseg_nb.layout import NOTEBOOKS, StudyLayout
from metaseg_nb.preprocessing import registration
from metaseg_nb.preprocessing.registration import heads_alike

RAS = nib.orientations.axcodes2ornt("RAS")


def cube(corner, edge=4):
    """Points of a cube, 1 mm apart."""
    return np.indices((edge,) * 3).reshape(3, -1).T + np.array(corner, float)


def fates(*dates, reach_mm=3.0):
    rows = follow(dates, reach_mm)
    return {
        lesion: [(int(row.date), row.fate, None if pd.isna(row.part) else int(row.part)) for row in own.itertuples()]
        for lesion, own in rows.groupby("lesion")
    }


A, B, C = (0, 0, 0), (30, 0, 0), (0, 30, 0)


def test_lesions_persist_vanish_return_and_are_new():
    found = fates([cube(A), cube(B)], [cube(C), cube((1, 1, 0))], [cube(B), cube(A)])
    assert found[1] == [(0, "first", 0), (1, "persisting", 1), (2, "persisting", 1)]
    assert found[2] == [(0, "first", 1), (1, "vanished", None), (2, "returned", 0)]
    assert found[3] == [(1, "new", 0), (2, "vanished", None)]


def test_a_lesion_that_falls_apart_is_split_and_its_parts_join_again():
    whole = np.vstack([cube(A), cube((4, 0, 0)), cube((8, 0, 0))])
    rows = follow([[whole], [cube(A), cube((8, 0, 0))], [whole]], 3.0)
    assert rows["fate"].tolist() == ["first", "persisting", "split", "persisting", "merged"]
    assert rows["of"].tolist()[2:] == [1, rows["of"].iloc[3], 1]


def test_lesions_that_grow_into_one_are_merged_with_the_one_that_fits_best():
    both = np.vstack([cube(A, 6), cube((6, 0, 0))])
    rows = follow([[cube(A, 6), cube((8, 0, 0), 3)], [both], [both]], 3.0)
    assert rows[rows["lesion"] == 2]["fate"].tolist() == ["first", "merged", "merged"]
    assert rows[rows["lesion"] == 2]["of"].tolist()[1:] == [1, 1]


def test_a_new_lesion_beside_another_is_neither_it_nor_a_part_of_it():
    # the old one vanished from 9 mm away; one is new 2 mm beside a lesion that stays
    rows = follow([[cube(A, 8), cube((30, 0, 0))], [cube((10, 0, 0), 5), cube(A, 8), cube((43, 0, 0))]], 3.0)
    assert rows[rows["date"] == 1].set_index("lesion")["fate"].to_dict() == {
        1: "persisting", 2: "vanished", 3: "new", 4: "new",
    }  # fmt: skip


def test_what_merged_goes_on_with_its_lesion_into_the_next_one():
    two = np.vstack([cube(A, 6), cube((6, 0, 0))])
    three = np.vstack([two, cube((12, -3, -3), 10)])
    rows = follow(
        [[cube(A, 6), cube((8, 0, 0), 3), cube((12, -3, -3), 10)], [two, cube((14, -3, -3), 10)], [three]], 3.0
    )
    number = rows.loc[(rows["date"] == 2) & rows["part"].notna(), "lesion"].item()
    merged = rows[(rows["date"] == 2) & (rows["fate"] == "merged")]
    assert len(merged) == 2 and set(merged["of"]) == {number}


def test_a_place_that_is_not_imaged_is_neither_vanished_nor_new():
    left_half = lambda date, place: date != 1 or place[:, 0].mean() < 15  # noqa: E731
    rows = follow([[cube(A), cube(B)], [cube(A)], [cube(A), cube(B)]], 3.0, left_half)
    assert rows.loc[rows["lesion"] == 2, "fate"].tolist() == ["first", "not imaged", "persisting"]
    rows = follow(
        [[cube(A)], [cube(A), cube(B), cube(C)]], 3.0, lambda date, place: date != 0 or place[:, 0].mean() < 15
    )
    assert rows.loc[rows["date"] == 1, "fate"].tolist() == ["persisting", "first", "new"]


def test_a_lesion_that_the_edge_of_an_image_cuts_is_not_measured_there():
    whole, part = cube(A, 8), cube(A, 8)[cube(A, 8)[:, 2] < A[2] + 2]
    shown = lambda date, place: date != 1 or (place[:, 2] < A[2] + 2).mean() >= 0.5  # noqa: E731
    rows = follow([[whole], [part], [whole]], 3.0, shown)
    assert rows["fate"].tolist() == ["first", "not imaged", "persisting"]
    assert rows["lesion"].tolist() == [1, 1, 1]
    assert rows["part"].isna().tolist() == [False, True, False]


def test_a_lesion_that_the_edge_cuts_at_its_first_date_is_flagged_as_it_seems_to_grow(home, monkeypatch):
    whole, lower = np.zeros((20, 20, 20), np.uint8), np.eye(4)
    whole[4:8, 4:8, 4:12] = whole[12:16, 12:16, 8:12] = 1
    lower[2, 3] = 6  # the first image begins 6 mm higher
    dates = [Measured.of(Volume(*of, RAS), np.eye(4)) for of in ((whole[:, :, 6:], lower), (whole, np.eye(4)))]
    rows = follow_masks(patient(2), dates, 3.0).sort_values(["day", "volume_mm3"])
    assert rows["volume_mm3"].tolist() == [64, 96, 64, 128]
    assert rows["cut"].tolist() == [False, True, False, False]
    when = pd.DataFrame({"patient": "p", "case": ["p-0", "p-1"], "day": [0, 60], "problem": ""})
    followed = Followed(when, rows.assign(model="reference"), pd.DataFrame())
    monkeypatch.setattr(metaseg_nb.follow_up, "follow_study", lambda *_: followed, raising=False)
    names = {"ms": metaseg_nb, "pd": pd, "Markdown": str, "cohort": Cohort("c", "", patient(2)), "ranked": []}
    names |= {
        "layout": StudyLayout("tiny"),
        "clinical": None,
        "reference": "reference",
        "fate_colours": {"persisting": ""},
    }
    names |= {"reach_mm": 3.0, "reference_date": 1, "workers": 1, "volume_error": 0.1, "new_mm": 3.0}
    for cell in nbformat.read(NOTEBOOKS / "09_follow_up.ipynb", 4).cells:
        if cell["id"] in ("09-06", "09-08"):
            exec(cell.source, names)
    number = rows.loc[rows["cut"], "lesion"].item()
    said = f"- Cut by the edge of the image, so it is not known how much they grew: p (lesion {number} on day 0).\n"
    assert said in names["answer"]


def test_a_lesion_that_the_first_image_does_not_show_is_not_new_at_later_dates_either():
    first_half = lambda date, place: date != 0 or place[:, 0].mean() < 15  # noqa: E731
    rows = follow([[cube(A)], [cube(A), cube(B)], [cube(A), cube(B)]], 3.0, first_half)
    assert rows.loc[rows["lesion"] == 2, "fate"].tolist() == ["first", "persisting"]
    table = assessed({1: ([20, 18, 18], {}), 2: ([None, 9, 8], {"came": "first"})})
    assert table["imaging"].tolist() == [FIRST, STABLE, STABLE]
    assert table["new"].tolist() == [0, 0, 0]


def test_a_lesion_on_thick_slices_is_the_same_on_thin_ones_and_on_others():
    """The centres of slices of 6 mm lie farther apart than ``reach_mm``."""
    rng, grid = np.random.default_rng(1), np.indices((20, 20, 24)).transpose(1, 2, 3, 0)
    for _ in range(20):
        dates = []
        for edge in (6.0, 6.0, 1.0):
            affine = np.diag([1.0, 1.0, edge, 1.0])
            affine[:3, 3] = rng.uniform(-1, 0, 3) * affine.diagonal()[:3]
            mask = np.linalg.norm(nib.affines.apply_affine(affine, grid) - [9, 9, 12], axis=-1) <= 3.3
            dates.append(Measured.of(Volume(mask, affine, RAS), np.eye(4)))
        assert follow_masks(patient(3), dates, 3.0)["fate"].tolist() == ["first", "persisting", "persisting"]


def test_dates_without_lesions_have_none():
    assert follow([[], []], 3.0).empty
    assert fates([], [cube(A)]) == {1: [(1, "new", 0)]}


def rigid(rng, most_mm, most_degrees):
    """A random move about the origin."""
    axis, angle = rng.normal(size=3), np.radians(rng.uniform(0, most_degrees))
    x, y, z = axis / np.linalg.norm(axis)
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    matrix = np.eye(4)
    matrix[:3, :3] = np.eye(3) + np.sin(angle) * skew + (1 - np.cos(angle)) * skew @ skew
    shift = rng.normal(size=3)
    matrix[:3, 3] = shift / np.linalg.norm(shift) * rng.uniform(0, most_mm)
    return matrix


def moved(mask, move, edge_mm=0.8):
    """A mask whose head was moved, on another grid: nearest neighbour; only where the mask is."""
    from scipy.ndimage import map_coordinates

    places = nib.affines.apply_affine(move @ mask.affine, np.argwhere(mask.array))
    low, high = places.min(axis=0) - 5, places.max(axis=0) + 5
    affine = np.diag([edge_mm, edge_mm, edge_mm, 1.0])
    affine[:3, 3] = low
    shape = tuple(np.ceil((high - low) / edge_mm).astype(int))
    voxels = nib.affines.apply_affine(np.linalg.inv(move @ mask.affine) @ affine, np.indices(shape).reshape(3, -1).T)
    found = map_coordinates(mask.array.astype(np.uint8), voxels.T, order=0)
    return Volume(found.reshape(shape), affine, RAS)


def patient(n, days=(0, 60, 120, 180)):
    return [Case(f"p-{i}", (Path("i"),), Path("l"), "p", "lung", day=days[i]) for i in range(n)]


def identities_lost(mask, seed):
    """Lesions that are not followed when a head lies elsewhere, and registration errs by up to 2 mm and 1 degree.

    On other voxels a thin bridge can break: then a part has to be named as split from its lesion.
    """
    rng = np.random.default_rng(seed)
    move, about = rigid(rng, 10, 10), np.eye(4)
    about[:3, 3] = nib.affines.apply_affine(mask.affine, np.argwhere(mask.array).mean(axis=0))
    error = about @ rigid(rng, 2, 1) @ np.linalg.inv(about)
    later = moved(mask, move)
    rows = follow_masks(patient(2), [Measured.of(mask, np.eye(4)), Measured.of(later, move @ error)], 3.0)
    first, second = (rows[(rows["day"] == day) & rows["part"].notna()] for day in (0, 60))
    truth, known = find_lesions(mask.array > 0, mask.spacing_mm), Measured.of(mask, np.eye(4)).points
    part_of = {truth.labels[tuple(points[0].astype(int))]: part for part, points in enumerate(at_voxels(mask, known))}
    number_of = {part: lesion for lesion, part in zip(first["lesion"], first["part"], strict=True)}
    lost = []
    for part, voxels in enumerate(at_voxels(mask, Measured.of(later, move).points)):  # carried back without error
        was = number_of[part_of[np.bincount(truth.labels[tuple(voxels.T)]).argmax()]]
        row = second[second["part"] == part].iloc[0]
        if row["lesion"] != was and not (row["fate"] == "split" and row["of"] == was):
            lost.append((was, row["lesion"], row["fate"]))
    return lost


def at_voxels(mask, points):
    return [np.rint(nib.affines.apply_affine(np.linalg.inv(mask.affine), of)).astype(int) for of in points]


@pytest.mark.parametrize("seed", range(8))
def test_no_identity_is_lost_where_the_head_lies_elsewhere(seed):
    rng = np.random.default_rng(100 + seed)
    mask = np.zeros((80, 80, 60), np.uint8)
    for corner in rng.permutation(np.indices((6, 6, 4)).reshape(3, -1).T)[:12] * 13 + 3:
        mask[tuple(slice(start, start + rng.integers(3, 9)) for start in corner)] = 1
    assert identities_lost(Volume(mask, np.eye(4), RAS), seed) == []


@pytest.mark.parametrize("seed", range(2))
def test_no_identity_of_a_real_mask_is_lost(shared_data, seed):
    label = shared_data / "real_t1c/labels/ms_patient26.nii.gz"
    mask = read_lesions(Case("ms", (label,), label, "ms", "ms"), LesionRule())
    assert identities_lost(mask, seed) == []


def test_diameters_by_hand():
    block = np.argwhere(np.ones((10, 4, 3)))
    found = axial_diameters(block, (1.0, 1.0, 5.0))
    assert found.slices == 3
    assert found.longest_mm == pytest.approx(np.hypot(9, 3) + 1)
    single = axial_diameters(np.array([[3, 3, 3]]), (0.5, 0.5, 2.0))
    assert single == (0.5, 0.5, 1)
    row = axial_diameters(np.argwhere(np.ones((12, 1, 2))), (1.0, 2.0, 1.0))
    assert row == (12.0, 2.0, 2)


@pytest.mark.parametrize("radius", [5.0, 9.5])
def test_the_diameters_of_a_ball_are_within_a_voxel(radius):
    ball = np.argwhere(np.linalg.norm(np.indices((41, 41, 41)) / 2 - 10, axis=0) <= radius)
    found = axial_diameters(ball, (0.5, 0.5, 0.5))
    assert found[:2] == pytest.approx((2 * radius, 2 * radius), abs=0.6)


def course(*volumes, days=(0, 30, 90)):
    return pd.DataFrame({"model": "m", "patient": "p", "lesion": 1, "day": days[: len(volumes)], "volume_mm3": volumes})


def test_growth_by_hand():
    table = with_growth(course(1000.0, 2000.0, 2000.0), volume_error=0.1)
    assert table["change_pct"].tolist() == [0, 100, 100]
    assert table["doubling_days"].iloc[1] == pytest.approx(30)
    assert table["monthly_pct"].iloc[1] == pytest.approx(100 * (2 ** (DAYS_PER_MONTH / 30) - 1))
    error = 1.96 * np.sqrt(2) * 0.1
    ends = [30 * np.log(2) / (np.log(2) + error), 30 * np.log(2) / (np.log(2) - error)]
    assert table.loc[1, ["fastest_doubling_days", "slowest_doubling_days"]].tolist() == pytest.approx(ends)
    assert np.isnan(table["monthly_pct"].iloc[0])
    assert table["monthly_pct"].iloc[2] == 0


def test_growth_within_the_error_has_no_end_and_shrinking_is_halving():
    table = with_growth(course(1000.0, 1100.0, 550.0), volume_error=0.1)
    assert np.isinf(table["slowest_doubling_days"].iloc[1])
    assert table["doubling_days"].iloc[2] == pytest.approx(-60)
    assert (table.loc[2, ["fastest_doubling_days", "slowest_doubling_days"]] < 0).all()
    assert np.isnan(with_growth(course(1000.0, 0.0), 0.1)["doubling_days"].iloc[1])


def test_an_equal_volume_may_have_grown_or_shrunk():
    table = with_growth(course(1000.0, 1000.0, days=(0, 60)), volume_error=0.1)
    fastest = 60 * np.log(2) / (1.96 * np.sqrt(2) * 0.1)
    assert table.loc[1, ["fastest_doubling_days", "slowest_doubling_days"]].tolist() == pytest.approx([fastest, np.inf])


def assessed(lesions, clinical=None, days=(0, 60, 120, 180)):
    """Responses of one patient; ``lesions``: number to (longest diameters, or None before it came; further columns)."""
    rows, n = [], max(len(diameters) for diameters, _ in lesions.values()) if lesions else 3
    for lesion, (diameters, more) in lesions.items():
        for i, diameter in enumerate(diameters):
            if diameter is not None:
                about = {"lesion": lesion, "case": f"p-{i}", "day": days[i], "diameter_mm": float(diameter)}
                came = i == 0 or diameters[i - 1] is None
                fate = ("first" if i == 0 else more.get("came", "new")) if came else "persisting"
                usual = {"perpendicular_mm": 0.8 * diameter, "slices": 5, "of": pd.NA, "fate": fate}
                rows.append({"volume_mm3": diameter**3 * np.pi / 6} | usual | about | more)
    columns = ["lesion", "case", "day", "diameter_mm", "perpendicular_mm", "slices", "of", "fate", "volume_mm3"]
    table = pd.DataFrame(rows, columns=columns).assign(model="reference", patient="p")  # what else was said is left out
    table = table.astype({"diameter_mm": float, "perpendicular_mm": float, "volume_mm3": float, "slices": float})
    dates = pd.DataFrame({"patient": "p", "case": [f"p-{i}" for i in range(n)], "day": days[:n]})
    return responses(table, dates, ["reference"], 3.0, clinical)


@pytest.mark.parametrize(
    ("lesions", "expected"),
    [
        ({1: ([20, 14, 14.1], {})}, [PARTLY, STABLE]),  # -30 % exactly, and not quite
        ({1: ([20, 24, 25], {})}, [STABLE, PROGRESSION]),  # +20 %, but 4 mm only; +25 % and 5 mm
        ({1: ([30, 35.9, 36], {})}, [STABLE, PROGRESSION]),  # 5.9 mm, but not quite 20 %
        ({1: ([40, 20, 25], {})}, [PARTLY, PROGRESSION]),  # from the smallest sum, though 37 % below the first
        ({1: ([20, 0, 0], {})}, [COMPLETE, COMPLETE]),
        ({1: ([20, 0, 0], {}), 2: ([6, 5, 5], {})}, [PARTLY, PARTLY]),  # a lesion that is no target is left
        ({1: ([20, 0, 5], {})}, [COMPLETE, PROGRESSION]),
        ({1: ([20, 20, 20], {}), 2: ([None, 3, 3], {})}, [PROGRESSION, PROGRESSION]),  # a new lesion
        ({1: ([9.9, 5, 30], {})}, [UNRATED, UNRATED]),  # too small to be a target lesion
        ({1: ([20, 10, 10], {"slices": 1})}, [UNRATED, UNRATED]),
        ({1: ([20, 10, 10], {"perpendicular_mm": 4.9})}, [UNRATED, UNRATED]),
        ({1: ([20, 12, 12], {}), 2: ([None, 9, 9], {"fate": "split", "of": 1})}, [STABLE, STABLE]),  # 21 of 20 mm
        ({1: ([12, 18, 18], {}), 2: ([10, 0, 0], {"of": 1})}, [STABLE, STABLE]),  # merged into the first
        ({1: ([20, 18, 18], {}), 2: ([None, 6, 6], {"fate": "split", "of": 1})}, [STABLE, STABLE]),  # +20 %, but 4 mm
        ({1: ([20, 8, 12], {}), 2: ([None, 8, 12], {"fate": "split", "of": 1})}, [STABLE, PROGRESSION]),  # 16 to 24 mm
        ({1: ([20, 0, 4], {})}, [COMPLETE, PROGRESSION]),  # back after a complete response
        ({1: ([20, 0, 0], {}), 2: ([6, 0, 6], {})}, [COMPLETE, PROGRESSION]),
        ({1: ([20, 0, 2], {})}, [COMPLETE, PARTLY]),  # back, but equivocal
        ({1: ([20, 0, 4], {}), 2: ([6, 6, 6], {})}, [PARTLY, PARTLY]),  # back while another one was there all the time
        ({1: ([20, 12, 12], {}), 2: ([None, 2.9, 3], {})}, [PARTLY, PROGRESSION]),  # a new lesion has 3 mm
        ({1: ([20, 12, 12], {}), 2: ([None, 9, 9], {"slices": 1})}, [PARTLY, PARTLY]),  # and two slices
        ({1: ([20, 12, 12], {}), 2: ([None, 9, 9], {"came": "first"})}, [PARTLY, PARTLY]),  # not imaged before
        ({1: ([20, np.nan, 20], {})}, [UNRATED, STABLE]),  # not imaged: no smallest sum
        ({1: ([20, 20, 20], {}), 2: ([12, np.nan, 12], {})}, [UNRATED, STABLE]),
        ({1: ([20, 12, 12], {}), 2: ([6, np.nan, 6], {})}, [UNRATED, PARTLY]),  # it is no target
        ({1: ([20, 40, 40], {}), 2: ([12, np.nan, 12], {})}, [PROGRESSION, PROGRESSION]),
        ({}, [UNRATED, UNRATED]),
    ],
)
def test_categories_by_images(lesions, expected):
    table = assessed(lesions)
    assert table["imaging"].tolist() == [FIRST, *expected]


def test_a_lesion_that_is_no_target_and_grows_is_named_and_a_small_new_one_is_counted():
    table = assessed({1: ([20, 20, 20], {}), 2: ([9, 13, 14], {}), 3: ([None, 2, 2], {})})
    assert table["imaging"].tolist() == [FIRST, STABLE, STABLE]
    assert table["non_target"].tolist() == ["", "", "lesion 2"]
    assert table[["new", "equivocal"]].to_numpy().tolist() == [[0, 0], [0, 1], [0, 1]]


def placed_balls(*dates, deep=(60, 60, 60)):
    """Responses of one patient whose masks hold balls (centre along X, diameter), cut where the date's image ends."""
    places = np.indices((70, 60, 60)).transpose(1, 2, 3, 0)
    found = []
    for balls, depth in zip(dates, deep, strict=False):
        mask = np.any([np.linalg.norm(places - [x, 30, 40], axis=-1) <= d / 2 for x, d in balls], axis=0)
        found.append(Measured.of(Volume(mask[:, :, :depth].astype(np.uint8), np.eye(4), RAS), np.eye(4)))
    cases = patient(len(found))
    lesions = follow_masks(cases, found, 3.0).assign(model="reference")
    when = pd.DataFrame({"patient": "p", "case": [c.name for c in cases], "day": [c.day for c in cases]})
    return responses(lesions, when, ["reference"], 3.0)


def test_a_target_in_a_growing_lesion_that_is_none_is_progression():
    table = placed_balls([(20, 11), (33, 9)], [(33, 28)])
    assert table["imaging"].tolist() == [FIRST, PROGRESSION]
    assert table["by"].iloc[1].startswith("lesion 1, +")


def test_lesions_that_merge_and_part_again_are_stable():
    assert placed_balls([(15, 12), (29, 12)], [(15, 13), (29, 13), (22, 6)], [(15, 12), (29, 12)])[
        "imaging"
    ].tolist() == [FIRST, STABLE, STABLE]


def test_a_target_outside_the_image_of_a_date_is_no_response():
    table = placed_balls([(20, 12)], [(20, 12)], [(20, 12)], deep=(60, 30, 60))
    assert table["imaging"].tolist() == [FIRST, UNRATED, STABLE]
    assert np.isnan(table["change_pct"].iloc[1])
    assert best_responses(table)["best_pct"].item() == 0


def test_sums_and_responses_of_published_tables(shared_data):
    """RECIST of synthetic subjects; published responses, and those from the smallest sum where they took the first."""
    folder = shared_data / "follow_up/recist_pharmaverse"
    visit = ["USUBJID", "VISITNUM", "EV"]
    lesions, sums = (
        pd.read_csv(folder / f"{name}.csv").query("EV == 'INVESTIGATOR|'").drop_duplicates(key)
        for name, key in (("target_lesion_diameters", [*visit, "lesion"]), ("target_sums_and_responses", visit))
    )
    whole = lesions[lesions["VISITNUM"] == 3].groupby("USUBJID")["diameter_mm"].min() >= 10  # all are measurable
    lesions = lesions[lesions["USUBJID"].isin(whole.index[whole][:25])].fillna({"diameter_mm": 0.0})
    about = {"perpendicular_mm": 5.0, "slices": 2.0, "of": pd.NA, "model": "reader"}
    about["fate"] = np.where(lesions["VISITNUM"] == 3, "first", "persisting")
    lesions = lesions.assign(case=lesions["USUBJID"] + lesions["VISITNUM"].astype(str), **about)
    lesions = lesions.assign(day=10 * lesions["VISITNUM"], volume_mm3=lesions["diameter_mm"] ** 3)
    lesions["lesion"] = lesions["lesion"].str.removeprefix("T").astype(int)
    lesions = lesions.rename(columns={"USUBJID": "patient"})
    found = responses(lesions, lesions.drop_duplicates("case")[["patient", "case", "day"]], ["reader"], 3.0)
    known = sums.assign(case=sums["USUBJID"] + sums["VISITNUM"].astype(str)).set_index("case").loc[found["case"]]
    short = {COMPLETE: "CR", PARTLY: "PR", STABLE: "SD", PROGRESSION: "PD", FIRST: "BASELINE"}
    assert found["sum_mm"].tolist() == known["SUMDIAM_mm"].tolist()
    assert found["imaging"].map(short).tolist() == known["rule_recist11"].tolist()
    other = known[known["TRGRESP"].notna() & (known["TRGRESP"] != known["rule_recist11"])]
    assert len(other) and set(other["rule_recist11"]) == {"PD"}, "published responses disagree only by the nadir"


def test_at_most_five_target_lesions_the_largest_first():
    table = assessed({n: ([10 + n, 10 + n], {}) for n in range(1, 8)})
    assert table["targets"].tolist() == [5, 5]
    assert table["sum_mm"].iloc[0] == 13 + 14 + 15 + 16 + 17


def test_volumes_have_limits_of_their_own():
    # a sphere that shrinks to 0.7 of its diameter has 0.343 of its volume, and one of 1.2 has 1.728: below 1.73
    assert assessed({1: ([20, 20 * 0.35 ** (1 / 3), 20], {})})["by_volume"].tolist() == [FIRST, PARTLY, PROGRESSION]
    assert assessed({1: ([20, 24, 20 * 1.731 ** (1 / 3)], {})})["by_volume"].tolist() == [FIRST, STABLE, PROGRESSION]


def test_a_growth_of_less_than_a_ball_of_5_mm_is_no_progression_by_volume():
    few = {"volume_mm3": 60.0}
    assert assessed({1: ([20, 20, 20], few)})["by_volume"].tolist() == [FIRST, STABLE, STABLE]
    specks = assessed({1: ([20, 1.6, 2], {}), 2: ([6, 6, 6], {})})  # 2 to 4 mm³
    assert specks["by_volume"].tolist() == [FIRST, PARTLY, PARTLY]


@pytest.mark.parametrize(
    ("later", "facts", "expected"),
    [
        (12, {}, UNRATED),
        (12, {"steroids": "stable"}, UNRATED),
        (12, {"steroids": "stable", "clinical": "improved"}, PARTLY),
        (12, {"steroids": "increased", "clinical": "stable"}, UNRATED),
        (12, {"steroids": "none", "clinical": "worse"}, PROGRESSION),
        (12, {"steroids": "none", "clinical": "stable", "non_target_progression": "yes"}, PROGRESSION),
        (0, {"steroids": "none", "clinical": "stable"}, COMPLETE),
        (0, {"steroids": "decreased", "clinical": "stable"}, PARTLY),
        (20, {"steroids": "decreased", "clinical": "stable"}, STABLE),
        (40, {}, PROGRESSION),
    ],
)
def test_categories_with_what_a_clinician_knows(later, facts, expected):
    clinical = pd.DataFrame([{"case": "p-1", **facts}])
    assert assessed({1: ([20, later], {})}, clinical)["rano_bm"].tolist() == [FIRST, expected]


def test_a_response_is_confirmed_by_four_weeks():
    table = assessed({1: ([20, 12, 12, 40], {})}, days=(0, 60, 80, 88))
    assert table["confirmed"].tolist() == [False, False, False, False]
    assert assessed({1: ([20, 12, 12, 12], {})}, days=(0, 60, 80, 88))["confirmed"].tolist() == [
        False,
        True,
        False,
        False,
    ]


def test_a_complete_response_is_confirmed_by_no_partial_one():
    table = assessed({1: ([20, 0, 2], {})})
    assert table["imaging"].tolist()[1:] == [COMPLETE, PARTLY] and not table["confirmed"].any()


def test_what_comes_after_progression_is_no_best_change():
    table = assessed({1: ([20, 20, 8], {}), 2: ([None, 5, 5], {})})
    assert best_responses(table).iloc[0][["best", "best_pct"]].tolist() == [PROGRESSION, 0]


def test_the_best_response_until_progression():
    table = assessed({1: ([40, 30, 20, 26], {})})
    best = best_responses(table).iloc[0]
    assert (best["best"], best["best_pct"], best["progressed_day"], best["last_day"]) == (PARTLY, -50, 180, 180)


def test_kappa_of_a_published_table():
    table = np.array([[[18, 2, 1], [4, 7, 2], [0, 0, 9]]], float)
    assert kappa(table, 100, 0)[0] == pytest.approx((34 / 43 - 687 / 1849) / (1 - 687 / 1849))
    assert np.isnan(kappa(table, 100, 0)[1:]).all()


def test_a_patient_counts_once_however_many_dates():
    pairs = pd.DataFrame({"patient": [*"ppq"], "reference": [*"abb"], "predicted": [*"aab"]})
    assert confusion(pairs, "ab").tolist() == [[[0.5, 0], [0.5, 0]], [[0, 0], [0, 1]]]


def test_errors_of_change_by_hand():
    rows = [("p", 2.0, 3.0), ("p", 0.0, -1.0), ("q", 1.0, 4.0), ("q", 5.0, np.nan)]
    changes = pd.DataFrame(rows, columns=["patient", "reference_mm", "predicted_mm"]).assign(model="unet")
    found = change_errors(changes, ["unet"], 200, 0).iloc[0]
    assert (found["patients"], found["changes"], found["missed"]) == (2, 3, 1)
    assert found["bias_mm"] == 1.5  # of the patients' means, 0 and 3
    assert (found["bias_mm_low"], found["bias_mm_high"]) == (0, 3)
    sd = np.sqrt((5 - 1.5**2) / (1 - 1.5 / 4))  # mean square 5; weights 1/2, 1/2 and 1
    assert found["upper_mm"] == found["smallest_mm"] == pytest.approx(1.5 + 1.96 * sd)
    assert found["lower_mm"] == pytest.approx(1.5 - 1.96 * sd)
    assert found["smallest_mm_low"] <= found["smallest_mm"] <= found["smallest_mm_high"]


def test_a_patient_with_many_changes_does_not_make_the_smallest_change_small():
    rng = np.random.default_rng(0)
    errors = [*rng.normal(0, 0.5, 50), *4 * np.array([-1.5, -1, -0.5, 0, 0, 0, 0.5, 1, 1.5])]
    changes = pd.DataFrame({"patient": ["p"] * 50 + [*"abcdefghi"], "reference_mm": 0.0, "predicted_mm": errors})
    assert change_errors(changes.assign(model="unet"), ["unet"], 50, 0)["smallest_mm"].item() > 6
    equal = changes.tail(9).assign(model="unet")
    found = change_errors(equal, ["unet"], 50, 0).iloc[0]
    assert found["upper_mm"] == pytest.approx(1.96 * equal["predicted_mm"].std())


def test_no_change_is_measured_over_a_date_at_which_the_lesion_is_not_there():
    there = pd.DataFrame({"patient": "p", "lesion": 1, "case": [*"abcd"], "day": [0, 60, 120, 180]})
    lesions = there.assign(part=pd.array([0, pd.NA, 0, 0], "Int64"), diameter_mm=[10.0, 0.0, 20.0, 23.0])
    found = _changes(lesions, {"a": [10.0], "b": [], "c": [19.0], "d": [24.0]})
    assert found[["case", "reference_mm", "predicted_mm"]].to_numpy().tolist() == [["d", 3.0, 5.0]]


def test_predicted_diameters_are_those_of_the_reference_lesions():
    truth, found = np.zeros((30, 20, 8), np.uint8), np.zeros((30, 20, 8), np.uint8)
    truth[2:8, 2:4, 2:4] = truth[20:24, 2:4, 2:4] = truth[2:6, 12:14, 2:4] = 1
    found[3:6, 2:4, 2:4] = found[7:8, 2:3, 2:3] = 1  # two parts of the first; nothing of the second
    found[2:16, 12:13, 2:4] = 1
    mm = predicted_mm(*(Measured.of(Volume(mask, np.eye(4), RAS), np.eye(4)) for mask in (truth, found)))
    assert mm == pytest.approx([np.hypot(2, 1) + 1, 14, np.nan], nan_ok=True) or mm == pytest.approx(
        [np.hypot(2, 1) + 1, np.nan, 14], nan_ok=True
    )


def test_a_patient_whose_first_date_has_no_mask_is_not_followed():
    """The first mask of an untreated course would else be taken for its beginning."""
    cases, others = patient(3), [Case(f"q-{i}", (), Path("l"), "q", "lung", day=30 * i) for i in range(2)]
    unlabelled = [replace(case, label=None) for case in (cases[0], others[1])]
    found = several_dates(Cohort("c", "", [*cases[1:], others[0]], unlabelled))
    assert {of[0].patient: why for of, why in found} == {
        "p": "no mask at the first date",
        "q": "a mask at one date only",
    }
    only = Cohort("c", "", cases[::2], training_only=[cases[1]])
    assert [([case.name for case in of], why) for of, why in several_dates(only)] == [(["p-0", "p-1", "p-2"], "")]


def test_only_patients_with_a_different_day_for_each_case_are_followed():
    cases = [
        *patient(3),
        Case("q-0", (), Path("l"), "q", "lung", day=0),
        Case("q-1", (), Path("l"), "q", "lung", day=0),
    ]
    cases += [Case("r-0", (), Path("l"), "r", "lung", day=0), Case("r-1", (), Path("l"), "r", "lung")]
    found = several_dates(Cohort("c", "", [cases[2], cases[0], cases[1], *cases[3:]]))
    assert {of[0].patient: why for of, why in found} == {
        "p": "",
        "q": "two cases of one date",
        "r": "a case without a date",
    }
    assert [case.name for case in found[0][0]] == ["p-0", "p-1", "p-2"]


@pytest.mark.parametrize(
    ("text", "found", "expected"),
    [
        ("name,steroids\np-0,none\n", "columns name, steroids", "a column case"),
        ("case,steroids\nx-0,none\n", "case x-0", "a case of the cohort"),
        ("case,steroids\np-0,some\n", "'some'", "none, decreased, stable, increased"),
        ("case,clinical\np-0,worse\np-0,stable\n", "two rows", "one row for each case"),
        ("case,steroids,steroids\np-0,none,none\n", "steroids, steroids", "each once"),
        ("case,case,steroids\np-0,p-0,none\n", "case, case", "each once"),
        ("case,clinical,non target progression\np-0,stable,yes\n", "non target progression", "written so"),
        ("case,steroid,clinical\np-0,none,stable\n", "steroid,", "written so"),
        ("case,steroids,clinical_status\np-0,none,stable\n", "clinical_status", "written so"),
        ("case,steroids\n", "no row", "a row for each case"),
    ],
)
def test_each_mistake_in_the_clinical_table_has_its_message(tmp_path, text, found, expected):
    path = tmp_path / "clinical.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CohortError) as error:
        read_clinical(path, Cohort("c", "", patient(2)))
    assert found in str(error.value) and expected in str(error.value)


def test_the_clinical_table_is_read_in_any_case_and_cells_may_be_empty(tmp_path):
    path = tmp_path / "clinical.csv"
    as_excel = "\ufeffsep=;\r\ncase;steroids;clinical;notes;;\r\np-0;None;;1,5;;\r\np-1;;Worse;x;;\r\n"
    for text in ("case,steroids,clinical,notes\np-0,None,,\np-1,,Worse,x\n", as_excel):
        path.write_text(text, encoding="utf-8", newline="")
        table = read_clinical(path, Cohort("c", "", patient(2)))
        assert table.to_dict("list") == {"case": ["p-0", "p-1"], "steroids": ["none", ""], "clinical": ["", "worse"]}


def ball(radius, centre, shape=(40, 40, 40)):
    return radius >= np.linalg.norm(np.indices(shape).T - centre, axis=-1).T


def head(seed, centre=(20, 20, 20)):
    """A ball with structure inside, which the seed decides; it moves with the centre."""
    places = np.indices((40, 40, 40)).reshape(3, -1).T - np.array(centre, float)
    waves = np.random.default_rng(seed).normal(0, 0.25, (8, 3))
    inside = (100 + 8 * np.cos(places @ waves.T).sum(axis=1)).reshape(40, 40, 40)
    return Volume(inside * ball(15, centre), np.eye(4), RAS)


def test_heads_are_compared_by_their_structure_where_both_images_show_it():
    first, same, shift = head(1), head(1, (23, 20, 20)), np.eye(4)
    shift[:3, 3] = 3, 0, 0
    assert heads_alike(first, same, shift) > 0.99
    assert heads_alike(first, same, np.eye(4)) < 0.9
    assert heads_alike(first, Volume(3 * same.array[:, :, :22] + 5, np.eye(4), RAS), shift) > 0.9, "half is shown"
    assert heads_alike(first, head(2), np.eye(4)) < heads_alike(first, same, shift)


def test_images_without_structure_or_with_hardly_any_of_the_head_are_not_alike():
    first, away = head(1), np.eye(4)
    away[:3, 3] = 30, 0, 0
    assert heads_alike(first, Volume(np.full((40, 40, 40), 7.0), np.eye(4), RAS), np.eye(4)) == 0
    assert heads_alike(first, first, away) == 0


def test_an_image_that_cannot_be_registered_ends_nothing_and_is_named(write_nifti):
    shapes = (40, 40, 40), (40, 40, 3), (40, 40, 40)
    images = [
        write_nifti(f"{i}.nii.gz", head(1).array[:, :, 20 - of[2] // 2 :][:, :, : of[2]]) for i, of in enumerate(shapes)
    ]
    blank = write_nifti("blank.nii.gz", np.zeros((40, 40, 40), np.float32))
    cases = [Case(f"p-{i}", (image,), None, "p", "l", day=i) for i, image in enumerate([*images[:2], blank, images[2]])]
    table = place_dates(cases, 1)
    assert table["problem"].str.startswith("not registered: ").tolist() == [False, True, True, False]
    assert table["matrix"].iloc[1] == np.eye(4).ravel().tolist() and np.isnan(table["alike"].iloc[1])


def test_a_date_that_cannot_be_registered_is_flagged_as_perhaps_another_patient(monkeypatch, write_nifti):
    images = [write_nifti(f"{i}.nii.gz", head(1).array) for i in range(4)]
    cases = [Case(f"p-{i}", (image,), None, "p", "lung", day=30 * i) for i, image in enumerate(images)]
    failures, alike = iter(["", "", "an uncertain place"]), iter([0.95, 0.6, 0.95])
    found = {"matrix": np.eye(4), "moved_mm": 0.0, "degrees": 0.0}
    monkeypatch.setattr(registration, "register_volume", lambda *_: SimpleNamespace(**found, failure=next(failures)))
    monkeypatch.setattr(registration, "heads_alike", lambda *_: next(alike))
    problems = place_dates(cases, 1)["problem"].tolist()
    assert problems[:2] == ["", ""]
    assert problems[2].startswith("another head (correlation 0.60") and problems[3].startswith("an uncertain place")
    assert all(
        problem.endswith("possibly another patient, another sequence, or after surgery") for problem in problems[2:]
    )


@pytest.mark.parametrize(("n", "said"), [(2, False), (3, True)])
def test_where_all_later_dates_are_of_another_head_it_may_be_the_first(monkeypatch, write_nifti, n, said):
    image = write_nifti("one.nii.gz", head(1).array)
    found = {"matrix": np.eye(4), "moved_mm": 0.0, "degrees": 0.0, "failure": ""}
    monkeypatch.setattr(registration, "register_volume", lambda *_: SimpleNamespace(**found))
    monkeypatch.setattr(registration, "heads_alike", lambda *_: 0.3)
    cases = [Case(f"p-{i}", (image,), None, "p", "lung", day=i) for i in range(n)]
    assert place_dates(cases, 1)["problem"].str.endswith("p-0, or all others").iloc[1] == said


@pytest.fixture
def moving_head(write_nifti, monkeypatch):
    """Three dates of one head whose headers lie 5 mm apart; registration is by the headers' known truth."""
    images = [write_nifti(f"{i}.nii.gz", head(1).array, origin_mm=(5.0 * i, 0.0, 0.0)) for i in range(3)]

    def known(first, other):
        matrix = np.eye(4)
        matrix[0, 3] = other.affine[0, 3] - first.affine[0, 3]
        return SimpleNamespace(matrix=matrix, moved_mm=abs(matrix[0, 3]), degrees=0.0, failure="")

    monkeypatch.setattr(registration, "register_volume", known)
    return [Case(f"p-{i}", (image,), None, "p", "lung", day=30 * i) for i, image in enumerate(images)]


@pytest.mark.parametrize(
    ("reference_date", "moved"), [(1, [0, 5, 10]), (2, [-5, 0, 5]), (3, [-10, -5, 0]), (9, [-10, -5, 0])]
)
def test_dates_are_registered_to_the_date_of_choice_or_the_last(moving_head, reference_date, moved):
    table = place_dates(moving_head, reference_date)
    assert [matrix[3] for matrix in table["matrix"]] == moved
    assert table["problem"].tolist() == ["", "", ""]
    assert table["day"].tolist() == [0, 30, 60]


def test_where_the_first_date_does_not_lie_on_the_date_of_choice_the_first_is_taken(moving_head, monkeypatch):
    def unlike_the_second(first, other, _):
        return 0.1 if 5.0 in (first.affine[0, 3], other.affine[0, 3]) else 0.9

    monkeypatch.setattr(registration, "heads_alike", unlike_the_second)
    table = place_dates(moving_head, 2)
    assert [bool(problem) for problem in table["problem"]] == [False, True, False]
    assert [matrix[3] for matrix in table["matrix"]] == [0, 5, 10]


def test_a_study_is_followed_in_the_reference_and_in_the_masks_of_a_network(write_case, home, monkeypatch):
    """At the second date the network misses the lesion of one voxel that the first date has too."""
    layout, cases = StudyLayout("tiny"), []
    for i in range(2):
        case = write_case(f"p-{i}", axes=("RAS", "LPI")[i])
        cases.append(Case(**{**vars(case), "patient": "p", "day": 60 * i, "fold": 0}))
        label = read_lesions(cases[-1], LesionRule())
        found = label.array.astype(np.uint8)
        found[15, 15, 12] = i == 0
        mask = Volume(found, label.affine, label.native_orientation)
        write_volume(layout.run("unet", 0).predictions / f"{case.name}.nii.gz", mask)
    still = {"patient": "p", "case": ["p-0", "p-1"], "day": [0, 60], "matrix": [np.eye(4).ravel().tolist()] * 2}
    monkeypatch.setattr("metaseg_nb.follow_up.patients.place_dates", lambda *_: pd.DataFrame(still).assign(problem=""))
    monkeypatch.setattr("metaseg_nb.follow_up.patients.UNSCORED_MM3", 0.5)
    without = replace(cases[0], name="p-2", label=None, day=90, fold=None)
    dates, lesions, changes = follow_study(layout, Cohort("c", "", cases, [without]), ["unet"], 3.0, 1)
    assert dates.set_index("case")["problem"].to_dict() == {"p-0": "", "p-1": "", "p-2": "no mask"}
    last = lesions[lesions["day"] == 60].set_index("model")["fate"]
    assert last["reference"].tolist() == ["persisting", "persisting"]
    assert sorted(last["unet"]) == ["persisting", "vanished"]
    assert changes["reference_mm"].tolist() == [0, 0]
    assert sorted(changes["predicted_mm"].fillna(9)) == [0, 9]


def test_a_cohort_without_dates_says_how_to_give_them(home):
    with pytest.raises(CohortError, match="no patient with two dated cases that both have a mask"):
        follow_study(StudyLayout("tiny"), Cohort("c", "", patient(1)), ["unet"], 3.0, 1)


def test_the_figure_begins_with_the_lesions_named_and_leaves_out_what_an_image_does_not_show(write_case):
    cases = [write_case("p-0", shape=(24, 24, 20)), write_case("p-1", shape=(24, 24, 20))]
    away = np.eye(4)
    away[2, 3] = 30  # the second image lies 30 mm lower
    places = [Measured.of(read_lesions(case, LesionRule()), np.eye(4)).table for case in cases]
    one = pd.concat([places[0][["x", "y", "z"]]] * 2).assign(lesion=[1, 2], diameter_mm=[9.0, 5.0], part=0)
    one = one.assign(case="p-0", fate="first")
    gone = one.assign(case="p-1", part=pd.NA, fate="not imaged", diameter_mm=np.nan)
    dates = pd.DataFrame({"case": ["p-0", "p-1"], "day": [0, 60], "matrix": [np.eye(4).ravel(), away.ravel()]})
    cohort = Cohort("c", "", cases)
    figure = draw_lesions_over_time(cohort, dates, pd.concat([one, gone], ignore_index=True), first=[2], most=1)
    shown, empty = figure.axes[:2]
    assert shown.get_title().startswith("lesion 2: first") and shown.images
    assert empty.get_title().startswith("lesion 2: not imaged\n") and not empty.images
    assert [text.get_text() for text in empty.texts] == ["not in the image"]
