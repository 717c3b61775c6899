"""The HTML report: an index, a page per executed notebook and per run, and the gallery, in one folder of its own.

No page loads anything from the internet, and no page says where or by whom it was made.
"""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from pygments.formatters import HtmlFormatter

from metaseg_nb.annotation.readings import require_counted
from metaseg_nb.cohort.datalist import read_study_cohort, require_written
from metaseg_nb.cohort.lesions import DIAMETER_NAMES
from metaseg_nb.evaluation.scoring import METRICS
from metaseg_nb.figures.reviewed import StudyTables
from metaseg_nb.files import finished, finished_folder
from metaseg_nb.layout import StudyLayout
from metaseg_nb.parameters import model_title, resolve
from metaseg_nb.privacy import private_free
from metaseg_nb.report import gallery, pages
from metaseg_nb.report.gallery import PAGES, page_file

# Notebooks that have a page each; a study of annotation budgets starts with the last of its own.
CHAPTERS = (
    "01_explore_data",
    "02_preprocess_n4",
    "04_cross_validation",
    "05_qualitative_review",
    "07_radiotherapy",
)
BUDGET_CHAPTERS = ("06_annotation_budget", "01_explore_data", "02_preprocess_n4")
EXTRA = ["08_annotate", "09_follow_up"]  # have a page where they were run
FIGURES = {"Dice of every patient": "04_dice", "Lesions detected by diameter": "04_sensitivity"}
# The worst of each network, which is the first entry of these pages of the gallery.
WORST = {"cases": "worst case", "missed": "largest missed lesion", "false": "largest false lesion"}
CODE_STYLE = (
    f"@media not (prefers-color-scheme: dark) {{ {HtmlFormatter(style='default').get_style_defs('.highlight')} }}"
    f"@media (prefers-color-scheme: dark) {{ {HtmlFormatter(style='github-dark').get_style_defs('.highlight')} }}"
)


@dataclass(frozen=True)
class Report:
    """Writes the pages of a study's report; ``site`` holds the titles of pages by file, and these by group."""

    layout: StudyLayout
    cohort_name: str
    site: Mapping[str, Mapping[str, str]]
    folder: Path

    @cached_property
    def clean(self) -> Callable[[str], str]:
        """Takes private words out of a text."""
        return private_free(self.layout)

    @cached_property
    def templates(self) -> Environment:
        """Templates, every word of which is cleaned, then escaped."""
        templates = Environment(
            loader=PackageLoader("metaseg_nb.report", "templates"),
            autoescape=True,
            trim_blocks=True,
            finalize=lambda it: self.clean(it) if type(it) is str else it,
        )
        templates.globals |= {"gallery": gallery, "model_title": model_title, "small": DIAMETER_NAMES[0]}
        templates.globals |= {"policy": pages.policy(), "code_style": CODE_STYLE, "site": self.site}
        return templates

    def write(self, template: str, file: str, title: str, **content: Any) -> None:
        """Fill a template and write it as a page."""
        shared = {"cohort_name": self.cohort_name, "file": file, "title": title}
        page = self.templates.get_template(template).render(**shared, **content)
        self.put(file, pages.with_light_pictures(page).encode())

    def write_notebook(self, path: Path, file: str, title: str = "", made: Mapping[str, Any] | None = None) -> str:
        """Write a notebook as a page; returns its cells, HTML."""
        notebook = pages.read_notebook(path)
        run, title = notebook.metadata.get("papermill", {}), title or pages.title_of(notebook)
        cells = pages.cells_to_html(notebook, self.clean)
        contents = [*pages.contents_of(cells), ("made", "How this was made")]
        # a path is recognised by its quotes
        parameters = {name: self.clean(repr(it)).strip("'") for name, it in run.get("parameters", {}).items()}
        made = {**_when(run), **(made or {})}
        shown = {"cells": cells, "contents": contents, "made": made, "parameters": parameters}
        self.write("notebook.html.j2", file, title, **shown)
        return cells

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
    extra = [name for name in EXTRA if layout.notebook(name).is_file()]
    chapters = [*(BUDGET_CHAPTERS if is_budget else CHAPTERS), *extra]
    if "08_annotate" in chapters:
        require_counted(layout)
    files = {name: f"{name}.html" for name in chapters}
    if is_budget:  # 06 comes first, for it holds the answers; its many runs have no pages
        files["06_annotation_budget"] = "index.html"
    site = {
        "Chapters": {file: pages.title_of(pages.read_notebook(layout.notebook(name))) for name, file in files.items()}
    }
    if not is_budget:
        site["Gallery"] = {page_file(page): title for page, title in PAGES.items()}
    with finished_folder(layout.report) as folder:
        report = Report(layout, read_study_cohort(layout).name, site, folder)
        tables = None if is_budget else StudyTables.read(layout.study)
        cells = {name: report.write_notebook(layout.notebook(name), file) for name, file in files.items()}
        if tables:
            entries = gallery.read_gallery(layout)
            _write_gallery(report, entries, [model for model in tables.models if model in settings["models"]])
            _write_index(report, tables, pages.result_of(cells["04_cross_validation"]), entries)
    return layout.report / "index.html"


