"""Learning without labels: what is hidden, what is learned of it, whose weights are carried over, and no leak."""

import json
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_file
from test_fit import assert_same_runs, equal, judge, never

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.folds import Split
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.figures.training import draw_hidden, draw_restored, learning_curve
from metaseg_nb.files import write_json
from metaseg_nb.layout import PARAMS, RunLayout
from metaseg_nb.parameters import read_parameters, resolve
from metaseg_nb.preprocessing.case_store import drop_label
from metaseg_nb.settings import ParameterError, Pretrain
from metaseg_nb.training.checkpoints import load_checkpoint, save_checkpoint
from metaseg_nb.training.fit import TrainingStopped, fit, train
from metaseg_nb.training.networks import NETWORKS, OUTPUT_LAYERS, build_network, patch_edges, start_from
from metaseg_nb.training.patches import PatchBatches
from metaseg_nb.training.pretraining import (
    RestorationBatches,
    load_unseen,
    pretrained,
    restoration_loss,
    validation_patches,
    variance_restored,
)
from metaseg_nb.training.training_run import RunningMean

SIZE, EDGE = 32, 8
CPU = torch.device("cpu")
ALL_RANDOM = {"flip_probability": 0.5, "rotate_probability": 0.5, "intensity_scale": 0.1, "intensity_shift": 0.1}
each_network = pytest.mark.parametrize("network", NETWORKS)


@pytest.fixture(scope="session")
def tiny_pretraining(tiny_training):
    """Settings of a pretraining of seconds; keywords change them."""
    own = {"pretraining_epochs": 2, "hidden_share": 0.5, "hidden_edge": EDGE}
    shared = {name: value for name, value in tiny_training().model_dump().items() if name in Pretrain.model_fields}
    return lambda **changes: Pretrain.check(shared | own | changes)


@pytest.fixture
def cases(store_blobs):
    return [store_blobs(f"case{i}", seed=i) for i in range(4)]


@pytest.fixture
def numbered(store):
    """A case of two sequences of random numbers, exact in half precision and never 0: no two rows are alike."""
    image = np.random.default_rng(0).integers(1, 2048, (40, 44, 36)).astype(float)
    return store("numbered", np.stack([image, -image]), image > 2000)


@pytest.fixture
def smooth(store):
    """Cases whose hidden parts can be told from what is around."""
    x, y, z = np.indices((40, 44, 36)) / 8.0
    waves = [0.5 + 0.2 * np.sin(x + i) + 0.2 * np.cos(y - i) + 0.05 * z for i in range(4)]
    return [store(f"smooth{i}", wave, wave > 0.9) for i, wave in enumerate(waves)]


@pytest.fixture
def run(tmp_path):
    return RunLayout(tmp_path / "pretraining" / "unet" / "fold0")


# What is hidden


def test_cubes_are_hidden_and_nothing_else_and_the_target_is_the_image(numbered, tiny_pretraining):
    settings = tiny_pretraining(batch_size=1, patches_per_case=3)
    images, targets = RestorationBatches([numbered], settings)[0]
    assert images.shape == targets.shape == (3, 2, SIZE, SIZE, SIZE)
    for image, (truth, hidden) in zip(images, targets, strict=True):
        start = np.argwhere((windows(numbered.image[0]) == truth[0, 0].numpy()).all(axis=-1))
        assert len(start) == 1, "the target is no piece of the image"
        place = tuple(slice(first, first + SIZE) for first in start[0])
        assert np.array_equal(truth, numbered.image[(0, *place)])
        assert set(hidden.unique().tolist()) == {0, 1}
        blank = hidden > 0
        assert (image[:, blank] == 0).all()
        assert np.array_equal(image[:, ~blank], torch.tensor(numbered.image[(slice(None), *place)])[:, ~blank])
        cubes = hidden.unfold(0, EDGE, EDGE).unfold(1, EDGE, EDGE).unfold(2, EDGE, EDGE).flatten(3)
        assert torch.equal(cubes.amin(-1), cubes.amax(-1)), "a cube is hidden in part"
        assert cubes.amax(-1).sum() == 32, "half of 4³ cubes"


def windows(array):
    """All rows along z as long as a patch."""
    return np.lib.stride_tricks.sliding_window_view(array, SIZE, axis=2)


