"""What a network learns from: annotated cases, and what the networks of an earlier arm make of the others."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from metaseg_nb.annotation.costs import NO_PHYSICIAN
from metaseg_nb.annotation.partial import RULE, Work, annotate, full_work, whole_volume
from metaseg_nb.annotation.ranking import follow_ranking, rank_cases
from metaseg_nb.annotation.results import in_arm
from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.folds import Split
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.subsets import nested_subset
from metaseg_nb.files import read_table
from metaseg_nb.inference.sliding_window import case_probability
from metaseg_nb.layout import RunLayout, StudyLayout
from metaseg_nb.preprocessing.annotation_store import UNKNOWN, store_annotation
from metaseg_nb.preprocessing.case_store import StoredCase, open_cases
from metaseg_nb.settings import Train, settings_hash
from metaseg_nb.training.checkpoints import identity_code, network_of
from metaseg_nb.training.finished_run import read_finished
from metaseg_nb.training.pretraining import load_unseen

# What the table says of cases that no physician annotated.
NOBODY, NETWORKS = NO_PHYSICIAN


@dataclass(frozen=True)
class TrainingSet:
    """Cases to train on, and what was done for them.

    Attributes
    ----------
    cases : list of StoredCase
    table : DataFrame
        A row for each case of training and selection set: ``case``, ``patient``, ``primary``, ``role`` ("training",
        "selection"), ``annotation`` (its kind, "none" or "self_training"), the fields of `Work`, ``known_share`` (of
        its voxels).
    ranking : DataFrame or None
        From `rank_patients`, where an arm follows one.
    """

    cases: list[StoredCase]
    table: pd.DataFrame
    ranking: pd.DataFrame | None

    def __str__(self) -> str:
        own = self.table[self.table["role"] == "training"]
        done = own[~own["annotation"].isin(NO_PHYSICIAN)]
        counts = {"slices contoured": "n_slices", "boxes": "n_boxes", "points": "n_points"}
        work = [f"{done[column].sum()} {name}" for name, column in counts.items() if done[column].sum()]
        work = ", ".join([f"{done['n_lesions'].sum()} lesions", *work])
        words = f"{done['patient'].nunique()} of {own['patient'].nunique()} training patients annotated ({work})"
        if guessed := (own["annotation"] == NETWORKS).sum():
            words += f"; {guessed} cases labelled by networks"
        if absent := sorted(set(own["primary"]) - set(done["primary"])):
            words += f"; no annotated patient with {', '.join(absent)}"
        return words


@dataclass(frozen=True)
class Teachers:
    """All networks of an earlier arm on one fold with one seed: they saw the same annotations, and no test patient.

    ``annotated`` are the names of the training cases that were fully annotated for them.
    """

    networks: list[tuple[torch.nn.Module, Train]]
    hashes: list[str]
    annotated: set[str]
    device: torch.device

    def probability(self, case: StoredCase) -> np.ndarray:
        """Mean of their lesion probabilities, float32 of shape (X, Y, Z)."""
        found = [case_probability(network, case, settings, self.device) for network, settings in self.networks]
        return sum(found) / np.float32(len(found))


def load_teachers(settings: Train, layout: StudyLayout, parts: Split, device: torch.device) -> Teachers:
    """Load the networks ``settings.models`` of the arm ``settings.teacher``, with the same seed, on the same fold.

    Raises
    ------
    CohortError
        With every one that is not finished; or one learned from a case outside the training set of ``parts``.
    """
    runs = [layout.run(model, settings.fold, settings.teacher, settings.seed) for model in sorted(settings.models)]
    problems = []
    for run in runs:
        try:
            read_finished(run)
        except CohortError as error:
            problems += in_arm(error.problems, settings.teacher, settings.seed)
    if problems:
        raise CohortError(problems)
    contents = [load_unseen(run.best_checkpoint, parts) for run in runs]
    trained = [(network_of(content, device), Train.check(content["identity"]["settings"])) for content in contents]
    table = read_table(runs[0].annotation_table)
    annotated = set(table.loc[(table["role"] == "training") & (table["annotation"] == "full"), "case"])
    return Teachers(trained, [identity_code(content["identity"]) for content in contents], annotated, device)


def annotated_training_set(
    parts: Split, settings: Train, layout: StudyLayout, run: RunLayout, device: torch.device
) -> TrainingSet:
    """Annotate the training part of a fold as an arm says; without an arm, in full.

    Parameters
    ----------
    parts : Split
    settings : Train
        ``annotated_share`` of the patients, by the kind of ``annotation``; the ``unannotated`` rest is unused, or
        labelled (self_training) or ranked beforehand (ranking) by the networks of the arm ``teacher``.
    layout : StudyLayout
    run : RunLayout
        Keeps the labels that networks make.
    device : torch.device

    Raises
    ------
    CohortError
        Fewer than two patients, or no lesion, would be annotated; or the teachers cannot be used.
    """
    stored = _opened(layout, parts.training)
    chosen = nested_subset(parts.training, settings.annotated_share, settings.seed)
    teachers = load_teachers(settings, layout, parts, device) if settings.teacher else None
    ranking = None
    if settings.unannotated == "ranking":
        first = [case for case in parts.training if case.name in teachers.annotated]
        pairs = [(case, stored[case.name]) for case in parts.training]
        ranking = rank_cases(pairs, teachers.annotated, teachers.probability)
        slices = {name: full_work(case.lesion_boxes).n_slices for name, case in stored.items()}
        chosen = follow_ranking(parts.training, first, list(ranking.index), slices, chosen)
    known = {case.name: (settings.annotation, *_annotated(stored[case.name], settings, layout)) for case in chosen}
    if not any(len(case.lesion_voxels) for _, case, _ in known.values()):
        found = f"no lesion in the annotated part of the training set ({settings.annotation})"
        fix = "annotate a larger share, or in another way"
        raise CohortError.one("-", "dataset.json", found, "a lesion to learn from", fix)
    nothing = {name: Work(len(case.lesion_boxes)) for name, case in stored.items() if name not in known}
    if settings.unannotated == "self_training":
        labels = {name: _labelled(stored[name], teachers, settings.confidence, run) for name in nothing}
        known |= {name: (NETWORKS, label, nothing[name]) for name, label in labels.items()}
    rows = [
        _row(case, "training", *known.get(case.name) or (NOBODY, None, nothing[case.name])) for case in parts.training
    ]
    selection = _opened(layout, parts.selection)
    for case in parts.selection:  # contoured in full in every arm
        rows.append(_row(case, "selection", "full", selection[case.name], full_work(selection[case.name].lesion_boxes)))
    return TrainingSet([case for _, case, _ in known.values()], pd.DataFrame(rows), ranking)


def _opened(layout: StudyLayout, cases: Sequence[Case]) -> dict[str, StoredCase]:
    return {stored.name: stored for stored in open_cases(layout.case_store, cases)}


def _annotated(case: StoredCase, settings: Train, layout: StudyLayout) -> tuple[StoredCase, Work]:
    """A case as it is annotated, and the work; arrays are written, not kept."""
    if settings.annotation == "full":
        return case, full_work(case.lesion_boxes)
    annotation = annotate(case.label > 0, case.grid.spacing_mm, settings)
    how = {name: getattr(settings, name) for name in ("annotation", "n_largest", "slice_step")} | RULE
    folder = layout.annotations / settings_hash(how)
    return store_annotation(folder, case, how, lambda: (annotation.label, annotation.boxes)), annotation.work


def _labelled(case: StoredCase, teachers: Teachers, confidence: float, run: RunLayout) -> StoredCase:
    """Give a case the label that its teachers are sure of; the rest is unknown."""

    def make() -> tuple[np.ndarray, np.ndarray]:
        probability = teachers.probability(case)
        label = np.full(probability.shape, UNKNOWN, np.uint8)
        label[probability >= confidence] = 1
        label[probability <= 1 - confidence] = 0
        return label, whole_volume(label)

    return store_annotation(run.pseudo_labels, case, {"teachers": teachers.hashes, "confidence": confidence}, make)


def _row(case: Case, role: str, annotation: str, known: StoredCase | None, work: Work) -> dict[str, Any]:
    who = {"case": case.name, "patient": case.patient, "primary": case.primary, "role": role}
    share = 0.0 if known is None else float((known.label != UNKNOWN).mean()) if known.annotation else 1.0
    return who | {"annotation": annotation, **asdict(work), "known_share": share}
