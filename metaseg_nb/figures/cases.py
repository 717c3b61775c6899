"""Figures of cases on their own grids: the cohort at a glance, networks side by side, unlabelled cases."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metaseg_nb.cohort.cases import Case, Cohort, LesionRule, case_named
from metaseg_nb.cohort.lesions import fullest_slice, label_lesions
from metaseg_nb.cohort.volumes import read_lesions, read_mask
from metaseg_nb.figures.case_images import CaseImages, read_case_images, read_image
from metaseg_nb.figures.slices import add_legend, centre_of_largest, draw_planes, draw_slice
from metaseg_nb.figures.style import fitted
from metaseg_nb.layout import StudyLayout
from metaseg_nb.parameters import model_title

BOTH = ("reference", "prediction")


def draw_test_case(cases: Sequence[Case], metrics: pd.DataFrame, predictions: Path, rule: LesionRule) -> Figure:
    """Worst and best case of a test set, axial slice with most lesion."""
    rows = metrics.sort_values("dice").iloc[[0, -1]].drop_duplicates("case")
    figure, panels = plt.subplots(1, len(rows), figsize=(4.2 * len(rows), 4.6), layout="constrained", squeeze=False)
    for panel, row in zip(panels[0], rows.itertuples(), strict=True):
        case, mask = case_named(cases, row.case), read_mask(predictions / f"{row.case}.nii.gz", row.case)
        images = CaseImages(row.case, read_image(case), read_lesions(case, rule).array, {"": mask.array})
        _draw_both([panel], images, [f"{fitted(row.case, 2.8, 11)}: Dice {row.dice:.2f}"])
    add_legend(figure, BOTH)
    return figure


def pick_cases(metrics: pd.DataFrame, n: int) -> dict[str, str]:
    """The n worst, n typical (nearest the median) and n best cases by Dice, each with why; none twice."""
    order = metrics.sort_values("dice", ignore_index=True)
    middle = order.iloc[(order["dice"] - order["dice"].median()).abs().argsort(kind="stable")]
    groups = {"worst": order[:n], "best": order[::-1][:n], "typical": middle[:n]}
    picked = pd.concat([rows.assign(why=why) for why, rows in groups.items()]).drop_duplicates("case")
    picked["why"] = pd.Categorical(picked["why"], ["worst", "typical", "best"])
    return picked.sort_values(["why", "dice"]).set_index("case")["why"].astype(str).to_dict()


def draw_case_by_network(
    layout: StudyLayout, cohort: Cohort, metrics: pd.DataFrame, models: Sequence[str], picked: Mapping[str, str]
) -> Figure:
    """A row per picked case, a column per network, with each one's Dice."""
    size = (2.75 * len(models), 3.1 * len(picked))
    figure, panels = plt.subplots(len(picked), len(models), figsize=size, layout="constrained", squeeze=False)
    dice = metrics.set_index(["model", "case"])["dice"]
    for row, (name, why) in zip(panels, picked.items(), strict=True):
        titles = [f"{fitted(model_title(model), 2.2, 9)}: {dice[model, name]:.2f}" for model in models]
        _draw_both(row, read_case_images(layout, cohort, name, models), titles, fontsize=9, fontweight="normal")
        row[0].set_ylabel(f"{fitted(name, 2.6, 9)}\n{why}", fontsize=9)
    add_legend(figure, BOTH)
    return figure


def _draw_both(panels: Sequence[Axes], images: CaseImages, titles: Sequence[str], **style: Any) -> None:
    """Draw the axial slice with most lesion: a panel per network, each with the reference."""
    index = fullest_slice(images.outlined)
    for panel, prediction, title in zip(panels, images.predictions.values(), titles, strict=True):
        masks = {"reference": images.reference, "prediction": prediction}
        draw_slice(panel, images.image, masks, axis=2, index=index, greys=images.greys)
        panel.set_title(title, **style)


def draw_unlabelled(case: Case, mask: Path) -> Figure:
    """Three planes through the largest predicted lesion of a case without reference."""
    prediction = read_mask(mask, case.name)
    lesions = label_lesions(prediction.array)[1]
    volume_cm3 = prediction.array.sum() * np.prod(prediction.spacing_mm) / 1000
    title = f"{fitted(case.name, 4.5, 11)}: {lesions} predicted lesions, {volume_cm3:.1f} cm³ in all; no reference"
    masks = {"prediction": prediction.array}
    return draw_planes(read_image(case), masks, centre_of_largest(prediction.array), title)
