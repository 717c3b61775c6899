"""Names and words: no riddles as names, and one word for one thing in all that is read."""

import ast
import json
import re
from collections import defaultdict

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


def defined(source):
    """Names of the public classes, functions and constants of a module."""
    for node in ast.parse(source).body:
        targets = (
            getattr(node, "targets", None) or [node.target] if isinstance(node, ast.Assign | ast.AnnAssign) else []
        )
        names = [each for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]
        found = {each.id for each in names if isinstance(each.ctx, ast.Store)}
        found |= {node.name} if isinstance(node, ast.ClassDef | ast.FunctionDef) else set()
        yield from (name for name in found if not name.startswith("_"))


def taken(source):
    """Names that a file takes from others: imported, or asked of a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Attribute):
            yield node.attr


def test_public_names_of_a_module():
    source = "A, _B = 1, 2\nC: int = 3\nclass D: pass\ndef e(): x = 1\nD.f = 1"
    assert sorted(defined(source)) == ["A", "C", "D", "e"]
    assert {*taken("from metaseg_nb.x import A\nimport y\ny.B = C")} == {"A", "B"}


def test_one_name_means_one_thing():
    """Classes, functions, and constants that more than their own module uses; commands are called as what they do."""
    modules = [path for path in CODE if path.is_relative_to(PROJECT / "metaseg_nb") and path.name != "__main__.py"]
    used = {name for path in CODE for name in taken(source_of(path))}
    places = defaultdict(list)
    for path in modules:
        for name in defined(source_of(path)):
            places[name].append(path.name)
    twice = {name: of for name, of in places.items() if len(of) > 1 and (name in used or not name.isupper())}
    assert twice == {}
