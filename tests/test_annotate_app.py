"""Annotating: what is drawn is what is saved, nothing is lost between browser and disk, and no error is silent."""

import asyncio
import json
import time

import nibabel as nib
import numpy as np
import pytest

from metaseg_nb.annotation.by_hand import Beginning, open_reading
from metaseg_nb.annotation.proposals import Prepared
from metaseg_nb.annotation.readings import mask_file, read_readings
from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import read_volume
from metaseg_nb.layout import StudyLayout
from metaseg_nb.viewer import annotate_app, open_case
from metaseg_nb.viewer.annotate_app import AnnotateApp
from metaseg_nb.viewer.niivue import CLICK, LINE, PENDING
from metaseg_nb.viewer.open_case import HEADER, LesionList, OpenCase
from metaseg_nb.viewer.panel import KEYS, SLIDERS, TOOLS

SHAPE, SPACING_MM = (24, 20, 12), (0.5, 0.5, 2.0)
FIRST, SECOND = ((2, 2, 2), (6, 6, 4)), ((12, 10, 5), (15, 13, 7))


class Times:
    """Seconds that a test sets."""

    now = 1000.0

    def __call__(self):
        return self.now


def box(*corners):
    mask = np.zeros(SHAPE, bool)
    for low, high in corners:
        mask[tuple(map(slice, low, high))] = True
    return mask


class FakeWaiting:
    """Cases that begin with two lesions of a proposal; ``fails``: those that cannot be made ready."""

    def __init__(self, cases):
        self.cases, self.fails = cases, set()

    def prepared(self, name):
        if name in self.fails:
            raise CohortError.one(name, "image.nii.gz", "a damaged file", "a NIfTI file", "export it again")
        case = next(case for case in self.cases if case.name == name)
        probability = np.where(box(FIRST), np.float32(0.8), np.float32(0)) + 0.3 * box(SECOND)
        beginning = Beginning("proposal", box(FIRST, SECOND), ["unet/fold0"])
        return Prepared(case, read_volume(case.image, name), beginning, probability)


class Browser:
    """NiiVue's side of the messages: holds the drawing, and answers when it is told to."""

    def __init__(self, app, monkeypatch):
        self.widget, self.drawing, self.answers, self.quick = app.viewer.widget, None, [], True
        monkeypatch.setattr(self.widget, "send", self.receive)
        self.show()

    def show(self):
        """The page has loaded the image that Python sent."""
        self.widget._event_handlers["image_loaded"](self.widget.volumes[0])

    def reload(self):
        """The page is loaded again, without a drawing."""
        self.drawing = None
        self.show()

    def receive(self, message, buffers=()):
        if message["type"] == "close_drawing":
            self.drawing = None
        if message["type"] == "buffer_update":
            self.drawing[np.frombuffer(buffers[0], np.uint32)] = np.frombuffer(buffers[1], np.uint8)
        if message["type"] == "set_drawing_enabled":
            if self.drawing is None:
                self.drawing = np.zeros(np.prod(SHAPE), np.uint8)
            if self.widget.this_model_id:
                self.answers.append(self.drawing.copy())
            if self.quick:
                self.answer()

    def answer(self):
        answers, self.answers = self.answers, []
        for answer in answers:
            self.widget.draw_bitmap = answer

    def stroke(self, *voxels):
        """Draw with the pen that Python has set, and release the mouse."""
        assert self.widget.opts.drawing_enabled
        for x, y, z in voxels:
            self.drawing[x + SHAPE[0] * (y + SHAPE[1] * z)] = self.widget.opts.pen_value
        self.widget._event_handlers["mouse_up"]({})

    @property
    def shown(self):
        return self.drawing.reshape(SHAPE[::-1]).T


@pytest.fixture(autouse=True)
def mistakes(monkeypatch):
    """The app shows every error as a line; what is no person's doing and no full disk fails the test."""
    mistakes, explained = [], annotate_app._explained

    def explain(error):
        if not isinstance(error, ValueError | OSError):
            mistakes.append(error)
        return explained(error)

    monkeypatch.setattr(annotate_app, "_explained", explain)
    yield
    assert mistakes == []


@pytest.fixture
def layout(tmp_path):
    return StudyLayout("mine", tmp_path)


