"""Viewers of a case: NiiVue in the browser, itkwidgets, plain slices in any notebook, and the choice between them.

itkwidgets loads its viewer in the browser from content delivery networks, as soon as JupyterLab opens. `place_viewer`
fetches the same files from npm's registry once, puts them where JupyterLab serves them, and points the scripts there.
Until then the JupyterLab extension is switched off.
"""

import base64
import hashlib
import io
import json
import os
import sys
import tarfile
import urllib.request
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image

from metaseg_nb.figures.reviewed import AGREEMENT_COLOURS, CaseImages
from metaseg_nb.figures.slices import AXES, PLANES, draw_planes
from metaseg_nb.figures.style import REFERENCE, model_colour, somebody_watches
from metaseg_nb.parameters import model_title
from metaseg_nb.viewer.niivue import Layer, NiiVueViewer

VIEWERS = ("auto", "niivue", "itkwidgets", "slices")
REGISTRY = "https://registry.npmjs.org"
NAME = "imjoy-jupyterlab-extension"
EXTENSION = Path(sys.prefix) / "share/jupyter/labextensions" / NAME / "static"
# Below EXTENSION, and where a browser finds it on a JupyterLab at the root of its address.
FOLDER, SERVED = "offline", f"/lab/extensions/{NAME}/static/offline"
# The packages of npm with their checksums, in folders called as the scripts ask for them; the addresses in scripts and
# pages, in the order in which they are replaced, and the places of their files below FOLDER; and stand-ins for files
# that no notebook needs (movable windows, which are not on npm, and logos).
VIEWER = json.loads(Path(__file__).with_name("itk_viewer.json").read_text(encoding="utf-8"))
# For how long an answer of the registry is waited for.
SECONDS = 10


def layers_of(images: CaseImages) -> dict[str, Layer]:
    """Layers by name: the reference, each network, and the first network's agreement with the reference."""
    layers = {"reference": Layer(images.reference.astype(np.uint8), {"reference": REFERENCE})}
    for model, mask in images.predictions.items():
        title = model_title(model)
        layers[title] = Layer(mask.astype(np.uint8), {title: model_colour(model)})
    for model in list(images.predictions)[:1]:  # each layer is a volume that the browser has to hold
        layers[f"agreement: {model_title(model)}"] = Layer(images.agreement(model), AGREEMENT_COLOURS, visible=False)
    return layers


def layers_picture(images: CaseImages, layers: Mapping[str, Layer], at: Sequence[float]) -> bytes:
    """Draw three planes through a voxel with the outlines of layers, as PNG."""
    masks, colours = {}, {}
    for layer in layers.values():
        for value, (meaning, colour) in enumerate(layer.colours.items(), start=1):
            masks[meaning], colours[meaning] = layer.array == value, colour
    figure, buffer = draw_planes(images.image, masks, at, colours=colours, greys=images.greys), io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    plt.close(figure)
    return buffer.getvalue()


def with_sliders(images: CaseImages, layers: Mapping[str, Layer], at: Sequence[float]) -> ipywidgets.VBox:
    """Three planes with a slider each, first at a voxel of the RAS array."""
    picture = ipywidgets.Image(format="png", layout={"max_width": "100%"})
    sliders = [
        ipywidgets.IntSlider(round(place), 0, size - 1, description=PLANES[axis][0])
        for axis, (place, size) in enumerate(zip(at, images.image.array.shape, strict=True))
    ]

    def draw(*_) -> None:
        picture.value = layers_picture(images, layers, [slider.value for slider in sliders])

    for slider in sliders:
        slider.observe(draw, "value")
    draw()
    return ipywidgets.VBox([picture, ipywidgets.HBox([sliders[axis] for axis in AXES])])


