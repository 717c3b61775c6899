"""The lesions of one case as a list to jump through: reference lesions first, then what networks made up."""

from collections.abc import Sequence

import pandas as pd

from metaseg_nb.figures.case_images import CaseImages, false_lesions
from metaseg_nb.parameters import model_title

# Specks are many, and nobody looks at them one by one.
FALSE_FROM_MM = 5.0
PLACE = ["volume_mm3", "diameter_mm", "x", "y", "z"]


def lesion_rows(images: CaseImages, lesions: pd.DataFrame) -> pd.DataFrame:
    """List a case's lesions.

    Parameters
    ----------
    images : CaseImages
    lesions : DataFrame
        Pooled, from notebook 04; rows of other cases and networks are left aside.

    Returns
    -------
    DataFrame
        ``what`` ("lesion 1", "false, U-Net"), ``found`` (each network's Dice, or missed), ``volume_mm3``,
        ``diameter_mm``, ``x``, ``y``, ``z`` (RAS voxels). False lesions from `FALSE_FROM_MM` on.
    """
    order = list(images.predictions)
    lesions = lesions[(lesions["case"] == images.name) & lesions["model"].isin(order)]
    lesions = lesions.sort_values("model", key=lambda models: models.map(order.index), kind="stable")
    said = lesions["dice"].map("{:.2f}".format).where(lesions["detected"], "missed")
    found = lesions.assign(said=lesions["model"].map(model_title) + " " + said).groupby("lesion")["said"].agg(", ".join)
    reference = lesions.drop_duplicates("lesion").set_index("lesion")[PLACE]
    reference = reference.assign(what=[f"lesion {number}" for number in reference.index], found=found)
    return pd.concat([reference, *_false(images)], ignore_index=True)[["what", "found", *PLACE]]


def _false(images: CaseImages) -> Sequence[pd.DataFrame]:
    tables = []
    for model, mask in images.predictions.items():
        table = false_lesions(images.reference, mask, images.image.spacing_mm)
        large = table[table["diameter_mm"] >= FALSE_FROM_MM]
        if len(large):
            tables.append(large[PLACE].assign(what=f"false, {model_title(model)}", found=""))
    return tables