@pytest.fixture
def waiting(tmp_path):
    """Three cases whose files are LPS."""
    cases = []
    for name in ("p1", "p2", "p3"):
        affine = np.diag([-0.5, -0.5, 2.0, 1.0])
        image = np.random.default_rng(0).normal(100, 5, SHAPE).astype(np.float32)
        nib.save(nib.Nifti1Image(image, affine), path := tmp_path / f"{name}.nii.gz")
        cases.append(Case(name, (path,), None, name, "unknown"))
    return FakeWaiting(cases)


@pytest.fixture
def times():
    return Times()


@pytest.fixture
def app(layout, waiting, times):
    app = AnnotateApp(layout, waiting, "R1", now=times)
    yield app
    app.close()


@pytest.fixture
def browser(app, monkeypatch):
    return Browser(app, monkeypatch)


def saved(layout, case="p1", reader="R1"):
    """The mask on disk, in RAS."""
    return np.asarray(nib.load(mask_file(layout, reader, case)).dataobj)[::-1, ::-1] > 0


def press(app, key, **event):
    app._key({"key": key} | event)


def states(app):
    return [row.state for row in app.opened.rows]


# --- what is drawn is what is saved ---


def test_the_browser_shows_the_proposal_and_the_list_says_what_it_holds(app, browser):
    assert np.array_equal(browser.shown, box(FIRST, SECOND))
    assert states(app) == ["kept", "kept"]
    first, second = app.opened.rows
    assert (first.volume_mm3, second.volume_mm3) == (32 * 0.5, 18 * 0.5)
    assert first.diameter_mm == pytest.approx(np.sqrt(2**2 + 2**2 + 4**2))
    assert (first.highest, first.mean, second.mean) == pytest.approx((0.8, 0.8, 0.3))
    assert box(FIRST)[first.centre]


def test_without_networks_the_list_has_no_probability():
    beginning = Beginning("proposal", box(FIRST))
    for probability, words in ((0.3 * box(FIRST), "0.30  0.30  kept"), (np.zeros(SHAPE), "–     –  kept")):
        (row,) = LesionList(beginning, probability, (1.0, 1.0, 1.0)).rows(box(FIRST))
        assert row.words.endswith(f" {words}")
        assert len("✓ " + row.words) == len(HEADER) - len("state") + len("kept"), "columns stay below their heads"


def test_a_stroke_is_on_disk_when_it_is_in_the_list(app, browser, layout):
    app.tool.value = "pen"
    browser.stroke((20, 15, 9), (21, 15, 9))
    assert np.array_equal(saved(layout), box(FIRST, SECOND, ((20, 15, 9), (22, 16, 10))))
    assert states(app) == ["kept", "kept", "added"]
    assert app.lesions.value == 2, "what was drawn is chosen, so that `remove` means it"
    app.tool.value = "eraser"
    browser.stroke((2, 2, 2))
    assert not saved(layout)[2, 2, 2]
    assert states(app) == ["edited", "kept", "added"]


def test_a_lesion_is_removed_and_restored(app, browser, layout):
    press(app, "r")
    assert np.array_equal(saved(layout), box(SECOND))
    assert np.array_equal(browser.shown, box(SECOND))
    assert states(app) == ["kept", "removed"]
    app.lesions.value = 1
    app.buttons["restore"].click()
    assert np.array_equal(saved(layout), box(FIRST, SECOND))
    assert states(app) == ["kept", "kept"]


