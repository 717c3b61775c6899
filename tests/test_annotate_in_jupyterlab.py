"""A mask drawn with a real mouse in JupyterLab is on disk voxel by voxel, and survives the page and the kernel."""

import json
import time

import nbformat
import nibabel as nib
import numpy as np
import pytest
from test_in_jupyterlab import KERNEL, appears, folder, lab, run_all, settled  # noqa: F401

from metaseg_nb.annotation.readings import mask_file, read_readings
from metaseg_nb.layout import StudyLayout

pytestmark = pytest.mark.slow
SHAPE, EDGES_MM = (180, 220, 60), (0.5, 0.5, 2.0)
# Lesions: voxel in the middle, in RAS, and radius in mm. The last is not proposed.
LESIONS = [((60, 100, 30), 7.0), ((120, 140, 30), 5.0), ((110, 60, 30), 5.0)]
# Where on the canvas a rectangle is drawn, as shares of its width and height: left above, and right below.
CORNERS = (0.35, 0.25), (0.42, 0.33)
# The cases are here, without networks; each place that is clicked is written down, as the page says it.
CELL = """
import json
from pathlib import Path
import numpy as np
from metaseg_nb.annotation.by_hand import Beginning
from metaseg_nb.annotation.proposals import Prepared
from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.volumes import read_volume
from metaseg_nb.layout import StudyLayout
from metaseg_nb.viewer import AnnotateApp


class Cases:
    cases = [Case(name, (Path(f"{name}.nii.gz"),), None, name, "lung") for name in ("p1", "p2")]

    def prepared(self, name):
        image = read_volume(Path(f"{name}.nii.gz"), name)
        proposed = np.load(f"{name}_proposed.npy")
        return Prepared(self.cases[name == "p2"], image, Beginning("proposal", proposed, ["unet"]), 0.9 * proposed)


def watched(app):
    acted = app.viewer.widget._event_handlers["location_change"]

    def clicked(place):
        acted(place)
        Path("clicking.json").write_text(json.dumps(place["vox"]), encoding="utf-8")
        Path("clicking.json").replace("clicked.json")  # a test may read it at any moment

    app.viewer.widget.on_location_change(clicked)
    return app.widget
"""
SHOWING = """app = AnnotateApp(StudyLayout("mine"), Cases(), "R1")
watched(app)
"""


def ball(middle, radius_mm):
    offsets = (np.indices(SHAPE) - np.reshape(middle, (3, 1, 1, 1))) * np.reshape(EDGES_MM, (3, 1, 1, 1))
    return (offsets**2).sum(axis=0) <= radius_mm**2


@pytest.fixture
def layout(folder):  # noqa: F811
    """Two cases beside the notebook, whose files are LPS; two of three lesions are proposed."""
    head = (((np.indices(SHAPE).T + 0.5) / SHAPE - 0.5) ** 2).sum(axis=-1).T < 0.23
    noise = np.random.default_rng(0).normal(0, 4, SHAPE)
    image = np.where(head, 100 + noise, 0)
    image[(np.abs(np.indices(SHAPE)[1] - 205) < 8) & head] = 60  # the nose is in front
    for lesion in LESIONS:
        image[ball(*lesion)] = 200
    affine = np.diag([-0.5, -0.5, 2.0, 1.0])
    affine[:3, 3] = 45, 55, -60
    for name in ("p1", "p2"):
        nib.save(nib.Nifti1Image(image[::-1, ::-1].astype(np.float32), affine), folder / f"{name}.nii.gz")
        np.save(folder / f"{name}_proposed.npy", ball(*LESIONS[0]) | ball(*LESIONS[1]))
    cells = [nbformat.v4.new_code_cell(source) for source in (CELL, SHOWING)]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=KERNEL)
    nbformat.write(notebook, folder / "annotate.ipynb")
    return StudyLayout("mine")


class Person:
    """Who looks at the app, and uses the mouse and the keys."""

    def __init__(self, page, layout):
        self.page, self.layout = page, layout
        self.come()

    def come(self):
        """Go to the app, and wait until it is drawn."""
        self.canvas = self.page.locator("canvas").first
        self.canvas.wait_for(state="visible", timeout=60_000)
        self.page.evaluate("document.querySelector('.app-list').scrollIntoView()")
        appears(lambda: settled(self.canvas))

    def tool(self, words):
        self.page.get_by_role("button", name=words).first.click()
        self.page.wait_for_timeout(500)

    def draw(self, *places):
        """Draw with the left button over places of the canvas, each as shares of its width and height."""
        box = self.canvas.bounding_box()
        points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in places]
        self.page.mouse.move(*points[0])
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*point, steps=6)
        self.page.mouse.up()

    def voxel_at(self, place, file):
        """Voxel of the image under a place of the canvas, as the page names it after a click with the look tool."""
        file.unlink(missing_ok=True)
        self.draw(place)
        appears(file.is_file)
        self.page.wait_for_timeout(500)
        return json.loads(file.read_bytes())

    def changes(self, before):
        """The mask on disk, once it is another than before, and how long that took."""
        start = time.monotonic()
        while (now := saved(self.layout)) is None or np.array_equal(now, before):
            assert time.monotonic() - start < 60
            time.sleep(0.05)
        return now, time.monotonic() - start


