"""What a network may learn from: annotated cases, and what the others are used for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from metaseg_nb.annotation.partial import RULE, Work, annotate, full_work
from metaseg_nb.annotation.ranking import by_patient, follow_ranking, outlook_of, rank_patients
from metaseg_nb.annotation.teachers import Teachers, load_teachers
from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.folds import Split
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.subsets import nested_subset
from metaseg_nb.layout import RunLayout, StudyLayout
from metaseg_nb.preprocessing.annotation_store import UNKNOWN, store_annotation
from metaseg_nb.preprocessing.case_store import StoredCase, open_cases
from metaseg_nb.settings import Train, settings_hash

# What the table says of cases that no physician marked.
NOBODY, NETWORKS = "none", "self_training"


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
        done = own[~own["annotation"].isin([NOBODY, NETWORKS])]
        counts = {"slices outlined": "n_slices", "boxes": "n_boxes", "points": "n_points"}
        work = [f"{done[column].sum()} {name}" for name, column in counts.items() if done[column].sum()]
        work = ", ".join([f"{done['n_lesions'].sum()} lesions", *work])
        words = f"{done['patient'].nunique()} of {own['patient'].nunique()} training patients annotated ({work})"
        if guessed := (own["annotation"] == NETWORKS).sum():
            words += f"; {guessed} cases labelled by networks"
        if absent := sorted(set(own["primary"]) - set(done["primary"])):
            words += f"; no annotated patient with {', '.join(absent)}"
        return words


def annotated_training_set(
    parts: Split, settings: Train, layout: StudyLayout, run: RunLayout, device: torch.device
) -> TrainingSet:
    """Annotate the training part of a fold as an arm says; without an arm, everything there is.

    Parameters
    ----------
    parts : Split
    settings : Train
        ``annotated_share`` of the patients, by the kind of ``annotation``; what is ``unannotated`` is unused, or
        labelled (self_training) by the networks of the arm ``teacher``, or was put in order by them first (ranking).
    layout : StudyLayout
    run : RunLayout
        Labels that networks make are kept here.
    device : torch.device

    Raises
    ------
    CohortError
        Fewer than two patients would be annotated, or no lesion; or the teachers cannot be used.
    """
    stored = _open(layout, parts.training)
    chosen, ranking, labelled = nested_subset(parts.training, settings.annotated_share, settings.seed), None, {}
    teachers = load_teachers(settings, layout, parts, device) if settings.teacher else None
    if settings.unannotated == "ranking":
        first = [case for case in parts.training if case.name in teachers.annotated]
        ranking = _ranking(parts.training, stored, first, teachers)
        slices = {name: full_work(case.lesion_boxes).n_slices for name, case in stored.items()}
        chosen = follow_ranking(parts.training, first, list(ranking.index), slices, chosen)
    done = {case.name: _annotated(stored[case.name], settings, layout) for case in chosen}
    known = {name: case for name, (case, _) in done.items()}
    _require_lesions(known.values(), settings)
    if settings.unannotated == "self_training":
        rest = [case for name, case in stored.items() if name not in known]
        labelled = {case.name: _labelled(case, teachers, settings.confidence, run) for case in rest}
    rows = []
    for case in parts.training:
        nothing = labelled.get(case.name), Work(len(stored[case.name].lesion_boxes))
        kind = settings.annotation if case.name in done else NETWORKS if case.name in labelled else NOBODY
        rows.append(_row(case, "training", kind, *done.get(case.name, nothing)))
    selection = _open(layout, parts.selection)
    for case in parts.selection:  # outlined in full, whatever the arm
        opened = selection[case.name]
        rows.append(_row(case, "selection", "full", opened, full_work(opened.lesion_boxes)))
    return TrainingSet([*known.values(), *labelled.values()], pd.DataFrame(rows), ranking)


def _open(layout: StudyLayout, cases: Sequence[Case]) -> dict[str, StoredCase]:
    return {stored.name: stored for stored in open_cases(layout.case_store, cases)}


def _annotated(case: StoredCase, settings: Train, layout: StudyLayout) -> tuple[StoredCase, Work]:
    """A case as it is annotated, and what that takes; arrays are written, not kept."""
    if settings.annotation == "full":
        return case, full_work(case.lesion_boxes)
    annotation = annotate(case.label > 0, case.grid.spacing_mm, settings)
    how = {name: getattr(settings, name) for name in ("annotation", "n_largest", "slice_step")} | RULE
    folder = layout.annotations / settings_hash(how)
    return store_annotation(folder, case, how, lambda: (annotation.label, annotation.boxes)), annotation.work


def _require_lesions(cases: Iterable[StoredCase], settings: Train) -> None:
    if not any(len(case.lesion_voxels) for case in cases):
        raise CohortError.one(
            "-",
            "dataset.json",
            f"no lesion in the annotated part of the training set ({settings.annotation})",
            "a lesion to learn from",
            "annotate a larger share, or in another way",
        )


def _labelled(case: StoredCase, teachers: Teachers, confidence: float, run: RunLayout) -> StoredCase:
    """Give a case the label that its teachers are sure of; the rest is unknown."""

    def make() -> tuple[np.ndarray, np.ndarray]:
        probability = teachers.probability(case)
        label = np.full(probability.shape, UNKNOWN, np.uint8)
        label[probability >= confidence] = 1
        label[probability <= 1 - confidence] = 0
        return label, np.array([[[0, n] for n in label.shape]])

    how = {"teachers": teachers.hashes, "confidence": confidence}
    return store_annotation(run.root / "pseudo_labels", case, how, make)


def _ranking(
    cases: Sequence[Case], stored: Mapping[str, StoredCase], first: Sequence[Case], teachers: Teachers
) -> pd.DataFrame:
    """Put the patients who are not annotated in order."""
    known = {case.name for case in first}
    rows = {case: outlook_of(stored[case.name], None if case.name in known else teachers.probability) for case in cases}
    return rank_patients(by_patient(rows), sorted({case.patient for case in first}))


def _row(case: Case, role: str, annotation: str, known: StoredCase | None, work: Work) -> dict[str, Any]:
    who = {"case": case.name, "patient": case.patient, "primary": case.primary, "role": role}
    return who | {"annotation": annotation, **asdict(work), "known_share": _known_share(known)}


def _known_share(case: StoredCase | None) -> float:
    if case is None:
        return 0.0
    return float((case.label != UNKNOWN).mean()) if case.annotation else 1.0
