"""Which patient to annotate next: one with uncertain predictions who differs from those already annotated.

First uncertainty, then variety among the uncertain, as in Yang et al., "Suggestive Annotation", MICCAI 2017.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.datalist import read_study_cohort
from metaseg_nb.cohort.lesions import label_lesions
from metaseg_nb.cohort.problems import refusal
from metaseg_nb.files import write_table
from metaseg_nb.inference.ensemble import load_ensemble
from metaseg_nb.layout import StudyLayout
from metaseg_nb.parameters import resolve
from metaseg_nb.preprocessing.case_store import StoredCase, open_cases

# Uncertainty is that of the most uncertain tissue of this volume: a case without any finding has some too.
UNCERTAIN_MM3 = 1000.0
SEEN = 0.5
# Random orders of patients, and the share of them that is nearest to a ranking in the lesion volume that comes first.
ORDERS, NEAREST = 1000, 0.1
# Largest exponent of a patient's volume in these orders: beyond it, chance takes hardly anyone but the largest.
STRONGEST = 2.0
# A mean volume is that of a ranking if it differs by less than this share; and the most steps towards it.
SAME, STEPS = 0.005, 20


def summarise(probability: np.ndarray, spacing_mm: tuple[float, float, float]) -> dict[str, float]:
    """Summarise a lesion probability, float of shape (X, Y, Z) in [0, 1].

    Returns
    -------
    dict
        ``uncertainty_bits``: mean entropy of the most uncertain `UNCERTAIN_MM3`, in [0, 1]; ``found_mm3`` and
        ``n_found``: volume and number of the lesions at a threshold of `SEEN`; ``x``, ``y``, ``z``: their centroid as
        a share of the volume's edges, 0.5 without lesions.
    """
    p = probability.clip(1e-6, 1 - 1e-6).astype(np.float64)
    entropy = -(p * np.log2(p) + (1 - p) * np.log2(1 - p)).ravel()
    voxel_mm3 = float(np.prod(spacing_mm))
    n = min(entropy.size, max(1, round(UNCERTAIN_MM3 / voxel_mm3)))
    found = probability >= SEEN
    x, y, z = np.argwhere(found).mean(axis=0) / found.shape if found.any() else (0.5,) * 3
    uncertainty_bits = float(np.partition(entropy, entropy.size - n)[-n:].mean())
    lesions = {"found_mm3": float(found.sum() * voxel_mm3), "n_found": label_lesions(found)[1]}
    return {"uncertainty_bits": uncertainty_bits, **lesions, "x": float(x), "y": float(y), "z": float(z)}


def rank_cases(
    cases: Iterable[tuple[Case, StoredCase]],
    known: Collection[str],
    probability: Callable[[StoredCase], np.ndarray],
) -> pd.DataFrame:
    """Rank the patients of cases; several cases of a patient are averaged.

    Parameters
    ----------
    cases : iterable of (Case, StoredCase)
    known : collection of str
        Names of the cases that are annotated: their own label is used, which has no uncertainty.
    probability : callable
        Lesion probability of a case that is not annotated, shape (X, Y, Z).

    Returns
    -------
    DataFrame
        From `rank_patients`.
    """
    rows, annotated = [], set()
    for case, stored in cases:
        lesions = stored.label.astype(np.float32) if case.name in known else probability(stored)
        rows.append({"patient": case.patient, **summarise(lesions, stored.grid.spacing_mm)})
        annotated |= {case.patient} if case.name in known else set()
    return rank_patients(pd.DataFrame(rows).groupby("patient").mean(), annotated)


def rank_patients(summaries: pd.DataFrame, known: Collection[str]) -> pd.DataFrame:
    """Put patients in the order in which they should be annotated.

    The next is always the one with the largest product of uncertainty and distance to the nearest patient who is
    annotated or was chosen before. Distances are between volume (its logarithm), number and place of the lesions
    found, each scaled to the patients' standard deviation.

    Parameters
    ----------
    summaries : DataFrame
        The columns of `summarise`; the index is the patient, annotated ones among them.
    known : collection of str
        Patients who are annotated.

    Returns
    -------
    DataFrame
        The others, the most wanted first: ``rank`` (from 1), the columns of `summarise`, ``distance`` (when chosen).
    """
    table = summaries.sort_index()
    numbers = table.assign(found_mm3=np.log1p(table["found_mm3"])).drop(columns="uncertainty_bits")
    spread = numbers.std(ddof=0)
    places = ((numbers - numbers.mean()) / spread.where(spread > 0, 1.0)).to_numpy()
    uncertainty, waiting = table["uncertainty_bits"].to_numpy(), ~table.index.isin(list(known))
    distance = np.full(len(table), np.inf)
    for place in places[~waiting]:
        distance = np.minimum(distance, np.linalg.norm(places - place, axis=1))
    order, distances = [], []
    while waiting.any():
        away = np.where(np.isinf(distance), 1.0, distance)  # nobody is annotated yet: all are as far
        order.append(int(np.where(waiting, uncertainty * away, -np.inf).argmax()))
        distances.append(away[order[-1]])
        waiting[order[-1]] = False
        distance = np.minimum(distance, np.linalg.norm(places - places[order[-1]], axis=1))
    ranked = table.iloc[order].assign(distance=distances)
    ranked.insert(0, "rank", range(1, len(order) + 1))
    return ranked


def follow_ranking(
    cases: Sequence[Case],
    first: Sequence[Case],
    ranking: Iterable[str],
    slices: Mapping[str, int],
    even: Sequence[Case],
) -> list[Case]:
    """Cases of the first patients and of those next in a ranking, for as much work as an even choice takes.

    Work is counted in contoured slices, which take most of a physician's time. Patients are added as long as that
    brings the number of slices nearer to that of the even choice.

    Parameters
    ----------
    cases : sequence of Case
        Training cases.
    first : sequence of Case
        Of them, those that the ranking was made with.
    ranking : iterable of str
        Patients to annotate next, the most wanted first.
    slices : mapping of str to int
        Contoured slices that each case takes.
    even : sequence of Case
        The even choice.
    """
    wanted, spent = (sum(slices[case.name] for case in some) for some in (even, first))
    chosen = {case.patient for case in first}
    for patient in ranking:
        more = sum(slices[case.name] for case in cases if case.patient == patient)
        if abs(spent + more - wanted) > abs(spent - wanted):
            break
        chosen.add(patient)
        spent += more
    return [case for case in cases if case.patient in chosen]


def as_much_foreground(ranked: pd.DataFrame, n: int, seed: int) -> list[str]:
    """Patients in a random order, of whom the first n have about as much lesion as the first n of a ranking.

    A ranking prefers patients with much to see: this tells whether more than that helps. Each next patient is drawn
    with a chance in proportion to a power of the volume that networks find. Its exponent is the one with which the
    first n have the ranking's volume in the mean, but never beyond `STRONGEST`: where a ranking takes little else than
    the largest patients, others have a little less. Of `ORDERS` such orders one is drawn, from the tenth that is
    nearest to the ranking.

    Parameters
    ----------
    ranked : DataFrame
        From `rank_patients`, with the column ``patient``; ``found_mm3`` may be 0.
    n : int
        Patients that the ranking adds.
    seed : int

    Returns
    -------
    list of str
        All patients of ``ranked``.

    References
    ----------
    Random choice with regard to foreground, as a baseline that active learning rarely beats: nnActive, TMLR 2025.
    """
    rng, volumes = np.random.default_rng(seed), ranked["found_mm3"].to_numpy(float)
    logarithms, noise = np.log1p(volumes), rng.gumbel(size=(ORDERS, len(ranked)))

    def drawn(exponent: float) -> np.ndarray:
        # with Gumbel noise on logarithms of weights, the largest first is a draw by weight without replacement
        return np.argsort(-(exponent * logarithms + noise), axis=1, kind="stable")

    wanted, exponent, low, high = volumes[:n].sum(), 0.0, -STRONGEST, STRONGEST
    for _ in range(STEPS):
        more = volumes[drawn(exponent)[:, :n]].sum() / ORDERS - wanted
        if abs(more) <= SAME * wanted:
            break
        low, high = (exponent, high) if more < 0 else (low, exponent)
        exponent = (low + high) / 2
    orders = drawn(exponent)
    apart = np.abs(volumes[orders[:, :n]].sum(axis=1) - wanted)
    near = orders[np.argsort(apart, kind="stable")[: round(NEAREST * ORDERS)]]
    return ranked["patient"].iloc[near[rng.integers(len(near))]].tolist()


def next_patients(study: str, device: torch.device) -> pd.DataFrame:
    """Rank a study's unlabelled patients by the predictions of all its trained networks.

    Writes ``runs/<study>/next_patients.csv``.

    Returns
    -------
    DataFrame
        From `rank_patients`.

    Raises
    ------
    CohortError
        The study has no case without a label.
    FileNotFoundError
        A network of the study is not trained.
    """
    settings = resolve("04_cross_validation", study)
    layout = StudyLayout(settings["study"])
    cohort = read_study_cohort(layout)
    if not cohort.unlabelled:
        raise refusal("unlabelled cases", "-", layout.dataset, "no case without a label")
    ensembles = [load_ensemble(layout.root / model, device) for model in settings["models"]]

    def probability(case: StoredCase) -> np.ndarray:
        return np.sum([one.probability(case.scans, case.reach, device) for one in ensembles], axis=0) / len(ensembles)

    cases = cohort.all_cases
    pairs = zip(cases, tqdm(open_cases(layout.case_store, cases), desc="ranking patients"), strict=True)
    table = rank_cases(pairs, {case.name for case in cohort.labelled}, probability)
    write_table(layout.next_patients_table, table.reset_index())
    return table