def show_case(images: CaseImages, viewer: str = "auto", at: Sequence[float] | None = None) -> Any:
    """Look at a case.

    Where itkwidgets cannot work it says why, and NiiVue is taken; without a browser a picture is drawn. Nothing waits
    for a browser or a network.

    Parameters
    ----------
    images : CaseImages
    viewer : str
        "niivue" (the same as "auto") runs in the browser and needs its WebGL; so does "itkwidgets", with the image and
        the reference; "slices" are pictures with sliders.
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
    if viewer not in VIEWERS:
        raise ValueError(f"viewer {viewer!r}: expected {', '.join(VIEWERS)}")
    layers, at = layers_of(images), images.place if at is None else at
    visible = {name: layer for name, layer in layers.items() if layer.visible}
    if not somebody_watches():
        print("No browser shows this notebook: a picture is drawn instead of a viewer.")
        return Image(layers_picture(images, visible, at))
    if viewer == "slices":
        return with_sliders(images, visible, at)
    if viewer == "itkwidgets":
        if not (reason := why_not_itkwidgets()):
            return view_in_itkwidgets(images)
        print(f"itkwidgets is not used: {reason}. NiiVue is used instead.")
    shown = NiiVueViewer()
    shown.show(images, layers, at)
    return shown.widget


def place_viewer() -> str:
    """Fetch the viewer's files (about 120 MB) and switch itkwidgets on; or switch it off where that is impossible.

    Returns
    -------
    str
        What was done, and why.

    Raises
    ------
    ValueError
        A package is not what it was when its checksum was noted.
    """
    from jupyterlab.commands import disable_extension, enable_extension

    if not EXTENSION.is_dir():
        return "itkwidgets is not installed"
    try:
        if not _is_placed():
            _fetch_all()
    except OSError as error:
        disable_extension(NAME)
        return f"itkwidgets is switched off: {REGISTRY} does not answer ({error})"
    for script in [*EXTENSION.glob("*.js"), *(EXTENSION / FOLDER).rglob("*.js"), *EXTENSION.rglob("*.html")]:
        text = before = script.read_text(encoding="utf-8")
        for address, file in VIEWER["addresses"].items():
            text = text.replace(address, f"{SERVED}/{file}")
        if text != before:
            script.write_text(text, encoding="utf-8")
    enable_extension(NAME)
    return "itkwidgets is switched on, with the files of its viewer on this machine"


def why_not_itkwidgets() -> str:
    """Say why itkwidgets cannot draw here; "" if it can."""
    if not _is_placed():
        return "the files of its viewer are not on this machine: `make lab` fetches them where npm's registry answers"
    return "" if _server() else "JupyterLab serves its files at the root of its address only"


def view_in_itkwidgets(images: CaseImages) -> Any:
    """Open a case with its reference in itkwidgets."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside its imports
        from itkwidgets import _initialization_params, view, viewer

    viewer.ITK_VIEWER_SRC = f"{_server()}{SERVED}/itk-vtk-viewer/dist/index.html"
    bootstrap = "itk-viewer-bootstrap-ui@0.30.0/dist/bootstrapUIMachineOptions.js.es.js"
    _initialization_params.PYDATA_SPHINX_HREF = f"{_server()}{SERVED}/{bootstrap}"
    return view(
        image=_itk_image(images, images.image.array.astype(np.float32)),
        label_image=_itk_image(images, images.reference.astype(np.uint8)),
        ui_collapsed=True,
    )


def _itk_image(images: CaseImages, array: np.ndarray):
    """An array in RAS order as an image in ITK's LPS space."""
    import itkwasm

    to_lps, affine, spacing_mm = np.diag([-1.0, -1.0, 1.0]), images.image.affine, images.image.spacing_mm
    return itkwasm.Image(
        imageType=itkwasm.ImageType(3, str(array.dtype), "Scalar", 1),
        spacing=list(spacing_mm),
        origin=(to_lps @ affine[:3, 3]).tolist(),
        direction=to_lps @ affine[:3, :3] / spacing_mm,
        size=list(array.shape),
        data=np.ascontiguousarray(array.T),
    )


def _server() -> str:
    """Address of the JupyterLab that started this kernel; "" where it is not at the root of its address."""
    from jupyter_server.serverapp import list_running_servers  # takes a second

    parent = os.environ.get("JPY_PARENT_PID")
    servers = [server for server in list_running_servers() if str(server["pid"]) == parent]
    return next((server["url"].rstrip("/") for server in servers if server["base_url"] == "/"), "")


def _is_placed() -> bool:
    return (EXTENSION / FOLDER / "placed").is_file()


def _fetch_all() -> None:
    folder = EXTENSION / FOLDER
    for it in VIEWER["packages"]:
        content = _fetch(it["package"], it["version"], it["sha512"])
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for member in archive.getmembers():
                name = member.name.removeprefix("package/")
                if name.startswith("dist/") and not name.endswith(".map"):  # the scripts, without their sources
                    archive.extract(member.replace(name=name, deep=False), folder / it["folder"], filter="data")
    for name, content in VIEWER["stand_ins"].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    (folder / "placed").touch()


def _fetch(package: str, version: str, sha512: str) -> bytes:
    with urllib.request.urlopen(f"{REGISTRY}/{package}/-/{package}-{version}.tgz", timeout=SECONDS) as answer:
        content = answer.read()
    if (found := base64.b64encode(hashlib.sha512(content).digest()).decode()) != sha512:
        raise ValueError(f"{package} {version}: found sha512 {found}; expected {sha512}. What to do: try again")
    return content
