"""Score one prediction against its reference: every metric of a case in one flat dictionary."""

from pathlib import Path
from typing import Any

from metaseg_nb.cohort.cases import Case, LesionRule
from metaseg_nb.cohort.header_checks import require_sound_headers
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import OWN_MASKS, Volume, describe_grid, read_mask, same_grid
from metaseg_nb.evaluation.metrics import case_metrics


def score(
    truth: Volume,
    prediction: Volume,
    *,
    case: str = "unnamed",
    files: tuple[str | Path, str | Path] = ("truth", "prediction"),
) -> dict[str, Any]:
    """Compute all voxel and lesion metrics of one case.

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
    dict
        The scores of `case_metrics`, and ``lesions``: a list with a dictionary per kept reference lesion
        (centroids in voxel indices of the RAS array). Plain numbers throughout: ready for JSON.

    Raises
    ------
    CohortError
        The grids differ.
    ValueError
        A mask holds other values.
    """
    if not same_grid(truth, prediction):
        raise CohortError.one(
            case,
            files[1],
            f"a prediction on the grid {describe_grid(prediction)}",
            f"the grid of the truth ({files[0]}): {describe_grid(truth)}",
            "bring the prediction to the native grid of the image before scoring, never the truth to its own",
        )
    scores, lesions = case_metrics(truth.array, prediction.array, truth.spacing_mm)
    return {**scores, "lesions": lesions.to_dict("records")}


def score_files(
    truth_path: str | Path,
    prediction_path: str | Path,
    rule: LesionRule = OWN_MASKS,
    prediction_rule: LesionRule | None = None,
) -> dict[str, Any]:
    """Score a mask file against a reference mask file, read as everywhere in the workbook; see `score`.

    Parameters
    ----------
    truth_path, prediction_path : path
    rule, prediction_rule : LesionRule
        Of the reference and of the prediction; one for both where the second is None.

    Raises
    ------
    CohortError
        A file is missing or unreadable, its header is impossible, the grids differ, or a mask holds a value that its
        rule does not name.
    """
    name = Path(prediction_path).name.removesuffix(".gz").removesuffix(".nii")
    masks, problems = [], []
    for path, own in ((truth_path, rule), (prediction_path, prediction_rule or rule)):
        try:
            require_sound_headers(Case(name, (Path(path),), None, patient="", primary=""))
            masks.append(read_mask(path, name, own))
        except CohortError as error:
            problems += error.problems
    if problems:
        raise CohortError(problems)
    return score(*masks, case=name, files=(truth_path, prediction_path))
