"""Figures of cases: the cohort at a glance, also in words; bias fields, networks side by side, unlabelled cases."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from metaseg_nb.cohort.cases import Case, Cohort, LesionRule, case_named
from metaseg_nb.cohort.examination import Examination
from metaseg_nb.cohort.lesions import UNSCORED_MM3, box_around, fullest_slice, label_lesions, surface_distance_mm
from metaseg_nb.cohort.problems import STOPPING, Problem, problem_table
from metaseg_nb.cohort.volumes import read_lesions, read_mask
from metaseg_nb.figures.reviewed import CaseImages, centre_of_largest, read_case_images, read_image
from metaseg_nb.figures.slices import AXES, COLOURS, PLANES, Panel, as_volume, draw_panels, draw_planes, draw_slice
from metaseg_nb.figures.style import MARGIN, fitted
from metaseg_nb.files import escaped
from metaseg_nb.layout import StudyLayout
from metaseg_nb.parameters import model_title
from metaseg_nb.preprocessing.stored_case import StoredCase

# Brightest grey value of a bias correction, as a percentile of the slice: vessels may be clipped.
WHITE_PERCENTILE = 99.7
# A field's colours reach at least this far from 1, or no correction would look like a strong one.
LEAST_FIELD = 0.1
TINY_MM = 5  # lesions under this diameter are hard to see


def draw_lesion_map(cases: Sequence[Case], examinations: Sequence[Examination]) -> Figure:
    """In how many patients a lesion lies along each line of sight; every brain fitted into one box."""
    by_patient: dict[str, np.ndarray] = {}
    for case, examination in zip(cases, examinations, strict=True):
        if examination.lesion_map is not None:
            by_patient[case.patient] = by_patient.get(case.patient, False) | examination.lesion_map
    if not by_patient:
        figure = plt.figure(figsize=(12, 0.6))
        figure.text(0.01, 0.5, "no lesion has a known position: nothing to draw", va="center")
        return figure
    heads = [e.head_map for e in examinations if e.lesion_map is not None and e.head_map is not None]
    figure, panels = plt.subplots(1, 3, figsize=(12, 4.2), layout="constrained")
    for panel, axis in zip(panels, AXES, strict=True):
        seen = np.sum([lesions.any(axis, keepdims=True) for lesions in by_patient.values()], axis=0)
        outline = {"head": np.mean([head.any(axis, keepdims=True) for head in heads], axis=0)}
        look = {"greys": (0, None), "cmap": "magma", "interpolation": "nearest", "colours": {"head": "white"}}
        drawn = draw_slice(panel, as_volume(seen), outline, axis, scale_bar=False, **look)
        panel.set_title(f"{PLANES[axis][0]} view", fontweight="normal")
        bar = {"orientation": "horizontal", "shrink": 0.7, "ticks": MaxNLocator(4, integer=True)}
        figure.colorbar(drawn, ax=panel, label="patients with a lesion there", **bar)
    figure.suptitle(f"n = {len(by_patient)} patients")
    return figure


def draw_montage(cases: Sequence[Case], examinations: Sequence[Examination]) -> Figure:
    """Every case's axial slice with most lesion, with its outline; one empty picture where no image can be read."""
    if all(examination.grey_slice is None for examination in examinations):
        return draw_panels([Panel([f"{len(cases)} cases"], None)])
    panels = []
    for case, examination in zip(cases, examinations, strict=True):
        count = "no label" if case.label is None else f"lesions: {examination.facts.get('n_lesions', 'unknown')}"
        title = [case.name, f"{case.primary}, {count}"]
        if examination.grey_slice is None or examination.lesion_slice is None:
            panels.append(Panel(title, None))
        else:
            image = as_volume(examination.grey_slice, examination.facts["slice_spacing_mm"])
            masks = {"reference": examination.lesion_slice[:, :, None]}
            panels.append(Panel(title, image, masks, look={"greys": (0, 255)}))
    return draw_panels(panels)