@pytest.mark.parametrize(("share", "edge", "n"), [(0.6, 8, 38), (0.001, 8, 1), (0.999, 8, 63), (0.6, 16, 5)])
def test_the_share_is_of_whole_cubes_never_none_and_never_all(cases, tiny_pretraining, share, edge, n):
    _, targets = RestorationBatches(cases, tiny_pretraining(hidden_share=share, hidden_edge=edge))[0]
    assert targets[:, 1].sum((1, 2, 3)).tolist() == [n * edge**3] * 2


def test_what_is_seen_is_the_target_whatever_is_changed(cases, tiny_pretraining):
    for images, targets in RestorationBatches(cases, tiny_pretraining(pretraining_epochs=10, **ALL_RANDOM)).loader(
        0, CPU
    ):
        visible = targets[:, 1:] == 0
        assert torch.equal(images[visible], targets[:, :1][visible])
        assert targets[:, 0].std((1, 2, 3)).min() > 0.01


def test_each_patch_and_step_hides_other_cubes(cases, tiny_pretraining):
    batches = RestorationBatches(cases, tiny_pretraining(patches_per_case=4, pretraining_epochs=4))
    hidden = torch.cat([targets[:, 1] for _, targets in batches.loader(0, CPU)])
    assert len(hidden.flatten(1).unique(dim=0)) == len(hidden) == 64


def test_patches_lie_all_over_the_head_and_no_label_is_read(store, tiny_pretraining, tmp_path):
    image = np.zeros((160, 48, 48))
    image[16:144, 8:40, 8:40] = np.linspace(1, 2, 128)[:, None, None]  # along x every voxel says where it is
    label = np.zeros(image.shape)
    label[20:24, 12:16, 12:16] = 1
    case = store("long", image, label)
    settings = tiny_pretraining(batch_size=1, patches_per_case=8, pretraining_epochs=12)
    drop_label(tmp_path / "cases", "long")
    places = torch.cat(
        [targets[:, 0].amax((1, 2, 3)) for _, targets in RestorationBatches([case], settings).loader(0, CPU)]
    )
    shares = np.histogram(places, bins=4, range=(1.0, 2.0))[0] / len(places)
    assert len(places) == 96
    assert shares.tolist() == pytest.approx([0.125, 0.25, 0.25, 0.375], abs=0.16)  # the last end of each patch counts


def test_another_label_is_the_same_pretraining(cases, tiny_pretraining, run):
    settings = tiny_pretraining(pretraining_epochs=1)
    relabelled = [replace(case, label_facts={"recipe": {"fill_holes": True}, "identity": "new"}) for case in cases]
    train(run, RestorationBatches(cases, settings), judge)
    train(run, RestorationBatches(relabelled, settings), never)
    identity = load_checkpoint(run.last_checkpoint)["identity"]
    assert identity["cases"] == {case.name: [case.image_facts["identity"]] for case in cases}


# Draws depend on (seed, fold, step) alone


@pytest.mark.parametrize("first", [1, 5])
def test_a_loader_that_starts_late_draws_the_same(cases, tiny_pretraining, first):
    settings = {"pretraining_epochs": 3, "patches_per_case": 2, **ALL_RANDOM}
    batches = RestorationBatches(cases, tiny_pretraining(**settings))
    late = list(batches.loader(first, CPU))
    assert len(late) == 6 - first
    for i, one in enumerate(late):
        assert all(map(torch.equal, one, batches[first + i]))


@pytest.mark.parametrize("change", [{"seed": 1}, {"fold": 1}])
def test_seed_and_fold_change_what_is_hidden(cases, tiny_pretraining, change):
    one, other = (RestorationBatches(cases, tiny_pretraining(**changes))[0][1] for changes in ({}, change))
    assert not torch.equal(one[:, 1], other[:, 1])


def test_processes_share_exactly_the_batch_of_one(cases, tiny_pretraining):
    settings = tiny_pretraining(batch_size=4, patches_per_case=2, **ALL_RANDOM)
    shares = [RestorationBatches(cases, settings).share(rank, 2)[0] for rank in range(2)]
    for part, expected in zip(zip(*shares, strict=True), RestorationBatches(cases, settings)[0], strict=True):
        pairs = torch.stack([tensor.unflatten(0, (-1, 2)) for tensor in part], dim=1).flatten(0, 2)
        assert torch.equal(pairs, expected)


class Terminated(RestorationBatches):
    """Batches during whose fetching, at a step, SIGTERM comes."""

    def packed(self, step):
        if step == 3:
            os.kill(os.getpid(), 15)
        return super().packed(step)


