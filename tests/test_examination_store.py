"""Kept examinations: the same as new ones, and never those of other files."""

import os

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from metaseg_nb.cohort import examination
from metaseg_nb.cohort.cases import LesionRule
from metaseg_nb.cohort.examination import changed_since, examine, examine_all, keep_examination, load_examination

RULE = LesionRule((1,))


@pytest.fixture
def read(monkeypatch):
    """Names of the cases that were read since it was last cleared."""
    names = []

    def watched(case, rule):
        names.append(case.name)
        return examine(case, rule)

    monkeypatch.setattr(examination, "examine", watched)
    return names


def test_what_is_kept_is_what_was_found(write_case, tmp_path):
    case = write_case("a", axes="LPS", spacing_mm=(7, 8, 9))
    new = examine(case, RULE)
    keep_examination(tmp_path, case, RULE, new)
    kept = load_examination(tmp_path, case, RULE)
    assert kept.facts == new.facts
    assert kept.problems == new.problems
    pd.testing.assert_frame_equal(kept.lesions, new.lesions, check_dtype=False, check_exact=True)
    for name in ("grey_slice", "lesion_slice", "head_map", "lesion_map", "ranks", "anatomy"):
        np.testing.assert_array_equal(getattr(kept, name), getattr(new, name))


@pytest.mark.parametrize("broken", [False, True], ids=["good", "unreadable"])
def test_a_second_run_reads_nothing(write_case, tmp_path, read, broken):
    cases = [write_case(name, seed=i) for i, name in enumerate("ab")]
    if broken:
        cases[0].image.write_bytes(b"")
    first = examine_all(cases, RULE, tmp_path / "kept", workers=1)
    assert read == ["a", "b"]
    second = examine_all(cases, RULE, tmp_path / "kept", workers=1)
    assert read == ["a", "b"]
    assert [e.problems for e in second] == [e.problems for e in first]


def test_exactly_what_changed_is_named_and_read_again(write_case, tmp_path, read):
    cases = [write_case(name, seed=i) for i, name in enumerate("abc")]
    examine_all(cases, RULE, tmp_path / "kept", workers=1)
    assert changed_since(cases, RULE, tmp_path / "kept") == []
    read.clear()
    image = nib.load(cases[1].label)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), cases[1].label)
    assert changed_since(cases, RULE, tmp_path / "kept") == ["b"]
    assert examine_all(cases, RULE, tmp_path / "kept", workers=1)[1].facts["n_lesions"] == 0
    assert read == ["b"]
    os.utime(cases[2].image)
    cases[0].label.unlink()
    assert "no such file" in examine_all(cases, RULE, tmp_path / "kept", workers=1)[0].problems[0].found
    assert read == ["b", "a", "c"]


@pytest.mark.parametrize("damage", [lambda raw: b"", lambda raw: raw[:-9], lambda raw: raw[:60] + b"\xff" + raw[61:]])
def test_a_case_whose_kept_file_is_damaged_is_read_again(write_case, tmp_path, read, damage):
    case = write_case("a")
    (first,) = examine_all([case], RULE, tmp_path, workers=1)
    (tmp_path / "a.npz").write_bytes(damage((tmp_path / "a.npz").read_bytes()))
    (again,) = examine_all([case], RULE, tmp_path, workers=1)
    assert read == ["a", "a"]
    assert again.facts == first.facts


def test_what_an_older_version_found_is_looked_for_again(write_case, tmp_path, read, monkeypatch):
    cases = [write_case("a")]
    with monkeypatch.context() as older:
        older.setattr(examination, "VERSION", examination.VERSION - 1)
        examine_all(cases, RULE, tmp_path / "kept", workers=1)
    examine_all(cases, RULE, tmp_path / "kept", workers=1)
    assert read == ["a", "a"]


def test_another_rule_is_another_look(write_case, tmp_path, read):
    cases = [write_case("a")]
    examine_all(cases, RULE, tmp_path / "kept", workers=1)
    found = examine_all(cases, LesionRule((2,)), tmp_path / "kept", workers=1)
    assert read == ["a", "a"]
    assert "label values 1" in found[0].problems[0].found


def test_a_run_that_was_killed_goes_on(write_case, tmp_path, read, monkeypatch):
    cases = [write_case(name, seed=i) for i, name in enumerate("abc")]
    keep = examination.keep_examination

    def killed(folder, case, rule, examination):
        if case.name == "b":
            raise KeyboardInterrupt
        keep(folder, case, rule, examination)

    monkeypatch.setattr(examination, "keep_examination", killed)
    with pytest.raises(KeyboardInterrupt):
        examine_all(cases, RULE, tmp_path / "kept", workers=1)
    monkeypatch.setattr(examination, "keep_examination", keep)
    read.clear()
    examine_all(cases, RULE, tmp_path / "kept", workers=1)
    assert read == ["b", "c"]
    assert not list((tmp_path / "kept").glob(".*")), "nothing half-written is left"


def test_worker_processes_find_the_same(write_case, tmp_path):
    cases = [write_case(name, seed=i) for i, name in enumerate("abc")]
    alone = examine_all(cases, RULE, tmp_path / "one", workers=1)
    together = examine_all(cases, RULE, tmp_path / "two", workers=2)
    assert [e.facts for e in alone] == [e.facts for e in together]
    assert [e.problems for e in alone] == [e.problems for e in together]
