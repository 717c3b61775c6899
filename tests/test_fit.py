"""Training: it learns, it keeps the best weights, and a run that was stopped goes on as if it never had been."""

import copy
import math
import os
import shutil
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from stopping_batches import Stopped, Stopping

from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.inference.ensemble import load_ensemble
from metaseg_nb.inference.sliding_window import selection_dice
from metaseg_nb.layout import RunLayout
from metaseg_nb.machine import versions
from metaseg_nb.preprocessing.case_store import open_case, store_label
from metaseg_nb.training import checkpoints, training_run
from metaseg_nb.training.checkpoints import is_finished, load_checkpoint, network_of, save_checkpoint
from metaseg_nb.training.finished_run import finish
from metaseg_nb.training.fit import SCHEDULES, StopRequest, TrainingStopped, fit, learning_rate
from metaseg_nb.training.networks import build_network
from metaseg_nb.training.patches import PatchBatches
from metaseg_nb.training.training_run import RunningMean

RECIPE = {"spacing_mm": 1.0, "n4_levels": 4, "sequences": 1}
DELETE_ALL = "delete its folder"
ALL_RANDOM = {"flip_probability": 0.5, "rotate_probability": 0.5, "intensity_scale": 0.1, "intensity_shift": 0.1}


def judge(network):
    """A stand-in for the Dice on the selection set that any change of the weights changes."""
    ramp = torch.linspace(0, 1, 32**3).reshape(1, 1, 32, 32, 32)
    with torch.inference_mode():
        return float(torch.sigmoid(network(ramp)).mean())


def prepared_by(recipe, case):
    """The case as if its image had been prepared by this recipe."""
    return replace(case, image_facts={**case.image_facts, "recipe": recipe})


def never(network):
    raise AssertionError("a finished run was validated again")


@pytest.fixture
def cases(store_blobs):
    return [store_blobs(f"case{i}", seed=i) for i in range(4)]


@pytest.fixture
def run(tmp_path):
    return RunLayout(tmp_path / "unet" / "fold0")


@pytest.fixture
def train(cases, run, tiny_training):
    """Train a tiny network; keywords change its settings."""

    def start(into=run, validate=judge, recipe=RECIPE, stop_at=None, of=cases, selection=(), **changes):
        torch.seed()  # whatever the process did before must not matter
        prepared = [prepared_by(recipe, case) for case in of]
        return fit(into, Stopping(prepared, tiny_training(**changes), stop_at, selection=selection), validate)

    return start