def test_a_stopped_pretraining_ends_as_if_it_had_never_stopped(cases, tiny_pretraining, run, tmp_path):
    settings = tiny_pretraining(network="segresnet", pretraining_epochs=4, ema_decay=0.9, **ALL_RANDOM)
    whole = RunLayout(tmp_path / "whole")
    with pytest.raises(TrainingStopped):
        fit(run, Terminated(cases, settings), judge)
    assert load_checkpoint(run.last_checkpoint)["state"]["step"] == 4
    for into in (run, whole):
        fit(into, RestorationBatches(cases, settings), judge)
    assert_same_runs(run, whole)


# Loss and score


def test_the_loss_is_the_mean_square_over_hidden_voxels_of_the_first_output_by_hand():
    targets = torch.zeros(1, 2, 2, 1, 1)
    targets[0, 0] = torch.tensor([0.5, 0.25])[:, None, None]
    targets[0, 1, 0] = 1  # the first voxel alone is hidden
    outputs = torch.tensor([0.9, 77.0])[None, None, :, None, None]
    assert restoration_loss(outputs, targets).item() == pytest.approx(0.4**2)
    assert restoration_loss([outputs, outputs + 5], targets).item() == pytest.approx(0.4**2)
    assert restoration_loss(outputs.bfloat16(), targets).dtype == torch.float32


class Says(torch.nn.Module):
    """A network that says of each batch of windows what a rule makes of them."""

    def __init__(self, rule):
        super().__init__()
        self.rule = rule

    def forward(self, images):
        return self.rule(images)


def test_the_score_is_the_share_of_variance_over_hidden_voxels(cases, tiny_pretraining):
    settings = tiny_pretraining()
    validated = [validation_patches(case, settings) for case in cases]
    truth = torch.cat([targets[:, :1] for _, targets in validated])
    hidden = torch.cat([targets[:, 1:] > 0 for _, targets in validated])
    values = truth[hidden]

    def score(says):
        windows = iter(says)
        return variance_restored(Says(lambda _: next(windows)[None]), cases, settings, CPU)

    assert score(truth) == 1
    assert score(torch.full_like(truth, float(values.mean()))) == pytest.approx(0, abs=1e-5)
    assert score(torch.where(hidden, truth, truth + 9)) == 1, "what is seen needs no restoring"
    off = 0.1
    assert score(truth + off) == pytest.approx(1 - off**2 / float(values.var(correction=0)), rel=1e-4)


def test_validation_patches_are_always_the_same(cases, tiny_pretraining):
    settings = tiny_pretraining(**ALL_RANDOM)
    one, other = (validation_patches(cases[0], settings) for _ in range(2))
    assert all(map(torch.equal, one, other))
    assert not torch.equal(one[1][0], one[1][1])


def test_a_network_learns_to_restore_and_the_best_look_is_kept(smooth, tiny_pretraining, run):
    settings = tiny_pretraining(pretraining_epochs=30, validate_every=5, hidden_edge=4, width=0.25)
    validate = partial(variance_restored, cases=smooth[:1], settings=settings, device=CPU)
    history = train(run, RestorationBatches(smooth[1:], settings), validate)
    assert list(history.columns) == ["epoch", "step", "loss", "variance_restored", "learning_rate", "seconds"]
    assert history["loss"].iloc[-1] < 0.5 * history["loss"].iloc[0]
    assert history["variance_restored"].iloc[-1] > history["variance_restored"].iloc[0] + 0.2
    best = load_checkpoint(run.best_checkpoint)
    restored = history.set_index("epoch")["variance_restored"]
    smoothed = restored.rolling(3, min_periods=1).mean()
    assert smoothed[best["epoch"]] == smoothed.max()
    assert best["variance_restored"] == restored[best["epoch"]] > 0.15


def test_a_network_that_is_worse_than_nothing_is_kept_too(cases, tiny_pretraining, run):
    settings = tiny_pretraining(pretraining_epochs=1)
    train(run, RestorationBatches(cases, settings), lambda network: -50.0)
    assert load_checkpoint(run.best_checkpoint)["variance_restored"] == -50


