"""The files of itkwidgets' viewer, so that it draws without internet.

itkwidgets loads its viewer in the browser from content delivery networks. `place_viewer` fetches
the same files once from npm's registry, puts them below the static files of its JupyterLab
extension, which JupyterLab serves, and points the addresses in the extension's scripts there.
"""

import base64
import hashlib
import io
import json
import sys
import tarfile
import urllib.request
from pathlib import Path

REGISTRY = "https://registry.npmjs.org"
EXTENSION = Path(sys.prefix) / "share/jupyter/labextensions/imjoy-jupyterlab-extension/static"
# Where the files are, and where a browser finds them on a JupyterLab that has no base address of its own.
FILES, SERVED = EXTENSION / "offline", "/lab/extensions/imjoy-jupyterlab-extension/static/offline"
# Folder below FILES, package, version. The folders are called as the scripts ask for them.
PACKAGES = (
    ("vue@2.6.10", "vue", "2.6.10"),
    ("vue-js-modal", "vue-js-modal", "1.3.35"),
    ("imjoy-core@latest", "imjoy-core", "0.14.5"),
    ("imjoy-rpc@0.5.9", "imjoy-rpc", "0.5.9"),
    ("itk-viewer-bootstrap-ui@0.30.0", "itk-viewer-bootstrap-ui", "0.30.0"),
    ("itk-vtk-viewer", "itk-vtk-viewer", "14.51.0"),
)
# Addresses in scripts and pages, and what stands there instead.
ADDRESSES = {
    "https://cdn.jsdelivr.net/npm/": f"{SERVED}/",
    "https://imjoy-team.github.io/vue-js-modal/": f"{SERVED}/vue-js-modal/dist/",
    "https://lib.imjoy.io/imjoy-loader.js": f"{SERVED}/imjoy-core@latest/dist/imjoy-loader.min.js",
    "https://lib.imjoy.io/": f"{SERVED}/imjoy-core@latest/dist/",
    # a logo, and engines that no viewer needs: refused by JupyterLab at once
    "https://imjoy.io/static/": f"{SERVED}/",
    "https://imjoy-team.github.io/": f"{SERVED}/",
}
# Movable windows, which a notebook does not open: the package is not on npm. And an empty logo.
STAND_INS = {
    "@oeway/vue-window@2.4.1-a/lib/index.js": "window.VueWindow = { install() {} };\n",
    "img/imjoy-logo-black.svg": '<svg xmlns="http://www.w3.org/2000/svg"/>\n',
    "img/imjoy-icon.svg": '<svg xmlns="http://www.w3.org/2000/svg"/>\n',
}
PLACED = FILES / "placed.json"
SECONDS = 60


def place_viewer() -> Path:
    """Fetch the viewer's files and point itkwidgets' JupyterLab extension to them; about 120 MB.

    Raises
    ------
    FileNotFoundError
        itkwidgets is not installed here.
    ValueError
        A package is not what the registry says it is.
    """
    if not EXTENSION.is_dir():
        raise FileNotFoundError(f"no {EXTENSION.parent.name} in {sys.prefix}: install itkwidgets first")
    for folder, package, version in PACKAGES:
        _unpack(_fetch(package, version), FILES / folder)
    for name, content in STAND_INS.items():
        (FILES / name).parent.mkdir(parents=True, exist_ok=True)
        (FILES / name).write_text(content, encoding="utf-8")
    for script in [*EXTENSION.glob("*.js"), *FILES.rglob("*.js"), *FILES.rglob("*.html")]:
        _point_here(script)
    PLACED.write_text(
        json.dumps({package: version for _, package, version in PACKAGES}, indent=1) + "\n", encoding="utf-8"
    )
    return FILES


def _fetch(package: str, version: str) -> bytes:
    with urllib.request.urlopen(f"{REGISTRY}/{package}/{version}", timeout=SECONDS) as answer:
        facts = json.load(answer)["dist"]
    with urllib.request.urlopen(facts["tarball"], timeout=SECONDS) as answer:
        content = answer.read()
    digest = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    if digest != facts["integrity"]:
        raise ValueError(
            f"{package} {version}: found {digest}; expected {facts['integrity']}. What to do: fetch it again"
        )
    return content


def _unpack(content: bytes, folder: Path) -> None:
    """Unpack the scripts of an npm package, without its sources."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive.getmembers():
            name = Path(member.name).relative_to("package") if member.name.startswith("package/") else None
            if name and name.parts[0] == "dist" and name.suffix != ".map":
                archive.extract(member.replace(name=str(name), deep=False), folder, filter="data")


def _point_here(script: Path) -> None:
    text = before = script.read_text(encoding="utf-8")
    for address, here in ADDRESSES.items():
        text = text.replace(address, here)
    if text != before:
        script.write_text(text, encoding="utf-8")