def test_a_click_grows_a_region_that_follows_the_level_and_is_undone_at_once(app, browser, layout, monkeypatch):
    asked = []

    def grow(image, probability, voxel, level):
        asked.append((image.array.shape, probability.shape, tuple(voxel), level))
        reach = 1 if level > 0.4 else 2
        return box((np.subtract(voxel, reach), np.add(voxel, reach + 1)))

    monkeypatch.setattr(open_case, "grow", grow)
    press(app, "c")
    assert browser.widget.opts.pen_value == CLICK
    browser.stroke((19, 4, 8))
    assert asked == [(SHAPE, SHAPE, (19, 4, 8), 0.5)]
    small = box(((18, 3, 7), (21, 6, 10)))
    assert np.array_equal(saved(layout), box(FIRST, SECOND) | small)
    assert set(np.unique(browser.shown)) == {0, 1, PENDING}, "no point is left, and what still grows has its colour"
    app.level.value = 0.3
    assert np.array_equal(saved(layout), box(FIRST, SECOND, ((17, 2, 6), (22, 7, 11))))
    press(app, "z")
    assert np.array_equal(saved(layout), box(FIRST, SECOND))
    app.level.value = 0.5
    assert np.array_equal(saved(layout), box(FIRST, SECOND)), "a region that is taken back grows no more"
    browser.stroke((19, 4, 8))
    press(app, "j")
    app.level.value = 0.3
    assert np.array_equal(saved(layout), box(FIRST, SECOND) | small), "nor one that was left for the next lesion"


def test_a_point_where_nothing_can_grow_is_taken_off_the_image(app, browser, monkeypatch):
    def grow(image, probability, voxel, level):
        raise ValueError("Nobody can grow this.")

    monkeypatch.setattr(open_case, "grow", grow)
    press(app, "c")
    browser.stroke((19, 4, 8))
    assert "Nobody can grow this." in app.message.value
    assert np.array_equal(browser.shown, box(FIRST, SECOND))
    monkeypatch.setattr(open_case, "grow", lambda image, probability, voxel, level: box())
    app.level.value = 0.3
    assert "Nothing grows here" in app.message.value
    assert np.array_equal(browser.shown, box(FIRST, SECOND))


def test_a_line_becomes_a_region_between_its_ends(app, browser, layout, monkeypatch):
    ends = []

    def grow_along(image, probability, start, end, level):
        ends.extend([tuple(start), tuple(end)])
        return box(((17, 14, 9), (22, 18, 10)))

    monkeypatch.setattr(open_case, "grow_along", grow_along)
    press(app, "l")
    assert browser.widget.opts.pen_value == LINE
    browser.stroke((18, 15, 9), (19, 15, 9), (20, 16, 9), (21, 16, 9))
    assert sorted(ends) == [(18, 15, 9), (21, 16, 9)]
    assert np.array_equal(saved(layout), box(FIRST, SECOND, ((17, 14, 9), (22, 18, 10))))


def test_slices_are_filled_across_the_plane_of_the_last_stroke(app, browser, monkeypatch):
    axes = []
    monkeypatch.setattr(open_case, "interpolated", lambda mask, axis: axes.append(axis) or mask)
    press(app, "i")
    app.tool.value = "pen"
    browser.stroke((20, 15, 8), (20, 16, 9))  # sagittal
    press(app, "i")
    assert axes == [2, 0]


def test_undo_takes_back_strokes_removals_and_regions_in_turn(app, browser, layout, monkeypatch):
    region = ((18, 3, 7), (21, 6, 10))
    monkeypatch.setattr(open_case, "grow", lambda image, probability, voxel, level: box(region))
    masks = [box(FIRST, SECOND)]
    app.tool.value = "pen"
    for i in range(18):
        browser.stroke((20, i, 0))
        masks.append(saved(layout))
    app.opened.remove()
    masks.append(saved(layout))
    app.tool.value = "click to segment"
    browser.stroke((19, 4, 8))
    assert np.array_equal(saved(layout), masks[-1] | box(region))
    for before in reversed(masks):
        press(app, "z")
        assert np.array_equal(saved(layout), before)
        assert np.array_equal(browser.shown > 0, before)
    press(app, "z")
    assert "There is nothing to undo" in app.message.value


# --- between browser and disk ---


def test_an_action_waits_for_the_stroke_before_it(app, browser, layout):
    """The browser needs some hundred milliseconds to send a stroke; who is quicker loses nothing."""
    app.tool.value, browser.quick = "pen", False
    browser.stroke((20, 15, 9))
    press(app, "n")
    assert app.reading.case == "p1"
    assert "Waiting for the last stroke" in app.message.value
    browser.answer()
    assert saved(layout)[20, 15, 9]
    assert read_readings(layout).set_index("case")["finished"]["p1"]
    assert app.reading.case == "p2"


