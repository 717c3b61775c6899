"""The table of rules: whoever reports that one is broken finds it there, with all words that it leaves open."""

import ast
import csv
from pathlib import Path
from string import Template

import pytest

from metaseg_nb.cohort import problems
from metaseg_nb.cohort.checks import USUAL_MM
from metaseg_nb.cohort.problems import RULES, broken
from metaseg_nb.cohort.sources.spelling import LONGEST_BYTES, USABLE

PACKAGE = Path(problems.__file__).parents[1]


def reports():
    """Where a rule is named: file and line, the rule, and the words that are given; None where they are collected."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("broken", "refusal", "dicom_error"):
                words = {keyword.arg for keyword in node.keywords}
                rules = [each.value for each in ast.walk(node.args[0]) if isinstance(getattr(each, "value", 0), str)]
                yield from ((f"{path.name}:{node.lineno}", rule, None if None in words else words) for rule in rules)


@pytest.mark.parametrize(("place", "rule", "words"), reports())
def test_each_rule_that_is_reported_is_in_the_table_with_all_of_its_words(place, rule, words):
    needed = {word for text in RULES[rule].values() for word in Template(text).get_identifiers()}
    assert words is None or words == needed


def test_no_rule_stands_twice():
    with (PACKAGE / "cohort/rules.csv").open(encoding="utf-8", newline="") as file:
        names = [row["rule"] for row in csv.DictReader(file)]
    assert sorted(names) == sorted(RULES)


def test_each_rule_of_the_table_has_all_columns_and_is_reported():
    text = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    for rule, row in RULES.items():
        assert row["severity"] in problems.SEVERITIES and row["expected"] and None not in row.values()
        assert f'"{rule}"' in text


def test_what_is_usually_to_be_done_gives_way_to_what_helps_here():
    assert broken("UTF-8", "-", "a.json", "UTF-16").fix == "save the file in UTF-8"
    assert broken("UTF-8", "-", "a.json", "UTF-16", "unpack it").fix == "unpack it"


def test_numbers_of_the_table_are_those_of_the_checks():
    assert f"at most {LONGEST_BYTES} bytes" in USABLE
    assert "voxel edges of {:g} to {:g} mm".format(*USUAL_MM) == RULES["usual spacing"]["expected"]
