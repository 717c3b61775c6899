"""Figures and tables of a notebook, saved in the formats that papers need, each with its origin."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from metaseg_nb.figures.style import save_figure
from metaseg_nb.files import finished, write_json, write_table, write_text
from metaseg_nb.layout import StudyLayout
from metaseg_nb.machine import commit
from metaseg_nb.privacy import private_free
from metaseg_nb.settings import Settings


@dataclass(frozen=True)
class Records:
    """Where one notebook saves its figures and tables.

    Parameters
    ----------
    layout : StudyLayout
    notebook : str
        Such as "04_cross_validation"; its number starts the figures' names.
    settings : Settings
        Its parameters.
    cohort : str
        Stands above each figure.
    """

    layout: StudyLayout
    notebook: str
    settings: Settings
    cohort: str

    def figure(self, figure: Figure, name: str) -> None:
        """Save as ``figures/<study>/<number>_<name>`` PNG, SVG, and JSON that names notebook, parameters and commit."""
        figure.suptitle(f"Cohort: {self.cohort}")
        name = f"{self.notebook.split('_')[0]}_{name}"
        save_figure(figure, self.layout, name)
        with finished(self.layout.figures / f"{name}.svg") as unfinished:
            figure.savefig(unfinished, format="svg", bbox_inches="tight")
        made_by = {"notebook": self.notebook, "parameters": self.settings.model_dump(), "commit": commit()}
        facts = json.dumps({"figure": name, **made_by}, ensure_ascii=False)
        write_json(self.layout.figures / f"{name}.json", json.loads(private_free(self.layout)(facts)))

    def table(self, table: pd.DataFrame, file: Path) -> None:
        """Save as CSV, and beside it as LaTeX (booktabs) with three digits."""
        latex = table.to_latex(index=False, escape=True, float_format="%.3g", na_rep="--")
        write_text(file.with_suffix(".tex"), private_free(self.layout)(latex).rstrip("\n"))
        write_table(file, table)