def test_a_stroke_of_the_case_before_is_not_drawn_into_the_next(app, browser, layout):
    app.tool.value, browser.quick = "pen", False
    browser.stroke((20, 15, 9))
    app._open_case("p2")
    browser.answer()
    browser.quick = True
    browser.show()
    assert np.array_equal(app.opened.mask, box(FIRST, SECOND))
    assert np.array_equal(browser.shown, box(FIRST, SECOND))


def test_of_two_quick_strokes_the_last_answer_holds_both(app, browser, layout):
    app.tool.value, browser.quick = "pen", False
    browser.stroke((20, 15, 9))
    browser.stroke((21, 15, 9))
    browser.answer()
    assert np.array_equal(saved(layout), box(FIRST, SECOND, ((20, 15, 9), (22, 16, 10))))


def test_a_page_that_is_loaded_again_gets_the_drawing_and_loses_none(app, browser, layout):
    app.tool.value = "pen"
    browser.stroke((20, 15, 9))
    browser.reload()
    assert np.array_equal(browser.shown, saved(layout))
    browser.stroke((21, 15, 9))
    assert np.array_equal(saved(layout), box(FIRST, SECOND, ((20, 15, 9), (22, 16, 10))))


def test_of_two_pages_that_show_the_app_only_the_one_that_was_drawn_on_is_believed(app, browser, layout):
    """Both answer. The other lacks the stroke, and parts of two answers would become one drawing."""

    def sent(page, **data):
        app.viewer.widget._handle_msg({"header": {"session": page}, "content": {"data": data}, "buffers": []})

    def answer(page, voxels):
        parts = np.split(np.asarray(voxels, np.uint8), 2)
        for i, part in enumerate(parts):
            what = {"chunk_index": i, "total_chunks": 2, "data_type": "uint8", "chunk": memoryview(part.tobytes())}
            yield {"method": "update", "state": {f"chunk_draw_bitmap_{i}": what}, "buffer_paths": []}

    app.tool.value, browser.quick = "pen", False
    for page in ("first", "second"):
        sent(page, method="custom", content={"event": "image_loaded", "data": {"id": app.viewer.widget.volumes[0].id}})
    drawn = box(FIRST, SECOND, ((20, 15, 9), (21, 16, 10)), ((20, 15, 2), (21, 16, 3)))
    sent("first", method="custom", content={"event": "mouse_up", "data": {}})
    first, second = answer("first", drawn.T.ravel()), answer("second", browser.drawing.copy())
    for of_second, of_first in zip(second, first, strict=True):
        sent("first", **of_first)
        sent("second", **of_second)
    assert np.array_equal(saved(layout), drawn)
    assert np.array_equal(browser.shown, drawn), "the second page gets the stroke"


def test_an_answer_that_never_comes_blocks_nothing_for_ever(app, browser, monkeypatch):
    app.tool.value, browser.quick = "pen", False
    browser.stroke((20, 15, 9))
    monkeypatch.setattr("metaseg_nb.viewer.niivue.LOST_S", 0)
    press(app, "r")
    assert states(app) == ["kept", "removed"]


def test_what_waits_for_a_lost_answer_is_done_without_another_key(app, browser, monkeypatch):
    monkeypatch.setattr("metaseg_nb.viewer.niivue.LOST_S", 0.05)

    async def session():
        app.tool.value, browser.quick = "pen", False
        browser.stroke((20, 15, 9))
        press(app, "r")
        assert states(app) == ["kept", "kept"], "the stroke may still come"
        await asyncio.sleep(0.2)

    asyncio.run(session())
    assert states(app) == ["kept", "removed"]


def test_a_case_that_nobody_has_seen_is_not_finished_by_a_key_pressed_twice(app, browser, layout):
    press(app, "n")
    press(app, "n")  # the browser has not shown p2 yet
    assert app.reading.case == "p2"
    assert "not shown yet" in app.message.value
    assert read_readings(layout)["case"].tolist() == ["p1"]


def test_a_case_does_not_count_as_seen_when_the_image_of_the_one_before_arrives_late(app, browser):
    browser.widget._handle_custom_msg({"event": "image_loaded", "data": {"id": "of another case"}}, [])
    assert app.viewer.ready, "p1 stays as it is"
    press(app, "n")
    browser.widget._handle_custom_msg({"event": "image_loaded", "data": {"id": "of p1"}}, [])
    assert (app.reading.case, app.viewer.ready) == ("p2", False)