@pytest.mark.slow
def test_two_processes_give_the_loss_and_weights_of_one(cases, tiny_pretraining, tmp_path):
    found = []
    for processes in (1, 2):
        run = RunLayout(tmp_path / str(processes))
        settings = tiny_pretraining(
            network="dynunet", batch_size=4, pretraining_epochs=2, num_processes=processes, **ALL_RANDOM
        )
        history = train(run, RestorationBatches(cases, settings), judge)
        moments = load_checkpoint(run.last_checkpoint)["optimiser"]["state"]
        found.append((history["loss"].tolist(), torch.cat([m["exp_avg"].ravel() for m in moments.values()])))
    (losses, one), (losses_of_two, two) = found
    assert losses_of_two == pytest.approx(losses, rel=1e-4)
    assert (one - two).norm() < 1e-3 * one.norm()


@pytest.mark.slow
def test_two_processes_start_from_the_weights_they_are_given(cases, donors, tiny_training, run):
    settings = tiny_training(epochs=1, num_processes=2)
    train(run, PatchBatches(cases, settings, start=donors[0].best_checkpoint), judge)
    assert load_checkpoint(run.last_checkpoint)["identity"]["start"]["weights"]


# Weights to start from


def noisy(network):
    """Fill all that a network holds with other values."""
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 1)
    return network


# Whose results, at most added up, are outputs; DynUNet's second resolution goes by two names.
OUTPUTS = {
    "unet": ("model.2.0.conv", "model.2.0.adn", "model.2.1.conv"),
    "attention_unet": ("model.2.conv",),
    "segresnet": ("conv_final.2.conv",),
    "unetr": ("out.conv",),
    "swin_unetr": ("out.conv",),
    "dynunet": ("output_block.conv", "deep_supervision_heads.0.conv", "skip_layers.next_layer.super_head.conv"),
    "segresnet_ds": tuple(f"up_layers.{level}.head" for level in range(4)),
}


@each_network
def test_all_weights_are_carried_over_but_those_of_the_output_layers(network):
    size = patch_edges(network)[0]
    donor, fresh = noisy(build_network(network, 0.125, size)).state_dict(), build_network(network, 0.125, size)
    before = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
    start_from(fresh, donor, network)
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(tensor, (before if name.startswith(OUTPUTS[network]) else donor)[name]), name
    for prefix in OUTPUTS[network]:
        assert any(name.startswith(prefix) for name in before), f"{network} has no {prefix}"


@each_network
def test_every_network_learns_to_restore(network, cases, tiny_pretraining, run):
    size = {"network": network, "patch_size": patch_edges(network)[0], "width": 0.05}
    settings = tiny_pretraining(**size, batch_size=1, pretraining_epochs=1)
    train(run, RestorationBatches(cases[:1], settings), lambda network: 0.5)
    learned, moments = (load_checkpoint(run.last_checkpoint)[part] for part in ("network", "optimiser"))
    assert all(tensor.isfinite().all() for tensor in learned.values())
    assert sum(moment["exp_avg"].abs().sum() > 0 for moment in moments["state"].values()) > 5
    start_from(build_network(network, settings.width, settings.patch_size), learned, network)


@pytest.mark.parametrize("network", ["unetr", "dynunet"])
def test_03_begins_with_the_weights_it_is_given(network, cases, tiny_pretraining, tiny_training, run, monkeypatch):
    donor = RunLayout(run.root.parent / "donor")
    train(donor, RestorationBatches(cases, tiny_pretraining(network=network)), lambda network: 0.5)
    begun = []

    def noted(network, decay):
        begun.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return RunningMean(network, decay)

    monkeypatch.setattr("metaseg_nb.training.training_run.RunningMean", noted)
    settings = tiny_training(network=network, epochs=1)
    history = train(run, PatchBatches(cases, settings, start=donor.best_checkpoint), lambda network: 0.5)
    train(RunLayout(run.root.parent / "scratch"), PatchBatches(cases, settings), lambda network: 0.5)
    learned, (given, scratch) = load_checkpoint(donor.best_checkpoint)["network"], begun
    for name in learned:
        assert torch.equal(given[name], (scratch if name.startswith(OUTPUTS[network]) else learned)[name]), name
    assert history["dice"].item() == 0.5


def test_weights_of_another_size_are_refused():
    weights = build_network("unet", 0.25, 32).state_dict()
    with pytest.raises(
        ValueError, match="start weights: found weights of another network; expected weights of the same network, width"
    ):
        start_from(build_network("unet", 0.125, 32), weights, "unet")


