"""Cases to annotate, each with what its drawing begins with; the next ones are made ready while one is annotated."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from threading import Lock

import numpy as np
import pandas as pd
import torch

from metaseg_nb.annotation.readings import MASK, NOTHING, PROPOSAL, Beginning
from metaseg_nb.checksums import checksum, is_made_from, write_record
from metaseg_nb.cohort.cases import Case, Cohort, case_named
from metaseg_nb.cohort.datalist import read_written
from metaseg_nb.cohort.problems import CohortError, broken, refusal
from metaseg_nb.cohort.volumes import Volume, read_lesions, read_mask, read_volume
from metaseg_nb.files import read_table, write_table
from metaseg_nb.inference.ensemble import Ensemble, load_ensemble
from metaseg_nb.inference.predict import predict_image
from metaseg_nb.layout import StudyLayout
from metaseg_nb.settings import THRESHOLD_MODEL

# Cases that are made ready ahead.
AHEAD = 3
RANDOMISED = "randomised"


@dataclass(frozen=True)
class Prepared:
    """A case that is ready to be annotated.

    Attributes
    ----------
    case : Case
    image : Volume
        First sequence, RAS.
    beginning : Beginning
    probability : ndarray of float32, shape (X, Y, Z)
        Of lesion, on the image's grid; zeros where the reader works without the networks' help, as always where the
        case has a mask: networks learned from that mask, or are tested on it.
    """

    case: Case
    image: Volume
    beginning: Beginning
    probability: np.ndarray


def cases_to_annotate(layout: StudyLayout, cohort: Cohort, names: Sequence[str]) -> list[Case]:
    """The cases with these names; without names those that have no mask, in the order of ``rank`` where there is one.

    Raises
    ------
    CohortError
        With every name that no case has; or every case has a mask.
    """
    known = {case.name: case for case in cohort.all_cases}
    if unknown := [name for name in names if name not in known]:
        words = {"n": len(known), "example": next(iter(known))}
        raise CohortError(broken("named to annotate", name, "annotate", "no such case", **words) for name in unknown)
    if names:
        return [known[name] for name in dict.fromkeys(names)]
    if not cohort.unlabelled:
        raise refusal("cases to annotate", "-", layout.dataset, "a mask for every case")
    rank = {}
    if layout.next_patients_table.is_file():
        rank = read_table(layout.next_patients_table).set_index("patient")["rank"].to_dict()
    return sorted(cohort.unlabelled, key=lambda case: (rank.get(case.patient, len(rank) + 1), case.name))


def proposing_network(layout: StudyLayout, model: str) -> str:
    """The network that proposes: the one that is asked for, or the one with the highest lesion-wise Dice in 04.

    Returns "" where none is asked for and 04 has compared none yet.
    """
    if model or not layout.leaderboard.is_file():
        return model
    board = read_written(layout, layout.leaderboard)
    networks = board[board["model"] != THRESHOLD_MODEL]
    return str(networks.loc[networks["lesion_dice"].idxmax(), "model"])


def assistance_of(layout: StudyLayout, cases: Sequence[Case], reader: str, rule: str, seed: int) -> pd.Series:
    """Say for each case, before anything is drawn, whether its reader gets a proposal.

    Randomised, one of each two cases in a row has a proposal, drawn from the seed and the reader. The draw is kept in
    ``annotations_by_hand/<reader>/assistance.csv``, and holds: only new cases are added.

    Parameters
    ----------
    layout : StudyLayout
    cases : sequence of Case
    reader : str
    rule : str
        `PROPOSAL`, `NOTHING` or `RANDOMISED`.
    seed : int

    Returns
    -------
    Series of str
        `PROPOSAL` or `NOTHING`; the index is the name of the case.
    """
    names = [case.name for case in cases]
    if rule != RANDOMISED:
        return pd.Series(rule, names)
    path = layout.by_hand / reader / "assistance.csv"
    drawn = read_table(path).set_index("case")["assistance"].to_dict() if path.is_file() else {}
    new = [name for name in names if name not in drawn]
    rng = np.random.default_rng([seed, len(drawn), *reader.encode()])
    for start in range(0, len(new), 2):
        drawn |= zip(new[start : start + 2], rng.permutation([PROPOSAL, NOTHING]).tolist(), strict=False)
    write_table(path, pd.DataFrame({"case": drawn.keys(), "assistance": drawn.values()}))
    return pd.Series(drawn)[names]


@dataclass
class Waiting:
    """The cases to annotate, in order; while one is annotated, the next `AHEAD` are made ready.

    Parameters
    ----------
    layout : StudyLayout
    cohort : Cohort
    cases : list of Case
    assistance : Series of str
        From `assistance_of`.
    by_chance : bool
        Whether chance decided it.
    model : str
        From `proposing_network`; "": no case has a proposal.
    device : torch.device
    """

    layout: StudyLayout
    cohort: Cohort
    cases: list[Case]
    assistance: pd.Series
    by_chance: bool
    model: str
    device: torch.device

    def __post_init__(self):
        self._worker = ThreadPoolExecutor(1, "proposals")
        self._ready: dict[str, Future[Prepared]] = {}
        self._asking = Lock()  # two cases may be asked for at once, from two threads

    def prepared(self, name: str) -> Prepared:
        """The case of this name, as soon as it is ready.

        Raises
        ------
        CohortError, ValueError, FileNotFoundError
            Its image, its mask or the networks cannot be used.
        """
        names = [case.name for case in self.cases]
        soon = names[names.index(name) :][: 1 + AHEAD]
        with self._asking:
            for other in self._ready.keys() - set(soon):
                self._ready.pop(other).cancel()  # a case that is opened out of turn does not wait for those before it
            kept = {name: made for name, made in self._ready.items() if not (made.done() and made.exception())}
            self._ready = {name: kept.get(name) or self._worker.submit(self._prepare, name) for name in soon}
            asked = self._ready[name]
        return asked.result()

    def close(self) -> None:
        """Make no more cases ready; the one that is being made is finished."""
        self._worker.shutdown(cancel_futures=True)

    @cached_property
    def _ensemble(self) -> Ensemble:
        try:
            return load_ensemble(self.layout.root / self.model, self.device)
        except FileNotFoundError as error:
            advice = "name another network in `proposals_from`, or go on without: `assistance: nothing`"
            raise FileNotFoundError(f"{error}. {self.model} was to propose. Or {advice}") from error

    def _prepare(self, name: str) -> Prepared:
        case = case_named(self.cases, name)
        image = read_volume(case.image, name)
        helped = self.model and self.assistance[name] == PROPOSAL and not case.label
        probability, proposed = self._propose(case) if helped else (np.zeros(image.array.shape, np.float32), None)
        if case.label:
            beginning = Beginning(MASK, read_lesions(case, self.cohort.rule).array)
        elif proposed is None:
            beginning = Beginning(NOTHING, np.zeros(image.array.shape, bool), by_chance=self.by_chance)
        else:
            beginning = Beginning(PROPOSAL, proposed, network_names(self._ensemble), self.by_chance)
        return Prepared(case, image, beginning, probability)

    def _propose(self, case: Case) -> tuple[np.ndarray, np.ndarray]:
        """Probability and mask of a case; predicted once by the same networks on the same images."""
        folder = self.layout.proposals / self.model
        images = [checksum(file) for file in case.without_label.files]
        made_from = {"networks": network_names(self._ensemble), "images": images}
        mask, probability = folder / f"{case.name}.nii.gz", folder / f"{case.name}_probability.nii.gz"
        record = folder / f"{case.name}.json"
        if not is_made_from(record, made_from):
            for outdated in (record, mask, probability):
                outdated.unlink(missing_ok=True)
            predict_image(self._ensemble, case.without_label, self.device, mask, probability)
            write_record(record, made_from, [mask, probability])
        return read_volume(probability, case.name).array, read_mask(mask, case.name).array


def network_names(ensemble: Ensemble) -> list[str]:
    """Networks by model, fold and the start of their checksum."""
    return ["/".join([*path.parts[-3:-1], checksum(path)[:12]]) for path in ensemble.paths]
