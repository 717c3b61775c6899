"""The training set: annotated cases, and cases labelled or ranked by the networks of an earlier arm."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import torch

from metaseg_nb.annotation.partial import PARTIAL_RULE, RULE_OF_LINES, RULE_OF_SLICES, Work, annotate, full_work
from metaseg_nb.annotation.planting import with_planted_lesions
from metaseg_nb.annotation.ranking import as_much_foreground, follow_ranking, rank_cases
from metaseg_nb.annotation.results import NO_PHYSICIAN, in_arm
from metaseg_nb.checksums import is_made_from, write_record
from metaseg_nb.cohort.cases import Case, LesionRule
from metaseg_nb.cohort.folds import Split, budget_of
from metaseg_nb.cohort.problems import CohortError, of_each, refusal
from metaseg_nb.files import read_table, write_table
from metaseg_nb.inference.sliding_window import case_probability
from metaseg_nb.layout import RunLayout, StudyLayout, parameter_file
from metaseg_nb.preprocessing.case_store import UNKNOWN, StoredCase, open_cases, store_annotation
from metaseg_nb.settings import Train, settings_hash
from metaseg_nb.training.checkpoints import identity_code, network_of
from metaseg_nb.training.finished_run import read_finished
from metaseg_nb.training.pretraining import load_unseen

# What the table says of cases that no physician annotated.
NOBODY, BY_NETWORKS, PLANTED = NO_PHYSICIAN


@dataclass(frozen=True)
class TrainingSet:
    """Cases to train on, and to choose epoch and threshold on, and what was done for them.

    Attributes
    ----------
    cases, selection : list of StoredCase
    table : DataFrame
        A row for each case of training and selection set: ``case``, ``patient``, ``primary``, ``role`` ("training",
        "selection"), ``annotation`` (its kind, or one of `NO_PHYSICIAN`), the fields of `Work`, ``known_share`` (of
        its voxels).
    """

    cases: list[StoredCase]
    selection: list[StoredCase]
    table: pd.DataFrame

    @property
    def n_selecting(self) -> int:
        """Patients of the selection set whom a physician annotated: they choose epoch and decision."""
        chooses = (self.table["role"] == "selection") & (self.table["annotation"] == "full")
        return self.table.loc[chooses, "patient"].nunique()

    @property
    def absent(self) -> list[str]:
        """Primary cancers of training patients none of whom a physician annotated."""
        own = self.table[self.table["role"] == "training"]
        return sorted(set(own["primary"]) - set(own.loc[~own["annotation"].isin(NO_PHYSICIAN), "primary"]))


@dataclass(frozen=True)
class Teachers:
    """Networks of an earlier arm on one fold with one seed: they saw the same annotations, and no test patient.

    ``annotated`` are the names of the training cases that were fully annotated for them.
    """

    networks: list[tuple[torch.nn.Module, Train]]
    hashes: list[str]
    annotated: set[str]
    device: torch.device

    def probability(self, case: StoredCase) -> np.ndarray:
        """Mean of their lesion probabilities, float32 of shape (X, Y, Z)."""
        found = [case_probability(network, case, settings, self.device) for network, settings in self.networks]
        return np.sum(found, axis=0) / np.float32(len(found))


def load_teachers(settings: Train, layout: StudyLayout, parts: Split, device: torch.device) -> Teachers:
    """Load the networks ``settings.models`` of the arm ``settings.teacher``, with the same seed, on the same fold.

    Raises
    ------
    CohortError
        With every one that is not finished; or one learned from a case outside the training set of ``parts``; or
        those that rank together learned from different patients.
    """
    models = sorted(settings.models)
    runs = {model: layout.run(model, settings.fold, settings.teacher, settings.seed) for model in models}
    try:
        of_each(read_finished, runs.values())
    except CohortError as error:
        raise CohortError(in_arm(error.problems, settings.teacher, settings.seed)) from error
    contents = [load_unseen(run.best_checkpoint, parts) for run in runs.values()]
    # unchecked: of other versions some settings may be lacking, or none any more
    settings_of = [Train.model_construct(**content["identity"]["settings"]) for content in contents]
    trained = [(network_of(content, device), own) for content, own in zip(contents, settings_of, strict=True)]
    tables = [read_table(run.annotation_table) for run in runs.values()]
    known = [set(table.loc[table["role"].eq("training") & table["annotation"].eq("full"), "case"]) for table in tables]
    if settings.unannotated != "self_training" and any(cases != known[0] for cases in known):
        where = f"{settings.teacher}, seed {settings.seed}, fold {settings.fold}"
        found, arm = f"{' and '.join(models)} learned from different patients", parameter_file("arm", settings.arm).name
        raise refusal("ranked together", where, "annotation.csv", found, arm=arm)
    return Teachers(trained, [identity_code(content["identity"]) for content in contents], known[0], device)


def annotated_training_set(
    parts: Split,
    settings: Train,
    layout: StudyLayout,
    run: RunLayout,
    device: torch.device,
    rule: LesionRule | None = None,
) -> TrainingSet:
    """Annotate training and selection set of a fold as an arm says; without an arm, in full.

    Parameters
    ----------
    parts : Split
    settings : Train
        ``annotated_share`` of the patients of both sets (`budget_of`): those to train on by the kind of
        ``annotation``, those of the selection set in full. The ``unannotated`` rest of the training set is unused,
        or labelled (self_training) or ranked beforehand (ranking, foreground_random) by the networks of the arm
        ``teacher``, or gets planted lesions. Without any annotation the selection set gets them too.
    layout : StudyLayout
    run : RunLayout
        Keeps the labels or the ranking that networks make, so that they are made once.
    device : torch.device
    rule : LesionRule, optional
        What the labels must be made by; see `open_cases`.

    Raises
    ------
    CohortError
        Fewer than two patients, or no lesion, would be annotated; or the teachers cannot be used.
    """
    stored = {case.name: case for case in open_cases(layout.case_store, [*parts.training, *parts.selection], rule)}
    if settings.arm and any(case.earlier for case in stored.values()):
        found = "images with the masks of earlier dates, which this arm does not annotate"
        raise refusal("images alone", "-", layout.case_store, found)
    budget = budget_of(parts, settings.annotated_share, settings.seed)
    chosen = budget.training
    if settings.unannotated in ("ranking", "foreground_random"):
        teachers = load_teachers(settings, layout, parts, device)
        first = [case for case in parts.training if case.name in teachers.annotated]
        slices = {case.name: sum(stored[case.name].slices) for case in parts.training}
        ranked = _ranking(parts.training, stored, teachers, run)
        chosen = follow_ranking(parts.training, first, ranked["patient"], slices, even=budget.training)
        if settings.unannotated == "foreground_random":
            added = {case.patient for case in chosen} - {case.patient for case in first}
            order = as_much_foreground(ranked, len(added), settings.seed)
            chosen = follow_ranking(parts.training, first, order, slices, even=budget.training)
    known = {case.name: (settings.annotation, *_annotated(stored[case.name], settings, layout)) for case in chosen}
    selection = [stored[case.name] for case in budget.selection]
    if settings.unannotated == "planted":
        rest = [stored[case.name] for case in parts.training if case.name not in known]
        known |= {case.name: _planted(case, settings, layout) for case in rest}
        selection = selection or [_planted(stored[case.name], settings, layout)[1] for case in parts.selection]
    if not any(len(case.lesion_voxels) for _, case, _ in known.values()):
        found = f"no lesion in the annotated part of the training set ({settings.annotation})"
        raise refusal("lesion to learn", "-", "dataset.json", found)
    nothing = {name: (NOBODY, None, Work(len(case.slices))) for name, case in stored.items()}
    if settings.unannotated == "self_training":
        teachers = load_teachers(settings, layout, parts, device)
        for case in (stored[case.name] for case in parts.training if case.name not in known):
            label = _labelled(case, teachers, settings.confidence, run)
            known[case.name] = BY_NETWORKS, label, Work(len(case.slices))
    chosen_on = {case.name: ("full", case, full_work(case.slices)) for case in selection if not case.annotation}
    all_known, roles = nothing | known | chosen_on, {"training": parts.training, "selection": parts.selection}
    rows = [_row(case, role, *all_known[case.name]) for role, cases in roles.items() for case in cases]
    return TrainingSet([case for _, case, _ in known.values()], selection, pd.DataFrame(rows))


def _ranking(
    cases: Sequence[Case], stored: Mapping[str, StoredCase], teachers: Teachers, run: RunLayout
) -> pd.DataFrame:
    """From `rank_cases`: as the run keeps it, if these teachers ranked these cases, or ranked now."""
    made_with = {"teachers": teachers.hashes, "cases": {case.name: stored[case.name].identity for case in cases}}
    code = {"made_with": settings_hash(made_with)}
    if not is_made_from(run.ranking_record, code):
        pairs = [(case, stored[case.name]) for case in cases]
        write_table(run.ranking_table, rank_cases(pairs, teachers.annotated, teachers.probability).reset_index())
        write_record(run.ranking_record, code, [run.ranking_table])
    return read_table(run.ranking_table)


def _annotated(case: StoredCase, settings: Train, layout: StudyLayout) -> tuple[StoredCase, Work]:
    """A case as it is annotated, and the work; arrays are written, not kept."""
    if settings.annotation == "full":
        return case, full_work(case.slices)
    label, work = annotate(case.label > 0, case.image[0], case.grid, case.native, settings, case.slices)
    how = {name: getattr(settings, name) for name in ("annotation", "n_largest", "slice_step")} | PARTIAL_RULE
    how |= {"lines": RULE_OF_LINES, "slices": RULE_OF_SLICES}.get(settings.annotation, {})
    folder = layout.annotations / settings_hash(how)
    return store_annotation(folder, case, how, lambda: (label, None)), work


def _planted(case: StoredCase, settings: Train, layout: StudyLayout) -> tuple[str, StoredCase, Work]:
    return PLANTED, with_planted_lesions(case, settings.seed, layout.annotations), Work(len(case.slices))


def _labelled(case: StoredCase, teachers: Teachers, confidence: float, run: RunLayout) -> StoredCase:
    """Give a case the label that its teachers are sure of; the rest is unknown."""

    def make() -> tuple[np.ndarray, None]:
        probability = teachers.probability(case)
        label = np.full(probability.shape, UNKNOWN, np.uint8)
        label[probability >= confidence] = 1
        label[probability <= 1 - confidence] = 0
        return label, None

    return store_annotation(run.pseudo_labels, case, {"teachers": teachers.hashes, "confidence": confidence}, make)


def _row(case: Case, role: str, annotation: str, known: StoredCase | None, work: Work) -> dict[str, str | float]:
    who = {"case": case.name, "patient": case.patient, "primary": case.primary, "role": role}
    share = 0.0 if known is None else float((known.label != UNKNOWN).mean()) if known.annotation else 1.0
    return who | {"annotation": annotation, **asdict(work), "known_share": share}