def test_looking_writes_no_mask_twice(app, browser, layout, monkeypatch):
    press(app, "p")
    browser.stroke((20, 15, 9))
    path = mask_file(layout, "R1", "p1")
    before = path.stat().st_mtime_ns
    browser.widget._event_handlers["mouse_up"]({})
    press(app, "a")
    app.lesions.value = 0
    assert path.stat().st_mtime_ns == before


# --- cases ---


def marks(app):
    return [words.split()[0] if words[0] != " " else "" for words, _ in app.cases.options]


def test_done_opens_the_next_case_and_the_list_says_so(app, browser, layout):
    press(app, "n")
    assert (app.reading.case, app.cases.value, marks(app)) == ("p2", "p2", ["✓", "", ""])
    browser.show()
    app.tool.value = "pen"
    browser.stroke((20, 15, 9))
    app.cases.value = "p3"
    assert marks(app) == ["✓", "…", ""]
    rows = read_readings(layout).set_index("case")
    assert rows["finished"].to_dict() == {"p1": True, "p2": False}
    assert saved(layout, "p2")[20, 15, 9]
    assert not (layout.by_hand / ".p2.open.json").exists(), "p2 is free for others"


def test_nothing_to_see_here_needs_an_empty_mask_and_opens_the_next(app, browser, layout):
    press(app, "x")
    assert "not empty" in app.message.value
    assert app.reading.case == "p1", "one key takes nothing away that was drawn"
    assert app.opened.mask.any()
    press(app, "r")
    press(app, "r")
    press(app, "x")
    row = read_readings(layout).iloc[0]
    assert (row["case"], row["finished"], row["n_lesions"], row["lesions_removed"]) == ("p1", True, 0, 2)
    assert not saved(layout).any()
    assert app.reading.case == "p2"


def test_a_finished_case_stays_finished_when_it_is_only_looked_at(app, browser, layout):
    press(app, "n")
    app.cases.value = "p1"
    app.cases.value = "p2"
    assert read_readings(layout).set_index("case")["finished"]["p1"]
    app.cases.value = "p1"
    browser.show()
    press(app, "r")
    assert not read_readings(layout).set_index("case")["finished"]["p1"], "the reader stands by another mask"


def test_after_the_last_case_it_says_that_all_are_done(app, browser):
    for _ in range(3):
        press(app, "n")
        if app.reading:
            browser.show()
    assert app.reading is None
    assert "All cases are finished" in app.message.value
    press(app, "r")
    assert "No case is open" in app.message.value


def test_time_is_counted_while_a_person_works_and_shown(app, browser, times, layout):
    for _ in range(12):
        times.now += 20
        browser.widget._event_handlers["location_change"]({})
    assert "active 4.0 min" in app.title.value
    times.now += 5000
    app.cases.value = "p2"
    assert read_readings(layout)["seconds"].tolist() == [12 * 20 + 30]


def test_a_new_app_of_this_notebook_closes_the_one_before(app, browser, layout, waiting):
    again = AnnotateApp(layout, waiting, "R1")
    assert app.reading is None
    assert again.reading.case == "p1"
    press(app, "r")
    assert np.array_equal(again.opened.mask, box(FIRST, SECOND))
    again.close()


# --- no error is silent ---


def test_a_case_of_another_reader_is_not_opened_and_says_who_has_it(app, browser, layout, waiting):
    other = open_reading(
        layout, waiting.cases[1], read_volume(waiting.cases[1].image, "p2"), "R2", app.reading.beginning
    )
    other.save(other.mask)
    other.close()
    app.cases.value = "p2"
    assert "case p2: R2 has begun it" in app.message.value
    assert "R2" in dict((name, words) for words, name in app.cases.options)["p2"]
    assert app.cases.value is None


@pytest.fixture
def finished_elsewhere(app, browser, layout, waiting):
    """What another notebook of the reader made of p1, and finished, while it was left open here after a stroke."""
    app.tool.value = "pen"
    browser.stroke((20, 15, 9))
    case = waiting.cases[0]
    other = open_reading(layout, case, read_volume(case.image, "p1"), "R1", app.reading.beginning)
    other.save(drawn := box(FIRST))
    other.close(finished=True)
    yield drawn
    assert np.array_equal(saved(layout), drawn)
    assert read_readings(layout).set_index("case")["finished"]["p1"]


