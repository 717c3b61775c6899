"""Synthetic patients at several dates: lesions keep their identity, and have the categories that their course has."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from nibabel.affines import apply_affine

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.lesions import find_lesions
from metaseg_nb.demo_cohort import patients
from metaseg_nb.demo_cohort.anatomy import load_template
from metaseg_nb.demo_cohort.dates import COURSES, plan_dates, render_date
from metaseg_nb.demo_cohort.files import make_cohort
from metaseg_nb.demo_cohort.lesions import CAVITY, NECROTIC
from metaseg_nb.follow_up.patients import REFERENCE_MODEL, Measured, follow_masks
from metaseg_nb.follow_up.response import FIRST, responses

SEED, MOST, EDGE_MM = 3, 4, 2.0


@pytest.fixture(scope="module")
def rendered():
    """Each course once, on voxels that take less time: plan, label, lesions and place of each date."""
    coarse = [
        [replace(plan, spacing_mm=(EDGE_MM,) * 3) for plan in plan_dates(SEED, i, MOST)] for i in range(len(COURSES))
    ]
    with pytest.MonkeyPatch.context() as patched:  # only masks are looked at
        patched.setattr(patients, "anatomy", lambda _: load_template().t1)
        return [[(plan, *render_date(plan)[1:]) for plan in of_patient] for of_patient in coarse]


def followed(of_patient):
    cases = [Case(plan.case, (), None, plan.patient, "", day=plan.day) for plan, *_ in of_patient]
    masks = [Measured.of(label, matrix) for _, label, _, matrix in of_patient]
    return follow_masks(cases, masks, 3.0).assign(model=REFERENCE_MODEL), cases


def test_lesions_of_5_mm_and_more_keep_their_identity(rendered):
    right = []
    for of_patient in rendered:
        table, _ = followed(of_patient)
        numbers = {}
        for plan, label, lesions, _ in of_patient:
            found = find_lesions(label.array > 0, label.spacing_mm)
            rows = table[(table["day"] == plan.day) & table["part"].notna()].set_index("part")["lesion"]
            for i, lesion in enumerate(lesions):
                if lesion and plan.now[i].diameter_mm >= 5:
                    voxel = apply_affine(np.linalg.inv(label.affine), lesion.centre_mm).round().astype(int)
                    number = rows.get(found.labels[tuple(voxel)] - 1)
                    right.append(number is not None and numbers.setdefault(i, number) == number)
        assert len({*numbers.values()}) == len(numbers)
    assert len(right) > 40
    assert np.mean(right) >= 0.99


def test_the_truth_has_the_categories_of_its_course(rendered):
    for of_patient, course in zip(rendered, COURSES, strict=True):
        table, cases = followed(of_patient)
        rows = pd.DataFrame({"case": [case.name for case in cases], "day": [case.day for case in cases]})
        found = responses(table, rows.assign(patient=cases[0].patient), [REFERENCE_MODEL], 3.0)
        assert tuple(found["imaging"]) == (FIRST, *course.categories), of_patient[0][0].patient


def test_the_same_place_is_another_place_at_another_date(rendered):
    for of_patient in rendered:
        places = [lesions[-2].centre_mm for _, _, lesions, _ in of_patient if lesions[-2]]
        assert all(np.linalg.norm(place - places[0]) > 1 for place in places[1:])


def test_a_cohort_has_days_and_patients(tmp_path, monkeypatch):
    monkeypatch.setattr("metaseg_nb.demo_cohort.files._make_case", lambda *_: None)
    path = make_cohort(tmp_path, 4, SEED, workers=1, dates=3)
    entries = pd.DataFrame(json.loads(path.read_text(encoding="utf-8"))["training"])
    assert entries.groupby("patient").size().tolist() == [3, 3, 2, 3]
    assert (entries.groupby("patient")["day"].first() == 0).all()
    assert entries["image"].iloc[1] == "images/synthetic_001-001.nii.gz"


def at(volume, place_mm):
    return tuple(apply_affine(np.linalg.inv(volume.affine), place_mm).round().astype(int))


def test_where_the_largest_lesion_was_resected_is_a_dark_cavity_and_no_lesion():
    *before, after = plan_dates(SEED, 4, MOST)
    assert [plan.now[0].kind == CAVITY for plan in (*before, after)] == [False, False, True]
    after = replace(after, spacing_mm=(EDGE_MM,) * 3)
    image, label, lesions, _ = render_date(after)
    whole, whole_label, (lesion, *_), _ = render_date(replace(after, now=before[-1].now))
    place = at(image, lesion.centre_mm)
    assert lesions[0] is None and whole_label.array[place] and not label.array[place]
    assert image.array[place] < 0.8 * whole.array[place], "fluid is darker than necrosis"
    assert not label.array[lesion.box][lesion.relative < 1].any()


def test_a_lesion_that_shrank_is_necrotic_inside_and_stays_so():
    kinds = [[lesion.kind for lesion in plan.now] for plan in plan_dates(SEED, 3, MOST)]
    assert NECROTIC not in kinds[0]
    assert [set(of_date) for of_date in kinds[1:]] == [{NECROTIC}] * 3, (
        "also at the last date, when all have grown again"
    )
    slowly = plan_dates(SEED, 0, MOST)[1]
    assert NECROTIC not in {lesion.kind for lesion in slowly.now}, "a response of 18 % is none yet"


def test_necrosis_is_dark_in_the_image_of_a_small_lesion_too():
    plan = plan_dates(SEED, 0, MOST)[2]
    image, _, lesions, _ = render_date(replace(plan, spacing_mm=(1.0,) * 3))
    lesion = next(lesion for lesion in lesions if lesion and 4 < lesion.plan.diameter_mm < 8)
    view = image.array[lesion.box]
    rim, core = (
        np.median(view[part]) for part in ((lesion.relative > 0.6) & (lesion.relative < 0.9), lesion.relative < 0.3)
    )
    assert core < 0.75 * rim
