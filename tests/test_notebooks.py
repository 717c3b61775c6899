"""The notebooks as they are committed: no outputs, one parameters cell, one opening, cells that fit a screen."""

import re

import nbformat
import pytest

from metaseg_nb.figures.style import MODEL_COLOURS, MORE_COLOURS
from metaseg_nb.layout import NOTEBOOKS, PROJECT
from metaseg_nb.settings import NOTEBOOK_SETTINGS

FILES = sorted(NOTEBOOKS.glob("*.ipynb"))
LONGEST_CELL, LONGEST_LIST = 25, 60  # a step; parameters or imports, which are looked up and not read
LONGEST_PLOT, LONGEST_BACKGROUND = 18, 9  # lines; sentences


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_every_notebook_has_its_settings():
    assert [path.stem for path in FILES] == list(NOTEBOOK_SETTINGS)


def test_no_outputs_are_committed(notebook):
    assert all(not cell.outputs and cell.execution_count is None for cell in code_cells(notebook))
    assert "widgets" not in notebook.metadata


def test_the_first_code_cell_and_no_other_holds_the_parameters(notebook):
    tagged = ["parameters" in cell.metadata.get("tags", []) for cell in code_cells(notebook)]
    assert tagged == [True] + [False] * (len(tagged) - 1)


def test_the_opening_says_what_is_read_written_and_needed(notebook):
    opening = notebook.cells[0].source
    assert opening.startswith("# 0")
    assert all(f"- **{word}**" in opening for word in ("Reads", "Writes", "Needs", "Steps"))


def test_cells_fit_a_screen_and_define_no_class(notebook):
    for cell in code_cells(notebook):
        lines = [line for line in cell.source.splitlines() if line.strip() and not line.startswith("# ")]
        is_list = "parameters" in cell.metadata.get("tags", []) or "import" in lines[0]
        assert len(lines) <= (LONGEST_LIST if is_list else LONGEST_CELL), lines[0]
        assert not any(line.startswith(("class ", "def ")) for line in lines)


def test_a_plot_is_short_enough_to_be_changed(notebook):
    plots = [cell.source for cell in code_cells(notebook)[2:] if re.search(r"\bso\.Plot\(|\b(sns|plt)\.", cell.source)]
    lengths = [(len([line for line in plot.splitlines() if line.strip()]), plot) for plot in plots]
    assert [plot for lines, plot in lengths if lines > LONGEST_PLOT] == []


def test_no_colour_in_a_cell_is_that_of_a_network(notebook):
    of_networks = {colour.upper() for colour in (*MODEL_COLOURS.values(), *MORE_COLOURS)}
    found = {
        colour.upper() for cell in code_cells(notebook) for colour in re.findall(r"#[0-9A-Fa-f]{6}\b", cell.source)
    }
    assert found & of_networks == set()


def sentences(text):
    """How many sentences there are outside of tables, formulas and brackets."""
    lines = [line for line in text.splitlines() if not line.startswith(("#", "|", "$$"))]
    return len(re.findall(r"[.?!](?=\s|$)", re.sub(r"\([^()]*\)", "", "\n".join(lines))))


def test_the_background_is_short(notebook):
    assert sentences("## Background\n**N4** (Sled et al. 1998) fits a field. Is it right? Look.\n| a. | b. |") == 3
    (background,) = [
        re.split("^## ", cell.source, flags=re.M) for cell in notebook.cells if "## Background" in cell.source
    ]
    (text,) = [part for part in background if part.startswith("Background")]
    assert 4 <= sentences(text.removeprefix("Background")) <= LONGEST_BACKGROUND


def test_words_stand_before_steps(notebook):
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds.count("markdown") >= kinds.count("code") / 2


@pytest.mark.parametrize(
    "document", [*FILES, *PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md")], ids=lambda path: path.name
)
def test_a_module_that_a_document_names_is_there(document):
    named = set(re.findall(r"metaseg_nb/[\w/]+\.py", document.read_text(encoding="utf-8")))
    assert [path for path in sorted(named) if not (PROJECT / path).is_file()] == []


# What each notebook writes last, and so by what others know that it ran to its end; 03 and 03b: see test_fit.
MARKS = {"02_preprocess_n4": "preprocessing_table", "04_cross_validation": "layout.comparison"}
MARKS |= {"05_qualitative_review": "cases.csv", "06_annotation_budget": "layout.budget_record"}
MARKS |= {"07_radiotherapy": "layout.radiotherapy_record", "09_follow_up": "layout.follow_up_record"}


@pytest.mark.parametrize("name", MARKS)
def test_a_notebook_that_is_run_again_takes_away_first_what_it_writes_last(name):
    cells = code_cells(nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4))
    lines = [line for cell in cells for line in cell.source.splitlines()]
    (away,) = [i for i, line in enumerate(lines) if MARKS[name] in line and ".unlink(" in line]
    writes = [i for i, line in enumerate(lines) if re.search(r"\bwrite_\w+\(|\brecords\.\w+\(", line)]
    assert away < writes[0]
    assert MARKS[name] in lines[writes[-1]]
