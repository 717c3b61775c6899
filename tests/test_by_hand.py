"""Masks drawn by hand: nothing of a reader's work is lost, overwritten by another, or timed while nobody works."""

import json
import multiprocessing
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import nibabel as nib
import numpy as np
import pytest

from metaseg_nb.annotation import by_hand, open_cases
from metaseg_nb.annotation.by_hand import ActiveClock, Beginning, open_reading
from metaseg_nb.annotation.open_cases import CaseTaken
from metaseg_nb.annotation.readings import read_progress, read_readings
from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.lesions import find_lesions
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import read_volume
from metaseg_nb.layout import StudyLayout

SHAPE = (20, 16, 10)


class Times:
    """Seconds that a test sets."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def layout(tmp_path):
    return StudyLayout("mine", tmp_path)


@pytest.fixture
def case(tmp_path):
    """A case whose file is LPS with voxels of 0.5 x 0.5 x 2 mm."""
    affine = np.diag([-0.5, -0.5, 2.0, 1.0])
    affine[:3, 3] = 4, 3, -7
    path = tmp_path / "p1.nii.gz"
    nib.save(nib.Nifti1Image(np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE), affine), path)
    return Case("p1", (path,), None, "p1", "unknown")


def box(*corners):
    mask = np.zeros(SHAPE, bool)
    for low, high in corners:
        mask[tuple(map(slice, low, high))] = True
    return mask


def opened(layout, case, reader="R1", mask=None, **others):
    mask = np.zeros(SHAPE, bool) if mask is None else mask
    beginning = Beginning("proposal", mask, ["unet/fold0"])
    return open_reading(layout, case, read_volume(case.image, case.name), reader, beginning, **others)


def changes(before, after):
    return Beginning("proposal", before).changes(find_lesions(after, (1.0, 1.0, 1.0)))


def test_the_clock_counts_work_and_of_each_pause_half_a_minute():
    clock = ActiveClock(times := Times())
    clock.action()
    for pause in (5, 10, 100):
        times.now += pause
        clock.action()
    assert clock.seconds == 5 + 10 + 30
    times.now += 7
    clock.stop()
    times.now += 500  # another case is open
    clock.action()
    times.now += 1
    clock.action()
    assert clock.seconds == 52 + 1


def test_changes_are_counted_by_voxel_and_by_lesion():
    kept, grown, removed, new = (((x, 2, 2), (x + 2, 4, 4)) for x in (0, 4, 8, 12))
    after = box(kept, new, ((4, 2, 2), (7, 4, 4)))
    expected = {"voxels_added": 8 + 4, "voxels_removed": 8, "lesions_kept": 1, "lesions_edited": 1}
    assert changes(box(kept, grown, removed), after) == expected | {"lesions_added": 1, "lesions_removed": 1}


def test_a_lesion_cut_in_two_is_two_edited_ones():
    before, after = box(((0, 0, 0), (5, 2, 2))), box(((0, 0, 0), (2, 2, 2)), ((3, 0, 0), (5, 2, 2)))
    found = changes(before, after)
    assert (found["lesions_edited"], found["lesions_added"], found["lesions_removed"]) == (2, 0, 0)


def test_a_mask_is_written_on_the_grid_of_its_image_with_all_that_was_done(layout, case):
    times = Times()
    reading = opened(layout, case, mask=box(((1, 1, 1), (3, 3, 3))), now=times)
    drawn = box(((10, 4, 2), (13, 6, 5)))
    times.now += 12.5
    reading.save(drawn)
    times.now += 4
    reading.close(finished=True)
    written = nib.load(layout.by_hand / "R1" / "p1.nii.gz")
    assert np.array_equal(written.affine, nib.load(case.image).affine)
    assert np.array_equal(np.asarray(written.dataobj), drawn[::-1, ::-1])  # RAS is LPS with X and Y turned round
    row = read_readings(layout).iloc[0]
    assert (row["case"], row["reader"], row["begun_with"], row["finished"]) == ("p1", "R1", "proposal", True)
    assert (row["seconds"], row["n_lesions"], row["n_slices"], row["volume_mm3"]) == (16.5, 1, 3, 18 * 0.5)
    assert (row["lesions_added"], row["lesions_removed"], row["voxels_removed"]) == (1, 1, 8)


def crash(layout, case, work):
    """A process that ends in the midst of ``work``, lines of Python with a ``reading`` and ``times``."""
    script = f"""
