"""Notebooks in JupyterLab, in a real browser: Run All, and in 05 what is drawn is not blank and can be chosen."""

import io
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest
from PIL import Image

from metaseg_nb.batch.runner import open_notebook
from metaseg_nb.batch.runs import Run
from metaseg_nb.files import read_table
from metaseg_nb.layout import NOTEBOOKS, PROJECT, StudyLayout
from metaseg_nb.viewer.review_app import read_verdicts
from metaseg_nb.viewer.viewers import EXTENSION

pytestmark = pytest.mark.slow
STUDIES = Path(__file__).parent / "studies"
TOKEN, SECONDS = "of-a-test", 600
PARAMETERS = {"study": "tiny", "models": ["unet", "unetr"], "cases_shown": 1, "workers": 1}
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where JupyterLab finds notebooks; what they make lies beside it."""
    monkeypatch.setenv("METASEG_HOME", str(tmp_path / "home"))
    folder = tmp_path / "lab"
    folder.mkdir()
    return folder


def put(folder, notebook, parameters, name):
    """Copy a notebook of the project, with these parameters in its cell."""
    content = nbformat.read(NOTEBOOKS / f"{notebook}.ipynb", as_version=4)
    cell = next(cell for cell in content.cells if "parameters" in cell.metadata.get("tags", []))
    cell.source += "".join(f"\n{key} = {value!r}" for key, value in parameters.items())
    nbformat.write(content, folder / name)


@pytest.fixture
def lab(folder, tmp_path):
    """JupyterLab with the settings of `make lab`; its address."""
    port = 8000 + os.getpid() % 1000
    options = [f"--port={port}", f"--IdentityProvider.token={TOKEN}", "--no-browser", "--allow-root"]
    options += [f"--notebook-dir={folder}", f"--LabApp.app_settings_dir={PROJECT}/workflow/jupyterlab"]
    # a browser that draws by software on a busy machine does not answer for minutes
    options += ["--LabApp.expose_app_in_browser=True", "--ServerApp.tornado_settings={'ws_ping_timeout': 600000}"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "JUPYTER_CONFIG_DIR": str(tmp_path / "config")}
    with (tmp_path / "lab.log").open("w") as log:
        command = [sys.executable, "-m", "jupyterlab", *options]
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=folder)
    address = f"http://localhost:{port}"  # as JupyterLab calls itself: frames of another name are refused
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/api?token={TOKEN}", timeout=2).close()
                break
            except OSError:
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait(30)


def pixels(element):
    return np.asarray(Image.open(io.BytesIO(element.screenshot(timeout=120_000))).convert("RGB")).astype(int)


def showing(viewer):
    """Source of a cell that shows a case."""
    lines = [
        "from metaseg_nb.figures.reviewed import read_case_images",
        "from metaseg_nb.figures.reviewed import StudyTables",
        "from metaseg_nb.viewer.viewers import show_case",
        "tables = StudyTables.read('tiny')",
        f"show_case(read_case_images(tables.layout, tables.cohort, 'c0', tables.models), {viewer!r})",
    ]
    return "\n".join(lines)


def run_all(page, lab, name):
    """Open a notebook and run all its cells, which must end well; returns their outputs."""
    page.goto(f"{lab}/lab/tree/{name}?token={TOKEN}&reset", timeout=120_000)
    page.wait_for_function("window.jupyterapp?.shell.currentWidget?.sessionContext?.isReady", timeout=120_000)
    assert page.get_by_role("button", name="Dismiss").count() == 0, "no question about news"
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")
    end = time.monotonic() + SECONDS
    prompts = []
    while time.monotonic() < end:
        content = page.evaluate("window.jupyterapp.shell.currentWidget.content.model.toJSON()")
        prompts = [cell["execution_count"] for cell in content["cells"] if cell["cell_type"] == "code"]
        outputs = [output for cell in content["cells"] for output in cell.get("outputs", [])]
        assert [output for output in outputs if output["output_type"] == "error"] == []
        if all(prompts):
            break
        time.sleep(1)
    assert all(prompts), prompts
    assert [o["text"] for o in outputs if o.get("name") == "stderr" and "Warning" in "".join(o["text"])] == []
    return outputs


def appears(look):
    """Wait for what comes some time after the cells are done: drawing by software takes seconds."""
    end = time.monotonic() + SECONDS
    while not (found := look()):
        assert time.monotonic() < end
        time.sleep(1)
    return found


def settled(canvas):
    """The picture of a canvas once it is not blank, an overlay has a colour, and a second look sees the same."""
    picture = pixels(canvas)
    time.sleep(2)
    brightest, coloured = picture.max(), ((picture.max(axis=2) - picture.min(axis=2)) > 40).sum()
    change = np.abs(pixels(canvas) - picture).mean()
    print(f"canvas: brightest {brightest}, {coloured} pixels in colour, {change} from one look to the next")
    return [picture] if brightest > 100 and coloured > 50 and change < 0.01 else []


def pictures(outputs):
    return sum("image/png" in output.get("data", {}) for output in outputs)


ALL = [("01_explore_data",), ("02_preprocess_n4",), ("03_train", "unet", 0), ("04_cross_validation",)]
ALL += [("05_qualitative_review",), ("07_radiotherapy",)]


def results(home):
    """All tables of a study, without times, and when each network was trained."""
    tables = {path: read_table(path) for path in home.glob("runs/**/*.csv")}
    found = {path: table.drop(columns="seconds", errors="ignore").to_csv() for path, table in tables.items()}
    return found | {path: path.stat().st_mtime_ns for path in home.glob("runs/**/*.pt")}


def open_and_run(which, page, lab, folder):
    """Run all cells of a notebook of the tiny study, as `open` writes it; returns the outputs."""
    name = "_".join(map(str, which)) + ".ipynb"
    shutil.copy(open_notebook(Run(which[0], str(STUDIES / "tiny.yaml"), *which[1:])), folder / name)
    outputs = run_all(page, lab, name)
    assert pictures(outputs) >= 2, f"{name} draws figures"
    return outputs


def test_run_all_after_a_study_trains_nothing_and_changes_no_table(tiny_study, lab, folder, chromium):
    """The tiny study stands for the demo, whose values are those of the committed notebooks (test_settings)."""
    home = folder.parent / "home"
    shutil.copytree(tiny_study.home, home)
    before = results(home)
    page, complaints = chromium.new_page(viewport={"width": 1600, "height": 1300}), []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    for which in ALL:
        open_and_run(which, page, lab, folder)
    assert results(home) == before
    assert complaints == []
    page.close()


def test_a_network_trains_in_jupyterlab_with_progress_bars(tiny_study, lab, folder, chromium):
    home = folder.parent / "home"
    shutil.copytree(tiny_study.home, home)
    run = StudyLayout("tiny").run("segresnet", 0)
    scores = read_table(run.metrics_table)["dice"]
    shutil.rmtree(run.root)
    page = chromium.new_page(viewport={"width": 1600, "height": 1300})
    outputs = open_and_run(("03_train", "segresnet", 0), page, lab, folder)
    assert any("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in outputs)
    assert read_table(run.metrics_table)["dice"].tolist() == scores.tolist()
    page.close()


def test_notebook_05_runs_in_jupyterlab_and_its_review_works(lab, folder, reviewed_study, chromium):
    put(folder, "05_qualitative_review", PARAMETERS, "review.ipynb")
    page, complaints = chromium.new_page(viewport={"width": 1600, "height": 1300}), []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    run_all(page, lab, "review.ipynb")

    page.evaluate("() => { const n = window.jupyterapp.shell.currentWidget.content; n.scrollToItem(5) }")
    canvas = page.locator("canvas").first
    canvas.wait_for(state="visible", timeout=60_000)
    (before,) = appears(lambda: settled(canvas))
    page.get_by_role("button", name="next →").click()
    appears(lambda: np.abs(pixels(canvas) - before).mean() > 0.2)  # another case is another picture
    page.get_by_role("button", name="unusable").click()
    appears(lambda: len(read_verdicts(reviewed_study.verdicts_table)))
    (verdict,) = read_verdicts(reviewed_study.verdicts_table).to_dict("records")
    assert verdict["verdict"] == "unusable"
    assert complaints == []
    page.close()


@pytest.mark.skipif(not (EXTENSION / "offline" / "placed").is_file(), reason="`make lab` fetches its files")
def test_itkwidgets_draws_in_jupyterlab_and_asks_no_other_machine(lab, folder, reviewed_study, chromium):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(showing("itkwidgets"))], metadata=KERNEL)
    nbformat.write(notebook, folder / "itk.ipynb")
    page, asked = chromium.new_page(viewport={"width": 1600, "height": 1300}), []
    page.on("request", lambda request: asked.append(request.url))
    run_all(page, lab, "itk.ipynb")
    viewer = appears(lambda: next((frame for frame in page.frames if "itk-vtk-viewer" in frame.url), None))
    canvas = viewer.locator("canvas").first
    canvas.wait_for(state="visible", timeout=120_000)
    time.sleep(20)  # software rendering
    assert pixels(canvas).std() > 5, "the canvas is not blank"
    assert [url for url in asked if url.startswith("http") and not url.startswith(lab)] == []
    page.close()


def test_no_viewer_hangs_papermill(reviewed_study, tmp_path):
    viewers = [showing(viewer) for viewer in ("niivue", "itkwidgets", "slices")]
    cells = [nbformat.v4.new_code_cell(source) for source in (*viewers, "print('the next cell ran')")]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=KERNEL)
    nbformat.write(notebook, tmp_path / "in.ipynb")
    done = papermill.execute_notebook(
        tmp_path / "in.ipynb", tmp_path / "out.ipynb", kernel_name="python3", execution_timeout=60, progress_bar=False
    )
    assert done.cells[-1].outputs[0].text == "the next cell ran\n"
    assert all(pictures(cell.outputs) for cell in done.cells[:-1])
    assert json.loads(Path(tmp_path / "out.ipynb").read_text())["metadata"].get("widgets") is None
