"""Which patient to annotate next: one that networks are unsure of, and that is unlike those they know.

First uncertainty, then variety among the uncertain, as in Yang et al., "Suggestive Annotation", MICCAI 2017.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.lesions import label_lesions
from metaseg_nb.preprocessing.case_store import StoredCase

# The most uncertain tissue that is looked at: a case where nothing is found has some too.
LOOKED_AT_MM3 = 1000.0
FOUND = 0.5


class Outlook(NamedTuple):
    """What is found in a case, and how sure that is.

    ``uncertainty_bits``: mean entropy of the most uncertain `LOOKED_AT_MM3`, in [0, 1]; ``found_mm3`` and ``n_found``:
    volume and number of what is outlined at `FOUND`; ``x``, ``y``, ``z``: its centroid as a share of the volume's
    edges, 0.5 where nothing is.
    """

    uncertainty_bits: float
    found_mm3: float
    n_found: int
    x: float
    y: float
    z: float


def outlook(probability: np.ndarray, spacing_mm: tuple[float, float, float]) -> Outlook:
    """Summarise a lesion probability, float of shape (X, Y, Z) in [0, 1]."""
    p = probability.clip(1e-6, 1 - 1e-6).astype(np.float64)
    entropy = -(p * np.log2(p) + (1 - p) * np.log2(1 - p)).ravel()
    voxel_mm3 = float(np.prod(spacing_mm))
    n = min(entropy.size, max(1, round(LOOKED_AT_MM3 / voxel_mm3)))
    found = probability >= FOUND
    centre = np.argwhere(found).mean(axis=0) / found.shape if found.any() else (0.5,) * 3
    most = np.partition(entropy, entropy.size - n)[-n:]
    return Outlook(float(most.mean()), float(found.sum() * voxel_mm3), label_lesions(found)[1], *map(float, centre))


def outlook_of(case: StoredCase, probability: Callable[[StoredCase], np.ndarray] | None) -> Outlook:
    """Outlook of a case that networks predict; or, with None, of one that is annotated and holds no doubt."""
    return outlook(probability(case) if probability else case.label.astype(np.float32), case.grid.spacing_mm)


def by_patient(outlooks: Mapping[Case, Outlook]) -> pd.DataFrame:
    """Tabulate the outlooks of cases as `rank_patients` takes them; of several cases of a patient the mean counts."""
    rows = [{"patient": case.patient, **found._asdict()} for case, found in outlooks.items()]
    return pd.DataFrame(rows).groupby("patient").mean()


def rank_patients(outlooks: pd.DataFrame, known: Sequence[str]) -> pd.DataFrame:
    """Put patients in the order in which they should be annotated.

    The next is always the one with the largest product of uncertainty and distance to the nearest patient who is known
    or was chosen before; distances are between volume (its logarithm), number and place of what is found, each scaled
    to the patients' standard deviation.

    Parameters
    ----------
    outlooks : DataFrame
        The fields of `Outlook`; the index is the patient, known ones among them.
    known : sequence of str
        Patients who are annotated.

    Returns
    -------
    DataFrame
        The others, the most wanted first: ``rank`` (from 1), the fields of `Outlook`, ``distance`` (when chosen).
    """
    numbers = outlooks.assign(found_mm3=np.log1p(outlooks["found_mm3"])).drop(columns="uncertainty_bits")
    spread = numbers.std(ddof=0)
    places = ((numbers - numbers.mean()) / spread.where(spread > 0, 1.0)).to_numpy()
    of = dict(zip(outlooks.index, range(len(outlooks)), strict=True))
    near, waiting, order, distances = [of[patient] for patient in known], set(outlooks.index) - set(known), [], []
    uncertainty = outlooks["uncertainty_bits"].to_numpy()
    while waiting:
        gap = {patient: _gap(places, of[patient], near) for patient in waiting}
        chosen = max(sorted(waiting), key=lambda patient: uncertainty[of[patient]] * gap[patient])
        order.append(chosen)
        distances.append(gap[chosen])
        near.append(of[chosen])
        waiting.remove(chosen)
    table = outlooks.loc[order].assign(distance=distances)
    table.insert(0, "rank", range(1, len(order) + 1))
    return table


def follow_ranking(
    cases: Sequence[Case],
    first: Sequence[Case],
    ranking: Sequence[str],
    slices: Mapping[str, int],
    random: Sequence[Case],
) -> list[Case]:
    """Cases of the first patients and of those that a ranking names next, for the work that a random choice takes.

    Work is counted in outlined slices, which take most of a physician's time: patients are added as long as that
    brings their number nearer to the random choice's.

    Parameters
    ----------
    cases : sequence of Case
        Training cases.
    first : sequence of Case
        Of them, those that the ranking was made with.
    ranking : sequence of str
        Patients to annotate next, the most wanted first.
    slices : mapping of str to int
        Outlined slices that each case takes.
    random : sequence of Case
        The random choice.
    """
    wanted = sum(slices[case.name] for case in random)
    chosen = {case.patient for case in first}
    spent = sum(slices[case.name] for case in first)
    for patient in ranking:
        more = sum(slices[case.name] for case in cases if case.patient == patient)
        if abs(spent + more - wanted) > abs(spent - wanted):
            break
        chosen.add(patient)
        spent += more
    return [case for case in cases if case.patient in chosen]


def _gap(places: np.ndarray, patient: int, near: Sequence[int]) -> float:
    """Distance to the nearest; 1 for all alike where nobody is near yet."""
    return float(np.linalg.norm(places[near] - places[patient], axis=1).min()) if near else 1.0
