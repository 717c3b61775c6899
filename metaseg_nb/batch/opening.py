"""Write copies of notebooks that hold a study's parameters, to be opened in JupyterLab."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat

from metaseg_nb.batch.runner import executed_copy
from metaseg_nb.files import write_text
from metaseg_nb.layout import NOTEBOOKS
from metaseg_nb.parameters import resolve
from metaseg_nb.settings import ParameterError

PARAMETER = re.compile(r"^(?P<name>\w+)(?P<type>: \w+)? = .*?(?P<comment>  # .*)?$", re.MULTILINE)


def open_notebook(
    notebook: str, study: str, model: str | None = None, fold: int | None = None, arm: str = "", seed: int | None = None
) -> Path:
    """Write a copy of a notebook with the parameters of a study in its cell; the arguments are those of `run_notebook`.

    Returns
    -------
    path
        The copy, beside the executed notebook: ``03_train.open.ipynb``. An earlier copy with the same parameters stays.

    Raises
    ------
    ParameterError
        As `resolve`; or an earlier copy holds other parameters.
    """
    parameters = resolve(notebook, study, model, fold, arm, seed)
    copy = executed_copy(notebook, parameters).with_suffix(".open.ipynb")
    content = nbformat.read(NOTEBOOKS / f"{notebook}.ipynb", as_version=4)
    cell = _parameters_cell(content)
    cell.source = with_values(cell.source, parameters)
    if not copy.exists():
        write_text(copy, nbformat.writes(content))
    elif _parameters_cell(nbformat.read(copy, as_version=4)).source != cell.source:
        raise ParameterError(f"{copy} holds other parameters than the study; open it as it is, or delete it")
    return copy


def with_values(source: str, parameters: Mapping[str, Any]) -> str:
    """A parameters cell with these values; its headings and comments stay."""

    def line(match: re.Match) -> str:
        value = parameters[match["name"]]
        literal = json.dumps(value, ensure_ascii=False) if isinstance(value, str | list) else repr(value)
        return f"{match['name']}{match['type'] or ''} = {literal}{match['comment'] or ''}"

    return PARAMETER.sub(line, source)


def _parameters_cell(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    return next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