def test_a_network_whose_output_layers_nobody_named_inherits_nothing_silently(monkeypatch):
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3), torch.nn.Conv3d(4, 1, 1))
    monkeypatch.setitem(OUTPUT_LAYERS, "mine", r"head\.")
    with pytest.raises(ValueError, match=r"mine: found no weights with the names of output_layers"):
        start_from(network, network.state_dict(), "mine")
    monkeypatch.setitem(OUTPUT_LAYERS, "mine", r"1\.")
    donor = noisy(torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3), torch.nn.Conv3d(4, 1, 1)))
    head = network[1].weight.clone()
    start_from(network, donor.state_dict(), "mine")
    assert torch.equal(network[0].weight, donor[0].weight)
    assert torch.equal(network[1].weight, head)


@pytest.fixture
def donors(cases, tiny_pretraining, tmp_path):
    """Two finished pretrainings with other seeds."""
    runs = [RunLayout(tmp_path / f"pretraining{seed}") for seed in range(2)]
    for seed, run in enumerate(runs):
        train(run, RestorationBatches(cases, tiny_pretraining(seed=seed, pretraining_epochs=1)), judge)
        write_json(run.metrics, {})
    return runs


def test_other_start_weights_are_another_run_and_the_same_are_not(cases, donors, tiny_training, run, capsys):
    settings = tiny_training(epochs=1)

    def begin(start, validate):
        train(run, PatchBatches(cases, settings, start=start), validate)

    for start in (None, donors[0].best_checkpoint, donors[1].best_checkpoint):
        begin(start, judge)
    said = [line for line in capsys.readouterr().out.splitlines() if "An earlier run had other settings" in line]
    assert len(said) == 2
    assert "weights: None then, " in said[0]
    begin(donors[1].best_checkpoint, never)
    begin(donors[0].best_checkpoint, never)
    assert "An earlier run with these settings is continued." in capsys.readouterr().out
    begin(None, never)
    assert load_checkpoint(run.last_checkpoint)["identity"]["start"] == {}


def test_a_stopped_run_goes_on_the_same_from_start_weights(cases, donors, tiny_training, run, tmp_path):
    settings, whole = tiny_training(epochs=3, network="unet", ema_decay=0.9), RunLayout(tmp_path / "whole")
    start = donors[0].best_checkpoint

    class Ended(PatchBatches):
        def packed(self, step):
            if step == 3:
                os.kill(os.getpid(), 15)
            return super().packed(step)

    with pytest.raises(TrainingStopped):
        fit(run, Ended(cases, settings, start=start), judge)
    for into in (run, whole):
        fit(into, PatchBatches(cases, settings, start=start), judge)
    assert_same_runs(run, whole)
    train(scratch := RunLayout(tmp_path / "scratch"), PatchBatches(cases, settings), judge)
    assert not equal(*(dict(load_checkpoint(one.last_checkpoint)["network"]) for one in (whole, scratch)))


# No leak


def parts_of(training, selection, test):
    sets = (
        [Case(name, (Path(name),), Path(name), name, "lung") for name in part] for part in (training, selection, test)
    )
    return Split(*sets)


def test_weights_that_saw_a_case_of_selection_or_test_set_are_refused_by_name(donors):
    clean = parts_of(["case0", "case1", "case2", "case3"], ["s0"], ["t0"])
    load_unseen(donors[0].best_checkpoint, clean)
    assert pretrained(donors[0], clean) == donors[0].best_checkpoint
    leaking = parts_of(["case2", "case3"], ["s0", "case1"], ["case0"])
    for check in (lambda: load_unseen(donors[0].best_checkpoint, leaking), lambda: pretrained(donors[0], leaking)):
        with pytest.raises(CohortError) as error:
            check()
        found = {(problem.case, problem.found) for problem in error.value.problems}
        assert found == {
            ("case1", "it was trained with this case of the selection set"),
            ("case0", "it was trained with this case of the test set"),
        }


def test_a_planted_case_is_found(donors):
    content = load_checkpoint(donors[0].best_checkpoint)
    content["identity"]["cases"]["t0"] = ["planted"]
    save_checkpoint(donors[0].best_checkpoint, content)
    with pytest.raises(CohortError, match=r"case t0, .*it was trained with this case of the test set"):
        pretrained(donors[0], parts_of(["case0"], ["s0"], ["t0"]))


def test_an_unfinished_pretraining_is_no_start(donors):
    donors[0].metrics.unlink()
    with pytest.raises(FileNotFoundError, match=r"first pretrain this network on this fold with this seed \(03b\)"):
        pretrained(donors[0], parts_of(["case0"], [], []))


