"""Masks drawn by hand in a study: who learns from them, and that no patient is tested by a network that saw him."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from test_folds import PRIMARIES, burden_of, make_cohort, patients, shown_in_01
from test_radiotherapy import a_patient

from metaseg_nb.annotation.by_hand import Beginning, open_reading
from metaseg_nb.annotation.taken_masks import with_masks_by_hand
from metaseg_nb.annotation.training_set import annotated_training_set
from metaseg_nb.cohort.audit import audit
from metaseg_nb.cohort.cases import Case, Cohort, LesionRule
from metaseg_nb.cohort.datalist import read_datalist, require_same_settings, write_datalist
from metaseg_nb.cohort.examination import as_it_came, cases_table, examine_all
from metaseg_nb.cohort.folds import assign_folds, budget_of, budget_table, keep_folds, split
from metaseg_nb.cohort.problems import RULES, CohortError
from metaseg_nb.cohort.pseudonyms import begin_with_codes, called_here, case_codes, give_codes, with_codes
from metaseg_nb.cohort.volumes import read_lesions, read_volume
from metaseg_nb.files import read_text_table, write_table
from metaseg_nb.layout import StudyLayout
from metaseg_nb.parameters import resolve
from metaseg_nb.settings import Explore, Train
from metaseg_nb.training.finished_run import scored_with


class Times:
    """Seconds that a test sets."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def layout(tmp_path):
    return StudyLayout("first", tmp_path)


