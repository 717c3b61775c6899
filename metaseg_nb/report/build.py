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

import pandas as pd
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from pygments.formatters import HtmlFormatter

from metaseg_nb.cohort.datalist import read_study_cohort
from metaseg_nb.cohort.written import require_written
from metaseg_nb.evaluation.scoring import METRICS
from metaseg_nb.files import finished, finished_folder
from metaseg_nb.layout import StudyLayout
from metaseg_nb.parameters import model_title, resolve
from metaseg_nb.privacy import private_free
from metaseg_nb.report.gallery import ABOUT, PAGES, anchor, page_file, picture_file, read_gallery, view_file
from metaseg_nb.report.pages import cells_to_html, contents_of, read_notebook, result_of, title_of
from metaseg_nb.report.self_contained import policy, with_light_pictures, with_policy
from metaseg_nb.viewer.study_tables import StudyTables

# Notebooks that have a page each; a study of annotation budgets starts with the last of its own.
CHAPTERS = ("01_explore_data", "02_preprocess_n4", "04_cross_validation", "05_qualitative_review")
BUDGET_CHAPTERS = ("06_annotation_budget", "01_explore_data", "02_preprocess_n4")
FIGURES = {"Dice of every patient": "04_dice", "Lesions detected by diameter": "04_sensitivity"}
# The worst of each network, which is the first entry of these pages of the gallery.
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
        Something that one of them wrote is lost, not as it was written, or older than what it was made from.
    """
    settings = resolve("06_annotation_budget", study)
    layout, is_budget = StudyLayout(settings["study"]), bool(settings["arms"])
    notebooks = {name: layout.notebook(name) for name in (BUDGET_CHAPTERS if is_budget else CHAPTERS)}
    chapters = {path: Page(title_of(read_notebook(path)), f"{name}.html") for name, path in notebooks.items()}
    site = {"Chapters": list(chapters.values())}
    if is_budget:  # 06 comes first, for it holds the answers; its many runs have no pages
        first = notebooks[BUDGET_CHAPTERS[0]]
        site["Chapters"][0] = chapters[first] = Page(chapters[first].title, "index.html")
    else:
        site["Gallery"] = [Page(title, page_file(page)) for page, title in PAGES.items()]
    with finished_folder(layout.report) as folder:
        report = Report(layout, read_study_cohort(layout).name, site, folder)
        tables = None if is_budget else StudyTables.read(layout.study)
        entries = None if is_budget else read_gallery(layout)
        cells = {path.stem: _write_notebook(report, page, path) for path, page in chapters.items()}
        if not is_budget:
            _write_gallery(report, entries, [model for model in tables.models if model in settings["models"]])
            _write_index(report, tables, result_of(cells["04_cross_validation"]), entries)
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
    run = notebook.metadata.get("papermill", {})
    cells = cells_to_html(notebook, report.clean)
    report.write(
        "notebook.html.j2",
        page,
        cells=cells,
        contents=[*contents_of(cells), ("made", "How this was made")],
        made={**_when(run), **(made or {})},
        # a path is recognised by its quotes
        parameters={name: report.clean(repr(it)).strip("'") for name, it in run.get("parameters", {}).items()},
    )
    return cells


def _write_run(report: Report, model: str, fold: int, facts: Mapping[str, Any]) -> Page:
    page = Page(f"{model_title(model)}, fold {fold}", f"03_train_{model}_fold{fold}.html")
    made = {
        "training": f"{facts['train_seconds'] / 60:.1f} min, {facts['last_epoch']} epochs",
        "weights kept": f"epoch {facts['best_epoch']}, selection-set Dice {facts['selection_dice']:.2f}",
        "parameters of the network": f"{facts['parameters']:,}".replace(",", "\u202f"),
        **facts["provenance"],
    }
    _write_notebook(report, page, report.layout.run(model, fold).notebook("03_train"), made)
    return page


def _write_gallery(report: Report, entries: pd.DataFrame, models: Sequence[str]) -> None:
    for path in report.layout.gallery.iterdir():
        if path.suffix == ".html":
            report.put(f"gallery/{path.name}", with_policy(path.read_text(encoding="utf-8")).encode())
        elif path.suffix != ".csv":
            report.put(f"gallery/{path.name}", path.read_bytes())
    for key, page in zip(PAGES, report.site["Gallery"], strict=True):
        shown, names = entries[entries["page"] == key], models if key in WORST else [""]
        groups = {name: shown[shown["group"] == name].to_dict("records") for name in names}
        contents = [(name, model_title(name)) for name in names if name]
        report.write("gallery.html.j2", page, key=key, about=ABOUT[key], groups=groups, contents=contents)


def _write_index(report: Report, tables: StudyTables, answer: str, entries: pd.DataFrame) -> None:
    layout, cohort = report.layout, tables.cohort
    first = {(entry["group"], entry["page"]): entry for entry in reversed(entries.to_dict("records"))}
    worst = {model: {page: first.get((model, page)) for page in WORST} for model in tables.models}
    runs = {
        model: [_write_run(report, *run, facts) for run, facts in tables.runs.items() if run[0] == model]
        for model in tables.models
    }
    report.write(
        "index.html.j2",
        Page("Which network segments brain metastases best?", "index.html"),
        answer=Markup(answer),
        cohort=cohort,
        numbers=_patients_of_a_fold(tables),
        n_patients=len({case.patient for case in cohort.cases}),
        board=tables.board.to_dict("records"),
        own_metrics={name: metric for name, metric in METRICS.items() if metric.compute},
        worst=worst,
        worst_of=WORST,
        runs=runs,
        figures={words: _embedded(layout.figures / f"{name}.png") for words, name in FIGURES.items()},
        provenance=require_written(layout, layout.comparison),
        contents=[
            ("leaderboard", "Leaderboard"),
            ("worst", "The worst results"),
            ("figures", "Key figures"),
            ("runs", "Training runs"),
        ],
    )


def _patients_of_a_fold(tables: StudyTables) -> dict[str, str]:
    """How many patients a fold trained on, selected with and was tested on: "14", or "13 to 15"."""
    patient = {case.name: case.patient for case in tables.cohort.cases}
    numbers = {}
    for part in ("training", "selection", "test"):
        counts = {len({patient[name] for name in facts["cases"][part]}) for facts in tables.runs.values()}
        numbers[part] = " to ".join(map(str, sorted({min(counts), max(counts)})))
    return numbers


def _when(run: Mapping[str, Any]) -> dict[str, str]:
    if not run.get("start_time"):
        return {}
    start = datetime.fromisoformat(run["start_time"])
    took = "not finished" if run.get("duration") is None else f"{run['duration']:.0f} s"
    return {"notebook run": f"{start:%Y-%m-%d %H:%M} UTC, {took}"}


def _embedded(png: Path) -> Markup:
    return Markup("data:image/png;base64,") + base64.b64encode(png.read_bytes()).decode()
