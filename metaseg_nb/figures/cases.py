"""Figures of cases on their own grids: the cohort at a glance, networks side by side, unlabelled cases."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from metaseg_nb.cohort.cases import Case, Cohort, LesionRule, case_named
from metaseg_nb.cohort.labels import read_lesions, read_mask
from metaseg_nb.cohort.lesions import label_lesions
from metaseg_nb.cohort.thumbnail import fullest_slice
from metaseg_nb.figures.case_images import CaseImages, read_case_images, read_image
from metaseg_nb.figures.slices import add_legend, centre_of_largest, draw_planes, draw_slice
from metaseg_nb.figures.style import fitted
from metaseg_nb.layout import StudyLayout
from metaseg_nb.parameters import model_title

BOTH = ("reference", "prediction")


def draw_test_case(cases: Sequence[Case], metrics: pd.DataFrame, predictions: Path, rule: LesionRule) -> Figure:
    """Worst and best case of a test set, axial slice with most lesion."""
    order = metrics.sort_values("dice")["case"]
    names = list(dict.fromkeys([order.iloc[0], order.iloc[-1]]))
    figure, panels = plt.subplots(1, len(names), figsize=(4.2 * len(names), 4.6), layout="constrained", squeeze=False)
    dice = metrics.set_index("case")["dice"]
    for panel, name in zip(panels.ravel(), names, strict=True):
        case = case_named(cases, name)
        prediction = read_mask(predictions / f"{name}.nii.gz", name).array
        images = CaseImages(name, read_image(case), read_lesions(case, rule).array, {"prediction": prediction})
        draw_slice(panel, images.image, images.masks, axis=2, index=fullest_slice(images.outlined))
        panel.set_title(f"{fitted(name, 2.8, 11)}: Dice {dice[name]:.2f}")
    add_legend(figure, BOTH)
    return figure


def pick_cases(metrics: pd.DataFrame, n: int) -> dict[str, str]:
    """The n worst, n typical (nearest the median) and n best cases by Dice, each with why; none twice."""
    order = metrics.sort_values("dice", ignore_index=True)
    middle = (order["dice"] - order["dice"].median()).abs().sort_values(kind="stable").index
    groups = (("worst", order.index[:n]), ("best", order.index[::-1][:n]), ("typical", middle[:n]))
    why: dict[str, str] = {}
    for reason, places in groups:
        for place in places:
            why.setdefault(order.loc[place, "case"], reason)
    rank = {"worst": 0, "typical": 1, "best": 2}
    dice = order.set_index("case")["dice"]
    return dict(sorted(why.items(), key=lambda item: (rank[item[1]], dice[item[0]])))


def draw_case_by_network(
    layout: StudyLayout, cohort: Cohort, metrics: pd.DataFrame, models: Sequence[str], picked: Mapping[str, str]
) -> Figure:
    """A row per picked case, a column per network, with each one's Dice."""
    size = (2.75 * len(models), 3.1 * len(picked))
    figure, panels = plt.subplots(len(picked), len(models), figsize=size, layout="constrained", squeeze=False)
    dice = metrics.set_index(["model", "case"])["dice"]
    for row, (name, why) in zip(panels, picked.items(), strict=True):
        images = read_case_images(layout, cohort, name, models)
        index = fullest_slice(images.outlined)
        row[0].set_ylabel(f"{fitted(name, 2.6, 9)}\n{why}", fontsize=9)
        for panel, model in zip(row, models, strict=True):
            masks = {"reference": images.reference, "prediction": images.predictions[model]}
            draw_slice(panel, images.image, masks, axis=2, index=index, greys=images.greys)
            title = f"{fitted(model_title(model), 2.2, 9)}: {dice[model, name]:.2f}"
            panel.set_title(title, fontsize=9, fontweight="normal")
    add_legend(figure, BOTH)
    return figure


def draw_unlabelled(case: Case, mask: Path) -> Figure:
    """Three planes through the largest predicted lesion of a case without reference."""
    prediction = read_mask(mask, case.name)
    lesions = label_lesions(prediction.array)[1]
    volume_cm3 = prediction.array.sum() * np.prod(prediction.spacing_mm) / 1000
    title = f"{fitted(case.name, 4.5, 11)}: {lesions} predicted lesions, {volume_cm3:.1f} cm³ in all; no reference"
    masks = {"prediction": prediction.array}
    return draw_planes(read_image(case), masks, centre_of_largest(prediction.array), title)
