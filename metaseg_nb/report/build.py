"""The HTML report: an index, a page per executed notebook and per run, and the gallery, in one folder of its own.

No page asks anything of a network, and none says where or by whom it was made.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from pygments.formatters import HtmlFormatter

from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.datalist import read_study_cohort
from metaseg_nb.cohort.written import read_written, require_written
from metaseg_nb.files import finished, finished_folder
from metaseg_nb.layout import StudyLayout
from metaseg_nb.parameters import model_title, resolve
from metaseg_nb.privacy import private_free
from metaseg_nb.report.gallery import ABOUT, PAGES, anchor, page_file, picture_file, view_file
from metaseg_nb.report.light_pictures import with_light_pictures
from metaseg_nb.report.pages import cells_to_html, contents_of, read_notebook, result_of, title_of
from metaseg_nb.report.policy import policy, with_policy
from metaseg_nb.training.finished_run import read_finished

# Notebooks that have a page each; a study of annotation budgets starts with the last of its own.
CHAPTERS = ("01_explore_data", "02_preprocess_n4", "04_cross_validation", "05_qualitative_review")
BUDGET_CHAPTERS = ("06_annotation_budget", "01_explore_data", "02_preprocess_n4")
FIGURES = {"Dice of every patient": "04_dice", "Lesions detected by diameter": "04_sensitivity"}
# The worst of each network, by page of the gallery: its last words, for the first entry is the worst.
WORST = {"cases": "worst case", "missed": "largest missed lesion", "false": "largest false positive"}
CODE_STYLE = (
    f"@media not (prefers-color-scheme: dark) {{ {HtmlFormatter(style='default').get_style_defs('.highlight')} }}"
    f"@media (prefers-color-scheme: dark) {{ {HtmlFormatter(style='github-dark').get_style_defs('.highlight')} }}"
)
TEMPLATES = Environment(loader=PackageLoader("metaseg_nb.report", "templates"), autoescape=True, trim_blocks=True)
TEMPLATES.globals |= {
    "policy": policy(),
    "title_of": model_title,
    "anchor": anchor,
    "page_file": page_file,
    "picture_file": picture_file,
    "view_file": view_file,
}


@dataclass(frozen=True)
class Page:
    """A page of the report."""

    title: str
    file: str


@dataclass(frozen=True)
class Report:
    """What the pages of a study's report share."""

    layout: StudyLayout
    cohort_name: str
    site: Mapping[str, list[Page]]
    folder: Path

    @cached_property
    def clean(self) -> Callable[[str], str]:
        """Takes private words out of a text."""
        return private_free(self.layout)

    @cached_property
    def templates(self) -> Environment:
        """Templates whose every word is cleaned, then escaped."""
        return TEMPLATES.overlay(finalize=lambda it: self.clean(it) if type(it) is str else it)

    def write(self, template: str, page: Page, **content: Any) -> None:
        """Fill a template and write it as a page."""
        shared = {"cohort_name": self.cohort_name, "site": self.site, "here": page, "code_style": CODE_STYLE}
        body = self.templates.get_template(template).render(**shared, **content)
        self.put(page.file, with_light_pictures(body).encode())

    def put(self, file: str, content: bytes) -> None:
        """Write a file of the report."""
        with finished(self.folder / file) as unfinished:
            unfinished.write_bytes(content)


def write_report(study: str) -> Path:
    """Turn a study's executed notebooks and its gallery into ``reports/<study>/index.html`` and its pages.

    Raises
    ------
    FileNotFoundError
        A notebook of the study has not been run.
    CohortError
        What one of them wrote is lost, or not as it was written.
    """
    if resolve("06_annotation_budget", study)["arms"]:
        return _write_budget_report(study)
    settings = resolve("04_cross_validation", study)
    models, layout = settings["models"], StudyLayout(settings["study"])
    cohort = read_study_cohort(layout)
    chapters = {name: layout.notebook(name) for name in CHAPTERS}
    board = read_written(layout, layout.leaderboard)
    ranked = [model for model in board["model"] if model in models]
    site = {
        "Chapters": [Page(title_of(read_notebook(path)), f"{name}.html") for name, path in chapters.items()],
        "Gallery": [Page(title, page_file(page)) for page, title in PAGES.items()],
    }
    entries = read_written(layout, layout.gallery_table).fillna({"group": ""})
    with finished_folder(layout.report) as folder:
        report = Report(layout, cohort.name, site, folder)
        _copy_gallery(report)
        written = [_write_notebook(report, *it) for it in zip(site["Chapters"], chapters.values(), strict=True)]
        answer = result_of(written[list(chapters).index("04_cross_validation")])
        runs = {model: [_write_run(report, model, fold) for fold in range(cohort.n_folds)] for model in ranked}
        for key, page in zip(PAGES, site["Gallery"], strict=True):
            _write_gallery(report, page, key, entries[entries["page"] == key], ranked)
        _write_index(report, cohort, answer, board, entries, runs)
    return layout.report / "index.html"


