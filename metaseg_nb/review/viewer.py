"""An interactive viewer where a browser is there; nothing of it where none is."""

import os
from pathlib import Path

from IPython import get_ipython


def in_browser() -> bool:
    """Tell whether a JupyterLab browser shows this notebook's output.

    Papermill and nbconvert name a user in their messages, JupyterLab does not.
    The environment variable ``METASEG_VIEWER`` ("on" or "off") overrides the guess.
    """
    override = os.environ.get("METASEG_VIEWER")
    if override in ("on", "off"):
        return override == "on"
    shell = get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return False
    return shell.kernel.get_parent().get("header", {}).get("username") == ""


def view_case(image: Path, masks: dict[str, Path], height: int = 480):
    """Open an image with its masks as coloured overlays in NiiVue.

    Parameters
    ----------
    image : path
        NIfTI.
    masks : mapping of colour map name to path
        NiiVue's colour maps, such as "blue" or "red".
    height : int
        Pixels.

    Returns
    -------
    NiiVue or None
        A widget; None without a browser, for a widget there would show nothing.
    """
    if not in_browser():
        return None
    from ipyniivue import NiiVue  # loads its JavaScript

    viewer = NiiVue(height=height, is_radiological_convention=True)  # as all pictures of the workbook
    layers = [{"path": str(mask), "colormap": colour, "opacity": 0.4} for colour, mask in masks.items()]
    viewer.load_volumes([{"path": str(image), "colormap": "gray"}, *layers])
    return viewer
