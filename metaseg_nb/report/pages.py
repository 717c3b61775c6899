"""Executed notebooks as pages of the report: code behind a click, formulas that need no script, nothing private."""

import re
from collections.abc import Callable
from html import escape, unescape
from pathlib import Path

import nbformat
from jinja2 import PackageLoader, pass_context
from jinja2.runtime import Context
from mistune.util import safe_entity
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

# Widgets, which work in a running JupyterLab only.
WIDGET = "application/vnd.jupyter.widget-view+json"
# What papermill puts into a notebook that failed.
PAPERMILL_BANNER = "papermill-error-cell-tag"
# Code and tags, which stay as they are; and the words between them.
MARKUP = re.compile(r"(<style\b.*?</style>|<[^>]*>)|([^<]+)", re.DOTALL)
# Characters that begin a formula: the notebook's own text may hold formulas, but names from data must not become one.
FORMULA = str.maketrans({"$": "&#36;", "\\": "&#92;"})
RESULT = re.compile(r"<blockquote>(.*?)</blockquote>", re.DOTALL)
HEADING = re.compile(r'<h2 id="([^"]+)">(.*?)<a class="anchor-link"', re.DOTALL)


class PageExporter(HTMLExporter):
    """nbconvert's exporter without a frame, for the cells alone."""

    def __init__(self):
        loader = PackageLoader("metaseg_nb.report", "templates")
        super().__init__(template_name="basic", template_file="cells.html.j2", extra_loaders=[loader])
        self.exclude_input_prompt = self.exclude_output_prompt = True

    @pass_context
    def markdown2html(self, context: Context, source: str) -> str:
        """Convert Markdown; formulas to MathML, which needs no script. HTML inside it is shown as text."""
        return MarkdownWithMath(renderer=_PageRenderer(allow_harmful_protocols=False)).render(source)


class _PageRenderer(IPythonRenderer):
    def text(self, text: str) -> str:
        return safe_entity(text)  # an entity is a character, as `escaped` writes it

    def inline_math(self, body: str) -> str:
        return _mathml(body, "inline")

    def block_math(self, body: str) -> str:
        return _mathml(body, "block")


def cells_to_html(notebook: nbformat.NotebookNode, clean: Callable[[str], str]) -> str:
    """Convert an executed notebook to HTML without a frame.

    Widgets, progress bars and logs are left out, and the notebook's last sentence is put below its title.

    Parameters
    ----------
    notebook : NotebookNode
        Is changed.
    clean : callable
        Takes private words out of a text: `private_free`.
    """
    notebook.metadata.pop("widgets", None)
    notebook.metadata.pop("papermill", None)
    notebook.cells = [cell for cell in notebook.cells if PAPERMILL_BANNER not in cell.metadata.get("tags", [])]
    for cell in notebook.cells:
        cell.source = clean(cell.source)  # colours take code apart
        if cell.cell_type == "code":
            cell.outputs = [_shown(output) for output in cell.outputs if not _is_noise(output)]
    quoted = _result(notebook).replace("\n", "\n> ")
    notebook.cells.insert(1, nbformat.v4.new_markdown_cell(f"> {quoted}"))
    html, _ = PageExporter().from_notebook_node(notebook)
    return MARKUP.sub(lambda found: found[1] or escape(clean(unescape(found[2])), quote=False), html)


def title_of(notebook: nbformat.NotebookNode) -> str:
    """First heading, whatever papermill puts above it."""
    heading = next(cell for cell in notebook.cells if cell.source.startswith("# "))
    return heading.source.splitlines()[0].lstrip("# ")


def contents_of(html: str) -> list[tuple[str, str]]:
    """Anchors and words of the second-level headings of a page."""
    return HEADING.findall(html)


def result_of(html: str) -> str:
    """Result of a page, HTML: what stands below its title, from `cells_to_html`."""
    return RESULT.search(html)[1]


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """Read an executed notebook.

    Raises
    ------
    FileNotFoundError
        It has not been run.
    """
    if not path.is_file():
        raise FileNotFoundError(f"notebook {path.stem} was not run yet: run it, or make one page with --notebook")
    return nbformat.read(path, as_version=4)


def _is_noise(output: nbformat.NotebookNode) -> bool:
    is_log = output.output_type == "stream" and output.name == "stderr"
    return is_log or WIDGET in output.get("data", {})


def _shown(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    if "traceback" in output:
        output.traceback = output.traceback[-1:]  # the error; not the way to it
    if "text/markdown" in output.get("data", {}):
        output.data["text/markdown"] = output.data["text/markdown"].translate(FORMULA)
    return output


def _result(notebook: nbformat.NotebookNode) -> str:
    """The Markdown that the last cell shows; of a notebook that stopped, that of the cell with the error."""
    stopped = [cell for cell in notebook.cells if any(o.output_type == "error" for o in cell.get("outputs", []))]
    outputs = (stopped or notebook.cells)[-1].get("outputs", [])
    texts = [text for output in outputs if (text := output.get("data", {}).get("text/markdown"))]
    if stopped:
        return f"**This notebook stopped before its end.** {texts[-1] if texts else ''}"
    return texts[-1] if texts else "This notebook did not run to its end."


def _mathml(formula: str, display: str) -> str:
    from latex2mathml.converter import convert  # few pages have a formula

    return convert(formula, display=display)