def equal(first, second):
    """Tell whether nested values and tensors are the same, bit by bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(equal, first, second))
    return first == second


def timeless(checkpoint):
    """Leave out the clock, which differs between any two runs, and the commit, which may."""
    checkpoint = copy.deepcopy(checkpoint)
    checkpoint["versions"].pop("commit")
    if "state" in checkpoint:
        checkpoint["state"]["seconds"] = 0.0
    for row in checkpoint.get("state", checkpoint).get("history", []):
        row["seconds"] = 0.0
    return checkpoint


def assert_same_runs(first, second):
    for one, other in (
        (first.last_checkpoint, second.last_checkpoint),
        (first.best_checkpoint, second.best_checkpoint),
    ):
        one, other = timeless(load_checkpoint(one)), timeless(load_checkpoint(other))
        assert one.keys() == other.keys()
        for part in one:
            assert equal(one[part], other[part]), f"{part} differs"
    tables = [pd.read_csv(run.history).drop(columns="seconds") for run in (first, second)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def stopped_in_validation(train, run, **settings):
    calls = []

    def validate(network):
        calls.append(0)
        if len(calls) == 3:
            raise Stopped
        return judge(network)

    with pytest.raises(Stopped):
        train(validate=validate, **settings)
    return 4


def stopped_twice_between_checkpoints(train, run, **settings):
    for stop_at in (3, 7):
        with pytest.raises(Stopped):
            train(stop_at=stop_at, **settings)
    return 6


def stopped_before_the_first_checkpoint(train, run, **settings):
    with pytest.raises(Stopped):
        train(stop_at=1, **settings)
    return 0


def stopped_while_it_saved(train, run, **settings):
    """After best.pt of the second validation, in the middle of last.pt."""
    save, times = torch.save, []

    def break_off(state, path):
        if "last.pt" in str(path):
            times.append(0)
        if len(times) == 2:
            Path(path).write_bytes(b"half")
            raise Stopped
        save(state, path)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(torch, "save", break_off)
        train(**settings)
    return 2


STOPS = [
    ("segresnet", stopped_in_validation),  # dropout draws numbers
    ("unet", stopped_twice_between_checkpoints),  # batch norm keeps running means
    ("segresnet", stopped_before_the_first_checkpoint),
    ("segresnet", stopped_while_it_saved),
]


@pytest.mark.parametrize(("network", "stop"), STOPS)
def test_a_stopped_run_ends_as_if_it_had_never_stopped(train, run, tmp_path, network, stop):
    settings = {"network": network, "ema_decay": 0.9, "epochs": 4, **ALL_RANDOM}
    whole = RunLayout(tmp_path / "whole")
    uninterrupted = train(whole, **settings)
    kept = stop(train, run, **settings)
    assert (load_checkpoint(run.last_checkpoint)["state"]["step"] if kept else 0) == kept
    resumed = train(**settings)
    assert_same_runs(whole, run)
    columns = uninterrupted.columns.drop("seconds")
    pd.testing.assert_frame_equal(resumed[columns], uninterrupted[columns], check_exact=True)
    assert resumed["step"].tolist() == [2, 4, 6, 8]
    assert resumed["epoch"].tolist() == [1, 2, 3, 4]
    assert resumed["seconds"].is_monotonic_increasing


def test_seconds_of_training_go_on_where_they_were(train, run):
    with pytest.raises(Stopped):
        train(stop_at=3)
    checkpoint = load_checkpoint(run.last_checkpoint)
    checkpoint["state"]["seconds"] = 5000.0
    save_checkpoint(run.last_checkpoint, checkpoint)
    assert 5000 < train()["seconds"].iloc[-1] < 5600


def test_a_finished_run_trains_nothing_more(train, run):
    first = train()
    files = {path: path.read_bytes() for path in (run.last_checkpoint, run.best_checkpoint, run.history)}
    again = train(validate=never, stop_at=0)
    pd.testing.assert_frame_equal(again, first)
    assert all(path.read_bytes() == content for path, content in files.items())


def test_a_cpu_trains_in_single_precision(train, tmp_path):
    """At a depth of 2 voxels, PyTorch 2.13's weight gradients in bf16 are random on some CPUs, and may be no number."""
    runs = [RunLayout(tmp_path / precision) for precision in ("no", "bf16")]
    for run in runs:
        train(run, precision=run.root.name, epochs=1)
    one, other = (load_checkpoint(run.last_checkpoint)["network"] for run in runs)
    assert equal(one, other)


def test_dropout_and_seed_matter(train, tmp_path):
    # or the tests above would compare what cannot differ
    runs = [RunLayout(tmp_path / name) for name in ("a", "b")]
    for run, seed in zip(runs, (0, 1), strict=True):
        train(run, seed=seed)
    with pytest.raises(AssertionError, match="network differs"):
        one, other = (load_checkpoint(run.last_checkpoint) for run in runs)
        assert equal(one["network"], other["network"]), "network differs"


CHANGES = [
    ({"learning_rate": 0.02}, "learning_rate: 0.01 then, 0.02 now"),
    ({"recipe": {"spacing_mm": 1.0, "sequences": 1}}, "n4_levels: 4 then, None now"),
]


