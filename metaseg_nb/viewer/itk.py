"""Cases in itkwidgets, where its viewer can be reached; asked first, because without it a notebook hangs."""

import importlib.util
import os
import threading
import urllib.request
import warnings
from typing import Any

import numpy as np
from jupyter_server.serverapp import list_running_servers

from metaseg_nb.figures.case_images import CaseImages
from metaseg_nb.viewer.itk_offline import PLACED, SERVED

# The largest of what is otherwise fetched from there; asked for no longer than this.
NETWORK = "https://cdn.jsdelivr.net/npm/vue@2.6.10/package.json"
SECONDS = 1.5


def why_not() -> str:
    """Say why itkwidgets would not draw here, within two seconds; "" if it would."""
    if importlib.util.find_spec("itkwidgets") is None:
        return "it is not installed: run `make itkwidgets-offline` once"
    if PLACED.is_file():
        return "" if _server() else "its files are served by JupyterLab at the root of its address only"
    if not _answers(NETWORK):
        return "its viewer's files are not here, and no network is either: run `make itkwidgets-offline` once"
    return ""


def view_in_itkwidgets(images: CaseImages) -> Any:
    """Open a case with its reference in itkwidgets, from the files that `place_viewer` placed where they are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it imports, about what that imports
        from itkwidgets import _initialization_params, view, viewer

    if PLACED.is_file():
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

    kind = itkwasm.ImageType(3, str(array.dtype), "Scalar", 1)
    to_lps = np.diag([-1.0, -1.0, 1.0])
    affine = images.image.affine
    return itkwasm.Image(
        imageType=kind,
        spacing=list(images.image.spacing_mm),
        origin=(to_lps @ affine[:3, 3]).tolist(),
        direction=to_lps @ affine[:3, :3] / images.image.spacing_mm,
        size=list(array.shape),
        data=np.ascontiguousarray(array.T),
    )


def _server() -> str:
    """Address of the JupyterLab that started this kernel, without a slash at its end; "" where it is not at a root."""
    parent = os.environ.get("JPY_PARENT_PID")
    for server in list_running_servers():
        if str(server["pid"]) == parent and server["base_url"] == "/":
            return server["url"].rstrip("/")
    return ""


def _answers(address: str) -> bool:
    """Tell whether an address answers in time; looking up its name may take longer, and is not waited for."""
    answers = []

    def ask() -> None:
        try:
            urllib.request.urlopen(address, timeout=SECONDS).close()
        except OSError:
            return
        answers.append(True)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(SECONDS)
    return bool(answers)
