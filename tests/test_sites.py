"""Sites: where they come from, folds that are sites, and what changes at sites that were not in training."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from test_evaluation_figures import after
from test_folds import burden_of, shown_in_01, small

import metaseg_nb as ms
from metaseg_nb.checksums import write_record
from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.datalist import read_datalist, write_datalist
from metaseg_nb.cohort.folds import assign_folds, keep_folds, split
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.sources import read_cohort
from metaseg_nb.cohort.sources.naming import site_of
from metaseg_nb.evaluation import pooling
from metaseg_nb.evaluation.conclusions import known_and_new_sites
from metaseg_nb.evaluation.intervals import bootstrap_interval
from metaseg_nb.evaluation.pooling import compared
from metaseg_nb.evaluation.strata import site_differences, with_site_seen
from metaseg_nb.files import write_table
from metaseg_nb.layout import StudyLayout
from metaseg_nb.settings import CrossValidate, ParameterError


@pytest.mark.parametrize(
    ("maker", "field_strength", "site"),
    [
        ("SIEMENS", "1.5", "Siemens 1.5 T"),
        ("Siemens Healthineers", "1.494", "Siemens 1.5 T"),
        ("GE MEDICAL SYSTEMS", "3", "GE 3 T"),
        ("Philips", "15000", "Philips 1.5 T"),  # gauss
        ("UIH", "3.0", "United Imaging 3 T"),
        ("UIH", "5", "United Imaging 5 T"),
        ("CANON_MEC", "3", "Canon 3 T"),
        ("UNKNOWN", "3", ""),
        ("n/a", "3", ""),
        ("Anonymized", "1.5", ""),
        ("Siemens", "", ""),
        ("", "3", ""),
        ("Siemens", "nan", ""),
        ("Siemens", "0", ""),
        ("Siemens", "strong", ""),
    ],
)
def test_a_site_is_the_maker_and_the_field_strength_in_plain_words(maker, field_strength, site):
    assert site_of(maker, field_strength) == site


def of_sites(sites, patient_names=None, folds=None):
    cohort = small(folds or [None] * len(sites), patient_names)
    return replace(cohort, cases=[replace(case, site=site) for case, site in zip(cohort.cases, sites, strict=True)])


def dealt(cohort, n_folds):
    return assign_folds(cohort, burden_of({case.name: 1 for case in cohort.cases}), n_folds, "site")


def test_each_site_is_a_fold_and_its_patients_are_in_no_other_set():
    sites = ["B", "A", "C", "A", "B", "C", "C", "B", "A"]
    cohort = dealt(of_sites(sites), 3)
    assert [case.fold for case in cohort.cases] == ["ABC".index(site) for site in sites]
    for fold, site in enumerate("ABC"):
        parts = split(cohort, fold)
        assert {case.site for case in parts.test} == {site}
        assert site not in {case.site for case in [*parts.training, *parts.selection]}
        assert len(parts.training) + len(parts.selection) + len(parts.test) == len(sites)


def test_a_mask_that_was_drawn_later_is_not_learned_from_where_its_site_is_tested(tmp_path):
    cohort = dealt(of_sites(["A", "A", "B", "B", "A", "B"]), 2)
    later = Case("later", (Path("l.nii.gz"),), Path("m.nii.gz"), patient="new", primary="lung", site="A", reader="R1")
    facts = burden_of({case.name: 1 for case in [*cohort.cases, later]})
    kept = keep_folds(replace(cohort, training_only=[later]), cohort, facts)
    assert [later.name in [case.name for case in split(kept, fold).training] for fold in (0, 1)] == [False, True]
    cases = [replace(case, label=Path(f"{case.name}_m.nii.gz")) for case in kept.cases]
    write_datalist(tmp_path / "dataset.json", replace(kept, cases=cases))
    again = read_datalist(tmp_path / "dataset.json")
    assert again.folds_by == "site"
    assert [case.site for case in again.all_cases] == ["A", "A", "B", "B", "A", "B", "A"]


@pytest.mark.parametrize(
    ("cohort", "n_folds", "named"),
    [
        (of_sites(["A", "unknown", "B", "unknown"]), 2, ["case c1,", "case c3,", "no site", "`patients_table`"]),
        (of_sites(["A", "A", "A"]), 2, ["only the site A", "two sites or more"]),
        (of_sites(["A", "B", "C", "C"]), 2, ["2 folds for 3 sites: A, B, C", "set `n_folds` in the study file to 3"]),
        (of_sites(["A", "B", "A", "B"], ["p", "p", "q", "r"]), 2, ["patient p with A and B", "one site"]),
        (
            of_sites(["A", "B", "A", "B"], folds=[0, 1, 1, 0]),
            2,
            ["site A in fold 0", "site A in fold 1", 'remove "fold"'],
        ),
    ],
    ids=["no site", "one site", "other number", "patient of two", "given folds"],
)
def test_sites_that_cannot_be_folds_are_refused_by_name(cohort, n_folds, named):
    with pytest.raises(CohortError) as error:
        dealt(cohort, n_folds)
    for words in named:
        assert words in str(error.value)


def test_too_few_patients_at_the_other_sites_are_named():
    with pytest.raises(CohortError, match=r"2 patients outside fold 0.*set `folds_by: patient`"):
        split(dealt(of_sites(["A", "A", "A", "B", "B"]), 2), 0)


def test_a_site_stands_in_a_list_or_table_and_is_spelled_one_way(tmp_path):
    entries = [{"image": f"{name}.nii.gz", "label": f"{name}_m.nii.gz", "patient": name} for name in "abc"]
    entries = [entry | {"site": site} for entry, site in zip(entries, ["Bern", "bern ", "Chur"], strict=True)]
    (tmp_path / "list.json").write_text(json.dumps({"training": entries}), encoding="utf-8")
    (tmp_path / "p.csv").write_text("case,Site\nc,Basel\n", encoding="utf-8")
    cohort, problems = read_cohort("list.json", base=tmp_path, patients_table="p.csv")
    assert [case.site for case in cohort.cases] == ["Bern", "Bern", "Basel"]
    assert {problem.severity for problem in problems} == {"warning"}  # cases without a row


def test_the_table_of_folds_names_their_sites():
    cohort = dealt(of_sites(["A", "A", "B", "B"]), 2)
    facts = burden_of({case.name: 1 for case in cohort.cases}).rename_axis("case").reset_index()
    facts = facts.assign(
        **{key: [getattr(case, key) for case in cohort.cases] for key in ("patient", "primary", "site")}
    )
    assert shown_in_01("c26b", study_cohort=cohort, labelled=facts)["balance"]["sites"].tolist() == ["A", "B"]


def scores(cohort, dice):
    """Metrics of one network: a Dice for each case of a cohort."""
    rows = [("unet", case.name, case.patient, case.site, case.fold) for case in cohort.cases]
    return pd.DataFrame(rows, columns=["model", "case", "patient", "site", "fold"]).assign(dice=dice)


SITES = ["A"] * 6 + ["B"] * 6
BY_SITE = dealt(of_sites(SITES), 2)
BY_PATIENT = of_sites(SITES, folds=[0, 1] * 6)
# Dice of each case by a network that did not know its site, and by one that did.
NEW, KNOWN = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7] * 2, [0.4, 0.4, 0.6, 0.5, 0.9, 0.8] * 2


def test_patients_who_were_tested_in_both_ways_are_compared_with_themselves():
    new = with_site_seen(scores(BY_SITE, NEW), BY_SITE)
    known = with_site_seen(scores(BY_PATIENT, KNOWN), BY_PATIENT)
    assert not new["site_seen"].any()
    (row,) = site_differences(pd.concat([new, known]), ["unet"], 2000, 0).itertuples()
    gains = np.array([0.2, 0.1, 0.2, 0.0, 0.3, 0.1] * 2)
    in_order = np.argsort([case.patient for case in BY_SITE.cases])
    assert (row.seen, row.unseen, row.difference) == pytest.approx((0.6, 0.45, gains.mean()))
    assert row.paired and (row.n_seen, row.n_unseen) == (12, 12)
    assert (row.low, row.high) == pytest.approx(bootstrap_interval(gains[in_order], 2000, 0))
    assert (row.training_seen, row.training_unseen) == (4, 4)
    assert "better at known sites" in known_and_new_sites(
        new, site_differences(pd.concat([new, known]), ["unet"], 200, 0)
    )


def test_one_patient_was_tested():
    cohort, dice = of_sites([*"AAAB"], folds=[0, 0, 1, 1]), pd.Series([0.5, 0.6])
    rows = scores(cohort, 0.5)[:1].assign(training_patients=2)
    both = pd.concat([rows.assign(site_seen=seen, dice=of) for seen, of in zip((True, False), dice, strict=True)])
    assert "known (n = 1) and new sites (n = 1): the same patients." in known_and_new_sites(
        both, site_differences(both, ["unet"], 200, 0)
    )


def test_cases_are_paired_not_patients():
    """A patient with a case at each of two sites does not push all others out."""
    cohort = of_sites([*"AAAAAA", "B", "C"], ["p", *"abcdef", "p"], folds=[0, 1] * 4)
    tested = with_site_seen(scores(cohort, [0.5] * 6 + [0.2, 0.3]), cohort)
    assert set(tested.loc[tested["patient"] == "p", "site_seen"]) == {True, False}
    (row,) = site_differences(tested, ["unet"], 200, 0).itertuples()
    assert not row.paired
    assert (row.n_seen, row.n_unseen) == (6, 2)


def test_a_site_that_the_decision_was_chosen_on_is_known():
    cohort = of_sites(["A"] * 10, folds=[0, 0, 0, *[1] * 7])
    chosen = {"c0", *(case.name for case in split(cohort, 0).selection)}
    cohort = cohort.changed(lambda case: replace(case, site="B") if case.name in chosen else case)
    tested = with_site_seen(scores(cohort, 0.5), cohort)
    (one,) = tested[tested["case"] == "c0"].itertuples()
    assert one.site_seen
    assert one.training_patients == 7 - 2


def finish_other_study(monkeypatch, its, dice):
    """What `compared` reads of a study with other folds: its cohort, a Dice for each case, and no settings."""
    monkeypatch.setattr(pooling, "read_study_cohort", lambda layout: its)
    monkeypatch.setattr(pooling, "scored_with", lambda cohort: {"labels": {}})
    monkeypatch.setattr(pooling, "_trained_with", lambda *of: {})
    monkeypatch.setattr(pooling, "pool", lambda layout, of, models: SimpleNamespace(metrics=scores(of, dice)))


def test_a_compared_study_takes_the_sites_of_this_one(monkeypatch):
    nowhere = BY_PATIENT.changed(lambda case: replace(case, site="unknown"))
    finish_other_study(monkeypatch, nowhere, 0.5)
    found = compared("other", StudyLayout("own"), BY_SITE, ["unet"])
    assert found["site"].tolist() == SITES
    assert found["site_seen"].all()


def test_notebook_04_compares_each_patient_of_two_studies_with_themselves(monkeypatch, tmp_path):
    """The cell of sites, as in demo_sites with `compared_study: demo_sites_known`, and without it."""
    finish_other_study(monkeypatch, BY_PATIENT, KNOWN)
    names = {"ms": ms, "layout": StudyLayout("own", tmp_path), "cohort": BY_SITE, "networks": ["unet"]}
    names |= {"results": SimpleNamespace(metrics=scores(BY_SITE, NEW)), "resampling": (2000, 0)}
    figures, found = after('records.figure(figure, "sites")', compared_study="other", **names)
    (row,) = found["differences"].itertuples()
    assert row.paired and (row.n_seen, row.n_unseen) == (12, 12)
    assert (row.seen, row.unseen, row.difference) == pytest.approx((0.6, 0.45, 0.15))
    assert 0 < row.low < row.difference < row.high
    assert [*figures] == ["sites"]
    assert "new sites (n = 12): the same patients." in known_and_new_sites(found["tested"], found["differences"])
    figures, found = after('records.figure(figure, "sites")', compared_study="", **names)
    assert figures == {} and found["differences"].empty, "no site was in training"


def of_codes(cohort, layout, kind, first):
    """A cohort of which each study has codes of its own, kept in its key: they begin at a case or patient."""
    codes = []
    for of, named in ((kind, [c.name for c in cohort.cases]), ("patient", [c.patient for c in cohort.cases])):
        codes += [(of, name, f"{of}_{(i + first) % len(named):04d}") for i, name in enumerate(named)]
    write_table(layout.key, pd.DataFrame(codes, columns=["kind", "name", "code"]))
    code = {name: code for _, name, code in codes}
    return cohort.changed(lambda case: replace(case, name=code[case.name], patient=code[case.patient]))


@pytest.mark.parametrize("kind", ["case", "examination"])
def test_a_compared_study_with_other_codes_is_compared_person_by_person(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("METASEG_HOME", str(tmp_path))
    layout, other = StudyLayout("own"), StudyLayout("other")

    def with_mask(case):
        mask = tmp_path / f"{case.name}_mask.nii.gz"
        mask.write_text(case.name, encoding="utf-8")
        return replace(case, label=mask, n_lesions=1)

    by_site, by_patient = (cohort.changed(with_mask) for cohort in (BY_SITE, BY_PATIENT))
    own, its = of_codes(by_site, layout, kind, 0), of_codes(by_patient, other, kind, 5)
    write_datalist(other.dataset, its.changed(lambda case: replace(case, site="unknown")))
    known = {case.label.name: 0.5 + 0.02 * i for i, case in enumerate(own.cases)}

    def pooled(layout, of, models):
        return SimpleNamespace(metrics=scores(of, [known[case.label.name] for case in of.cases]))

    monkeypatch.setattr(pooling, "_trained_with", lambda *of: {})
    monkeypatch.setattr(pooling, "pool", pooled)
    found = compared("other", layout, own, ["unet"])
    rows = found.set_index("case").loc[[case.name for case in own.cases]]
    assert rows["dice"].tolist() == [*known.values()]
    assert rows["patient"].tolist() == [case.patient for case in own.cases]
    assert rows["site"].tolist() == SITES
    new = with_site_seen(scores(own, [0.4 + 0.02 * i for i in range(12)]), own)
    (row,) = site_differences(pd.concat([new, found]), ["unet"], 200, 0).itertuples()
    assert row.paired and (row.n_seen, row.n_unseen) == (12, 12)
    assert (row.difference, row.low, row.high) == pytest.approx((0.1, 0.1, 0.1))
    own.cases[3].label.with_name("another.nii.gz").write_text("another", encoding="utf-8")
    changed = own.changed(
        lambda case: replace(case, label=case.label.with_name("another.nii.gz")) if case is own.cases[3] else case
    )
    for cohort in (changed, replace(own, cases=own.cases[:-1])):
        with pytest.raises(CohortError, match="other cases or masks than this study"):
            compared("other", layout, cohort, ["unet"])


def test_studies_of_different_operating_points_are_not_compared(monkeypatch, tmp_path):
    """Between them lie other decisions, and not only other sites."""
    own, other = StudyLayout("own", tmp_path), StudyLayout("other", tmp_path)
    for layout, point in ((own, "balanced"), (other, "sensitive")):
        facts = {"settings": {"study": layout.study, "fold": 0, "operating_point": point, "epochs": 2}, "recipe": {}}
        write_record(layout.run("unet", 0).metrics, facts | {"operating_point": point})
    monkeypatch.setenv("METASEG_HOME", str(tmp_path))
    monkeypatch.setattr(pooling, "read_study_cohort", lambda layout: BY_PATIENT)
    monkeypatch.setattr(pooling, "scored_with", lambda cohort: {"labels": {}})
    monkeypatch.setattr(pooling, "pool", lambda layout, of, models: SimpleNamespace(metrics=scores(of, 0.5)))
    with pytest.raises(CohortError, match="other: unet with operating_point sensitive instead of balanced"):
        compared("other", own, BY_SITE, ["unet"])


def test_a_study_is_not_compared_with_itself():
    with pytest.raises(ParameterError, match="'compared_study': found 'own'; expected: another study"):
        CrossValidate.check(
            {"study": "own", "models": ["unet"], "n_bootstrap": 100, "seed": 0, "compared_study": "own"}
        )


def test_different_patients_are_called_so_and_the_others_have_no_difference():
    # the one patient of site C is in no training set when she is tested
    cohort = of_sites(["A", "A", "A", "A", "B", "B", "B", "C"], folds=[0, 0, 1, 1, 0, 1, 1, 0])
    tested = with_site_seen(scores(cohort, [0.5, 0.7, 0.5, 0.7, 0.5, 0.7, 0.6, 0.1]), cohort)
    seen = {site: set(of) for site, of in tested.groupby("site")["site_seen"]}
    assert seen["C"] == {False} and True in seen["A"]
    differences = site_differences(tested, ["unet"], 2000, 0)
    (row,) = differences.itertuples()
    assert not row.paired
    assert "**different patients**" in known_and_new_sites(tested, differences)
    assert "inconclusive" in known_and_new_sites(tested, differences)
    for one, words in ((BY_SITE, "`folds_by: patient`"), (BY_PATIENT, "`folds_by: site`")):
        tested = with_site_seen(scores(one, 0.5), one)
        assert words in known_and_new_sites(tested, site_differences(tested, ["unet"], 200, 0))


def test_without_a_site_nothing_is_compared():
    cohort = of_sites(["unknown"] * 6, folds=[0, 0, 0, 1, 1, 1])
    tested = with_site_seen(scores(cohort, 0.5), cohort)
    assert "No case has a site" in known_and_new_sites(tested, site_differences(tested, ["unet"], 200, 0))
