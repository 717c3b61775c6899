"""Generated lists, tables and names: each ends right or in one clear error, never in a traceback.

A fixed budget, the same inputs every time. Tables are compared with pandas as an independent reader.
"""

import json
import re
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metaseg_nb.cohort.datalist import read_datalist, write_datalist
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.sources import read_cohort
from metaseg_nb.cohort.sources.naming import name_of, primary_of
from metaseg_nb.cohort.sources.one_patient import time_points
from metaseg_nb.cohort.sources.spelling import read_csv

budget = settings(
    max_examples=120, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10**20),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["a", "b", " a ", "P1", "p1", "NA", "nan", "..", "a/b", "x" * 200, "\ud800", "~nobody/x", "\0"]),
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
paths = st.one_of(scalars, st.builds("images/{}.nii.gz".format, st.text(max_size=8)), st.lists(scalars, max_size=3))
KEYS = ("case", "patient", "primary", "scanner", "date", "fold", "n_lesions")
entries = st.fixed_dictionaries(
    {"image": paths}, optional={"label": paths, **dict.fromkeys(KEYS, values), "patient_id": values}
)
lists = st.fixed_dictionaries(
    {"training": st.lists(entries | values, max_size=5)},
    optional={
        **dict.fromkeys(("testing", "validation"), st.lists(entries | values, max_size=3) | values),
        **dict.fromkeys(("name", "description", "seed", "lesion_values", "other_values", "label_threshold"), values),
    },
)


def read(folder, **options):
    """Read the list; what comes must be usable by every later step, whatever the input was."""
    try:
        cohort, problems = read_cohort("a.json", base=folder, **options)
    except CohortError as error:
        str(error).encode("utf-8", "strict")
        assert error.problems
        return None
    cases = [*cohort.cases, *cohort.unlabelled]
    for case in cases:
        assert case.name and case.patient and case.name == unicodedata.normalize("NFC", case.name).strip()
        assert "/" not in case.name and len(case.name.encode()) <= 150
        assert Path(folder, case.name).parent == folder
        assert type(case.fold) in (int, type(None))
    assert len({case.name.casefold() for case in cases}) == len(cases)
    if not any(problem.severity == "error" for problem in problems):
        write_datalist(folder / "b.json", cohort)
        assert read_datalist(folder / "b.json") == cohort
    return cohort


@budget
@given(lists)
def test_lists_end_right_or_in_an_error(tmp_path, content):
    (tmp_path / "a.json").write_text(json.dumps(content))
    read(tmp_path)


@budget
@given(st.text(max_size=60) | st.binary(max_size=60))
def test_files_that_are_no_lists_end_in_an_error(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "replace"))
    assert read(tmp_path) is None


@budget
@given(st.data())
def test_damaged_lists_end_right_or_in_an_error(tmp_path, data):
    content = json.dumps({"training": [{"image": f"i/{c}.nii", "label": f"l/{c}.nii", "patient": c} for c in "abc"]})
    place = data.draw(st.integers(0, len(content)))
    damaged = content[:place] + data.draw(st.text(max_size=3)) + content[place + data.draw(st.integers(0, 4)) :]
    (tmp_path / "a.json").write_text(damaged, encoding="utf-8", errors="replace")
    read(tmp_path)


cells = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), max_size=8) | st.sampled_from(
    ["", "007", "1e3", "a,b", "a;b", 'say "x"', "=1+1", "x y"]
)
rows = st.lists(st.tuples(cells, cells, cells), max_size=6)


@budget
@given(rows, st.sampled_from(",;\t"))
def test_tables_are_read_as_pandas_reads_them(tmp_path, content, separator):
    table = pd.DataFrame([("k", "v", "w"), *content], columns=["case", "patient", "primary"])
    table.to_csv(tmp_path / "p.csv", sep=separator, index=False)
    ours, problems = read_csv(tmp_path / "p.csv")
    theirs = pd.read_csv(tmp_path / "p.csv", sep=separator, dtype=str, keep_default_na=False)
    expected = [[unicodedata.normalize("NFC", cell).strip() for cell in row] for row in theirs.to_numpy().tolist()]
    assert ours.to_numpy().tolist() == [row for row in expected if any(row)]
    assert problems == []


@budget
@given(st.text(max_size=80) | st.binary(max_size=80))
def test_damaged_tables_end_right_or_in_a_problem(tmp_path, content):
    (tmp_path / "a.json").write_text(json.dumps({"training": [{"image": "i/a.nii", "label": "l/a.nii"}]}))
    content = content if isinstance(content, bytes) else content.encode("utf-8", "replace")
    (tmp_path / "p.csv").write_bytes(b"case,patient,primary\n" + content)
    cohort = read(tmp_path, patients_table="p.csv")
    assert [case.name for case in cohort.cases] == ["a"]


@budget
@given(rows)
def test_each_line_that_does_not_fit_is_named(tmp_path, content):
    lines = [",".join(re.sub(r'[",\r\n]', "", cell) for cell in row[: 1 + len(row[0]) % 3]) for row in content]
    (tmp_path / "p.csv").write_text("\n".join(["case,patient,primary", *lines]), encoding="utf-8")
    table, problems = read_csv(tmp_path / "p.csv")
    said = [line for line in range(2, len(lines) + 2) if lines[line - 2].replace(",", "").strip()]
    uneven = [line for line in said if lines[line - 2].count(",") != 2]
    assert [problem.case for problem in problems] == [f"line {line}" for line in uneven]
    assert list(table.index) == [line for line in said if line not in uneven]


names = st.text(max_size=20) | st.from_regex(r"[A-Z]{0,2}[0-9]{0,4}[_\-. ]?[a-z0-9]{0,4}", fullmatch=True)


@budget
@given(st.lists(names.filter(bool), unique=True, max_size=12))
def test_the_pattern_of_a_guess_gives_its_groups(names):
    found = time_points(names, names)
    if found:
        matches = {name: re.search(found.pattern, name) for name in names}
        for group in found.groups:
            assert len({matches[name]["patient"] for name in group}) == 1


@budget
@given(st.lists(st.text(max_size=12), min_size=1, max_size=4), st.text(max_size=12))
def test_a_name_depends_on_its_path_alone_and_is_never_empty(folders, file):
    path = Path("/".join(folders).replace("\0", ""), f"{file}.nii.gz".replace("\0", ""))
    assert name_of(path) == name_of(path) != ""
    assert primary_of(path)


@pytest.mark.parametrize("pattern", ["(?P<patient>.+)", "^(?P<patient>[^_]*)", "(?P<patient>)"])
@settings(budget, max_examples=40)
@given(st.lists(names, max_size=6))
def test_patterns_read_any_names(tmp_path, pattern, names):
    training = [{"image": f"i/{i}.nii", "label": "l.nii", "case": name} for i, name in enumerate(names)]
    (tmp_path / "a.json").write_text(json.dumps({"training": training}))
    read(tmp_path, patient_pattern=pattern)