def test_a_stroke_on_a_case_that_another_notebook_finished_is_said_not_to_be_saved(
    app, browser, times, finished_elsewhere
):
    times.now += 3600
    browser.widget._event_handlers["location_change"]({})
    assert "R1 saved it in another notebook 0 min ago" in app.message.value, "at the first look, before a stroke"
    browser.stroke((21, 15, 9))
    assert "Not done. case p1: R1 saved it in another notebook 0 min ago" in app.message.value
    assert "run the cell again" in app.message.value
    assert "Nothing that was drawn here meanwhile is saved" in app.message.value


@pytest.mark.parametrize("leave", [lambda app: setattr(app.cases, "value", "p2"), lambda app: press(app, "n")])
def test_such_a_case_is_left_for_the_next_and_that_it_was_not_saved_is_said(app, browser, finished_elsewhere, leave):
    browser.stroke((21, 15, 9))
    leave(app)
    assert (app.reading.case, app.cases.value, marks(app)) == ("p2", "p2", ["✓", "", ""])
    assert "Not saved. case p1: R1 saved it in another notebook" in app.message.value


def test_the_cell_run_again_goes_on_from_what_another_notebook_saved(app, layout, waiting, finished_elsewhere):
    again = AnnotateApp(layout, waiting, "R1")
    assert (again.reading.case, again.message.value) == ("p2", "<b></b>")
    again.cases.value = "p1"
    assert np.array_equal(again.opened.mask, finished_elsewhere)
    again.close()


def test_looking_at_images_holds_the_case(app, browser, times, layout):
    lock = layout.by_hand / ".p1.open.json"
    for _ in range(2):
        lock.write_text(json.dumps(json.loads(lock.read_bytes()) | {"time": 0}), encoding="utf-8")
        times.now += 60
        browser.widget._event_handlers["location_change"]({})
        assert time.time() - json.loads(lock.read_bytes())["time"] < 60


def test_a_case_that_cannot_be_read_leaves_the_one_before_open(app, browser, layout, waiting):
    waiting.fails.add("p3")
    app.cases.value = "p3"
    assert "damaged file" in app.message.value
    assert (app.reading.case, app.cases.value) == ("p1", "p1")


