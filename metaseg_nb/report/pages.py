"""Executed notebooks, and cases to click through, as pages that can be mailed: nothing is asked of the internet."""

import base64
import gc
import hashlib
import io
import re
from collections.abc import Callable, Sequence
from functools import cache
from html import escape, unescape
from pathlib import Path

import nbformat
from jinja2 import PackageLoader
from matplotlib.colors import ListedColormap
from mistune.util import safe_entity
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from PIL import Image

from metaseg_nb.figures.reviewed import AGREEMENT_COLOURS, CaseImages

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
SCRIPT = re.compile(r"<script[^>]*>(.*?)</script>", re.DOTALL)
PNG = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=\s]+)")
# Smaller pictures are charts and icons, which PNG holds best. A page is about 1000 pixels wide.
LARGE_BYTES, MOST_PIXELS_WIDE, QUALITY = 40_000, 1400, 60


def cells_to_html(notebook: nbformat.NotebookNode, clean: Callable[[str], str]) -> str:
    """Convert an executed notebook to HTML without a frame: code behind a click, formulas that need no script.

    Widgets, progress bars and logs are left out, and the notebook's last sentence is put below its title.

    Parameters
    ----------
    notebook : NotebookNode
        Is changed.
    clean : callable
        Takes private words out of a text: `private_free`.
    """
    notebook.metadata.pop("widgets", None)
    notebook.cells = [cell for cell in notebook.cells if PAPERMILL_BANNER not in cell.metadata.get("tags", [])]
    for cell in notebook.cells:
        cell.source = clean(cell.source)  # colours take code apart
        if cell.cell_type == "code":
            cell.outputs = [_shown(output) for output in cell.outputs if not _is_noise(output)]
    quoted = _result(notebook).replace("\n", "\n> ")
    notebook.cells.insert(1, nbformat.v4.new_markdown_cell(f"> {quoted}"))
    html, _ = _exporter().from_notebook_node(notebook)
    return MARKUP.sub(lambda found: found[1] or escape(clean(unescape(found[2])), quote=False), html)


@cache
def _exporter() -> HTMLExporter:
    return HTMLExporter(
        template_name="basic",
        template_file="cells.html.j2",
        extra_loaders=[PackageLoader("metaseg_nb.report", "templates")],
        filters={"markdown2html": _markdown_to_html},
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )


class _PageRenderer(IPythonRenderer):
    """Formulas become MathML, which needs no script; HTML inside Markdown is shown as text."""

    def text(self, text: str) -> str:
        return safe_entity(text)  # an entity is a character, as `escaped` writes it

    def inline_math(self, body: str) -> str:
        return self.block_math(body, "inline")

    def block_math(self, body: str, display: str = "block") -> str:
        from latex2mathml.converter import convert  # few pages have a formula

        return convert(body, display=display)


def _markdown_to_html(source: str) -> str:
    return MarkdownWithMath(renderer=_PageRenderer(allow_harmful_protocols=False)).render(source)


def title_of(notebook: nbformat.NotebookNode) -> str:
    """First heading, whatever papermill puts above it."""
    heading = next(cell for cell in notebook.cells if cell.source.startswith("# "))
    return heading.source.splitlines()[0].lstrip("# ")


def contents_of(html: str) -> list[tuple[str, str]]:
    """Anchors and words of the second-level headings of a page."""
    return HEADING.findall(html)


def result_of(html: str) -> str:
    """Result of a page, HTML: what stands below its title, from `cells_to_html`."""
    return RESULT.findall(html)[0]


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """Read an executed notebook.

    Raises
    ------
    FileNotFoundError
        It has not been run.
    """
    if not path.is_file():
        raise FileNotFoundError(f"notebook {path.stem} has not been run yet: run it, or make one page with --notebook")
    return nbformat.read(path, as_version=4)


def with_light_pictures(html: str) -> str:
    """Replace the large PNG pictures inside a page by WebP of a third of the bytes."""
    return PNG.sub(_lighter, html)


def slice_view(images: CaseImages, model: str, centre: Sequence[int], view_mm: float) -> str:
    """A page with three planes to click through: agreement of a network with the reference around a voxel.

    The page holds the voxels of a box of ``view_mm``, scaled to 256 greys, and nothing else of the file.
    """
    from nilearn.plotting import view_img  # takes a second

    compared = images.agreement(model)
    half = [view_mm / 2 / edge for edge in images.image.spacing_mm]
    kept = tuple(slice(max(0, round(c - h)), round(c + h) + 1) for c, h in zip(centre, half, strict=True))
    gc.freeze()  # nilearn looks for garbage eight times a view: in all that a notebook holds, this takes two seconds
    try:
        view = view_img(
            images.nifti(compared, kept),
            bg_img=images.nifti(images.image.array, kept),
            cut_coords=images.image.affine[:3, :3] @ centre + images.image.affine[:3, 3],
            cmap=ListedColormap(list(AGREEMENT_COLOURS.values())),
            vmin=1,
            vmax=3,
            threshold=0.5 if compared[kept].any() else None,
            symmetric_cmap=False,
            resampling_interpolation="nearest",
            colorbar=False,
            opacity=0.55,
            black_bg=True,
            dim=0,
            radiological=True,
        )
    finally:
        gc.unfreeze()
    return with_light_pictures(view.get_standalone())


def policy(*scripts: str) -> str:
    """Content-security policy of a page that holds some scripts: no others run, and nothing is asked of a network."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    runs = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    return (
        f"default-src 'none'; script-src {runs}; style-src 'unsafe-inline'; img-src 'self' file: data:; "
        "frame-src 'self' file:; base-uri 'none'; form-action 'none'"
    )


def with_policy(page: str) -> str:
    """Put the policy into the head of a page, all of whose scripts are the workbook's own."""
    page = page.replace("\r\n", "\n")  # as browsers read it before they look at a script
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy(*SCRIPT.findall(page))}">'
    return page.replace("<head>", f"<head>\n{meta}", 1)


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
    texts = ["", *(output.data["text/markdown"] for output in outputs if "text/markdown" in output.get("data", {}))]
    if stopped:
        return f"**This notebook stopped before its end.** {texts[-1]}"
    return texts[-1] or "This notebook did not run to its end."


def _lighter(found: re.Match) -> str:
    if len(found[1]) < LARGE_BYTES:
        return found[0]
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(found[1]))) as picture:
        picture.thumbnail((MOST_PIXELS_WIDE, picture.height))
        picture.save(buffer, "WEBP", quality=QUALITY)
    smaller = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return min(smaller, found[0], key=len)
