"""The record that is kept of a notebook's run, however it ends. The kernel is left out."""

import errno
import json

import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

from metaseg_nb.__main__ import main
from metaseg_nb.batch.runner import lock_file, run_notebook
from metaseg_nb.files import is_held
from metaseg_nb.parameters import resolve
from metaseg_nb.settings import settings_hash


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run notebook 03 of the demo, whose execution is this function; returns the folder of the run."""
    monkeypatch.setenv("METASEG_HOME", str(tmp_path))
    folder = tmp_path / "runs/demo/unet/fold0"

    def start(execute):
        monkeypatch.setattr(papermill, "execute_notebook", lambda *_, **__: execute(folder))
        return main(["run", "03_train", "--study", "demo", "--model", "unet", "--fold", "0"]), folder

    return start


def record(folder):
    return json.loads((folder / "03_train.run.json").read_text())


def failing(kind, text):
    def execute(_):
        raise PapermillExecutionError(7, 3, "source", kind, text, ["traceback"])

    return execute


def test_a_run_is_recorded_with_what_it_was_made_of(run):
    seen = []
    code, folder = run(
        lambda folder: seen.append((record(folder)["state"], is_held(lock_file(folder / "03_train.ipynb"))))
    )
    assert seen == [("running", True)]
    assert not is_held(lock_file(folder / "03_train.ipynb"))
    found, parameters = record(folder), resolve("03_train", "demo", "unet", 0)
    assert (code, found["state"], found["error"]) == (0, "done", None)
    assert (found["parameters"], found["settings_hash"]) == (parameters, settings_hash(parameters))
    assert found["started"] <= found["ended"]
    assert {"commit", "python", "torch", "monai", "machine", "slurm_job", "peak_memory_gb"} <= set(found)


@pytest.mark.parametrize(
    ("kind", "code", "state"), [("TrainingStopped", 75, "stopped"), ("FloatingPointError", 1, "failed")]
)
def test_an_error_is_recorded_and_told_by_the_exit_code(run, kind, code, state):
    found, folder = run(failing(kind, "the loss is nan"))
    assert (found, record(folder)["state"]) == (code, state)
    assert record(folder)["error"] == f"cell [3] failed with {kind}: the loss is nan"


def test_no_room_for_the_notebook_itself_is_told_with_its_file(run, capsys):
    def execute(_):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    code, folder = run(execute)
    assert code == 1
    said = capsys.readouterr().err
    assert "no room is left to write this file" in said
    assert f"'{folder / '03_train.ipynb'}'" in said


def test_other_errors_are_recorded_and_raised(run, tmp_path):
    def execute(_):
        raise RuntimeError("Kernel died")

    with pytest.raises(RuntimeError, match="Kernel died"):
        run(execute)
    assert record(tmp_path / "runs/demo/unet/fold0")["error"] == "RuntimeError: Kernel died"


def test_what_an_earlier_process_left_half_written_is_removed(run):
    def leave(folder):
        (folder / ".77_last.pt").touch()

    _, folder = run(leave)
    run(lambda _: None)
    assert not (folder / ".77_last.pt").exists()


def test_nothing_is_recorded_of_a_run_with_wrong_parameters(tmp_path, monkeypatch):
    monkeypatch.setenv("METASEG_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="give --model and --fold"):
        run_notebook("03_train", "demo")
    assert not list(tmp_path.iterdir())