def describe_counts(lesions: pd.DataFrame) -> str:
    """How many lesions the masks hold and how many are scored; ``lesions`` is the table of notebook 01."""
    scored = lesions[lesions["scored_lesion"] > 0].drop_duplicates(["case", "scored_lesion"])
    left_out = int((lesions["scored_lesion"] == 0).sum())
    tiny, tiny_scored = ((of < TINY_MM).sum() for of in (lesions["diameter_mm"], scored["scored_diameter_mm"]))
    joined = len(lesions) - left_out - len(scored)
    return (
        f"**Two counts of lesions.** Separate lesions in the masks: {len(lesions)} ({tiny} under {TINY_MM} mm); "
        f"notebook 01 and the folds count these. Scored lesions, as in BraTS-METS: {len(scored)} "
        f"({tiny_scored} under {TINY_MM} mm); notebook 04 and all its classes count these. Lesions with at most two "
        f"voxels between them are scored as one (joined to another: {joined}), and lesions of {UNSCORED_MM3:g} mm³ "
        f"or less are not scored (left out: {left_out})."
    )


def describe_problems(cases: Sequence[Case], problems: Sequence[Problem], leakage: str) -> str:
    """How many errors, warnings and notes in how many cases; ``leakage`` is what an audit of the lists answers."""
    names, parts = {case.name for case in cases}, []
    for severity, of in problem_table(problems).groupby("severity", sort=False):
        plural = "s" if len(of) > 1 else ""
        what = f" ({escaped(of['found'].iloc[0])})" if len({*of["found"]}) == 1 else ""
        parts.append(f"{len(of)} {severity}{plural} in {len({*of['case']} & names)} of {len(names)} cases{what}")
    begins = "To correct" if any(problem.severity in STOPPING for problem in problems) else "To check"
    wrong = f"**{begins}: {', '.join(parts)}.**" if parts else "No problem was found."
    return f"{wrong} {escaped(leakage)}".strip()


def draw_corrections(cases: Sequence[StoredCase]) -> Figure:
    """Axial slice before, estimated field and slice after; a row a case.

    Before and after share one grey scale in a row, all fields share one colour scale.
    """
    records = [case.correction for case in cases]
    known = [field[np.isfinite(field)] for field in (record.field.astype(np.float32) for record in records)]
    reach = max([LEAST_FIELD, *(float(np.percentile(np.abs(field - 1), 99)) for field in known if field.size)])
    coloured = {"greys": (1 - reach, 1 + reach), "cmap": "viridis", "interpolation": "nearest"}
    panels = []
    for case, record in zip(cases, records, strict=True):
        low, high = np.percentile(record.before, (100 - WHITE_PERCENTILE, WHITE_PERCENTILE))
        grey = {"greys": (float(min(low, 0)), float(high))}
        for title, array, look in (
            (f"{case.name}, before", record.before, grey),
            (f"bias field, {float(record.field_range):.2f}-fold", record.field.astype(np.float32), coloured),
            ("after", record.after, grey),
        ):
            panels.append(Panel([title], as_volume(array, record.spacing_mm.tolist()), look=look))
    figure = draw_panels(panels, 3)
    middle = figure.axes[1::3]
    figure.colorbar(middle[0].images[0], ax=middle, orientation="horizontal", label="image divided by this factor")
    return figure


def draw_stored_cases(cases: Sequence[StoredCase]) -> Figure:
    """Every prepared case on the study grid, slice with most lesion, first sequence."""
    panels = []
    for case in cases:
        image = as_volume(case.image[0].astype(np.float32), case.grid.spacing_mm)
        mask = np.asarray(case.label) > 0 if case.has_label else np.zeros(image.array.shape, bool)
        masks = {"reference": mask} if case.has_label else {}
        panels.append(Panel([case.name, "x".join(map(str, case.grid.shape))], image, masks, fullest_slice(mask)))
    return draw_panels(panels)


