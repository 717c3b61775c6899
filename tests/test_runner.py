"""The record that is kept of a notebook's run, however it ends. The kernel is left out."""

import errno
import json
import logging
import os
import re
import signal
import subprocess
import threading

import papermill
import psutil
import pytest
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from metaseg_nb.__main__ import main
from metaseg_nb.batch import runner
from metaseg_nb.machine import alone, is_held
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
    code, folder = run(lambda folder: seen.append((record(folder)["state"], is_held(folder / ".03_train.lock"))))
    assert seen == [("running", True)]
    assert not is_held(folder / ".03_train.lock")
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
    assert "no disk space is left to write this file" in said
    assert f"'{folder / '03_train.ipynb'}'" in said


@pytest.fixture
def kernel():
    """Start what stands for a kernel: a child process that runs this shell command."""
    started = []

    def start(command):
        started.append(subprocess.Popen(["bash", "-c", f"{command}; exit 0"], stdout=subprocess.PIPE))
        assert started[-1].stdout.readline() == b"ready\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()


def told_to_stop(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


def test_sigterm_that_kills_the_kernel_stops_the_run(run, kernel, capsys):
    def execute(_):
        process = kernel("echo ready; sleep 60")
        told_to_stop()
        assert process.wait(timeout=30) == -signal.SIGTERM
        raise DeadKernelError("Kernel died")

    before = signal.getsignal(signal.SIGTERM)
    code, folder = run(execute)
    assert signal.getsignal(signal.SIGTERM) is before
    assert (code, record(folder)["state"]) == (75, "stopped")
    assert "03_train: stopped on request (SIGTERM); start the same notebook again" in capsys.readouterr().err


def test_a_kernel_that_is_deaf_to_sigterm_is_killed_with_its_children(run, kernel, monkeypatch):
    def execute(_):
        process = kernel("trap '' TERM; sleep 60 & echo ready; wait")
        (child,) = psutil.Process(process.pid).children()
        told_to_stop()
        told_to_stop()  # once more, as a cluster may
        assert process.wait(timeout=30) == -signal.SIGKILL
        child.wait(timeout=30)
        raise DeadKernelError("Kernel died")

    monkeypatch.setattr(runner, "GRACE_S", 0.5)
    code, folder = run(execute)
    assert (code, record(folder)["state"]) == (75, "stopped")


def test_a_training_that_saved_in_time_is_not_killed(run, kernel, monkeypatch):
    def execute(_):
        process = kernel("trap 'echo saved; exit 3' TERM; echo ready; while true; do sleep 0.1; done")
        told_to_stop()
        assert process.wait(timeout=30) == 3
        raise PapermillExecutionError(7, 3, "source", "TrainingStopped", "saved", ["traceback"])

    code, folder = run(execute)
    assert (code, record(folder)["state"]) == (75, "stopped")
    assert record(folder)["error"] == "cell [3] failed with TrainingStopped: saved"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Kernel died before replying to kernel_info"),
        DeadKernelError("Kernel died"),
        PapermillExecutionError(7, 3, "source", "TrainingStopped", "saved", ["traceback"]),
    ],
)
def test_ctrl_c_ends_the_kernel_and_the_run_without_a_traceback(run, kernel, capfd, error):
    """The kernel is out of reach of the terminal: papermill sees it die, and says so with a traceback."""

    def execute(_):
        process = kernel("trap 'exit 3' TERM; echo ready; while true; do sleep 0.1; done")
        told_to_stop(signal.SIGINT)
        assert process.wait(timeout=30) == 3
        logging.getLogger("papermill").error("Kernel died while waiting for execute reply.")
        raise error

    before = signal.getsignal(signal.SIGINT)
    code, folder = run(execute)
    assert signal.getsignal(signal.SIGINT) is before
    assert (code, record(folder)["state"]) == (130, "stopped")
    first, last = capfd.readouterr().err.splitlines()
    assert first == "stopping: a training saves its state first; Ctrl-C once more ends it at once"
    assert last == "03_train: stopped by Ctrl-C; start the same notebook again to continue"


