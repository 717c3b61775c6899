"""Patients and their cases."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Case:
    """One volume, with its mask where there is one.

    ``images`` are the sequences; the first one, contrast-enhanced T1, is shown and measured, and
    has the grid of the masks: that of the lesions, and that of the ``brain``, where the cohort comes with one.
    ``lacking`` are the numbers, from 1, of the study's sequences that the case lacks: ``images`` are the others.
    ``n_lesions`` is set once the mask was read.
    ``patient`` is empty only until `with_patients` has set it. ``site`` is the hospital or scanner that the images
    come from. ``day`` counts from the patient's first date (`with_days`).

    A mask that was drawn by hand (notebook 08) has a ``reader``, the active ``minutes`` that it took, and what it was
    ``begun_with``. If the case has a fold, ``n_lesions_before`` counts the lesions of the mask that the cohort came
    with, 0 without one: folds and selection sets are balanced by it, and so stay as they were.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None
    patient: str
    primary: str
    fold: int | None = None
    n_lesions: int | None = None
    site: str = "unknown"
    scanner: str = "unknown"
    date: str = "unknown"
    reader: str = ""
    minutes: float | None = None
    begun_with: str = ""
    n_lesions_before: int | None = None
    brain: Path | None = None
    lacking: tuple[int, ...] = ()
    day: int | None = None

    @property
    def image(self) -> Path:
        """The first sequence."""
        return self.images[0]

    @property
    def sequences(self) -> int:
        """Number of sequences, with those that it lacks."""
        return len(self.images) + len(self.lacking)

    @property
    def files(self) -> list[Path]:
        """All files of the case, images first."""
        return [*self.images, *(mask for mask in (self.label, self.brain) if mask)]

    @property
    def burden(self) -> int:
        """Lesions that folds, selection sets and budgets are balanced by."""
        return (self.n_lesions or 0) if self.n_lesions_before is None else self.n_lesions_before

    @property
    def without_label(self) -> "Case":
        """The same case for work that may read no label."""
        return replace(self, label=None)


@dataclass(frozen=True)
class LesionRule:
    """Which voxels of a label file are lesion.

    Parameters
    ----------
    values : tuple of int
        Label values that are lesion.
    other_values : tuple of int
        Values that are something else, such as oedema, and count as background.
    threshold : float
        Above 0 masks are grey (0 to 1, or 0 to 255): brighter voxels are lesion,
        and ``values`` and ``other_values`` are not used.
    """

    values: tuple[int, ...] = (1,)
    other_values: tuple[int, ...] = ()
    threshold: float = 0.0

    def as_json(self) -> dict[str, list[int] | float]:
        """The rule as JSON files hold it."""
        return {"values": list(self.values), "other_values": list(self.other_values), "threshold": self.threshold}


@dataclass(frozen=True)
class Cohort:
    """Patients and their cases.

    ``cases`` have a label and take part in cross-validation, ``unlabelled``
    ones can only be predicted. ``training_only`` were labelled by hand later: they are in the training set of every
    fold, have no fold, and are never tested. With ``folds_by`` "site" each fold is a site: such cases of it are
    left out of its training set. ``patients_from`` says where their patients come from.
    """

    name: str
    description: str
    cases: list[Case]
    unlabelled: list[Case] = field(default_factory=list)
    rule: LesionRule = LesionRule()
    seed: int = 0
    folds_by: str = "patient"
    patients_from: str = field(default="", compare=False)
    training_only: list[Case] = field(default_factory=list)

    @property
    def labelled(self) -> list[Case]:
        """Cases of the cross-validation, then those that are only for training."""
        return [*self.cases, *self.training_only]

    @property
    def all_cases(self) -> list[Case]:
        """Labelled cases, then unlabelled ones."""
        return [*self.labelled, *self.unlabelled]

    @classmethod
    def of(cls, name: str, description: str, cases: Iterable[Case], **others: Any) -> "Cohort":
        """Divide cases by what they can be used for: where some have a fold, later masks are only for training."""
        cases = list(cases)
        folds = any(case.fold is not None for case in cases if case.label)
        later = [case for case in cases if folds and case.label and case.reader and case.fold is None]
        labelled = [case for case in cases if case.label and case not in later]
        unlabelled = [case for case in cases if not case.label]
        return cls(name, description, labelled, unlabelled, training_only=later, **others)

    def changed(self, change: Callable[[Case], Case | None], **others: str) -> "Cohort":
        """Replace each case by ``change(case)``, where None leaves it out; set ``others`` too."""
        parts = {"cases": self.cases, "training_only": self.training_only, "unlabelled": self.unlabelled}
        new = {part: [one for case in of if (one := change(case)) is not None] for part, of in parts.items()}
        return replace(self, **new, **others)

    @property
    def n_folds(self) -> int:
        """Number of folds of the cross-validation."""
        return len({case.fold for case in self.cases})


def case_named(cases: Iterable[Case], name: str) -> Case:
    """Find a case by name."""
    return next(case for case in cases if case.name == name)