# Settings, figures, notebook


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"hidden_edge": 12}, "divides patch_size, 32, and is smaller than it"),
        ({"hidden_edge": 32}, "divides patch_size, 32, and is smaller than it"),
        ({"hidden_share": 1.0}, "hidden_share"),
        ({"pretraining_epochs": 0}, "pretraining_epochs"),
        ({"batch_size": 3, "num_processes": 2}, "divides batch_size, 3"),
    ],
)
def test_impossible_settings_are_refused(tiny_pretraining, change, expected):
    with pytest.raises(ParameterError, match=expected):
        tiny_pretraining(**change)


def test_parameters_are_those_of_model_fold_and_study_and_a_seed_and_no_arm():
    found = Pretrain.check(resolve("03b_pretrain", "demo_budget", "unetr", 1, seed=5))
    assert (found.model, found.network, found.fold, found.seed) == ("unetr", "unetr", 1, 5)
    said = read_parameters(PARAMS / "studies" / "demo_budget.yaml")
    assert found.epochs == found.pretraining_epochs == said["pretraining_epochs"]
    with pytest.raises(ParameterError, match="takes no --arm"):
        resolve("03b_pretrain", "demo_budget", "unetr", 1, "boxes")
    with pytest.raises(ParameterError, match="give --model and --fold"):
        resolve("03b_pretrain", "demo_budget")


def test_figures_show_what_was_hidden_and_what_is_made_of_it(cases, tiny_pretraining):
    plt.switch_backend("Agg")
    settings = tiny_pretraining()
    hidden = draw_hidden(RestorationBatches(cases, settings))
    restored = draw_restored(Says(lambda images: torch.full_like(images[:, :1], 0.25)), cases[0], settings, CPU)
    for figure, rows in ((hidden, 2), (restored, 3)):
        figure.canvas.draw()
        assert len(figure.axes) == 4 * rows
        seen = [np.ma.getmaskarray(panel.images[0].get_array()) for panel in figure.axes[4:8]]
        assert any(mask.any() for mask in seen)
    for image, seen, made in zip(*(restored.axes[row : row + 4] for row in (0, 4, 8)), strict=True):
        image, seen, made = (panel.images[0].get_array() for panel in (image, seen, made))
        mask = np.ma.getmaskarray(seen)
        assert (made[mask] == 0.25).all()
        assert np.array_equal(made[~mask], image[~mask])
    history = pd.DataFrame({"epoch": [1, 2], "loss": [2.0, 1.0], "variance_restored": [0.1, 0.4]})
    assert learning_curve(history, 2, "").axes[1].get_ylabel().startswith("hidden variance restored")
    plt.close("all")


@pytest.mark.slow
@pytest.mark.landing
def test_the_notebook_runs_headless_with_all_labels_gone(tiny_study, tmp_path, metaseg):
    study, layout = tmp_path / "tiny_pretraining.yaml", tmp_path / "runs/tiny"
    study.write_text(tiny_file("pretraining_epochs: 4\nhidden_edge: 4\n"))
    shutil.copytree(tiny_study.home / "runs/tiny/cases", layout / "cases")
    shutil.copytree(tiny_study.home / "runs/tiny/synthetic_cohort", layout / "synthetic_cohort")
    shutil.copy(tiny_study.home / "runs/tiny/dataset.json", layout)
    for name in ("label", "lesion_voxels", "lesion_boxes"):
        for path in layout.glob(f"cases/*/{name}.npy"):
            path.unlink()
    asked = ["--study", study, "--model", "segresnet", "--fold", "1", "--seed", "2"]
    result = metaseg(tmp_path, "run", "03b_pretrain", *asked)
    assert result.returncode == 0, result.stderr[-2000:]
    run = RunLayout(layout / "pretraining/seed2/segresnet/fold1")
    executed = nbformat.read(run.notebook("03b_pretrain"), as_version=4)
    assert "0 of them of the test set" in str(executed.cells[-1].outputs)
    metrics, best = json.loads(run.metrics.read_text()), load_checkpoint(run.best_checkpoint)
    assert metrics["variance_restored"] == best["variance_restored"]
    assert metrics["cases"]["training"] == sorted(best["identity"]["cases"])
    assert (metrics["fold"], metrics["settings"]["seed"], metrics["last_epoch"]) == (1, 2, 4)
    assert run.metrics.stat().st_mtime_ns >= max(path.stat().st_mtime_ns for path in (run.history, run.best_checkpoint))
