"""Names and words: no riddles as names, and one word for one thing in all that is read."""

import ast
import json
import re

import pytest

from metaseg_nb.layout import NOTEBOOKS, PROJECT

# They do not say what they hold.
RIDDLES = {"said", "there", "brought", "fading", "telling", "untold"}
CODE = [*(PROJECT / "metaseg_nb").rglob("*.py"), *(PROJECT / "benchmarks").rglob("*.py"), *NOTEBOOKS.glob("*.ipynb")]


def names(source):
    """Each name in a source that is given or used: variables, arguments, attributes, functions, classes, imports."""
    for node in ast.walk(ast.parse(source)):
        yield from (value for _, value in ast.iter_fields(node) if isinstance(value, str) and value.isidentifier())


def source_of(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return text
    return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code")


def riddles(source):
    return sorted({name for name in names(source) if name.lower().strip("_") in RIDDLES})


@pytest.mark.parametrize(
    "source", ["said = 1", "def brought(): pass", "def f(there): pass", "x._fading", "for UNTOLD in y: pass"]
)
def test_a_riddle_is_found(source):
    assert len(riddles(source)) == 1


def test_no_name_is_a_riddle():
    found = {path.name: riddles(source_of(path)) for path in CODE}
    assert {name: words for name, words in found.items() if words} == {}


# The glossary's word is another; it explains some of these in brackets.
SYNONYMS = {
    "false lesion": r"(?<!\()false[ -](positive|alarm|finding)s?",
    "missed lesion": r"(?<!\()false[ -]negatives?",
    "reference": r"ground[ -]truth|gold[ -]standard",
    "selection set": r"validation[ -]set",
    "test set": r"held[ -]out|hold[ -]?out",
}
TEXTS = [PROJECT / "README.md", *PROJECT.glob("docs/*.md"), *NOTEBOOKS.glob("*.ipynb")]
TEXTS += [*(PROJECT / "metaseg_nb").rglob("*.j2"), *(PROJECT / "metaseg_nb").rglob("*.py")]


def synonyms(text):
    found = [(word, match) for word, of in SYNONYMS.items() for match in re.finditer(of, text, re.IGNORECASE)]
    return [f"{match[0]}: say {word}" for word, match in found]


def test_a_synonym_is_found_but_not_where_brackets_explain_a_word():
    assert synonyms("Large false positives") == ["false positives: say false lesion"]
    assert synonyms("false lesions (false positives)") == []


def test_one_word_for_one_thing():
    found = {path.name: synonyms(path.read_text(encoding="utf-8")) for path in TEXTS}
    assert {name: words for name, words in found.items() if words} == {}
