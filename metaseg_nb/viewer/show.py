"""One way to look at a case: in the best viewer that works here."""

from collections.abc import Callable, Sequence
from typing import Any

from IPython.display import Image

from metaseg_nb.figures.case_images import CaseImages
from metaseg_nb.figures.charts import somebody_watches
from metaseg_nb.viewer.layers import layers_of
from metaseg_nb.viewer.slices import SlicesViewer, layers_picture

# Each viewer, and the one that is tried after it.
NEXT = {"itkwidgets": "niivue", "niivue": "slices", "slices": ""}


def show_case(images: CaseImages, viewer: str = "auto", at: Sequence[float] | None = None) -> Any:
    """Look at a case.

    A viewer that cannot work here says why, and the next one is taken; without a browser a picture is drawn. Nothing
    waits for a browser or a network.

    Parameters
    ----------
    images : CaseImages
    viewer : str
        "niivue" (the same as "auto") runs in the browser; so does "itkwidgets", with the image and the reference;
        "slices" are pictures with sliders.
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
    at = at if at is not None else images.place
    name = usable(viewer)
    if name == "itkwidgets":
        from metaseg_nb.viewer.itk import view_in_itkwidgets  # its imports take seconds

        return view_in_itkwidgets(images)
    layers = layers_of(images)
    if not somebody_watches():
        return Image(layers_picture(images, {name: layer for name, layer in layers.items() if layer.visible}, at))
    shown = open_viewer(name)
    shown.show(images, layers, at)
    return shown.widget


def usable(viewer: str) -> str:
    """Choose the viewer that was asked for, or the next that works here; print why others do not."""
    if viewer not in ("auto", *NEXT):
        raise ValueError(f"viewer {viewer!r}: expected auto, {', '.join(NEXT)}")
    name = "niivue" if viewer == "auto" else viewer
    while reason := WHY_NOT[name]():
        print(f"{name} is not used: {reason}. Next is {NEXT[name]}.")
        name = NEXT[name]
    return name


def open_viewer(name: str) -> Any:
    """Make an empty "niivue" or "slices" viewer."""
    if name == "slices":
        return SlicesViewer()
    from metaseg_nb.viewer.niivue import NiiVueViewer  # loads its JavaScript

    return NiiVueViewer()


def _why_no_niivue() -> str:
    return "" if somebody_watches() else "no browser shows this notebook"


def _why_no_itkwidgets() -> str:
    from metaseg_nb.viewer.itk import why_not

    return _why_no_niivue() or why_not()


WHY_NOT: dict[str, Callable[[], str]] = {"niivue": _why_no_niivue, "itkwidgets": _why_no_itkwidgets, "slices": str}