def draw(layout, case, reader="R1", how="nothing", seconds=90.0, finished=True, voxels=2, second=False):
    """A reading of some seconds; the mask is a cube at a place where the case has no lesion."""
    image, times = read_volume(case.image, case.name), Times()
    before = read_volume(case.label, case.name).array > 0 if how == "mask" else np.zeros(image.array.shape, bool)
    before[4:6, 4:6, 4:6] |= how == "proposal"
    reading = open_reading(layout, case, image, reader, Beginning(how, before), second=second, now=times)
    mask = before.copy()
    mask[10 : 10 + voxels, 10 : 10 + voxels, 14:16] = True
    for _ in range(int(seconds // 10)):
        times.now += 10
        reading.clock.action()
    reading.save(mask)
    reading.close(finished)


@pytest.fixture
def came(write_case):
    """Four patients with masks, two of whom have a second scan without; three patients without any mask."""
    cases = [replace(write_case(f"c{i}", seed=i), patient=f"p{i}") for i in range(4)]
    later = [replace(write_case(f"c{i}_later", seed=20 + i, labelled=False), patient=f"p{i}") for i in range(2)]
    new = [replace(write_case(f"u{i}", seed=30 + i, labelled=False), patient=f"u{i}") for i in range(3)]
    return Cohort("mine", "", cases, [*later, *new])


def names(cases):
    return [case.name for case in cases]


# Who is in which set


def with_readings(cohort, rng):
    """A random cohort after masks were drawn by hand: corrected ones, new scans of tested patients, new patients."""
    corrected = {case.name for case in cohort.cases if rng.random() < 0.3}
    tested = sorted(patients(cohort.cases))

    def new(name, patient):
        return Case(name, (Path(name),), None, patient, PRIMARIES[rng.integers(4)], reader="R1", minutes=5.0)

    later = [new(f"{patient}_later", patient) for patient in tested if rng.random() < 0.3]
    only = [new(f"n{i}_{scan}", f"n{i}") for i in range(rng.integers(1, 20)) for scan in range(rng.integers(1, 3))]
    by_hand = [replace(case, reader="R2", minutes=1.0) if case.name in corrected else case for case in cohort.cases]
    return replace(cohort, cases=[*by_hand, *later], training_only=only), corrected


@pytest.mark.parametrize("seed", range(40))
def test_folds_selection_and_test_sets_stay_as_they_were_and_nobody_is_in_two_sets(seed):
    cohort, burden, n_folds = make_cohort(seed)
    dealt, rng = assign_folds(cohort, burden, n_folds), np.random.default_rng([seed, 9])
    taken, corrected = with_readings(cohort, rng)
    by_hand = {case.name: int(rng.poisson(6)) for case in taken.labelled if case.reader}  # corrected masks hold others
    facts = burden_of(burden["n_lesions"].to_dict() | by_hand)
    after = keep_folds(taken, dealt, facts)
    came, only = {case.name for case in cohort.cases}, patients(taken.training_only)
    assert only
    assert len(after.cases) > len(cohort.cases)
    assert {case.name: case.n_lesions for case in after.labelled} == facts["n_lesions"].to_dict()
    for fold in range(n_folds):
        before, now = split(dealt, fold), split(after, fold)
        for part in ("training", "selection", "test"):
            added = only if part == "training" else set()
            assert patients(getattr(now, part)) == patients(getattr(before, part)) | added
            assert [n for n in names(getattr(now, part)) if n in came] == names(getattr(before, part))
        sets = [patients(getattr(now, part)) for part in ("training", "selection", "test")]
        assert not sets[0] & sets[1] | sets[0] & sets[2] | sets[1] & sets[2]
        assert {case.fold for case in now.test} == {fold}
        assert sorted(names([*now.training, *now.selection, *now.test])) == sorted(names(after.labelled))
    assert {case.n_lesions_before for case in after.cases if case.name in came - corrected} <= {None}
    assert {case.fold for case in after.training_only} == {None}
    tested = [name for fold in range(n_folds) for name in names(split(after, fold).test)]
    assert sorted(tested) == sorted(names(after.cases)), "each case with a fold is tested once, and no other"


@pytest.mark.parametrize("seed", range(10))
def test_the_sets_are_the_same_when_the_cohort_is_read_again(seed, tmp_path):
    cohort, burden, n_folds = make_cohort(seed)
    taken, _ = with_readings(cohort, np.random.default_rng(seed))
    facts = burden_of({case.name: 3 for case in taken.labelled})
    after = keep_folds(taken, assign_folds(cohort, burden, n_folds), facts)
    after = after.changed(lambda case: replace(case, label=Path(f"mask_{case.name}.nii.gz")))
    write_datalist(tmp_path / "dataset.json", after)
    again = read_datalist(tmp_path / "dataset.json")
    assert names(again.training_only) == names(after.training_only)
    for fold in range(n_folds):
        for part in ("training", "selection", "test"):
            assert names(getattr(split(again, fold), part)) == names(getattr(split(after, fold), part))
    # and when a study takes it as its cohort, with the folds that it gives
    assert names(assign_folds(again, facts, n_folds).training_only) == names(after.training_only)


def test_a_patient_who_is_tested_may_have_no_case_that_is_only_for_training():
    cohort, burden, n_folds = make_cohort(1)
    dealt = assign_folds(cohort, burden, n_folds)
    first = dealt.cases[0]
    leak = replace(dealt, training_only=[replace(first, name="other", fold=None, reader="R1")])
    for fold in range(n_folds):
        with pytest.raises(CohortError, match=rf"case other, .* patient {first.patient} in fold {first.fold}"):
            split(leak, fold)


def test_a_list_with_a_case_without_fold_and_reader_is_refused_as_before(tmp_path):
    entries = [{"image": f"p{i}.nii.gz", "label": f"m{i}.nii.gz", "patient": f"p{i}", "fold": i % 2} for i in range(5)]
    del entries[4]["fold"]
    (tmp_path / "list.json").write_text(json.dumps({"training": entries}), encoding="utf-8")
    cohort = read_datalist(tmp_path / "list.json")
    assert not cohort.training_only
    with pytest.raises(CohortError, match="no fold; expected a fold for all cases, or for none"):
        assign_folds(cohort, burden_of(dict.fromkeys(names(cohort.cases), 1)), 2)


def test_tables_of_folds_and_budgets_count_them_where_they_belong():
    cohort, burden, n_folds = make_cohort(4)
    dealt = assign_folds(cohort, burden, n_folds)
    only = [Case(f"n{i}", (Path("n"),), None, f"n{i}", "lung", reader="R1", minutes=2.0) for i in range(30)]
    facts = pd.concat([burden, burden_of({case.name: 4 for case in only})])
    after = keep_folds(replace(cohort, training_only=only), dealt, facts)
    whose = pd.DataFrame(
        [(c.name, c.patient, c.primary, c.site) for c in after.labelled], columns=["case", "patient", "primary", "site"]
    )
    table = whose.join(facts, on="case")
    balances = [
        shown_in_01("c26b", study_cohort=of, labelled=table[table["case"].isin(names(of.labelled))])["balance"]
        for of in (after, dealt)
    ]
    assert balances[0].equals(balances[1])
    n = [len(patients(split(dealt, fold).training)) + 30 for fold in range(n_folds)]
    assert budget_table(after, [1.0], 0)["training patients"].tolist() == n
    half = budget_of(split(after, 0), 0.5, 0)
    assert 9 <= len({case.patient for case in half.training if case.fold is None}) <= 21, "they share in every budget"


def test_a_patient_only_for_training_is_no_leak_in_the_audit(came, tmp_path):
    dealt = came.changed(lambda case: case and replace(case, fold=int(case.patient[1]) % 2 if case.label else None))
    mask = dealt.cases[0].label
    only = replace(dealt.unlabelled[-1], label=mask.with_name("other.nii.gz"), reader="R1", minutes=1.0)
    nib.save(nib.Nifti1Image(np.ones((24, 24, 20), np.uint8), np.eye(4)), only.label)
    cohort = replace(dealt, unlabelled=dealt.unlabelled[:-1], training_only=[only])
    write_datalist(tmp_path / "dataset.json", cohort)
    assert audit([tmp_path / "dataset.json"]).clean
    leak = replace(cohort, training_only=[replace(only, patient="p0")])
    write_datalist(tmp_path / "dataset.json", leak)
    assert not audit([tmp_path / "dataset.json"]).clean


# Which masks are taken


def test_new_cases_new_scans_and_corrections_are_told_apart(layout, came):
    draw(layout, came.cases[0], how="mask", seconds=30)
    draw(layout, came.unlabelled[0], "R2", "proposal")  # c0_later
    draw(layout, came.unlabelled[1], "R1", "nothing")  # c1_later
    draw(layout, came.unlabelled[2], "R1", "proposal", seconds=120)  # u0
    draw(layout, came.unlabelled[3], "R1", finished=False)  # u1
    own = StudyLayout("second", layout.base)
    write_datalist(layout.dataset, came)
    cohort, problems = with_masks_by_hand(came, own, "first")
    assert names(cohort.cases) == ["c0", "c1", "c2", "c3", "c0_later", "c1_later"]
    assert names(cohort.training_only) == ["u0"]
    assert names(cohort.unlabelled) == ["u1", "u2"]
    by_hand = {case.name: (case.reader, case.minutes, case.begun_with) for case in cohort.labelled if case.reader}
    expected = {"c0": ("R1", 0.5, "mask"), "c0_later": ("R2", 1.5, "proposal"), "u0": ("R1", 2.0, "proposal")}
    assert by_hand == expected | {"c1_later": ("R1", 1.5, "nothing")}
    assert cohort.cases[1:4] == came.cases[1:]
    corrected = read_lesions(cohort.cases[0], came.rule).array
    assert corrected[10:12, 10:12, 14:16].all()
    told = {(p.case, p.severity): p.found for p in problems}
    assert told["-", "note"] == "1 readings that are not finished"
    assert told["c0", "note"] == "a mask that R1 corrected by hand, in 0.5 min"
    assert "began as a proposal of networks" in told["c0_later", "warning"]
    assert told["c1_later", "note"] == "a mask of R1; its patient is tested in a fold, and so is this case"
    assert len(problems) == 4


def test_a_proposal_that_was_accepted_without_a_change_is_named(layout, came):
    for case, voxels in zip(came.unlabelled[:3], (0, 2, 0), strict=True):
        draw(layout, case, how="proposal", voxels=voxels)
    draw(layout, came.unlabelled[3], how="nothing", voxels=0)
    _, problems = with_masks_by_hand(came, layout, "first")
    notes = {p.case: p.found for p in problems if p.severity == "note"}
    words = "a proposal of networks that R1 accepted without a change, in 1.5 min"
    assert notes == {"c0_later": words, "u0": words}
    assert [p.case for p in problems if p.severity == "warning"] == ["c0_later", "c1_later"]


def test_of_two_readers_the_first_to_begin_counts(layout, came, monkeypatch):
    case = came.unlabelled[2]
    for minute, reader in enumerate(["R2", "R1"]):
        monkeypatch.setattr("metaseg_nb.annotation.by_hand._now", lambda m=minute: f"2026-05-01T10:0{m}:00+00:00")
        draw(layout, case, reader, second=True)
    cohort, problems = with_masks_by_hand(came, layout, "first")
    assert cohort.training_only[0].reader == "R2"
    assert [(p.case, p.found, p.severity) for p in problems] == [("u0", "readings of R2 and R1", "note")]


def test_a_case_keeps_its_mask_where_a_second_reader_began_without_it(layout, came):
    draw(layout, came.cases[1], how="nothing")
    draw(layout, came.cases[2], how="mask")
    cohort, problems = with_masks_by_hand(came, layout, "first")
    assert cohort.cases[1] == came.cases[1]
    assert [p.found for p in problems if p.case == "c1"] == ["a reading of R1 that began with nothing"]


@pytest.mark.parametrize("drawn", [[], ["unfinished"], ["of another cohort"]])
def test_a_line_that_has_no_use_is_an_error(layout, came, drawn, write_case):
    if "unfinished" in drawn:
        draw(layout, came.unlabelled[2], finished=False)
    if "of another cohort" in drawn:
        draw(layout, write_case("stranger", labelled=False))
    with pytest.raises(CohortError, match=rf"found {len(drawn)} masks, none of them finished and of use"):
        with_masks_by_hand(came, layout, "first")
    assert with_masks_by_hand(came, layout, "") == (came, [])


@pytest.mark.parametrize(
    "rule", [LesionRule((3,)), LesionRule((2, 5), (1,)), LesionRule(threshold=0.5), LesionRule(threshold=127.0)]
)
def test_masks_count_as_lesion_whatever_values_the_cohort_uses(layout, came, rule):
    came = replace(came, rule=rule)
    draw(layout, came.unlabelled[2])
    cohort, _ = with_masks_by_hand(came, layout, "first")
    mask = read_lesions(cohort.training_only[0], rule)
    assert mask.array.sum() == 8
    assert mask.array[10:12, 10:12, 14:16].all()
    examined = examine_all(cohort.training_only, rule, layout.examinations, 1)[0]
    assert examined.facts["n_lesions"] == 1
    assert not [p for p in examined.problems if p.severity == "error"]


def test_a_copy_that_is_as_it_should_be_is_not_written_again(layout, came):
    draw(layout, came.unlabelled[2])
    label = with_masks_by_hand(came, layout, "first")[0].training_only[0].label
    before = label.stat().st_mtime_ns
    with_masks_by_hand(came, layout, "first")
    assert label.stat().st_mtime_ns == before
    label.write_bytes(label.read_bytes()[:50])
    with_masks_by_hand(came, layout, "first")
    assert read_volume(label, "u0").array.sum() == 8


def test_a_mask_of_another_image_with_the_same_name_is_refused(layout, came, write_case):
    write_datalist(layout.dataset, came)
    draw(layout, came.unlabelled[2])
    moved = write_case("elsewhere", seed=32, labelled=False)
    other = replace(came, unlabelled=[replace(moved, name="u0", patient="u0")])
    with pytest.raises(CohortError, match=r"case u0, .*found another image.*give this study the cohort"):
        with_masks_by_hand(other, StudyLayout("second", layout.base), "first")
    nib.save(nib.load(came.unlabelled[2].image), moved.image)  # a copy in another place is the same image
    cohort, _ = with_masks_by_hand(other, StudyLayout("second", layout.base), "first")
    assert names(cohort.training_only) == ["u0"]


def test_two_anonymised_studies_have_codes_of_their_own(layout, came):
    second = StudyLayout("second", layout.base)
    first_codes, _ = with_codes(came, [], [], layout.key)
    here = replace(came, cases=came.cases[::-1], unlabelled=came.unlabelled[::-1])
    while True:  # codes are dealt at random
        coded, _ = with_codes(here, [], [], second.key)
        one, other = (next(c.name for c in of.unlabelled if "u0" in str(c.image)) for of in (first_codes, coded))
        if one != other:
            break
        second.key.unlink()
    write_datalist(layout.dataset, first_codes)
    draw(layout, next(case for case in first_codes.unlabelled if case.name == one))
    cohort, _ = with_masks_by_hand(coded, second, "first")
    assert names(cohort.training_only) == [other]
    assert "u0" in str(cohort.training_only[0].image)


# Codes


@pytest.fixture
def export(tmp_path):
    """A folder of DICOM files: ten patients, P0 to P5 with masks of the same lesion."""
    for i in range(10):
        image = np.random.default_rng(i).integers(0, 900, (24, 20, 16))
        mask = np.zeros(image.shape, bool)
        mask[4:9, 5:11, 3:7] = True
        a_patient(tmp_path / f"export/{i}", image, mask if i < 6 else None, patient=f"P{i}")
    return tmp_path / "export"


@pytest.fixture
def listed(write_case, tmp_path):
    """A datalist of ten patients, P0 to P5 with masks."""
    cases = [write_case(f"P{i}", seed=i, labelled=i < 6) for i in range(10)]
    cases = [replace(case, patient=case.name) for case in cases]
    write_datalist(tmp_path / "list.json", Cohort("listed", "", cases[:6], cases[6:]))
    return tmp_path / "list.json"


def read_in_01(layout, cohort, annotations="", **changes):
    """A cohort as it came, with the masks that it takes, and its problems, as notebook 01 reads them."""
    values = explored(cohort=str(cohort), annotations=annotations, workers=1, **changes)
    names = {"settings": Explore.check(values), "layout": layout, "rule": LesionRule(), "replace": replace}
    after = shown_in_01("c05", **values, **names, Path=Path)
    return after["came"], after["found"], after["problems"]


def persons(layout, cases):
    """Who cases are, by the key of their study."""
    key = read_text_table(layout.key).set_index("code")["name"]
    return [key[case.name].split()[0] for case in cases]


def test_masks_drawn_on_imported_cases_find_their_persons_under_other_codes(layout, export):
    came, *_ = read_in_01(layout, export)
    write_datalist(layout.dataset, came)
    size_of = dict(zip(persons(layout, came.unlabelled), (2, 3, 4, 5), strict=True))
    for case, voxels in zip(came.unlabelled, size_of.values(), strict=True):
        draw(layout, case, voxels=voxels)
    second, key = StudyLayout("second", layout.base), read_text_table(layout.key)
    # as a version wrote it whose studies all had codes of their own: nobody has the code of before
    key["code"] = key.groupby("kind")["code"].transform(lambda codes: np.roll(codes, 1))
    write_table(second.key, key)
    _, found, problems = read_in_01(second, export, "first")
    assert sorted(size_of) == ["P6", "P7", "P8", "P9"]
    taken = [int(read_lesions(case, found.rule).array.sum()) for case in found.training_only]
    assert dict(zip(persons(second, found.training_only), taken, strict=True)) == {
        who: 2 * voxels**2 for who, voxels in size_of.items()
    }
    (told,) = [(p.found, p.severity) for p in problems if p.expected == RULES["codes of readings"]["expected"]]
    assert told == ("4 readings of cases that have another name or code in this study", "warning")


@pytest.mark.parametrize("source", ["export", "listed"])
def test_codes_folds_and_selection_sets_are_those_of_the_study_whose_masks_are_taken(layout, source, request):
    source, changes = request.getfixturevalue(source), {"anonymise": source == "listed"}
    second, other = StudyLayout("second", layout.base), StudyLayout("other", layout.base)
    sets = []
    for of, annotations in ((layout, ""), (second, "first")):
        came, found, problems = read_in_01(of, source, annotations, **changes)
        burden = burden_of(dict.fromkeys(names(found.labelled), 1))  # nothing but codes tells patients apart
        dealt = keep_folds(found, assign_folds(came, burden, 2), burden)
        parts = [split(dealt, fold) for fold in (0, 1)]
        sets.append([[sorted(persons(of, side)) for side in (part.test, part.selection)] for part in parts])
        if of is layout:
            write_datalist(layout.dataset, came)
            draw(layout, came.unlabelled[0])
    assert sets[0] == sets[1]
    assert persons(second, found.training_only) == persons(layout, came.unlabelled[:1])
    assert RULES["codes of readings"]["expected"] not in {p.expected for p in problems}
    assert second.key.read_bytes() == layout.key.read_bytes()
    read_in_01(other, source, **changes)
    shuffled = [read_text_table(of.key).set_index("name")["code"].to_dict() for of in (layout, other)]
    assert shuffled[0].keys() == shuffled[1].keys()
    assert shuffled[0] != shuffled[1], "a study that takes no masks has codes of its own"


def test_codes_that_a_study_has_are_never_replaced(layout):
    second = StudyLayout("second", layout.base)
    begin_with_codes(second, "first")
    assert not second.key.exists(), "the other study has no codes"
    give_codes({"case": ["a"]}, layout.key)
    begin_with_codes(second, "")
    assert not second.key.exists()
    begin_with_codes(second, "first")
    give_codes({"case": ["b", "c"]}, layout.key)
    give_codes({"case": ["c"]}, second.key)
    begin_with_codes(second, "first")
    assert case_codes(second.key) == {"a": "case_0001", "c": "case_0002"}
    one, other = case_codes(layout.key), case_codes(second.key)
    theirs = {one["a"]: other["a"], one["c"]: other["c"]}
    assert called_here(second, other.values(), layout, one.values()) == theirs, "b is not here"


def test_a_list_that_names_cases_by_the_codes_of_the_other_study_is_read(layout, export):
    came, *_ = read_in_01(layout, export)
    write_datalist(layout.dataset, came)
    draw(layout, came.unlabelled[2])
    _, found, problems = read_in_01(StudyLayout("second", layout.base), layout.dataset, "first")
    assert names(found.training_only) == names(came.unlabelled[2:3])
    assert RULES["codes of readings"]["expected"] not in {p.expected for p in problems}


# An existing study


def explored(**changes):
    values = {name: value for name, value in resolve("01_explore_data", "demo").items() if name in Explore.model_fields}
    return values | changes


def explore(**changes):
    return Explore.check(explored(**changes))


def test_the_line_makes_another_cohort_and_no_study_is_replaced(layout, came):
    draw(layout, came.unlabelled[2])
    write_datalist(layout.dataset, came, settings=explore())
    with pytest.raises(CohortError, match="`annotations` '', now 'first'"):
        require_same_settings(layout, explore(annotations="first"))
    content = json.loads(layout.dataset.read_text(encoding="utf-8"))
    del content["settings"]["annotations"]  # as an earlier version wrote it
    layout.dataset.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CohortError, match="an earlier version, which kept fewer settings"):
        require_same_settings(layout, explore())


def test_masks_that_were_finished_later_do_not_change_a_study(layout, came):
    draw(layout, came.unlabelled[2])
    second = StudyLayout("second", layout.base)
    write_datalist(layout.dataset, came)
    taken, _ = with_masks_by_hand(came, second, "first")
    write_datalist(second.dataset, taken)
    assert with_masks_by_hand(came, second, "first")[0] == taken
    draw(layout, came.unlabelled[3])
    with pytest.raises(
        CohortError, match=r"with 1 masks drawn by hand, now 2; they differ for u1; .*but another `study`"
    ):
        with_masks_by_hand(came, second, "first")
    assert not (second.masks_by_hand / "u1.nii.gz").exists()
    second.dataset.unlink()
    assert names(with_masks_by_hand(came, second, "first")[0].training_only) == ["u0", "u1"]


def test_a_run_is_of_another_cohort_when_such_a_case_is_added(came):
    dealt = replace(came, cases=[replace(case, fold=i % 2) for i, case in enumerate(came.cases)])
    more = replace(dealt, training_only=[replace(came.unlabelled[2], label=came.cases[0].label)])
    assert scored_with(dealt)["cohort_hash"] != scored_with(more)["cohort_hash"]
    assert set(scored_with(more)["labels"]) == {"c0", "c1", "c2", "c3", "u0"}


def test_folds_follow_the_masks_that_the_cohort_came_with(layout, came):
    draw(layout, came.cases[0], how="mask")  # a third lesion
    draw(layout, came.unlabelled[2])
    cohort, _ = with_masks_by_hand(came, layout, "first")
    cases = cohort.all_cases
    facts = cases_table(cases, examine_all(cases, cohort.rule, layout.examinations, 1))
    assert facts.set_index("case").loc[["c0", "c1", "u0"], "n_lesions"].tolist() == [3, 2, 1]
    assert facts.set_index("case").loc[["c0", "c1", "u0"], "reader"].tolist() == ["R1", "", "R1"]
    assert facts.set_index("case")["minutes"].dropna().to_dict() == {"c0": 1.5, "u0": 1.5}
    before = as_it_came(came, cohort, facts, layout.former_examinations, 1)
    assert before.loc[["c0", "c1", "u0"], "n_lesions"].tolist() == [2, 2, 1]
    after = keep_folds(cohort, assign_folds(came, before, 2), facts.set_index("case"))
    c0 = after.cases[0]
    assert (c0.n_lesions, c0.n_lesions_before, c0.burden) == (3, 2, 2)


@pytest.mark.slow
def test_a_second_study_takes_what_was_drawn_in_the_first(write_case, tmp_path, metaseg):
    cases = [write_case(name, seed=i, primary=["lung", "renal"][i % 2]) for i, name in enumerate("abcdefgh")]
    new = [write_case(name, seed=20 + i, labelled=False) for i, name in enumerate(("a_later", "u", "v"))]
    new[0] = replace(new[0], patient=cases[0].patient)
    listed = [
        {"case": c.name, "image": str(c.image), "patient": c.patient, "primary": c.primary} for c in [*cases, *new]
    ]
    entries = [entry | {"label": str(case.label)} for entry, case in zip(listed, cases, strict=False)]
    (tmp_path / "list.json").write_text(json.dumps({"training": entries, "testing": listed[8:]}), encoding="utf-8")
    lines = f"cohort: {tmp_path / 'list.json'}\nn_folds: 2\nworkers: 1\nbias_correction: none\n"
    (tmp_path / "first.yaml").write_text(f"study: first\n{lines}", encoding="utf-8")
    (tmp_path / "second.yaml").write_text(f"study: second\nannotations: first\n{lines}", encoding="utf-8")
    refused = metaseg(tmp_path, "run", "01_explore_data", "--study", tmp_path / "second.yaml")
    assert refused.returncode == 1
    assert "found 0 masks, none of them finished and of use for this cohort" in refused.stderr
    first, second = StudyLayout("first", tmp_path), StudyLayout("second", tmp_path)
    made = metaseg(tmp_path, "run", "01_explore_data", "--study", tmp_path / "first.yaml")
    assert made.returncode == 0, made.stderr
    for voxels, (case, how) in enumerate([(new[0], "nothing"), (new[1], "proposal"), (cases[2], "mask")], 2):
        draw(first, case, how=how, voxels=voxels)
    made = metaseg(tmp_path, "run", "01_explore_data", "--study", tmp_path / "second.yaml")
    assert made.returncode == 0, made.stderr
    before, after = read_datalist(first.dataset), read_datalist(second.dataset)
    assert [(c.name, c.fold) for c in after.cases[:8]] == [(c.name, c.fold) for c in before.cases]
    assert (after.cases[8].name, after.cases[8].fold) == ("a_later", before.cases[0].fold)
    assert names(after.training_only) == ["u"]
    for fold in (0, 1):
        was, now = split(before, fold), split(after, fold)
        assert names(now.selection)[: len(was.selection)] == names(was.selection)
        assert patients(now.test) == patients(was.test)
        assert patients(now.training) == patients(was.training) | {"patient_u"}
    facts = pd.read_csv(second.cases_table, index_col="case")
    assert facts["reader"].dropna().to_dict() == {"c": "R1", "a_later": "R1", "u": "R1"}
    assert facts["minutes"].dropna().to_dict() == {"c": 1.5, "a_later": 1.5, "u": 1.5}
    assert "a mask that R1 corrected by hand" in second.problems_table.read_text(encoding="utf-8")
    again = second.dataset.read_bytes()
    assert metaseg(tmp_path, "run", "01_explore_data", "--study", tmp_path / "second.yaml").returncode == 0
    assert second.dataset.read_bytes() == again
    made = metaseg(tmp_path, "run", "02_preprocess_n4", "--study", tmp_path / "second.yaml")
    assert made.returncode == 0, made.stderr
    for fold in (0, 1):
        settings, run = resolve("03_train", str(tmp_path / "second.yaml"), "unet", fold), second.run("unet", fold)
        learnt = annotated_training_set(split(after, fold), Train.check(settings), second, run, torch.device("cpu"))
        (kept,) = [case for case in learnt.cases if case.name == "u"]
        assert kept.label[10:13, 10:13, 14:16].all(), "the cube that was drawn in the first study"
        row = learnt.table.set_index("case").loc["u"]
        assert row[["role", "annotation", "known_share"]].tolist() == ["training", "full", 1.0]
        assert row[["n_lesions", "n_contoured", "n_slices"]].tolist() == [2, 2, 2 + 2]