@pytest.mark.parametrize(("change", "said"), CHANGES)
def test_a_run_with_other_settings_is_set_aside_and_training_starts_afresh(train, run, tmp_path, capsys, change, said):
    train()
    before = load_checkpoint(run.last_checkpoint)
    capsys.readouterr()
    history = train(**change)
    assert said in capsys.readouterr().out
    afresh = RunLayout(tmp_path / "afresh")
    train(afresh, **change)
    assert_same_runs(run, afresh)
    assert history["step"].iloc[0] == 2
    (aside,) = run.root.glob("superseded_*")
    assert equal(load_checkpoint(aside / "last.pt"), before)
    assert load_checkpoint(aside / "best.pt")["identity"] == before["identity"]
    assert len(pd.read_csv(aside / "history.csv")) == 2
    assert {path.name for path in (aside / "tensorboard").iterdir()}


def test_other_training_cases_start_afresh_too(train, run, cases, capsys):
    train()
    train(of=cases[:3])
    assert f"case3: {cases[3].identity} then, None now" in capsys.readouterr().out
    assert set(load_checkpoint(run.last_checkpoint)["identity"]["cases"]) == {"case0", "case1", "case2"}


def test_a_corrected_mask_starts_afresh_too(train, run, cases, capsys):
    train()
    store = cases[0].folder.parent
    store_label(store, "case0", cases[0].label > 0, {"recipe": {}, "sources": [[12, 99]]})
    corrected = open_case(store, "case0")
    train(of=[corrected, *cases[1:]])
    assert corrected.identity[0] == cases[0].identity[0]
    assert f"case0: {cases[0].identity} then, {corrected.identity} now" in capsys.readouterr().out


def test_a_corrected_mask_of_the_selection_set_starts_afresh_too(train, run, cases, capsys):
    training, selection = cases[:3], cases[3:]
    train(of=training)  # by an earlier version, which did not note the selection set
    train(validate=never, stop_at=0, of=training, selection=selection)
    train(of=training, selection=selection, epochs=3)
    train(validate=never, stop_at=0, of=training, selection=selection, epochs=3)
    store = selection[0].folder.parent
    store_label(store, "case3", selection[0].label > 0, {"recipe": {}, "sources": [[12, 99]]})
    corrected = open_case(store, "case3")
    capsys.readouterr()
    train(of=training, selection=[corrected], epochs=3)
    assert f"case3: {selection[0].identity} then, {corrected.identity} now" in capsys.readouterr().out


def test_a_run_is_taken_up_again_when_its_settings_come_back(train, run, tmp_path, capsys):
    whole = RunLayout(tmp_path / "whole")
    train(whole, epochs=4)
    with pytest.raises(Stopped):
        train(epochs=4, stop_at=5)
    train(epochs=4, learning_rate=0.02)
    train(epochs=4)
    assert "An earlier run with these settings is continued." in capsys.readouterr().out
    assert_same_runs(run, whole)
    rates = [load_checkpoint(path)["identity"]["settings"]["learning_rate"] for path in run.root.rglob("last.pt")]
    assert sorted(rates) == [0.01, 0.02]


def test_what_changes_no_result_does_not_start_afresh(train, run, capsys):
    train()
    train(validate=never, stop_at=0, title="another name", operating_point="sensitive")
    assert "An earlier run had other settings" not in capsys.readouterr().out


def test_results_of_other_settings_do_not_stay_beside_the_new_run(train, run):
    # metrics.json marks a finished run, which does not make room
    train(epochs=1)
    results = [path if path.suffix else path / "case9.nii.gz" for path in run.results if path != run.metrics]
    tables = {"annotation.csv", "detections.csv", "calibration.csv", "metrics_other.csv", "operating_points.csv"}
    assert tables <= {path.name for path in results}
    for path in results:
        path.parent.mkdir(exist_ok=True)
        path.write_text("old")
    with pytest.raises(Stopped):
        train(epochs=1, learning_rate=0.02, stop_at=0)
    assert not any(path.exists() for path in results)
    (aside,) = run.root.glob("superseded_*")
    assert all((aside / path.relative_to(run.root)).read_text() == "old" for path in results)


