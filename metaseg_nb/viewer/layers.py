"""What a viewer shows of a case: layers over its image, and a list of its lesions to jump through."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from metaseg_nb.figures.case_images import AGREEMENT_COLOURS, CaseImages, false_lesions
from metaseg_nb.figures.style import REFERENCE, model_colour
from metaseg_nb.parameters import model_title

# Smaller false lesions are many, and nobody looks at them one by one.
FALSE_FROM_MM = 5.0
PLACE = ["volume_mm3", "diameter_mm", "x", "y", "z"]


@dataclass(frozen=True)
class Layer:
    """Values over an image, each with a colour.

    Parameters
    ----------
    array : ndarray of uint8, shape (X, Y, Z)
        0 where nothing is drawn.
    colours : dict of str to str
        Meaning and colour of the values 1, 2, ...
    visible : bool
        Whether it is shown at first.
    """

    array: np.ndarray
    colours: dict[str, str]
    visible: bool = True


def layers_of(images: CaseImages) -> dict[str, Layer]:
    """Layers by name: the reference, each network, and the first network's agreement with the reference."""
    layers = {"reference": Layer(images.reference.astype(np.uint8), {"reference": REFERENCE})}
    for model, mask in images.predictions.items():
        title = model_title(model)
        layers[title] = Layer(mask.astype(np.uint8), {title: model_colour(model)})
    for model in list(images.predictions)[:1]:  # each layer is a volume that the browser has to hold
        layers[f"agreement: {model_title(model)}"] = Layer(images.agreement(model), AGREEMENT_COLOURS, visible=False)
    return layers


def lesion_rows(images: CaseImages, lesions: pd.DataFrame) -> pd.DataFrame:
    """List a case's lesions: first those of the reference, then the false ones from `FALSE_FROM_MM` on.

    Parameters
    ----------
    images : CaseImages
    lesions : DataFrame
        Pooled, from notebook 04.

    Returns
    -------
    DataFrame
        ``what`` ("lesion 1", "false, U-Net"), ``found`` (each network's Dice, or missed), ``volume_mm3``,
        ``diameter_mm``, ``x``, ``y``, ``z`` (RAS voxels).
    """
    order = list(images.predictions)
    rows = lesions[(lesions["case"] == images.name) & lesions["model"].isin(order)]
    rows = rows.sort_values("model", key=lambda models: models.map(order.index), kind="stable")
    result = rows["dice"].map("{:.2f}".format).where(rows["detected"], "missed")
    rows = rows.assign(found=rows["model"].map(model_title) + " " + result)
    columns = {"found": ("found", ", ".join)} | {name: (name, "first") for name in PLACE}
    reference = rows.groupby("lesion", as_index=False).agg(**columns)
    tables = [reference.assign(what="lesion " + reference["lesion"].astype(str))]
    for model, mask in images.predictions.items():
        false = false_lesions(images.reference, mask, images.image.spacing_mm)
        large = false[false["diameter_mm"] >= FALSE_FROM_MM]
        tables.append(large.assign(what=f"false, {model_title(model)}", found=""))
    return pd.concat([table for table in tables if len(table)] or tables, ignore_index=True)[["what", "found", *PLACE]]