def saved(layout, case="p1"):
    """The mask on disk, in RAS."""
    path = mask_file(layout, "R1", case)
    return np.asarray(nib.load(path).dataobj)[::-1, ::-1] > 0 if path.is_file() else None


def rectangle(mask):
    """First and last voxel of a mask that fills its box."""
    low, high = np.argwhere(mask).min(axis=0), np.argwhere(mask).max(axis=0)
    assert mask.sum() == np.prod(high - low + 1)
    return low, high


def test_a_mask_drawn_with_the_mouse_is_on_disk_voxel_by_voxel(layout, lab, folder, chromium):  # noqa: F811
    page, complaints = chromium.new_page(viewport={"width": 1600, "height": 1000}), []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    run_all(page, lab, "annotate.ipynb")
    person, (first, second, missed) = Person(page, layout), [ball(*lesion) for lesion in LESIONS]

    # a filled rectangle, in slice 30: the page shows the middle of the largest lesion
    corners = [person.voxel_at(place, folder / "clicked.json") for place in CORNERS]
    person.tool("filled pen")
    person.draw(CORNERS[0], (CORNERS[1][0], CORNERS[0][1]), CORNERS[1], (CORNERS[0][0], CORNERS[1][1]), CORNERS[0])
    mask, seconds = person.changes(first | second)
    print(f"a stroke is on disk after {seconds:.2f} s")
    drawn = mask & ~(first | second)
    low, high = rectangle(drawn)
    assert np.array_equal(mask, first | second | drawn)
    assert (low[2], high[2]) == (30, 30)
    assert [low.tolist(), high.tolist()] == [np.min(corners, axis=0).tolist(), np.max(corners, axis=0).tolist()]

    # undone, and drawn again
    page.keyboard.press("z")
    mask, seconds = person.changes(mask)
    print(f"undo is on disk after {seconds:.2f} s")
    assert np.array_equal(mask, first | second)
    person.draw(CORNERS[0], (CORNERS[1][0], CORNERS[0][1]), CORNERS[1], (CORNERS[0][0], CORNERS[1][1]), CORNERS[0])
    mask, _ = person.changes(mask)
    assert np.array_equal(mask, first | second | drawn)

    # the rectangle tells where on the page a voxel is: to the left is the patient's right, and up is the front
    scale = [(b - a) / (j - i) for a, b, i, j in zip(*CORNERS, low[:2], high[:2], strict=True)]
    place = [a + (j - x) * step for a, j, x, step in zip(CORNERS[0], high[:2], LESIONS[2][0][:2], scale, strict=True)]
    page.keyboard.press("c")
    page.wait_for_timeout(500)
    person.draw(place)
    mask, seconds = person.changes(mask)
    print(f"a region that grew from a click is on disk after {seconds:.2f} s")
    grown = mask & ~(first | second | drawn)
    assert 2 * (grown & missed).sum() / (grown.sum() + missed.sum()) > 0.9, "its border lies at half the brightness"
    missed = grown

    # a proposed lesion is removed by its row
    page.locator(".app-list select").last.select_option(index=0)
    page.get_by_role("button", name="remove lesion").click()
    mask, _ = person.changes(mask)
    assert np.array_equal(mask, second | drawn | missed)

    # the page is loaded again, and the cell is run again; the same after a restart of the kernel
    for restart in ("", "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()"):
        if restart:
            page.evaluate(restart)
        run_all(page, lab, "annotate.ipynb")
        person.come()
        assert page.locator(".app-list select").last.locator("option").count() == 4, "three, and one removed"
        assert np.array_equal(saved(layout), mask)
        person.tool("eraser")
        person.draw(place)
        less, _ = person.changes(mask)
        assert (mask & ~less).sum() == 1, "the browser has the whole drawing again"
        assert (less & ~mask).sum() == 0
        page.keyboard.press("z")
        assert np.array_equal(person.changes(less)[0], mask)

    start = time.monotonic()
    page.keyboard.press("n")
    appears(lambda: page.get_by_text("p2, reader R1").count())
    print(f"the next case is open after {time.monotonic() - start:.2f} s")
    appears(lambda: settled(person.canvas))
    row = read_readings(layout).set_index("case").loc["p1"]
    assert (row["finished"], row["lesions_kept"], row["lesions_added"], row["lesions_removed"]) == (True, 1, 2, 1)
    assert row["seconds"] > 3
    cells = page.evaluate("window.jupyterapp.shell.currentWidget.content.model.toJSON().cells.map(c => c.source)")
    assert cells == [CELL, SHOWING], "no key of the app was one of JupyterLab's"
    assert complaints == []
    page.close()
