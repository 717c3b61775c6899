"""Predictions against their references: a pair of masks, a test set, the probabilities of a case, finished runs again.

A metric of your own is one function in this module with `metric` above it, as below. It is then computed for every new
run, has its column in every table and its row in the leaderboard. `python -m metaseg_nb rescore --study NAME` computes
it for a finished study::

    @metric("relative volume error", digits=2)
    def volume_error(truth, prediction, spacing_mm):
        return abs(int(prediction.sum()) - int(truth.sum())) / max(1, int(truth.sum()))

It must give a finite number for every case, also for an empty mask.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from metaseg_nb.checksums import FILES, write_record
from metaseg_nb.cohort.cases import Case, LesionRule
from metaseg_nb.cohort.checks import require_sound_headers
from metaseg_nb.cohort.datalist import read_study_cohort
from metaseg_nb.cohort.lesions import diameter_class
from metaseg_nb.cohort.problems import CohortError, of_each
from metaseg_nb.cohort.volumes import OWN_MASKS, Volume, describe_grid, read_lesions, read_mask, same_grid
from metaseg_nb.evaluation.calibration import probability_bins
from metaseg_nb.evaluation.detection import detections_by_threshold
from metaseg_nb.evaluation.lesion_metrics import detection_counts, lesion_metrics, mets_2026
from metaseg_nb.evaluation.voxel_metrics import Spacing, binary_masks, mask_pair, voxel_metrics
from metaseg_nb.files import write_table
from metaseg_nb.inference.decision import Decision, native_mask, native_probability
from metaseg_nb.layout import RunLayout, StudyLayout
from metaseg_nb.preprocessing.case_store import StoredCase
from metaseg_nb.training.finished_run import read_finished

Compute = Callable[[np.ndarray, np.ndarray, Spacing], float]


@dataclass(frozen=True)
class Metric:
    """How a metric is shown; ``compute`` is the function of one of your own."""

    title: str
    digits: int = 3
    compute: Compute | None = None


# Beside Dice, by column; averaged over patients in the leaderboard, in this order.
METRICS = {
    "hd95_mm": Metric("HD95, mm (surface voxels, the larger of both directions)", 1),
    "nsd_1mm": Metric("surface Dice at 1 mm"),
    "nsd_2mm": Metric("surface Dice at 2 mm"),
    "precision": Metric("precision"),
    "recall": Metric("recall"),
    "lesion_dice": Metric("lesion-wise Dice (METS 2023)"),
    "lesion_hd95_mm": Metric("lesion-wise HD95, mm (by surface area, METS 2023)", 1),
    "lesion_dice_2026": Metric("lesion-wise Dice, large lesions (METS 2026)"),
}


def metric(title: str, digits: int = 3) -> Callable[[Compute], Compute]:
    """Make a function of two masks a metric: its name is that of its column, ``title`` that in the leaderboard."""

    def add(compute: Compute) -> Compute:
        METRICS[compute.__name__] = Metric(title, digits, compute)
        return compute

    return add


def score(
    truth: Volume, prediction: Volume, case: str = "unnamed", files: Sequence[str | Path] = ("truth", "prediction")
) -> tuple[dict[str, float], pd.DataFrame]:
    """Compute all metrics of one case.

    Parameters
    ----------
    truth, prediction : Volume
        Masks of bool, or of 0 and 1, on the same grid, the native one of the truth.
    case : str
        Named in errors.
    files : pair of path or str
        Where truth and prediction came from; named in errors.

    Returns
    -------
    scores : dict
        The keys of `voxel_metrics`, of your own metrics, of the summary of `lesion_metrics`, and of `mets_2026`.
    lesions : DataFrame
        From `lesion_metrics`; centroids in voxel indices of the RAS array.

    Raises
    ------
    CohortError
        The grids differ.
    ValueError
        A mask holds other values; a metric of your own is not finite.
    """
    if not same_grid(truth, prediction):
        found = f"a prediction on the grid {describe_grid(prediction, truth)}"
        expected = f"the grid of the truth ({files[0]}): {describe_grid(truth)}"
        fix = "resample the prediction to the native grid of the image before scoring; never resample the truth"
        raise CohortError.one(case, files[1], found, expected, fix)
    spacing_mm = truth.spacing_mm
    masks = binary_masks(truth.array, prediction.array, spacing_mm)
    own = {name: float(one.compute(*masks, spacing_mm)) for name, one in METRICS.items() if one.compute}
    if wrong := {name: value for name, value in own.items() if not np.isfinite(value)}:
        raise ValueError(f"case {case}: found {wrong}; expected a finite number for every case, also for an empty mask")
    summary, lesions = lesion_metrics(*masks, spacing_mm)
    around = mask_pair(*masks, spacing_mm)[:2]
    return {**voxel_metrics(*around, spacing_mm), **own, **summary, **mets_2026(*around, spacing_mm)}, lesions


def score_files(
    truth: str | Path, prediction: str | Path, rule: LesionRule = OWN_MASKS, prediction_rule: LesionRule | None = None
) -> dict[str, Any]:
    """Score a mask file against a reference mask file, read as everywhere in the workbook.

    Parameters
    ----------
    truth, prediction : path
    rule, prediction_rule : LesionRule
        Of the reference and of the prediction; one for both where the second is None.

    Returns
    -------
    dict
        The scores of `score`, and ``lesions``, a list with a dictionary per kept reference lesion. Plain numbers
        throughout: ready for JSON.

    Raises
    ------
    CohortError
        A file is missing or unreadable, its header is impossible, the grids differ, or a mask holds a value that its
        rule does not name.
    """
    name = Path(prediction).name.removesuffix(".gz").removesuffix(".nii")

    def read(file: tuple[str | Path, LesionRule]) -> Volume:
        require_sound_headers(Case(name, (Path(file[0]),), None, patient="", primary=""))
        return read_mask(file[0], name, file[1])

    masks = of_each(read, ((truth, rule), (prediction, prediction_rule or rule)))
    scores, lesions = score(*masks, case=name, files=(truth, prediction))
    return {**scores, "lesions": lesions.to_dict("records")}


def score_cases(cases: Sequence[Case], predictions: Path, rule: LesionRule) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score the predicted masks of a test set on each case's own grid.

    Parameters
    ----------
    cases : sequence of Case
    predictions : path
        Folder of ``<case>.nii.gz``.
    rule : LesionRule
        Label values that are lesion.

    Returns
    -------
    metrics : DataFrame
        One row per case: ``case``, ``patient``, ``primary``, ``site``, ``fold`` and the scores of `score`.
    lesions : DataFrame
        One row per reference lesion, with its case and ``diameter_class``.
    """
    masks = ((case, read_mask(predictions / f"{case.name}.nii.gz", case.name)) for case in cases)
    return as_tables(score_against(case, read_lesions(case, rule), mask) for case, mask in masks)


