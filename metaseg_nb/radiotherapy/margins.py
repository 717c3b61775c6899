"""Would one treat by these contours? What a margin around them covers, lesion by lesion, and what it treats besides."""

from collections.abc import Sequence

import edt
import numpy as np
import pandas as pd

from metaseg_nb.cohort.lesions import UNSCORED_MM3, find_lesions, is_scored

# Shares of a lesion that count as covered, as of a prescription dose in a target.
SHARES = (0.95, 0.98)
MARGINS_MM = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)


def distance_mm(mask: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Distance of each voxel's centre to the nearest voxel of a mask, in mm; infinite for an empty mask.

    A mask grown by a margin is where this is at most the margin.
    """
    if not mask.any():
        return np.full(mask.shape, np.inf)
    return edt.edt(~mask.astype(bool), anisotropy=tuple(spacing_mm))


def lesion_coverage(
    reference: np.ndarray, prediction: np.ndarray, spacing_mm: Sequence[float], margins_mm: Sequence[float] = MARGINS_MM
) -> pd.DataFrame:
    """What contours grown by margins cover of each reference lesion.

    Parameters
    ----------
    reference, prediction : (X, Y, Z) bool arrays on one grid
    spacing_mm : sequence of 3 floats
    margins_mm : sequence of floats
        Contours grow in 3D; a voxel belongs to the grown contour if its centre is at most so far from one inside.

    Returns
    -------
    DataFrame
        A row per lesion: ``lesion`` (number), ``diameter_mm`` (largest), ``volume_mm3``, ``found`` (it shares a voxel
        with the prediction), ``covered_<m>`` (share within a margin of m mm), ``needed_95_mm`` and ``needed_98_mm``
        (the smallest margin that covers such a share; infinite without any contour). Lesions of 2 mm³ and less are
        left out, as in notebook 04.
    """
    lesions = find_lesions(reference, tuple(spacing_mm))
    table = lesions.table[["lesion", "diameter_mm", "volume_mm3"]]
    table = table[is_scored(table["volume_mm3"], UNSCORED_MM3)].reset_index(drop=True)
    away = distance_mm(prediction, spacing_mm)
    rows = []
    for lesion in table["lesion"]:
        voxels = np.sort(away[tuple(lesions.voxels(int(lesion)).T)])
        covered = {f"covered_{margin:g}": float(np.mean(voxels <= margin)) for margin in margins_mm}
        last = {f"needed_{share:.0%}".rstrip("%") + "_mm": voxels[_last(share, len(voxels))] for share in SHARES}
        rows.append({"found": bool(voxels[0] == 0), **covered, **last})
    return pd.concat([table, pd.DataFrame(rows, index=table.index)], axis=1)


def _last(share: float, n: int) -> int:
    """Index of the farthest voxel that has to be covered, of n in order."""
    return int(np.ceil(share * n - 1e-9)) - 1


def treated_besides(
    reference: np.ndarray, prediction: np.ndarray, spacing_mm: Sequence[float], margins_mm: Sequence[float] = MARGINS_MM
) -> pd.DataFrame:
    """What grown contours treat that the reference, grown alike, would not, and the targets that are made up or missed.

    Returns
    -------
    DataFrame
        A row per margin: ``margin_mm``, ``unneeded_cm3``, ``target_cm3`` (the grown reference), ``missed`` and
        ``false`` (lesions of the reference, of the prediction, that share no voxel with the other).
    """
    wanted, given = distance_mm(reference, spacing_mm), distance_mm(prediction, spacing_mm)
    voxel_cm3 = float(np.prod(spacing_mm)) / 1000
    counts = {"missed": _apart(reference, prediction, spacing_mm), "false": _apart(prediction, reference, spacing_mm)}
    rows = [
        {
            "margin_mm": margin,
            "unneeded_cm3": np.count_nonzero((given <= margin) & (wanted > margin)) * voxel_cm3,
            "target_cm3": np.count_nonzero(wanted <= margin) * voxel_cm3,
            **counts,
        }
        for margin in margins_mm
    ]
    return pd.DataFrame(rows)


def _apart(mask: np.ndarray, other: np.ndarray, spacing_mm: Sequence[float]) -> int:
    """Scored lesions of a mask that share no voxel with another mask."""
    lesions = find_lesions(mask, tuple(spacing_mm))
    scored = lesions.table.loc[is_scored(lesions.table["volume_mm3"], UNSCORED_MM3), "lesion"]
    return len(set(scored) - set(np.unique(lesions.labels[other.astype(bool)])))


def smallest_margin_mm(lesions: pd.DataFrame, share_of_lesions: float = 0.95, needed: str = "needed_95_mm") -> float:
    """The smallest margin that covers so many of the found lesions, in mm; NaN if no lesion was found.

    Parameters
    ----------
    lesions : DataFrame
        Rows of `lesion_coverage`.
    share_of_lesions : float
        0 to 1.
    needed : str
        Column: the share of each lesion that is to be covered.
    """
    values = np.sort(lesions.loc[lesions["found"], needed])
    return float(values[_last(share_of_lesions, len(values))]) if len(values) else float("nan")