import sys; sys.path.insert(0, {str(__file__.rsplit("/", 1)[0])!r})
import os
from pathlib import Path
from test_by_hand import *
layout, times = StudyLayout("mine", Path({str(layout.base)!r})), Times()
case = Case("p1", (Path({str(case.image)!r}),), None, "p1", "unknown")
reading = opened(layout, case, mask=box(((1, 1, 1), (3, 3, 3))), now=times)
{work}
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9


def test_work_goes_on_where_it_was_left_after_a_kernel_died(layout, case):
    """A process that ends without closing the case leaves its last stroke, its time, and no lock."""
    crash(layout, case, "times.now += 20; reading.save(box(((5, 5, 5), (7, 7, 7))))")
    again = opened(layout, case, mask=box(((0, 0, 0), (9, 9, 9))))  # the networks would propose something else by now
    assert np.array_equal(again.mask, box(((5, 5, 5), (7, 7, 7))))
    assert np.array_equal(again.beginning.mask, box(((1, 1, 1), (3, 3, 3))))
    assert again.clock.seconds == 20


ACTIONS = """
for _ in range(60):
    times.now += 9
    reading.action()
"""


@pytest.mark.parametrize("stroke", [True, False])
def test_at_most_ten_seconds_of_work_are_lost_with_a_kernel(layout, case, stroke):
    before = "times.now += 20; reading.save(reading.mask); reading.accepted = [[2, 2, 2]]; reading.hold()"
    crash(layout, case, (before if stroke else "") + ACTIONS)
    again = opened(layout, case)
    seconds = 540 + 20 * stroke
    assert seconds - 10 <= again.clock.seconds <= seconds
    assert again.accepted == ([[2, 2, 2]] if stroke else [])
    again.close()
    kept = read_readings(layout)["seconds"].tolist()
    assert kept == pytest.approx([again.clock.seconds], abs=0.1), "it is begun, and nothing counts twice"
    assert opened(layout, case).clock.seconds == pytest.approx(again.clock.seconds, abs=0.1)


def test_what_a_kernel_left_is_still_there_after_a_case_could_not_be_opened(layout, case):
    crash(layout, case, "times.now += 20; reading.save(reading.mask)" + ACTIONS)
    image = case.image.read_bytes()
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.int16), nib.load(case.image).affine), case.image)
    with pytest.raises(CohortError, match="another image"):
        opened(layout, case)
    case.image.write_bytes(image)
    assert opened(layout, case).clock.seconds >= 550


def test_seconds_of_one_reader_are_not_given_to_another(layout, case):
    crash(layout, case, ACTIONS)
    assert opened(layout, case, "R2", second=True).clock.seconds == 0


def take(layout, case, reader):
    try:
        opened(layout, case, reader, second=True)
    except CaseTaken as error:
        return str(error)
    return "opened"


def test_two_readers_do_not_have_one_case_open(layout, case):
    opened(layout, case)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
        assert "R1 has it open" in other.submit(take, layout, case, "R2").result()
        # nor has one reader in two notebooks: the later stroke would undo the other's
        assert "R1 has it open" in other.submit(take, layout, case, "R1").result()


def test_a_case_is_free_again_half_an_hour_after_the_last_word_from_another_machine(layout, case, monkeypatch):
    reading = opened(layout, case)
    lock = layout.by_hand / ".p1.open.json"
    held = json.loads(lock.read_bytes())
    lock.write_text(json.dumps(held | {"machine": "elsewhere", "time": held["time"] - 1700}), encoding="utf-8")
    assert "last active 28 min ago" in take(layout, case, "R2")
    lock.write_text(json.dumps(held | {"machine": "elsewhere", "time": held["time"] - 1900}), encoding="utf-8")
    assert take(layout, case, "R2") == "opened"
    with pytest.raises(CaseTaken, match="R2 has it open"):  # and the first one's late stroke is not written over
        reading.save(box(((1, 1, 1), (3, 3, 3))))


def no_word_for(layout, seconds):
    """Let the lock of the case look as if its reader had done nothing for so long."""
    lock = layout.by_hand / ".p1.open.json"
    lock.write_text(json.dumps(json.loads(lock.read_bytes()) | {"time": time.time() - seconds}), encoding="utf-8")


def draw_and_finish(layout, case):
    reading = opened(layout, case)
    reading.save(box(((0, 0, 0), (20, 16, 9))))
    reading.close(finished=True)


def kept(layout):
    """Voxels on disk, and whether the reader stands by them."""
    row = read_readings(layout).iloc[0]
    return int(np.asarray(nib.load(row["mask"]).dataobj).sum()), bool(row["finished"])