def _write_budget_report(study: str) -> Path:
    """Pages of a study of annotation budgets: 06 comes first, for it holds the answers; its many runs have none."""
    layout = StudyLayout(resolve("06_annotation_budget", study)["study"])
    notebooks = [layout.notebook(name) for name in BUDGET_CHAPTERS]
    files = ["index.html", *(f"{name}.html" for name in BUDGET_CHAPTERS[1:])]
    pages = [Page(title_of(read_notebook(path)), file) for path, file in zip(notebooks, files, strict=True)]
    with finished_folder(layout.report) as folder:
        report = Report(layout, read_study_cohort(layout).name, {"Chapters": pages}, folder)
        for page, notebook in zip(pages, notebooks, strict=True):
            _write_notebook(report, page, notebook)
    return layout.report / "index.html"


def write_page(study: str, notebook: str) -> Path:
    """Turn one executed notebook of a study into a page of its report, whether or not the rest has been run.

    Raises
    ------
    FileNotFoundError
        The notebook has not been run.
    """
    layout = StudyLayout(resolve(notebook, study)["study"])
    path = layout.notebook(notebook)
    page = Page(title_of(read_notebook(path)), f"{notebook}.html")
    _write_notebook(Report(layout, layout.study, {}, layout.report), page, path)
    return layout.report / page.file


def _write_notebook(report: Report, page: Page, path: Path, made: Mapping[str, Any] | None = None) -> str:
    """Write a notebook as a page; returns its cells, HTML."""
    notebook = read_notebook(path)
    parameters, when = notebook.metadata.get("papermill", {}).get("parameters", {}), _when(notebook)
    cells = cells_to_html(notebook, report.clean)
    report.write(
        "notebook.html.j2",
        page,
        cells=cells,
        contents=[*contents_of(cells), ("made", "How this was made")],
        made={**when, **(made or {})},
        # in quotes a path is one, blanks and all
        parameters={name: report.clean(repr(value)).strip("'") for name, value in parameters.items()},
    )
    return cells


def _write_run(report: Report, model: str, fold: int) -> Page:
    run = report.layout.run(model, fold)
    result = read_finished(run)
    page = Page(f"{model_title(model)}, fold {fold}", f"03_train_{model}_fold{fold}.html")
    made = {
        "training": f"{result['train_seconds'] / 60:.1f} min, {result['last_epoch']} epochs",
        "weights kept": f"epoch {result['best_epoch']}, selection-set Dice {result['selection_dice']:.2f}",
        "parameters of the network": f"{result['parameters']:,}".replace(",", "\u202f"),
        **result["provenance"],
    }
    _write_notebook(report, page, run.notebook("03_train"), made)
    return page


def _copy_gallery(report: Report) -> None:
    for path in report.layout.gallery.iterdir():
        if path.suffix == ".html":
            report.put(f"gallery/{path.name}", with_policy(path.read_text(encoding="utf-8")).encode())
        elif path.suffix != ".csv":
            report.put(f"gallery/{path.name}", path.read_bytes())


def _write_gallery(report: Report, page: Page, key: str, entries: pd.DataFrame, models: Sequence[str]) -> None:
    names = models if key in WORST else [""]
    groups = {name: entries[entries["group"] == name].to_dict("records") for name in names}
    contents = [(name, model_title(name)) for name in names if name]
    report.write("gallery.html.j2", page, key=key, about=ABOUT[key], groups=groups, contents=contents)


def _write_index(
    report: Report,
    cohort: Cohort,
    answer: str,
    board: pd.DataFrame,
    entries: pd.DataFrame,
    runs: Mapping[str, list[Page]],
) -> None:
    layout = report.layout
    worst = {model: {page: _first(entries, model, page) for page in WORST} for model in runs}
    report.write(
        "index.html.j2",
        Page("Which network outlines brain metastases best?", "index.html"),
        answer=Markup(answer),
        cohort=cohort,
        n_patients=len({case.patient for case in cohort.cases}),
        board=board.to_dict("records"),
        worst=worst,
        worst_of=WORST,
        runs=runs,
        figures={words: _embedded(layout.figures / f"{name}.png") for words, name in FIGURES.items()},
        provenance=require_written(layout, layout.comparison),
        contents=[
            ("leaderboard", "Leaderboard"),
            ("worst", "Look at the worst first"),
            ("figures", "Key figures"),
            ("runs", "Training runs"),
        ],
    )


def _first(entries: pd.DataFrame, model: str, page: str) -> dict | None:
    """The first, and so the worst, of a network on a page of the gallery."""
    found = entries[(entries["group"] == model) & (entries["page"] == page)]
    return found.iloc[0].to_dict() if len(found) else None


def _when(notebook: nbformat.NotebookNode) -> dict[str, str]:
    done = notebook.metadata.get("papermill", {})
    if not done.get("start_time"):
        return {}
    start = datetime.fromisoformat(done["start_time"])
    took = "not finished" if done.get("duration") is None else f"{done['duration']:.0f} s"
    return {"notebook run": f"{start:%Y-%m-%d %H:%M} UTC, {took}"}


def _embedded(png: Path) -> Markup:
    return Markup("data:image/png;base64,") + base64.b64encode(png.read_bytes()).decode()
