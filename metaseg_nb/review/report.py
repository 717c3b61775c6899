"""The HTML report: one page per executed notebook and an index, in one folder that needs no network."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pandas as pd
from jinja2 import Environment, PackageLoader
from nbconvert import HTMLExporter

from metaseg_nb.cohort.datalist import read_datalist
from metaseg_nb.files import finished
from metaseg_nb.layout import StudyLayout
from metaseg_nb.settings import MODEL_NAMES, NOTEBOOK_SETTINGS, resolve

# Outputs that only live in a running JupyterLab, or are meant for its log.
NOT_SHARED = ("application/vnd.jupyter.widget-view+json",)

# What papermill puts into a notebook that failed.
PAPERMILL_BANNER = "papermill-error-cell-tag"

# A column that can be read, wide tables that scroll instead of being cut off, the result in a box.
PAGE_STYLE = """<style>
body { max-width: 68rem; margin: 0 auto; }
.jp-OutputArea-output { overflow-x: auto; }
.jp-RenderedMarkdown blockquote { border-left: 4px solid #E69F00; background: #8881; padding: .5rem .9rem; }
</style>"""


@dataclass(frozen=True)
class Page:
    """A page of the report."""

    title: str
    file: str


def write_report(study: str) -> Path:
    """Turn a study's executed notebooks into ``reports/<study>/index.html`` and its pages.

    Raises
    ------
    FileNotFoundError
        A notebook of the study has not been run.
    """
    settings = resolve("04_cross_validation", study)
    models, layout = settings["models"], StudyLayout(settings["study"])
    cohort = read_datalist(layout.dataset)
    single = [name for name in NOTEBOOK_SETTINGS if name != "03_train"]
    chapters = [_page(layout.notebook(name), layout.report / f"{name}.html") for name in single]
    runs = {MODEL_NAMES[model]: [_run_page(layout, model, fold) for fold in range(cohort.n_folds)] for model in models}
    board = pd.read_csv(layout.cross_validation / "leaderboard.csv")
    context = {
        "cohort": cohort,
        "n_patients": len({case.patient for case in cohort.cases}),
        "board": board.to_dict("records"),
        "names": MODEL_NAMES,
        "chapters": chapters,
        "runs": runs,
        "figures": [_embedded(layout.figures / f"{name}.png") for name in ("04_dice", "04_sensitivity")],
        "provenance": json.loads((layout.cross_validation / "provenance.json").read_text()),
    }
    templates = Environment(loader=PackageLoader("metaseg_nb.review", "."), autoescape=True)
    index = layout.report / "index.html"
    with finished(index) as unfinished:
        unfinished.write_text(templates.get_template("index.html.j2").render(context), encoding="utf-8")
    return index


def write_page(study: str, notebook: str) -> Path:
    """Turn one executed notebook of a study into a page of its report, whether or not the rest has been run.

    Raises
    ------
    FileNotFoundError
        The notebook has not been run.
    """
    layout = StudyLayout(resolve(notebook, study)["study"])
    return layout.report / _page(layout.notebook(notebook), layout.report / f"{notebook}.html").file


def _run_page(layout: StudyLayout, model: str, fold: int) -> Page:
    name = f"03_train_{model}_fold{fold}"
    return _page(layout.notebook("03_train", model, fold), layout.report / f"{name}.html", f"fold {fold}")


def _page(notebook: Path, html: Path, title: str | None = None) -> Page:
    if not notebook.is_file():
        raise FileNotFoundError(f"no executed notebook {notebook.name} in {notebook.parent.name}: run it first")
    content = _shareable(nbformat.read(notebook, as_version=4))
    exporter = HTMLExporter(template_name="lab", embed_images=True, exclude_input=True)
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    # the defaults ask content delivery networks for these
    exporter.require_js_url = exporter.mathjax_url = exporter.jquery_url = exporter.mermaid_js_url = ""
    body, _ = exporter.from_notebook_node(content, resources={"metadata": {"name": title or _title(content)}})
    with finished(html) as unfinished:
        unfinished.write_text(body.replace("</head>", f"{PAGE_STYLE}</head>", 1), encoding="utf-8")
    return Page(title or _title(content), html.name)


def _shareable(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Put the result below the title; drop widgets and progress bars, which on a page are blank or noise."""
    notebook.metadata.pop("widgets", None)
    notebook.cells = [cell for cell in notebook.cells if PAPERMILL_BANNER not in cell.metadata.get("tags", [])]
    notebook.cells.insert(1, nbformat.v4.new_markdown_cell(f"> {_result(notebook)}"))
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_noise(output)]
    return notebook


def _is_noise(output: nbformat.NotebookNode) -> bool:
    is_log = output.output_type == "stream" and output.name == "stderr"
    return is_log or any(kind in output.get("data", {}) for kind in NOT_SHARED)


def _result(notebook: nbformat.NotebookNode) -> str:
    """The notebook's last sentence in words, which each of them ends with; or what it said where it stopped."""
    stopped = [cell for cell in notebook.cells if any(o.output_type == "error" for o in cell.get("outputs", []))]
    outputs = (stopped or notebook.cells)[-1].outputs
    said = [output.data["text/markdown"] for output in outputs if "text/markdown" in output.get("data", {})]
    said = [text for text in said if text]
    if stopped:
        return f"**This notebook stopped before its end.** {said[-1] if said else ''}"
    return said[-1] if said else "This notebook did not run to its end."


def _title(notebook: nbformat.NotebookNode) -> str:
    return notebook.cells[0].source.splitlines()[0].lstrip("# ")


def _embedded(png: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(png.read_bytes()).decode()
