"""Files that are whole or not there, tables that come back as they were written, and locks."""

import ast
import errno
import fcntl
import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaseg_nb.files import (
    ABANDONED,
    MACHINE,
    DamagedFile,
    clear_abandoned,
    finished,
    finished_folder,
    read_table,
    read_text_table,
    write_table,
)
from metaseg_nb.layout import PROJECT
from metaseg_nb.machine import alone, is_held


def test_a_full_disk_is_named_whatever_the_writer_said(tmp_path):
    with (
        pytest.raises(OSError, match="no disk space is left to write this file") as error,
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
    imports = "from pathlib import Path\nfrom metaseg_nb.machine import alone\n"
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
    below = tmp_path / f"predictions/.999999999@{MACHINE}_case.nii.gz"
    below.parent.mkdir()
    below.touch()
    kept.append(below.parent)
    subprocess.run([sys.executable, "-c", die])
    assert len(list(tmp_path.iterdir())) == len(kept) + 1
    clear_abandoned(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)
    assert not below.exists()


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


def test_a_process_that_ends_between_two_renames_loses_no_folder(tmp_path):
    folder = tmp_path / "report"
    die = (
        "import os, pathlib, sys; from metaseg_nb.files import finished_folder; path = pathlib.Path(sys.argv[1]); "
        "path.mkdir(); (path / 'index.html').write_text('earlier'); rename = pathlib.Path.rename; "
        "pathlib.Path.rename = lambda a, b: os._exit(1) if '@' in a.name else rename(a, b)\n"
        "with finished_folder(path): pass"
    )
    subprocess.run([sys.executable, "-c", die, str(folder)])
    assert not folder.exists()
    with pytest.raises(OSError, match="no room"), finished_folder(folder):
        raise OSError("no room")
    assert (folder / "index.html").read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_that_another_process_is_making_stays(tmp_path):
    other = tmp_path / f".{os.getppid()}@{MACHINE}_report"
    other.mkdir()
    with finished_folder(tmp_path / "report"):
        pass
    assert other.is_dir()


def test_a_file_is_flushed_to_disk_before_it_gets_its_name_and_its_folder_after(tmp_path, monkeypatch):
    steps, flush, rename = [], os.fsync, Path.replace

    def noted_flush(handle):
        steps.append(("flush", Path(os.readlink(f"/proc/self/fd/{handle}"))))
        flush(handle)

    def noted_rename(path, to):
        steps.append(("rename", to))
        return rename(path, to)

    monkeypatch.setattr(os, "fsync", noted_flush)
    monkeypatch.setattr(Path, "replace", noted_rename)
    with finished(tmp_path / "a.npy") as path:
        path.write_bytes(b"array")
    assert steps == [("flush", path), ("rename", tmp_path / "a.npy"), ("flush", tmp_path)]


def test_what_ended_processes_left_is_removed_where_others_write_too(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    alive, long_ago = os.getpid(), time.time() - ABANDONED - 60
    names = {
        f".{ended.pid}@{MACHINE}_a.npy": False,
        f".{alive}@{MACHINE}_a.npy": True,
        f".{ended.pid}@elsewhere_a.npy": True,  # may still run there
        f".{ended.pid}@long-ago_a.npy": False,
        "a.npy": True,
        ".03_train.lock": True,
        ".hidden_1": True,
    }
    for name in names:
        (tmp_path / name).touch()
    os.utime(tmp_path / f".{ended.pid}@long-ago_a.npy", (long_ago, long_ago))
    clear_abandoned(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {name for name, kept in names.items() if kept}


def test_whoever_writes_a_file_again_removes_what_a_killed_process_left_of_it(tmp_path):
    half, other = (tmp_path / f".999999999@{MACHINE}_{name}.csv" for name in ("a [1]", "b"))
    half.touch()
    other.touch()
    write_table(tmp_path / "a [1].csv", pd.DataFrame({"case": ["a"]}))
    assert {path.name for path in tmp_path.iterdir()} == {"a [1].csv", other.name}


FORMULAS = ["=1+1", "=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "'=1"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_spreadsheet_takes_text_for_text(tmp_path, text):
    table = pd.DataFrame({"case": [text, "O'Hara"], "note": ["'t is well", text], "shift_mm": [-1.5, 2.0]})
    write_table(tmp_path / "a.csv", table)
    assert (
        (tmp_path / "a.csv")
        .read_bytes()
        .decode()
        .startswith(f'"case","note","shift_mm"\n"\'{text}","\'t is well",-1.5\n')
    )
    pd.testing.assert_frame_equal(read_table(tmp_path / "a.csv"), table)
    pd.testing.assert_frame_equal(read_text_table(tmp_path / "a.csv"), table.assign(shift_mm=["-1.5", "2.0"]))


TEXT = st.text(
    st.sampled_from("=+-@\t\r\n'\",; a1.") | st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    min_size=1,
)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(TEXT, TEXT, st.floats(allow_infinity=False), st.integers(-(2**60), 2**60)), min_size=1))
def test_any_table_comes_back_as_it_was_written(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    table = pd.DataFrame(rows, columns=["case", "patient", "volume_mm3", "lesion"])
    write_table(path, table)
    pd.testing.assert_frame_equal(read_table(path), table, check_exact=True)


DAMAGE = {
    "empty": b"",
    "blank": b"\n",
    "cut in a row": b"case,dice\na,0.5\nb",
    "row too long": b"case,dice\na,0.5,1\n",
    "zeroed": b"case,dice\n" + bytes(20),
    "not text": b"case,dice\n\xff\xfe,0.5\n",
    "semicolons": b"case;dice\r\na;0.5\r\n",
    "Excel's first line": b"sep=;\r\ncase;dice\r\na;0.5\r\n",
    "open quote": b'case,dice\n"a,0.5\n',
}


@pytest.mark.parametrize("content", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_table_is_an_error_that_names_its_file(tmp_path, content):
    path = tmp_path / "lesions.csv"
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match=r"file .*lesions\.csv: found .*What to do: ") as error:
        read_table(path)
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)  # workers send it back


def test_a_table_without_rows_is_whole(tmp_path):
    write_table(tmp_path / "a.csv", pd.DataFrame(columns=["case", "dice"]))
    assert read_table(tmp_path / "a.csv").columns.tolist() == ["case", "dice"]


def _sources():
    for folder in ("metaseg_nb", "benchmarks", "notebooks", "workflow"):
        for path in sorted((PROJECT / folder).rglob("*")):
            if path.suffix == ".py":
                yield path.name, path.read_text(encoding="utf-8")
            elif path.suffix == ".ipynb" and ".ipynb_checkpoints" not in path.parts:
                for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
                    if cell["cell_type"] == "code":
                        yield path.name, "".join(cell["source"])


def _forgets_encoding(call):
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    given_words = {word.arg for word in call.keywords}
    if name in ("run", "check_output", "Popen"):
        return "text" in given_words and "encoding" not in given_words
    if name not in ("read_text", "write_text", "open") or "encoding" in given_words:
        return False
    if isinstance(call.func, ast.Name):  # this package's own `write_text(path, text)`, or the built-in `open`
        return name == "open"
    owner = getattr(call.func.value, "id", "")
    if owner == "ms":  # the same in a notebook
        return False
    modes = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
    binary = any(isinstance(mode, str) and "b" in mode for mode in modes)
    return not (name == "open" and (binary or owner in ("os", "tarfile", "gzip", "Image", "zipfile")))


def test_every_file_is_read_and_written_as_utf_8():
    """Whatever the machine's locale is: it is what Python takes where nothing is said."""
    forgotten = [
        f"{file}: {ast.unparse(node)}"
        for file, source in _sources()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and _forgets_encoding(node)
    ]
    assert not forgotten


def test_an_earlier_folder_is_put_back_when_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    report = tmp_path / "report"
    report.mkdir()
    (report / "index.html").write_text("earlier")
    rename = Path.rename

    def refuse(self, target):
        if target == report and not self.name.startswith(".earlier"):
            raise OSError(errno.EDQUOT, "quota")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="quota"), finished_folder(report) as unfinished:
        (unfinished / "index.html").write_text("new")
    assert (report / "index.html").read_text() == "earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