def as_tables(scored: Iterable[tuple[dict[str, Any], pd.DataFrame]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Metrics and lesions of cases, from `score_against`."""
    rows, lesions = zip(*scored, strict=True)
    return pd.DataFrame(rows), pd.concat(lesions, ignore_index=True)


def score_against(case: Case, truth: Volume, prediction: Volume) -> tuple[dict[str, Any], pd.DataFrame]:
    """Score one case; see `score_cases`."""
    scores, lesions = score(truth, prediction, case=case.name)
    classes = diameter_class(lesions["diameter_mm"]).astype(str)
    return case_facts(case) | scores, _of_case(case, lesions.assign(diameter_class=classes))


def case_facts(case: Case) -> dict[str, Any]:
    """The columns by which tables name a case."""
    return {"case": case.name} | {key: getattr(case, key) for key in ("patient", "primary", "site", "scanner", "fold")}


def _of_case(case: Case, table: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(case_facts(case), index=table.index).join(table)


def score_probability(
    case: Case, stored: StoredCase, probability: np.ndarray, decisions: Mapping[str, Decision], rule: LesionRule
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Compare the probabilities of one case with its reference.

    Parameters
    ----------
    case : Case
    stored : StoredCase
        The same case, with its label.
    probability : ndarray, shape ``stored.grid.shape``
        Lesion probability, 0 to 1.
    decisions : mapping of str to Decision
        By operating point.
    rule : LesionRule

    Returns
    -------
    detections : DataFrame
        From `detections_by_threshold` on the case's own grid.
    operating_points : DataFrame
        A row per decision: ``operating_point``, the decision, and what it finds, as in ``detections``.
    calibration : DataFrame
        From `probability_bins` on the study grid.
        All tables start with the columns of `identity`.

    Raises
    ------
    CohortError
        The probabilities are not finite or not between 0 and 1.
    """
    if not (np.isfinite(probability).all() and probability.min() >= 0 and probability.max() <= 1):
        found = f"probabilities from {np.min(probability)} to {np.max(probability)}"
        fix = "the network diverged: check its training loss, then train it again"
        raise CohortError.one(case.name, "probability", found, "finite numbers from 0 to 1", fix)
    truth = read_lesions(case, rule)
    native = native_probability(probability, stored.grid, stored.native)
    detections = detections_by_threshold(truth.array > 0, native, truth.spacing_mm)
    masks = {name: native_mask(probability, stored.grid, stored.native, of) for name, of in decisions.items()}
    points = pd.DataFrame(
        {"operating_point": name, **asdict(of), **detection_counts(truth.array > 0, masks[name], truth.spacing_mm)}
        for name, of in decisions.items()
    )
    tables = detections, points, probability_bins(probability, stored.label > 0)
    return tuple(_of_case(case, table) for table in tables)


def score_follow_up(
    case: Case, stored: StoredCase, probabilities: Mapping[str, np.ndarray], decision: Decision, rule: LesionRule
) -> pd.DataFrame:
    """Score a follow-up's probabilities after each earlier mask: rows of `score_cases`, with ``earlier_mask``."""
    truth, rows = read_lesions(case, rule), []
    for mask, probability in probabilities.items():
        predicted = stored.on_native(native_mask(probability, stored.grid, stored.native, decision))
        rows.append({"earlier_mask": mask, **score_against(case, truth, predicted)[0]})
    return pd.DataFrame(rows)


def rescore(study: str) -> list[str]:
    """Score the test cases of all finished runs of a study again, with the metrics of now; no network predicts.

    Writes each run's ``metrics.csv``, ``lesions.csv`` and ``metrics.json``, and ``metrics_other.csv`` where the masks
    of the weights that were not kept are there, or where these are the same weights. ``earlier.csv``, whose masks are
    not kept, stays as it was. Notebook 04 is then to be run again.

    ``study`` is its folder under ``runs/``. Returns the runs, such as ``unet/fold0``.

    Raises
    ------
    CohortError
        No run is finished, or what a run wrote is lost or has changed.
    """
    layout = StudyLayout(study)
    cohort = read_study_cohort(layout)
    marks = [*layout.root.glob("*/fold*/metrics.json"), *layout.root.glob("arms/*/seed*/*/fold*/metrics.json")]
    runs = [RunLayout(mark.parent) for mark in sorted(marks)]
    if not runs:
        raise CohortError.one("-", str(layout.root), "no finished run", "one or more", "run 03 first")
    for run, facts in zip(tqdm(runs, desc="scoring runs again"), of_each(read_finished, runs), strict=True):
        test = [case for case in cohort.cases if case.name in facts["cases"]["test"]]
        metrics, lesions = score_cases(test, run.predictions, cohort.rule)
        write_table(run.metrics_table, metrics)
        write_table(run.lesions_table, lesions)
        masks = run.other_predictions / facts.get("operating_point", "")
        if facts["best_epoch"] == facts.get("other_epoch"):
            write_table(run.other_metrics_table, metrics)
        elif all((masks / f"{case.name}.nii.gz").is_file() for case in test):
            write_table(run.other_metrics_table, score_cases(test, masks, cohort.rule)[0])
        files = [run.root / name for name in facts.pop(FILES)]
        facts.pop("dice_mean", None)  # earlier versions kept it
        write_record(run.metrics, facts, files)
    return [run.root.relative_to(layout.root).as_posix() for run in runs]