def test_what_cannot_be_saved_is_said_and_saved_later(app, browser, layout, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    app.tool.value = "pen"
    with monkeypatch.context() as patched:
        patched.setattr("metaseg_nb.annotation.by_hand.write_volume", full)
        browser.stroke((20, 15, 9))
        assert "No space left on device" in app.message.value
        app.cases.value = "p2"
        assert app.reading.case == "p1", "a mask that is not on disk is not left"
    press(app, "n")
    assert saved(layout)[20, 15, 9]


def test_a_name_is_words(app, monkeypatch):
    app._say("<img src=x onerror=alert(1)>")
    assert "&lt;img" in app.message.value


# --- keys ---


def test_each_key_means_one_thing_and_has_its_method():
    keys = [*KEYS, *SLIDERS, *(key for key, *_ in TOOLS.values())]
    assert len(set(keys)) == len(keys)
    assert all(hasattr(AnnotateApp, method) != hasattr(OpenCase, method) for _, method in KEYS.values())


def test_keys_choose_tools_sizes_and_levels_and_shortcuts_of_the_browser_do_nothing(app, browser):
    press(app, "e")
    press(app, "]")
    press(app, ".")
    assert (app.tool.value, app.size.value, app.level.value) == ("eraser", 3, pytest.approx(0.55))
    for turn in (100, 100, -100):  # of the wheel, over the slider
        app._wheel._dom_handlers({"deltaY": turn})
    assert app.level.value == pytest.approx(0.5)
    options = browser.widget.opts
    assert (options.drawing_enabled, options.pen_value, options.pen_size) == (True, 0, 3)
    press(app, "r", ctrlKey=True)
    press(app, "r", repeat=True)
    assert states(app) == ["kept", "kept"]
    press(app, "+")
    *pan, zoom = browser.widget.scene.pan2d_xyzmm
    place = nib.affines.apply_affine(app.reading.image.affine, app.opened.rows[0].centre)
    assert zoom == 1.5
    assert pan == pytest.approx(-0.5 * place), "the lesion stays where it is"
    press(app, "v")
    assert not browser.widget.opts.drawing_enabled


def crosshair(app):
    return [round(share * size - 0.5) for share, size in zip(app.viewer.widget.scene.crosshair_pos, SHAPE, strict=True)]


def test_the_next_lesion_is_a_key_away_and_a_row_of_the_list_too(app, browser):
    first, second = (list(row.centre) for row in app.opened.rows)
    assert crosshair(app) == first
    press(app, "j")
    assert (app.lesions.value, crosshair(app)) == (1, second)
    press(app, "j")
    assert (app.lesions.value, crosshair(app)) == (0, first), "from the last to the first"
    assert [words[0] for words, _ in app.lesions.options] == [" ", " "], "nothing is ticked"
    app.lesions.value = 1
    assert crosshair(app) == second


def test_ticks_are_there_again_when_the_case_is_opened_again(app, browser, layout, waiting):
    press(app, "a")
    press(app, "p")
    browser.stroke((20, 15, 9))
    again = AnnotateApp(layout, waiting, "R1")
    assert [words[0] for words, _ in again.lesions.options] == ["✓", " ", " "]
    again.close()


def test_the_next_case_is_made_ahead_while_one_is_drawn_on(app, browser):
    browser.show()
    assert [*app._ahead] == ["p2"]
    assert app._ahead["p2"].result()[1].name == "p2"


def test_to_open_the_next_case_nothing_is_read_found_or_packed_that_was_made_ahead(
    app, browser, waiting, layout, monkeypatch
):
    def again(*arguments):
        raise AssertionError("it was made ahead")

    app._ahead["p2"].result()
    waiting.fails.add("p2")  # to be made ready a second time
    for place in ("annotate_app.with_dark_background", "open_case.find_lesions", "niivue._image_volume"):
        monkeypatch.setattr(f"metaseg_nb.viewer.{place}", again)
    press(app, "n")
    assert (app.reading.case, app.message.value, states(app)) == ("p2", "<b></b>", ["kept", "kept"])


def test_a_case_that_was_begun_before_lists_what_it_began_with_then(app, browser, layout, waiting):
    case = waiting.cases[1]
    other = open_reading(layout, case, read_volume(case.image, "p2"), "R1", Beginning("proposal", box(FIRST)))
    other.save(box(SECOND))
    other.close()
    press(app, "n")
    assert (app.reading.case, states(app)) == ("p2", ["added", "removed"]), "its proposal is another by now"


def test_the_name_and_the_place_come_before_the_image_which_keeps_the_browser_busy(app, browser, monkeypatch):
    press(app, "j")
    load, loaded = browser.widget.load_volumes, []

    def watched(volumes):
        loaded.append((len(volumes), "p2, reader R1" in app.title.value, crosshair(app), browser.drawing is None))
        load(volumes)

    monkeypatch.setattr(browser.widget, "load_volumes", watched)
    press(app, "n")
    assert loaded[-1] == (1, True, list(app.opened.rows[0].centre), True), "nor is the last drawing drawn on it"


def test_the_largest_pen_has_fifteen_voxels(app, browser):
    for _ in range(20):
        press(app, "]")
    assert app.size.value == 15


def test_a_record_says_which_networks_proposed_and_holds_the_sum_of_what_they_proposed(app, browser, layout):
    press(app, "r")
    record = json.loads((layout.by_hand / "R1/p1.json").read_bytes())
    assert record["networks"] == ["unet/fold0"]
    assert {*record["files"]} == {"p1.nii.gz", "beginnings/p1.nii.gz"}


def test_accept_ticks_a_lesion_off_until_it_changes(app, browser):
    press(app, "a")
    assert app.lesions.value == 1
    assert [words[0] for words, _ in app.lesions.options] == ["✓", " "]
    press(app, "p")
    browser.stroke((6, 6, 2))
    assert [words[0] for words, _ in app.lesions.options] == [" ", " "]
