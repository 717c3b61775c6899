"""Checkpoints: everything needed to continue a run, or to predict; and to see that no two runs are mixed."""

import shutil
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, cast

import torch

from metaseg_nb.checksums import damage, read_record
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.files import finished
from metaseg_nb.layout import RunLayout
from metaseg_nb.machine import LIBRARIES, versions
from metaseg_nb.settings import differences, in_words, settings_hash, what_decides
from metaseg_nb.training.finished_run import run_name
from metaseg_nb.training.networks import build_network, prediction_layout

if TYPE_CHECKING:
    from metaseg_nb.training.patches import PatchBatches

TRAIN_AGAIN = "To train the network again, delete its folder, then run notebook 03 (03b for a pretraining)"
# Choosing an epoch on fewer patients costs more than it gains (benchmarks/README.md, what choosing costs).
ENOUGH_PATIENTS = 20


def identity_code(identity: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that are the same for runs that compute the same."""
    return settings_hash(what_decides(identity))


def save_checkpoint(path: Path, state: dict[str, Any], previous: Path | None = None) -> None:
    """Save plain values and tensors; whole or not at all. The file that was there is kept as ``previous``."""
    with finished(path) as unfinished:
        torch.save(state, unfinished)
        if previous and path.exists():
            path.replace(previous)


def load_last(run: RunLayout) -> dict[str, Any] | None:
    """Load what a stopped run goes on from; None when there is nothing.

    Where the last checkpoint is damaged or missing, the one before takes its place.

    Raises
    ------
    ValueError
        All checkpoints there are, are damaged.
    """
    problem = None
    for path in filter(Path.exists, (run.last_checkpoint, run.previous_checkpoint)):
        try:
            content = _read(path)
        except ValueError as error:
            problem = error
            continue
        if problem:
            print(f"{problem}. Training continues from {path.name} instead.")
        path.replace(run.last_checkpoint)  # or the next save would keep the damaged one as the one before
        return content
    if problem:
        raise ValueError(f"{problem}. {TRAIN_AGAIN}") from problem
    return None


def load_ended(run: RunLayout) -> dict[str, Any] | None:
    """Load best.pt of a training that ended, which holds its whole ``history``; None before the end."""
    best = load_checkpoint(run.best_checkpoint) if run.best_checkpoint.is_file() else {}
    return best if best.get("history") else None


def keep_weights(run: RunLayout, patients: int) -> dict[str, Any]:
    """Decide which weights of an ended training predict: those of the last epoch, or of the epoch that was chosen.

    An epoch is chosen only by a selection set of `ENOUGH_PATIENTS` or more. The other weights go to ``other.pt``, so
    that notebook 04 can show what the rule costs. Where the last epoch was chosen, there are no others.

    Parameters
    ----------
    run : RunLayout
    patients : int
        In the selection set.

    Returns
    -------
    dict
        What ``best.pt`` now holds. Its ``weights`` are "last" or "chosen"; ``epoch`` is theirs, and ``other_epoch``
        that of the others.

    Raises
    ------
    CohortError
        An earlier version finished this run, and deleted the last epoch's weights.
    """
    best = load_checkpoint(run.best_checkpoint)
    if "weights" in best:
        return best
    last = load_last(run)
    if last is None:
        raise earlier_version(run)
    of_last = {key: best["history"][-1][key] for key in ("epoch", "dice")}
    last, chosen = best | of_last | {"network": last["network"], "weights": "last"}, best | {"weights": "chosen"}
    kept, other = (chosen, last) if patients >= ENOUGH_PATIENTS else (last, chosen)
    if kept["epoch"] != other["epoch"]:
        save_checkpoint(run.other_checkpoint, other)
    kept["other_epoch"] = other["epoch"]
    save_checkpoint(run.best_checkpoint, kept)
    return kept


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint onto the CPU; nothing is unpickled but plain values and tensors.

    Raises
    ------
    FileNotFoundError
        The file is missing.
    ValueError
        It is damaged, of another program, or holds weights that are not finite.
    """
    run, advice = RunLayout(path.parent), TRAIN_AGAIN
    if not any(file.is_file() for file in (run.last_checkpoint, run.previous_checkpoint, run.metrics)):
        advice = "Give the best.pt of a run, or train this network first (notebook 03)"
    elif run.last_checkpoint.is_file() and path != run.last_checkpoint:
        advice += f". {run.last_checkpoint.name} in the same folder can predict too, with the weights of the last epoch"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint. {advice}")
    try:
        return _read(path)
    except ValueError as error:
        raise ValueError(f"{error}. {advice}") from error


def _read(path: Path) -> dict[str, Any]:
    """Read a checkpoint; raise ValueError with its path where it cannot be trusted."""
    try:
        with zipfile.ZipFile(path) as archive:
            # torch looks at neither: one flipped bit gives other weights, or a tensor that is taken for a folder
            whole = archive.testzip() is None and not any(member.external_attr for member in archive.infolist())
        content = torch.load(path, map_location="cpu", weights_only=True) if whole else {}
        if not all(isinstance(content["identity"][part], dict) for part in ("settings", "recipe")):
            raise TypeError("no settings, or no recipe")
        broken = [name for name, weights in content["network"].items() if not weights.isfinite().all()]
    except Exception as error:  # of many kinds, and torch's text advises to load the file unsafely
        found = "not a complete checkpoint of this workbook: damaged, or written by another program"
        raise ValueError(f"{path}: {found}") from error
    if broken:
        found = f"{len(broken)} of {len(content['network'])} tensors, such as {broken[0]}"
        raise ValueError(f"{path}: weights that are not finite in {found}")
    return content


def network_of(
    checkpoint: Mapping[str, Any], device: torch.device, name: Path | str = "this checkpoint"
) -> torch.nn.Module:
    """Rebuild the trained network of a checkpoint, ready to predict.

    Raises
    ------
    ValueError
        The weights are not those of the network that the checkpoint describes; ``name`` says whose.
    """
    settings, recipe = (checkpoint["identity"][part] for part in ("settings", "recipe"))
    try:
        network = build_network(settings["network"], settings["width"], settings["patch_size"], recipe["sequences"])
        if "landmarks" in checkpoint["network"]:
            network.register_buffer("landmarks", torch.empty_like(checkpoint["network"]["landmarks"]))
        network.load_state_dict(checkpoint["network"])
        layout = prediction_layout(settings["network"], settings["precision"], device)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        others = other_versions(checkpoint)
        made = f"; it was made with {others}" if others else ""
        found = f"weights that do not fit the network it describes{made} ({shorten(str(error), 200)})"
        raise ValueError(f"{name}: {found}") from error
    return cast(Any, network).to(device, memory_format=layout).eval()


def other_versions(checkpoint: Mapping[str, Any]) -> str:
    """Libraries of which a checkpoint was made with another version than is here; empty where there is none."""
    then, now = checkpoint.get("versions", {}), versions()
    return ", ".join(
        f"{name} {then[name]} (here {now[name]})"
        for name in map(str.lower, LIBRARIES)
        # +cpu and +cu130 are builds of one version
        if name in then and then[name].split("+")[0] != now[name].split("+")[0]
    )


def is_finished(run: RunLayout, batches: "PatchBatches", facts: Mapping[str, Any] | None = None) -> bool:
    """Tell whether a run is finished, so that it is shown and not made again.

    Parameters
    ----------
    run : RunLayout
    batches : PatchBatches
        What is trained, and with what settings.
    facts : mapping, optional
        What ``metrics.json`` must say too, such as with which labels the run was scored.

    Returns
    -------
    bool
        False too where a table or a prediction of a finished run is lost or was changed, or where ``facts`` are
        others now: then the test set is predicted and scored again, with the same weights.

    Raises
    ------
    CohortError
        The run was finished with other settings, cases or labels in training; or by an earlier version, which did not
        note all ``facts``.
    """
    require_same(run, batches.identity())
    if not run.metrics.is_file() or damage(run.metrics):
        return False
    record, facts = read_record(run.metrics), facts or {}
    if not facts.keys() <= record.keys():
        raise earlier_version(run)
    return all(record[name] == value for name, value in facts.items())


def earlier_version(run: RunLayout) -> CohortError:
    """The error of a finished run of which the last epoch's weights were deleted before the test set was predicted."""
    found = "a run that an earlier version trained and finished, without the last epoch's weights"
    fix = "give the study another name and train it again; `predict` can still use this best.pt"
    return CohortError.one(run.root.parent.name, str(run.best_checkpoint), found, "a run of this version", fix)


def require_same(run: RunLayout, identity: Mapping[str, Any]) -> None:
    """Refuse to go on where a run was finished that differs; see `is_finished`."""
    if not run.metrics.is_file():
        return
    if differing := differences(load_checkpoint(run.best_checkpoint)["identity"], identity):
        found = f"a finished run with other settings ({in_words(differing)})"
        fix = f"give the new run another study name; or, to train this one again, delete the folder {run.root} yourself"
        raise CohortError.one(run_name(run), str(run.metrics), found, "the settings of the finished run", fix)


def make_room(run: RunLayout, identity: Mapping[str, Any]) -> None:
    """Move what an unfinished run of other settings left into ``superseded_<code>``; move back a run of these settings.

    A run is also unfinished where Snakemake, given a changed study file, has deleted its metrics.json.

    Raises
    ------
    CohortError
        The run that is there is finished, and of other settings.
    """
    require_same(run, identity)
    if left := load_last(run) or load_ended(run):
        if not (differing := differences(left["identity"], identity)):
            return
        folder = run.root / f"superseded_{identity_code(left['identity'])}"
        # what training goes on from is moved last, so that an interrupted move is done again
        _move([*run.results, *run.trained], folder)
        print(f"An earlier run had other settings ({in_words(differing)}). It is kept in {folder.name}.")
    earlier = RunLayout(run.root / f"superseded_{identity_code(identity)}")
    if any(path.exists() for path in earlier.trained):
        _move(earlier.trained, run.root)
        print("An earlier run with these settings is continued.")


def _move(paths: Iterable[Path], into: Path) -> None:
    """Move files and folders; those of the same name, of an earlier run of the same settings, are replaced."""
    into.mkdir(exist_ok=True)
    for path in paths:
        if path.exists():
            target = into / path.name
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
            path.replace(target)