def test_a_kernel_that_goes_on_after_ctrl_c_is_killed_by_the_next(run, kernel):
    def execute(_):
        process = kernel("trap '' TERM; echo ready; sleep 60")
        told_to_stop(signal.SIGINT)
        told_to_stop(signal.SIGINT)
        assert process.wait(timeout=30) == -signal.SIGKILL
        raise DeadKernelError("Kernel died")

    assert run(execute)[0] == 130


def test_ctrl_c_that_a_shell_ignores_is_ignored(run):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run(lambda _: told_to_stop(signal.SIGINT))[0] == 0
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("kind", [RuntimeError, DeadKernelError])
def test_any_error_after_sigterm_is_a_stop(run, kernel, kind):
    def execute(_):
        kernel("echo ready; sleep 60")
        told_to_stop()
        raise kind("Kernel died before replying to kernel_info")

    code, folder = run(execute)
    assert (code, record(folder)["state"]) == (75, "stopped")


def test_sigterm_before_there_is_a_kernel_ends_the_run_at_once(run):
    def execute(_):
        told_to_stop()
        raise AssertionError("it went on")

    code, folder = run(execute)
    assert (code, record(folder)["state"]) == (75, "stopped")


def test_sigterm_while_another_process_is_waited_for_ends_the_run(run, kernel, tmp_path):
    older = kernel("echo ready; sleep 60")  # such as a browser; it is no kernel of the run
    lock = tmp_path / "runs/demo/unet/fold0/.03_train.lock"
    with alone(lock), pytest.raises(SystemExit) as ended:
        threading.Timer(0.5, told_to_stop).start()
        run(lambda _: None)
    assert ended.value.code == 75
    assert older.poll() is None


def test_a_kernel_that_died_by_itself_is_told_with_its_memory(run, capsys):
    def execute(_):
        raise DeadKernelError("Kernel died")

    code, folder = run(execute)
    assert (code, record(folder)["state"]) == (1, "failed")
    said = r"the kernel was killed, probably for lack of memory, or crashed \(its largest process took [\d.]+ GB"
    assert re.match(said, record(folder)["error"])
    assert re.search("03_train: " + said, capsys.readouterr().err)


def test_other_errors_are_recorded_and_raised(run, tmp_path):
    def execute(_):
        raise RuntimeError("Kernel died")

    with pytest.raises(RuntimeError, match="Kernel died"):
        run(execute)
    assert record(tmp_path / "runs/demo/unet/fold0")["error"] == "RuntimeError: Kernel died"


def test_the_good_copy_of_a_finished_run_stays_when_it_is_run_again_and_fails(tmp_path, monkeypatch):
    """As with other settings, which the notebook refuses: the report still reads the good copy."""
    monkeypatch.setenv("METASEG_HOME", str(tmp_path))
    folder = tmp_path / "runs/demo/unet/fold0"
    executed, again, result = (folder / name for name in ("03_train.ipynb", "03_train.rerun.ipynb", "metrics.json"))

    def call(text, fails=False, removes_result=False):
        def execute(_, copy, **__):
            copy.write_text(text)
            if removes_result:
                result.unlink()
            if fails:
                raise PapermillExecutionError(7, 3, "source", "CohortError", "other settings", ["traceback"])

        monkeypatch.setattr(papermill, "execute_notebook", execute)
        return main(["run", "03_train", "--study", "demo", "--model", "unet", "--fold", "0"])

    assert call("first try", fails=True) == 1
    assert executed.read_text() == "first try"
    assert call("good") == 0
    result.touch()
    assert call("refused", fails=True) == 1
    assert (executed.read_text(), again.read_text()) == ("good", "refused")
    assert call("good again") == 0
    assert (executed.read_text(), again.exists()) == ("good again", False)
    assert call("begun anew", fails=True, removes_result=True) == 1
    assert (executed.read_text(), again.exists()) == ("begun anew", False)


def test_nothing_is_recorded_of_a_run_with_wrong_parameters(tmp_path, monkeypatch):
    monkeypatch.setenv("METASEG_HOME", str(tmp_path))
    assert main(["run", "03_train", "--study", "demo"]) == 2
    assert not list(tmp_path.iterdir())
