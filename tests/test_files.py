"""Files that are whole or not there, and locks."""

import errno
import fcntl
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from metaseg_nb.files import alone, clear_unfinished, finished, finished_folder, is_held, read_table, write_table


def test_a_full_disk_is_named_whatever_the_writer_said(tmp_path):
    with (
        pytest.raises(OSError, match="no room is left to write this file") as error,
        finished(tmp_path / "a.pt") as path,
    ):
        path.symlink_to("/dev/full")  # takes nothing: every write fails as on a full disk
        raise RuntimeError("PytorchStreamWriter failed writing file")
    assert error.value.errno == errno.ENOSPC
    assert error.value.filename == str(tmp_path / "a.pt")
    assert "start again" in str(error.value)
    assert not list(tmp_path.iterdir())


def test_an_error_with_room_left_stays_what_it_was(tmp_path):
    with pytest.raises(RuntimeError, match="something else"), finished(tmp_path / "a.pt") as path:
        path.write_text("half")
        raise RuntimeError("something else")
    assert not list(tmp_path.iterdir())


def test_a_lock_is_held_as_long_as_a_process_has_it(tmp_path):
    lock = tmp_path / "lock"
    assert not is_held(lock)
    imports = "from pathlib import Path\nfrom metaseg_nb.files import alone\n"
    hold = f"{imports}with alone(Path({str(lock)!r})): print(); input()"
    process = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    assert is_held(lock)
    assert lock.read_text().split()[0] == str(process.pid)
    process.kill()
    process.wait()
    assert not is_held(lock)


def test_looking_at_a_lock_does_not_take_it(tmp_path):
    lock = tmp_path / "lock"
    with alone(lock):
        pass
    assert not is_held(lock)
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_what_a_killed_process_left_half_written_is_removed_and_nothing_else(tmp_path):
    die = f"import os, signal, pathlib\nfrom metaseg_nb.files import finished\npath = pathlib.Path({str(tmp_path)!r})\n"
    die += "with finished(path / 'last.pt') as half:\n  half.write_text('half')\n  os.kill(os.getpid(), signal.SIGKILL)"
    kept = [tmp_path / name for name in (".03_train.lock", ".hidden_1", "last.pt", "1_a.pt")]
    for path in kept:
        path.touch()
    below = tmp_path / "predictions/.77_case.nii.gz"
    below.parent.mkdir()
    below.touch()
    kept.append(below.parent)
    subprocess.run([sys.executable, "-c", die])
    assert len(list(tmp_path.iterdir())) == len(kept) + 1
    clear_unfinished(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)
    assert not below.exists()


@pytest.mark.parametrize("content", [b"", b"case,dice\na,0.5\nb,0.5,7,8\n", b"case\n\xff\xfe\n"])
def test_a_damaged_table_is_an_error_that_names_it(tmp_path, content):
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"metrics\.csv: not a whole table"):
        read_table(tmp_path / "metrics.csv")


def test_names_stay_text_and_a_missing_number_is_none(tmp_path):
    table = pd.DataFrame(
        {"case": ["007", "NA"], "patient": ["1", "nan"], "hd95_mm": [1.5, np.nan], "found": [True, False]}
    )
    write_table(tmp_path / "a.csv", table)
    pd.testing.assert_frame_equal(read_table(tmp_path / "a.csv"), table)


def test_a_folder_is_replaced_only_by_a_whole_one(tmp_path):
    folder = tmp_path / "report"
    for text in ("earlier", "later"):
        with finished_folder(folder) as unfinished:
            (unfinished / "index.html").write_text(text)
            assert text == "earlier" or (folder / "index.html").read_text() == "earlier"
    assert (folder / "index.html").read_text() == "later"
    with pytest.raises(OSError, match="no room"), finished_folder(folder) as unfinished:
        (unfinished / "index.html").write_text("half")
        raise OSError("no room")
    assert (folder / "index.html").read_text() == "later"
    assert list(tmp_path.iterdir()) == [folder]
