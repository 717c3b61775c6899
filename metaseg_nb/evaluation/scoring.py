"""Score one prediction against its reference: every metric of a case in one flat dictionary."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import Volume, describe_grid, read_volume, same_grid
from metaseg_nb.evaluation.lesion_metrics import lesion_metrics
from metaseg_nb.evaluation.surfaces import as_mask, describe_values
from metaseg_nb.evaluation.voxel_metrics import voxel_metrics


def score(
    truth: Volume,
    prediction: Volume,
    lesion_values: Sequence[int] | None = None,
    *,
    case: str = "unnamed",
    files: tuple[str | Path, str | Path] = ("truth", "prediction"),
) -> dict[str, Any]:
    """Compute all voxel and lesion metrics of one case.

    Parameters
    ----------
    truth, prediction : Volume
        On the same grid, the native one of the truth.
    lesion_values : sequence of int, optional
        Values that count as lesion, all others being background. By default the
        masks must hold 0 and 1 only, so that no label is merged unasked.
    case : str
        Named in errors.
    files : pair of path or str
        Where truth and prediction came from; named in errors.

    Returns
    -------
    dict
        The keys of `voxel_metrics` and of the summary of `lesion_metrics`, and
        ``lesions``: a list with a dictionary per kept reference lesion (centroids in
        voxel indices of the RAS array). Plain numbers throughout: ready for JSON.

    Raises
    ------
    CohortError
        The grids differ, or a mask holds other values than it may.
    """
    if not same_grid(truth, prediction):
        raise CohortError.one(
            case,
            files[1],
            f"a prediction on the grid {describe_grid(prediction)}",
            f"the grid of the truth ({files[0]}): {describe_grid(truth)}",
            "bring the prediction to the native grid of the image before scoring, never the truth to its own",
        )
    masks = [_mask(volume, lesion_values, case, file) for volume, file in zip((truth, prediction), files, strict=True)]
    summary, lesions = lesion_metrics(*masks, truth.spacing_mm)
    return {**voxel_metrics(*masks, truth.spacing_mm), **summary, "lesions": lesions.to_dict("records")}


def score_files(
    truth_path: str | Path, prediction_path: str | Path, lesion_values: Sequence[int] | None = None
) -> dict[str, Any]:
    """Score a mask file against a reference mask file; see `score`.

    Raises
    ------
    CohortError
        A file is missing or unreadable, the grids differ, or a mask holds other
        values than it may.
    """
    case = Path(prediction_path).name.removesuffix(".gz").removesuffix(".nii")
    truth, prediction = read_volume(truth_path, case), read_volume(prediction_path, case)
    return score(truth, prediction, lesion_values, case=case, files=(truth_path, prediction_path))


def _mask(volume: Volume, lesion_values: Sequence[int] | None, case: str, file: str | Path) -> np.ndarray:
    if lesion_values is not None:
        return np.isin(volume.array, lesion_values)
    try:
        return as_mask(volume.array, str(file))
    except ValueError as error:
        found = f"the values {describe_values(volume.array)}"
        fix = "say which values are lesion (lesion_values, --lesion-values)"
        raise CohortError.one(case, file, found, "a mask of 0 and 1", fix) from error
