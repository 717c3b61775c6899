"""One way to look at a case: in the best viewer that works here."""

from collections.abc import Callable, Sequence
from typing import Any

from IPython.display import Image

from metaseg_nb.figures.case_images import CaseImages, place_of
from metaseg_nb.figures.live import somebody_watches
from metaseg_nb.viewer.layers import layers_of
from metaseg_nb.viewer.sliders import SlicesViewer, layers_picture

VIEWERS = ("niivue", "itkwidgets", "slices")
# Which is tried after which.
NEXT = {"auto": "niivue", "itkwidgets": "niivue", "niivue": "slices"}


def show_case(images: CaseImages, viewer: str = "auto", at: Sequence[float] | None = None) -> Any:
    """Look at a case.

    A viewer that cannot work here says why, and the next one is taken; without a browser a picture is
    drawn. Nothing waits for a browser or a network.

    Parameters
    ----------
    images : CaseImages
    viewer : str
        "auto" or one of `VIEWERS`: "niivue" turns in the browser; "itkwidgets" too, with an image
        and the reference; "slices" are pictures with sliders.
    at : sequence of 3 floats, optional
        RAS voxel to go to; the largest lesion of the reference by default.

    Returns
    -------
    widget or Image
        As the last line of a cell.

    Raises
    ------
    ValueError
        There is no such viewer.
    """
    at = at if at is not None else place_of(images)
    name = usable(viewer)
    if name == "itkwidgets":
        from metaseg_nb.viewer.itk import view_in_itkwidgets  # heavy, and not needed by the others

        return view_in_itkwidgets(images)
    layers = layers_of(images)
    visible = [layer for layer in layers if not layer.startswith("agreement")]
    if not somebody_watches():
        return Image(layers_picture(images, {layer: layers[layer] for layer in visible}, [round(i) for i in at]))
    shown = OPEN[name]()
    shown.show(images, visible, at)
    return shown.widget


def usable(viewer: str) -> str:
    """The viewer that works here: the one asked for, or the next that does; prints why others do not."""
    if viewer not in ("auto", *VIEWERS):
        raise ValueError(f"viewer {viewer!r}: expected auto, {', '.join(VIEWERS)}")
    name = NEXT[viewer] if viewer == "auto" else viewer
    while reason := WHY_NOT[name]():
        print(f"{name} is not used: {reason}. Next is {NEXT[name]}.")
        name = NEXT[name]
    return name


def _why_no_niivue() -> str:
    return "" if somebody_watches() else "no browser shows this notebook"


def _why_no_itkwidgets() -> str:
    if not somebody_watches():
        return "no browser shows this notebook"
    from metaseg_nb.viewer.itk import why_not

    return why_not()


def _open_niivue() -> Any:
    from metaseg_nb.viewer.niivue import NiiVueViewer  # loads its JavaScript

    return NiiVueViewer()


WHY_NOT: dict[str, Callable[[], str]] = {
    "niivue": _why_no_niivue,
    "itkwidgets": _why_no_itkwidgets,
    "slices": str,
}
OPEN: dict[str, Callable[[], Any]] = {"niivue": _open_niivue, "slices": SlicesViewer}
