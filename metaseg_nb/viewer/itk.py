"""Cases in itkwidgets, whose viewer is served from this machine or not used.

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
from pathlib import Path
from typing import Any

import numpy as np
from jupyter_server.serverapp import list_running_servers

from metaseg_nb.figures.reviewed import CaseImages

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


def why_not() -> str:
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