def test_a_notebook_left_open_does_not_write_over_what_another_finished(layout, case):
    times = Times()
    left = opened(layout, case, now=times)
    left.save(box(((0, 0, 0), (10, 9, 1))))
    assert kept(layout) == (90, False)
    no_word_for(layout, 3600)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
        other.submit(draw_and_finish, layout, case).result()
    words = r"R1 saved it in another notebook 0 min ago.* run the cell again.* Nothing that was drawn here .* is saved"
    for write in (left.close, left.action, lambda: left.save(box(((0, 0, 0), (1, 1, 1))))):
        times.now += 3600
        with pytest.raises(CaseTaken, match=words):
            write()
        assert kept(layout) == (2880, True)
        assert not (layout.by_hand / ".p1.open.json").exists(), "it is as free as the other left it"
    again = opened(layout, case)
    again.save(box(((0, 0, 0), (20, 16, 8))))
    again.save(box(((0, 0, 0), (20, 16, 7))))
    assert kept(layout) == (2240, False), "opened again, it is drawn on from there"


def test_a_case_that_was_only_opened_here_is_not_written_over_either(layout, case):
    times = Times()
    left = opened(layout, case, now=times)
    times.now += 40
    draw_and_finish(layout, case)
    with pytest.raises(CaseTaken, match="saved it in another notebook"):
        left.close()
    assert kept(layout) == (2880, True)


def test_an_action_holds_the_case_and_writes_at_most_each_ten_seconds(layout, case):
    times = Times()
    reading = opened(layout, case, now=times)
    reading.action()
    for passed, age_s in ((9, 1500), (1, 0), (9, 1500), (600, 0)):
        no_word_for(layout, 1500)
        times.now += passed
        reading.action()
        age = time.time() - json.loads((layout.by_hand / ".p1.open.json").read_bytes())["time"]
        assert age == pytest.approx(age_s, abs=30)
    assert reading.clock.seconds == 9 + 1 + 9 + 30


def test_a_notebook_that_comes_back_late_hears_at_its_first_action_who_has_the_case(layout, case):
    reading = opened(layout, case)
    no_word_for(layout, 1900)
    assert take(layout, case, "R2") == "opened"
    with pytest.raises(CaseTaken, match=r"R2 has it open.* Nothing that was drawn here meanwhile is saved"):
        reading.action()
    reading.close()  # nothing to save
    assert json.loads((layout.by_hand / ".p1.open.json").read_bytes())["reader"] == "R2", "the other still has it"


def test_a_case_is_read_twice_only_when_that_is_asked_for(layout, case):
    first = opened(layout, case)
    first.save(box(((1, 1, 1), (3, 3, 3))))
    first.close(finished=True)
    with pytest.raises(CaseTaken, match="R1 has begun it"):
        opened(layout, case, "R2")
    second = opened(layout, case, "R2", second=True)
    assert not second.mask.any(), "nothing of the first reading is shown"
    second.close(finished=True)
    assert read_readings(layout)["reader"].tolist() == ["R1", "R2"]
    assert read_readings(layout)["n_lesions"].tolist() == [1, 0]


def test_a_reader_stands_by_a_finished_mask_until_it_changes(layout, case):
    opened(layout, case).close(finished=True)
    assert read_progress(layout) == {"p1": {"R1": True}}
    again = opened(layout, case)
    again.close()
    assert read_progress(layout) == {"p1": {"R1": True}}, "it was only looked at"
    opened(layout, case).save(box(((1, 1, 1), (3, 3, 3))))
    assert read_progress(layout) == {"p1": {"R1": False}}


def test_who_has_a_case_open_elsewhere_is_known_before_it_is_opened(layout, case):
    assert open_cases.open_elsewhere(layout, "p1", "R1") == {}
    opened(layout, case)
    assert open_cases.open_elsewhere(layout, "p1", "R1") == {}, "this notebook has it"
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
        assert other.submit(open_cases.open_elsewhere, layout, "p1", "R1").result()["reader"] == "R1"


@pytest.mark.parametrize("reader", ["", "../R1", "Dr. Smith", "a" * 21, "."])
def test_a_reader_is_a_short_code(layout, case, reader):
    with pytest.raises(ValueError, match="expected up to 20 letters"):
        opened(layout, case, reader)


def test_a_mask_that_changed_after_it_was_saved_is_named(layout, case):
    opened(layout, case).close(finished=True)
    path = layout.by_hand / "R1" / "p1.nii.gz"
    path.write_bytes(path.read_bytes()[:-9] + b"x" * 9)
    with pytest.raises(CohortError, match="open the case in 08 again"):
        read_readings(layout)