def write_page(study: str, notebook: str) -> Path:
    """Turn one executed notebook of a study into a page of its report, whether or not the rest has been run.

    Raises
    ------
    FileNotFoundError
        The notebook has not been run.
    """
    layout = StudyLayout(resolve(notebook, study)["study"])
    page = layout.report / f"{notebook}.html"
    Report(layout, layout.study, {}, layout.report).write_notebook(layout.notebook(notebook), page.name)
    return page


def _write_run(report: Report, model: str, fold: int, facts: Mapping[str, Any]) -> tuple[str, str]:
    """Write the page of a run; returns its file and its title."""
    file, title = f"03_train_{model}_fold{fold}.html", f"{model_title(model)}, fold {fold}"
    made = {
        "training": f"{facts['train_seconds'] / 60:.1f} min, {facts['last_epoch']} epochs",
        "weights kept": f"epoch {facts['best_epoch']}, selection-set Dice {facts['selection_dice']:.2f}",
        "parameters of the network": f"{facts['parameters']:,}".replace(",", "\u202f"),
        **facts["provenance"],
    }
    report.write_notebook(report.layout.run(model, fold).notebook("03_train"), file, title, made)
    return file, title


def _write_gallery(report: Report, entries: pd.DataFrame, models: list[str]) -> None:
    for path in report.layout.gallery.iterdir():
        if path.suffix == ".html":
            report.put(f"gallery/{path.name}", pages.with_policy(path.read_text(encoding="utf-8")).encode())
        elif path.suffix != ".csv":
            report.put(f"gallery/{path.name}", path.read_bytes())
    for page, title in PAGES.items():
        shown, names = entries[entries["page"] == page], models if page in WORST else [""]
        groups = {name: shown[shown["group"] == name].to_dict("records") for name in names}
        contents = [(name, model_title(name)) for name in names if name]
        report.write("gallery.html.j2", page_file(page), title, page=page, groups=groups, contents=contents)


def _write_index(report: Report, tables: StudyTables, answer: str, entries: pd.DataFrame) -> None:
    layout, cohort = report.layout, tables.cohort
    first = entries.drop_duplicates(["group", "page"]).set_index(["group", "page"], drop=False).to_dict("index")
    run_pages = {run: _write_run(report, *run, facts) for run, facts in tables.runs.items()}
    patient, numbers = {case.name: case.patient for case in cohort.labelled}, {}
    for part in ("training", "selection", "test"):  # patients of a fold: "14", or "13 to 15"
        counts = {len({patient[name] for name in facts["cases"][part]}) for facts in tables.runs.values()}
        numbers[part] = " to ".join(map(str, sorted({min(counts), max(counts)})))
    pictures = {words: (layout.figures / f"{name}.png").read_bytes() for words, name in FIGURES.items()}
    report.write(
        "index.html.j2",
        "index.html",
        "Which network segments brain metastases best?",
        answer=Markup(answer),
        cohort=cohort,
        numbers=numbers,
        n_patients=len(set(patient.values())),
        board=tables.board.to_dict("records"),
        own_metrics={name: metric for name, metric in METRICS.items() if metric.compute},
        worst={model: {page: first.get((model, page)) for page in WORST} for model in tables.models},
        worst_of=WORST,
        runs={model: [page for run, page in run_pages.items() if run[0] == model] for model in tables.models},
        figures={words: base64.b64encode(png).decode() for words, png in pictures.items()},
        provenance=require_written(layout, layout.comparison),
    )


def _when(run: Mapping[str, Any]) -> dict[str, str]:
    if not run.get("start_time"):
        return {}
    start = datetime.fromisoformat(run["start_time"])
    took = "not finished" if run.get("duration") is None else f"{run['duration']:.0f} s"
    return {"notebook run": f"{start:%Y-%m-%d %H:%M} UTC, {took}"}