DAMAGES = [lambda content: content[: len(content) // 2], lambda content: b"", lambda _: b"no"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(train, run, tmp_path, capsys, damage):
    whole = RunLayout(tmp_path / "whole")
    train(whole, epochs=4)
    with pytest.raises(Stopped):
        train(epochs=4, stop_at=7)
    run.last_checkpoint.write_bytes(damage(run.last_checkpoint.read_bytes()))
    train(epochs=4)
    assert "last.pt: not a complete checkpoint" in (said := capsys.readouterr().out)
    assert "Training continues from previous.pt" in said
    assert_same_runs(run, whole)


def test_between_two_renames_the_checkpoint_before_is_still_there(train, run, tmp_path):
    whole = RunLayout(tmp_path / "whole")
    train(whole, epochs=3)
    with pytest.raises(Stopped):
        train(epochs=3, stop_at=5)
    run.last_checkpoint.unlink()
    train(epochs=3)
    assert_same_runs(run, whole)


@pytest.mark.parametrize("damage", DAMAGES)
def test_where_all_checkpoints_are_damaged_they_are_named(train, run, damage):
    train(epochs=2)
    for path in (run.last_checkpoint, run.previous_checkpoint):
        path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"previous\.pt: not a complete checkpoint.*{DELETE_ALL}"):
        train(epochs=2)
    for path in (run.best_checkpoint, run.last_checkpoint, run.previous_checkpoint):
        path.unlink()
    assert len(train(epochs=2)) == 2


def test_a_missing_checkpoint_says_what_to_run(run):
    with pytest.raises(FileNotFoundError, match=r"no such checkpoint.*train this network first \(notebook 03\)"):
        load_checkpoint(run.best_checkpoint)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_checkpoint_from_elsewhere_cannot_run_code(tmp_path):
    torch.save(Malicious(tmp_path / "harm"), tmp_path / "best.pt")
    with pytest.raises(ValueError, match=r"best\.pt"):
        load_checkpoint(tmp_path / "best.pt")
    assert not (tmp_path / "harm").exists()


def test_a_save_that_breaks_off_leaves_the_old_checkpoint_whole(tmp_path, monkeypatch):
    path, least = tmp_path / "last.pt", {"identity": {"settings": {}, "recipe": {}}, "network": {"w": torch.ones(3)}}
    save_checkpoint(path, least)

    def full_disk(state, file):
        Path(file).write_bytes(b"PK half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoints.torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, least | {"network": {}})
    assert equal(load_checkpoint(path), least)
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_a_rows_loss_is_the_mean_over_the_steps_since_the_row_before(train, tmp_path):
    each, every_second = (
        train(RunLayout(tmp_path / str(every)), epochs=4, validate_every=every)["loss"] for every in (1, 2)
    )
    assert every_second.tolist() == pytest.approx([each[:2].mean(), each[2:].mean()])
    assert every_second[1] != pytest.approx(each.mean())


def test_loss_falls_and_dice_rises_on_an_easy_task(train, run, cases, tiny_training):
    settings = tiny_training(epochs=20, learning_rate=0.03, lesion_share=1.0, validate_every=2)
    validate = partial(selection_dice, cases=cases[:1], settings=settings, device=torch.device("cpu"))
    history = train(validate=validate, **settings.model_dump())
    assert history["loss"].iloc[-1] < 0.5 * history["loss"].iloc[0]
    assert history["dice"].iloc[0] < 0.5 < 0.7 < load_checkpoint(run.best_checkpoint)["dice"]


def test_the_chosen_epoch_has_the_highest_smoothed_dice_of_the_selection_set(train, run):
    dice, seen = iter([0.2, 0.7, 0.7, 0.1]), []

    def validate(network):
        seen.append(copy.deepcopy(network.state_dict()))
        return next(dice)

    history = train(validate=validate, epochs=4)
    best, last = load_checkpoint(run.best_checkpoint), load_checkpoint(run.last_checkpoint)
    assert equal(dict(best["network"]), dict(seen[2]))  # means over three: 0.2, 0.45, 0.53, 0.5
    assert (best["epoch"], best["dice"]) == (3, 0.7)
    assert equal(dict(last["network"]), dict(seen[3]))
    assert history["dice"].tolist() == [0.2, 0.7, 0.7, 0.1]
    rebuilt = network_of(best, torch.device("cpu"))
    assert equal(dict(rebuilt.state_dict()), dict(seen[2]))
    assert not rebuilt.training


def test_a_network_that_finds_nothing_at_all_is_kept_too(train, run):
    train(validate=lambda network: 0.0, epochs=2)
    assert load_checkpoint(run.best_checkpoint)["epoch"] == 2


def test_checkpoints_carry_what_a_prediction_needs_and_the_versions_they_were_made_with(train, run, tiny_training):
    train(epochs=1)
    for path in (run.best_checkpoint, run.last_checkpoint):
        checkpoint = load_checkpoint(path)
        assert checkpoint["identity"]["settings"] == tiny_training(epochs=1).model_dump()
        assert checkpoint["identity"]["recipe"] == RECIPE
        assert checkpoint["versions"] == versions()


def test_networks_are_judged_in_evaluation_mode_and_trained_in_training_mode(train, monkeypatch):
    trained, judged = [], []

    def watched(*arguments):
        network = build_network(*arguments)
        network.register_forward_hook(lambda module, *_: trained.append(module.training))
        return network

    monkeypatch.setattr(training_run, "build_network", watched)
    monkeypatch.setattr(
        training_run, "RunningMean", lambda network, decay: RunningMean(build_network("unet", 0.125, 32, 1), decay)
    )
    train(epochs=3, validate=lambda network: judged.append(network.training) or 0.5)
    assert trained == [True] * 6
    assert judged == [False] * 3


@pytest.mark.parametrize(("every", "steps"), [(1, [2, 4, 6, 8, 10]), (2, [4, 8, 10]), (5, [10]), (99, [10])])
def test_a_look_every_so_many_epochs_and_always_at_the_end(train, every, steps):
    history = train(epochs=5, validate_every=every, validate=lambda network: 0.5)
    assert history["step"].tolist() == steps
    expected = [learning_rate("cosine", step - 1, 10, 0.01) for step in steps]
    assert history["learning_rate"].tolist() == expected


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_no_checkpoint(train, run, store):
    broken = store("broken", np.full((40, 40, 40), np.inf), np.ones((40, 40, 40)))
    with pytest.raises(FloatingPointError, match="loss is nan at step 0: use a lower learning_rate"):
        train(of=[broken, broken])
    assert not run.last_checkpoint.exists()


def test_a_loss_that_is_no_number_stops_the_run_at_the_end_of_its_epoch(train, monkeypatch):
    """Long before the next validation: the third step of ten is the first of the second epoch."""
    steps, step = [], training_run.RunningMean.update
    loss = PatchBatches.loss

    def spoilt(batches):
        return lambda *of: loss(batches)(*of) * (math.nan if len(steps) >= 2 else 1)

    monkeypatch.setattr(PatchBatches, "loss", spoilt)
    monkeypatch.setattr(training_run.RunningMean, "update", lambda *of: steps.append(1) or step(*of))
    with pytest.raises(FloatingPointError, match="loss is nan at step 2: use a lower learning_rate"):
        train(epochs=5, validate_every=99)
    assert len(steps) == 4


def test_a_score_that_is_no_number_stops_the_run(train, run):
    with pytest.raises(FloatingPointError, match=r"the dice of the selection set is nan at step 2"):
        train(validate=lambda network: math.nan)
    assert not run.best_checkpoint.exists()


def test_learning_rate_by_hand():
    rate = [learning_rate("cosine", step, 40, 0.1) for step in range(41)]  # warm-up: 5 % of 40 are 2 steps
    assert rate[:3] == pytest.approx([0.05, 0.1, 0.1])
    assert rate[21] == pytest.approx(0.05)  # half-way between 2 and 40
    assert rate[2 + 38 // 4] == pytest.approx(0.1 * 0.5 * (1 + math.cos(math.pi * 9 / 38)))
    assert rate[40] == pytest.approx(0, abs=1e-12)
    polynomial = [learning_rate("polynomial", step, 40, 0.1) for step in range(41)]
    assert polynomial[:3] == rate[:3]
    assert polynomial[21] == pytest.approx(0.1 * 0.5**0.9)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("n_steps", [1, 2, 9, 100, 7000])
def test_learning_rate_reaches_its_peak_and_no_more(schedule, n_steps):
    rates = [learning_rate(schedule, step, n_steps, 3e-4) for step in range(n_steps)]
    assert max(rates) == pytest.approx(3e-4)
    assert min(rates) > 0, "the last step would teach nothing"
    peak = rates.index(max(rates))
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


# Running mean of the weights


def test_the_running_mean_by_hand():
    network = torch.nn.Linear(1, 1, bias=False)
    values = iter([1.0, 2.0, 4.0, 8.0])
    network.weight.data.fill_(next(values))
    mean = RunningMean(network, 0.25)
    expected = None
    for n, value in enumerate([1.0, 2.0, 4.0, 8.0]):
        network.weight.data.fill_(value)
        mean.update(network)
        share = min(0.25, (1 + n) / (10 + n))  # 0.18 after one, 0.25 from the second on
        expected = value if n == 0 else share * expected + (1 - share) * value
        assert mean.module.weight.item() == pytest.approx(expected)


def test_what_is_judged_and_kept_is_the_mean(train, run):
    judged = []

    def validate(network):
        judged.append(copy.deepcopy(network.state_dict()))
        return 0.5

    train(validate=validate, ema_decay=0.9, epochs=3)
    last = load_checkpoint(run.last_checkpoint)
    assert equal(dict(last["network"]), dict(judged[-1]))
    assert not equal(last["network"], last["weights"])
    assert equal(load_checkpoint(run.best_checkpoint)["network"], last["network"])


def test_without_decay_the_mean_is_the_weights(train, run):
    train(ema_decay=0.0)
    last = load_checkpoint(run.last_checkpoint)
    assert equal(last["network"], last["weights"])


# Early stop


def test_training_ends_when_nothing_got_better_for_long_enough(train, run):
    dice = [0.1, 0.9, 0.9, 0.0, 0.0, 0.9]
    looks = iter(dice)
    history = train(validate=lambda network: next(looks), epochs=6, patience=2)
    assert history["dice"].tolist() == dice[:5]  # means over three: 0.1, 0.5, 0.63, 0.6, 0.3
    again = train(validate=never, epochs=6, patience=2)
    pd.testing.assert_frame_equal(again, history)
    assert load_checkpoint(run.best_checkpoint)["epoch"] == 3


# The way on from a damaged run


def spoil(path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1 << 6
    path.write_bytes(raw)


def delete(path):
    path.unlink()


@pytest.mark.parametrize(("lose", "epochs"), [(spoil, 2), (delete, 4)])  # of a finished run, and of one that goes on
def test_lost_best_weights_are_told_at_once_and_what_is_advised_helps(train, run, tmp_path, lose, epochs):
    train(epochs=2)
    if epochs == 4:
        checkpoint = load_checkpoint(run.last_checkpoint)
        checkpoint["identity"]["settings"]["epochs"] = 4
        save_checkpoint(run.last_checkpoint, checkpoint)
    lose(run.best_checkpoint)
    for _ in range(2):
        with pytest.raises((ValueError, FileNotFoundError), match=r"best\.pt.*delete its folder") as told:
            train(validate=never, epochs=epochs)
    assert "last.pt in the same folder can predict too" in str(told.value)
    assert len(load_ensemble(run.last_checkpoint, torch.device("cpu")).networks) == 1
    shutil.rmtree(run.root)
    train(epochs=epochs)
    train(whole := RunLayout(tmp_path / "whole"), epochs=epochs)
    assert_same_runs(run, whole)


def test_a_damaged_last_checkpoint_of_a_finished_run_is_replaced_by_the_one_before(train, run, capsys):
    train(epochs=2)
    run.previous_checkpoint.write_bytes(run.last_checkpoint.read_bytes())  # as when it was stopped after its last look
    whole = load_checkpoint(run.last_checkpoint)
    spoil(run.last_checkpoint)
    train(validate=never, epochs=2)
    assert "last.pt: not a complete checkpoint" in capsys.readouterr().out
    assert equal(load_checkpoint(run.last_checkpoint), whole)
    network_of(load_checkpoint(run.best_checkpoint), torch.device("cpu"))


# Stopped on request


class Terminated(PatchBatches):
    """Batches during whose fetching, at a step, SIGTERM comes."""

    def packed(self, step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().packed(step)


def test_sigterm_after_the_last_step_stops_too():
    with pytest.raises(TrainingStopped), StopRequest() as stop:
        stop.check()
        os.kill(os.getpid(), signal.SIGTERM)


def test_an_error_is_not_hidden_by_a_request_to_stop():
    with pytest.raises(FloatingPointError), StopRequest():
        os.kill(os.getpid(), signal.SIGTERM)
        raise FloatingPointError


@pytest.fixture
def threads():
    """Set the number of threads, for this test alone."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_a_run_goes_on_with_as_many_threads_as_it_began_with(train, run, tmp_path, capsys, threads):
    settings = {"network": "segresnet", "epochs": 3, "patch_size": 48}
    threads(2)
    train(whole := RunLayout(tmp_path / "whole"), **settings)
    with pytest.raises(Stopped):
        train(stop_at=3, **settings)
    threads(1)
    train(**settings)
    assert torch.get_num_threads() == 2
    assert "The run began with 2 thread(s) and continues with 2, not 1: results are equal." in capsys.readouterr().out
    assert load_checkpoint(run.last_checkpoint)["threads"] == 2
    assert_same_runs(run, whole)


def test_a_run_of_before_the_fused_step_goes_on_with_it(train, run):
    with pytest.raises(Stopped):
        train(stop_at=3)
    checkpoint = load_checkpoint(run.last_checkpoint)
    for group in checkpoint["optimiser"]["param_groups"]:
        group["fused"] = None
    save_checkpoint(run.last_checkpoint, checkpoint)
    train()
    assert [group["fused"] for group in load_checkpoint(run.last_checkpoint)["optimiser"]["param_groups"]] == [True]


class Spoilt(PatchBatches):
    """Batches of which one has no number in it, during whose fetching SIGTERM comes."""

    def packed(self, step):
        images, *others = super().packed(step)
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            images.fill_(math.inf)
        return images, *others


def test_sigterm_does_not_save_a_step_whose_loss_is_no_number(cases, run, tiny_training):
    settings = tiny_training(epochs=3)
    with pytest.raises(FloatingPointError, match="at step 2"):
        fit(run, Spoilt(cases, settings), judge)
    assert load_checkpoint(run.last_checkpoint)["state"]["step"] == 2


def test_sigterm_finishes_the_step_and_saves_it(cases, run, tmp_path, train, tiny_training):
    settings = tiny_training(epochs=4, network="segresnet")
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingStopped, match="start the same notebook again"):
        fit(run, Terminated([prepared_by(RECIPE, case) for case in cases], settings), judge)
    assert signal.getsignal(signal.SIGTERM) is handler
    assert load_checkpoint(run.last_checkpoint)["state"]["step"] == 4
    train(epochs=4, network="segresnet")
    train(whole := RunLayout(tmp_path / "whole"), epochs=4, network="segresnet")
    assert_same_runs(run, whole)


def test_sigterm_does_not_wait_for_the_end_of_a_validation(run, tmp_path, train):
    def interrupted(network):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("validation went on")

    with pytest.raises(TrainingStopped):
        train(epochs=3, validate=interrupted)
    state = load_checkpoint(run.last_checkpoint)["state"]
    assert (state["step"], state["history"]) == (2, [])
    train(epochs=3)
    train(whole := RunLayout(tmp_path / "whole"), epochs=3)
    assert_same_runs(run, whole)


def test_a_run_that_starts_again_is_not_finished_until_its_end(train, run):
    train()
    run.metrics.write_text("{}")
    train(validate=never)
    assert not run.metrics.exists()
    assert not list(run.root.glob("superseded_*")), "nothing is trained again"


@pytest.fixture
def finished(train, run, cases, tiny_training):
    """A finished run; returns what tells whether it still is, with settings that keywords change."""
    train(validate=lambda network: 0.5, recipe=cases[0].recipe)
    run.metrics_table.write_text("case,dice\n")
    finish(run, {"labels": {"case0": "a"}}, [run.metrics_table])

    def ask(of=cases, facts=None, **changes):
        return is_finished(run, PatchBatches(of, tiny_training(**changes)), facts)

    return ask


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_run_keeps_its_best_weights_alone_and_is_recognised(finished, run):
    assert {path.name for path in run.root.glob("*.pt")} == {"best.pt"}
    before = contents(run.root)
    assert finished()
    assert finished(title="another name", num_processes=2)
    assert finished(facts={"labels": {"case0": "a"}})
    assert contents(run.root) == before


def test_a_run_that_an_earlier_version_finished_is_refused_and_stays_finished(finished, run):
    """Without the deleted weights it cannot be predicted anew: its mark must not be taken away for that."""
    before = contents(run.root)
    with pytest.raises(CohortError, match=r"an earlier version .*give the study another name and train it again"):
        finished(facts={"labels": {"case0": "a"}, "operating_point": "balanced"})
    assert contents(run.root) == before


def test_a_finished_run_of_other_settings_is_told_with_what_differs_and_what_to_do(finished, run, cases, train):
    before = contents(run.root)
    for change, said in (({"epochs": 3}, "epochs: 2 then, 3 now"), ({"of": cases[:3]}, "case3: ")):
        with pytest.raises(CohortError, match=said) as told:
            finished(**change)
        with pytest.raises(CohortError, match=said):
            train(recipe=cases[0].recipe, **change)
        assert f"another study name; or, to train this one again, delete the folder {run.root}" in str(told.value)
    assert contents(run.root) == before


def test_a_finished_run_with_a_changed_table_or_other_labels_is_predicted_anew_and_not_trained(
    finished, run, cases, train
):
    history = pd.read_csv(run.history)
    assert not finished(facts={"labels": {"case0": "b"}})
    run.metrics_table.write_text("case,dice\nno,1\n")
    assert not finished()
    weights = load_checkpoint(run.best_checkpoint)
    pd.testing.assert_frame_equal(train(validate=never, stop_at=0, recipe=cases[0].recipe), history)
    assert equal(load_checkpoint(run.best_checkpoint), weights)
    assert not run.metrics.exists()


def test_an_ended_run_without_its_mark_makes_room_for_other_settings_and_comes_back(finished, run, cases, train):
    """So it is when Snakemake was given a changed study file: it takes metrics.json away."""
    weights = load_checkpoint(run.best_checkpoint)
    run.metrics.unlink()
    train(epochs=1, recipe=cases[0].recipe)
    (aside,) = run.root.glob("superseded_*")
    assert equal(load_checkpoint(aside / "best.pt"), weights)
    assert (aside / "metrics.csv").is_file()
    train(validate=never, stop_at=0, recipe=cases[0].recipe)
    assert equal(load_checkpoint(run.best_checkpoint), weights)