def draw_test_case(cases: Sequence[Case], metrics: pd.DataFrame, predictions: Path, rule: LesionRule) -> Figure:
    """Worst and best case of a test set, axial slice with most lesion."""
    panels = []
    for row in metrics.sort_values("dice").iloc[[0, -1]].drop_duplicates("case").itertuples():
        case, mask = case_named(cases, row.case), read_mask(predictions / f"{row.case}.nii.gz", row.case)
        images = CaseImages(row.case, read_image(case), read_lesions(case, rule).array, {"": mask.array})
        panels += _fullest(images, {"": [f"{row.case}: Dice {row.dice:.2f}"]})
    return draw_panels(panels, len(panels))


def pick_cases(metrics: pd.DataFrame, n: int) -> dict[str, str]:
    """The n worst, n typical (nearest the median) and n best cases by Dice, each with why; none twice."""
    order = metrics.sort_values("dice", ignore_index=True)
    middle = order.iloc[(order["dice"] - order["dice"].median()).abs().argsort(kind="stable")]
    ends = pd.concat([order[:n].assign(why="worst"), order[::-1][:n].assign(why="best")]).drop_duplicates("case")
    picked = pd.concat([ends, middle[~middle["case"].isin(ends["case"])][:n].assign(why="typical")])
    picked["why"] = pd.Categorical(picked["why"], ["worst", "typical", "best"])
    return picked.sort_values(["why", "dice"]).set_index("case")["why"].astype(str).to_dict()


def draw_case_by_network(
    layout: StudyLayout, cohort: Cohort, metrics: pd.DataFrame, models: Sequence[str], picked: Mapping[str, str]
) -> Figure:
    """A row per picked case, a column per network, with each one's Dice."""
    dice, panels = metrics.set_index(["model", "case"])["dice"], []
    for name, why in picked.items():
        titles = {model: [f"{name}, {why}", f"{model_title(model)}: {dice[model, name]:.2f}"] for model in models}
        panels += _fullest(read_case_images(layout, cohort, name, models), titles)
    return draw_panels(panels, len(models))


def draw_margin(
    layout: StudyLayout,
    cohort: Cohort,
    case: str,
    model: str,
    margin_mm: float,
    centre: Sequence[float],
    edge_mm: float,
) -> Figure:
    """Squares of three planes around a voxel: reference, prediction, and this with a margin."""
    images = read_case_images(layout, cohort, case, [model])
    prediction, name = images.predictions[model], f"prediction with {margin_mm:.1f} mm"
    spacing_mm, grown = images.image.spacing_mm, np.zeros_like(prediction)
    box = box_around(prediction, margin_mm, spacing_mm)
    grown[box] = surface_distance_mm(prediction[box], spacing_mm) <= margin_mm
    masks, colours = {name: grown, "reference": images.reference, "prediction": prediction}, COLOURS | {name: MARGIN}
    return draw_planes(images.image, masks, centre, f"{case}, {model_title(model)}", images.greys, colours, edge_mm)


def draw_unlabelled(case: Case, mask: Path) -> Figure:
    """Three planes through the largest predicted lesion of a case without reference."""
    prediction = read_mask(mask, case.name)
    lesions = label_lesions(prediction.array)[1]
    volume_cm3 = prediction.array.sum() * np.prod(prediction.spacing_mm) / 1000
    title = f"{fitted(case.name, 4.5, 11)}: {lesions} predicted lesions, {volume_cm3:.1f} cm³ in all; no reference"
    masks = {"prediction": prediction.array}
    return draw_planes(read_image(case), masks, centre_of_largest(prediction.array), title)


def _fullest(images: CaseImages, titles: Mapping[str, Sequence[str]]) -> list[Panel]:
    """The axial slice with most lesion: a panel per network, each with the reference."""
    index, look = fullest_slice(images.marked), {"greys": images.greys}
    return [
        Panel(titles[model], images.image, {"reference": images.reference, "prediction": prediction}, index, look)
        for model, prediction in images.predictions.items()
    ]