def test_a_crash_between_mask_and_record_loses_nothing(layout, case, monkeypatch):
    reading = opened(layout, case)
    reading.save(box(((1, 1, 1), (3, 3, 3))))
    monkeypatch.setattr(by_hand, "write_record", lambda *_: sys.exit("killed"))
    with pytest.raises(SystemExit):
        reading.save(box(((1, 1, 1), (3, 3, 5))))
    assert np.array_equal(opened(layout, case).mask, box(((1, 1, 1), (3, 3, 5))))


def test_without_a_reading_the_table_is_empty_and_has_its_columns(layout):
    assert read_readings(layout).empty
    assert {"case", "reader", "seconds", "finished"} <= set(read_readings(layout))


def test_a_case_that_is_only_looked_at_is_not_begun(layout, case):
    times = Times()
    reading = opened(layout, case, now=times)
    times.now += 500
    reading.close()
    assert read_readings(layout).empty


def test_a_finished_case_that_is_looked_at_again_takes_no_more_minutes(layout, case):
    times = Times()
    reading = opened(layout, case, now=times)
    times.now += 20
    reading.close(finished=True)
    before = read_readings(layout)
    again = opened(layout, case, now=times)
    for _ in range(5):
        times.now += 25
        again.clock.action()
    again.close()
    assert read_readings(layout).equals(before)
    assert take(layout, case, "R2") == "opened", "the case is free again"


def test_a_mask_is_not_put_on_another_image_of_the_same_name(layout, case):
    opened(layout, case).close(finished=True)
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.int16), nib.load(case.image).affine), case.image)
    with pytest.raises(CohortError, match="another image than the mask was drawn on"):
        opened(layout, case)


def test_a_case_that_cannot_be_opened_stays_free_for_others(layout, case):
    opened(layout, case).close(finished=True)
    (layout.by_hand / "R1/p1.nii.gz").unlink()
    with pytest.raises(CohortError):
        opened(layout, case)
    assert open_cases.open_elsewhere(layout, "p1", "R1") == {}
    assert not (layout.by_hand / ".p1.open.json").exists()


def test_a_mask_without_its_record_is_not_drawn_over(layout, case):
    opened(layout, case).close(finished=True)
    (layout.by_hand / "R1/p1.json").unlink()
    for read in (lambda: opened(layout, case), lambda: read_readings(layout), lambda: read_readings(layout, "R1")):
        with pytest.raises(
            CohortError, match=r"^1 problem.*\n.* p1, file .*p1.nii.gz: found a mask without its record"
        ):
            read()
    (layout.by_hand / "R1/p1.nii.gz").rename(layout.by_hand / "R1/.7@here_p1.nii.gz")
    assert read_readings(layout).empty, "it is being written"


def test_a_mask_whose_record_is_not_yet_written_is_passed_over_while_its_case_is_open(layout, case):
    reading = opened(layout, case)
    reading.save(reading.mask)
    (layout.by_hand / "R1/p1.json").unlink()
    assert read_readings(layout).empty
    (layout.by_hand / ".p1.open.json").unlink()
    with pytest.raises(CohortError, match="a mask without its record"):
        read_readings(layout)


def test_a_reader_is_not_stopped_by_the_files_of_another(layout, case):
    opened(layout, case).close(finished=True)
    opened(layout, case, "R2", second=True).close(finished=True)
    mask, record = (layout.by_hand / "R2" / name for name in ("p1.nii.gz", "p1.json"))
    for damaged in (mask, record):
        damaged.write_bytes(damaged.read_bytes()[:-9])
        assert read_readings(layout, "R1")["reader"].tolist() == ["R1"]
        for reader in ("R2", None):
            with pytest.raises(CohortError, match=r"file .*/R2/p1"):
                read_readings(layout, reader)


def test_damaged_records_and_copies_of_folders_are_named_all_at_once(layout, case):
    opened(layout, case).close(finished=True)
    shutil.copytree(layout.by_hand / "R1", layout.by_hand / "R1_backup")
    record = layout.by_hand / "R1/p1.json"
    record.write_text(record.read_text(encoding="utf-8")[:40], encoding="utf-8")
    for read in (read_readings, read_progress):
        with pytest.raises(CohortError) as error:
            read(layout)
        assert "not complete JSON" in str(error.value)
        assert "the record of R1, case p1" in str(error.value)


def test_a_half_written_lock_leaves_the_case_free(layout, case):
    layout.by_hand.mkdir(parents=True)
    (layout.by_hand / ".p1.open.json").write_text('{"reader": "R1", "mach', encoding="utf-8")
    opened(layout, case)
