"""Pictures of images as they come: brains that were extracted, sequences that were registered, dates side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from nibabel.affines import apply_affine

from metaseg_nb.cohort.cases import Case, Cohort, LesionRule, case_named
from metaseg_nb.cohort.head import find_head, shown_window
from metaseg_nb.cohort.volumes import Volume, read_lesions, read_mask, read_volume
from metaseg_nb.figures.reviewed import read_image
from metaseg_nb.figures.slices import Panel, as_volume, draw_panels, window_around
from metaseg_nb.preprocessing.brain import with_margin
from metaseg_nb.preprocessing.grid import Grid, resample
from metaseg_nb.preprocessing.registration import along_axes
from metaseg_nb.preprocessing.stored_case import StoredCase

# Edges of a square of a checkerboard, and of a picture around a lesion.
SQUARE_MM, EDGE_MM = 30.0, 50.0


def draw_brains(cases: Sequence[Case], stored: Sequence[StoredCase], rule: LesionRule) -> Figure:
    """A row a case: three axial slices as read, with the outline of what is kept as brain; beside each, as prepared.

    The slices lie a quarter, a half and three quarters up the brain; lesions of the reference have their outline too.
    """
    panels = []
    for case, of in zip(cases, stored, strict=True):
        image, brain = read_volume(case.image, case.name), read_mask(of.folder / "brain.nii.gz", case.name).array
        masks = {"brain": with_margin(brain, image.spacing_mm, of.recipe["brain_margin_mm"])}
        if case.label:
            masks["reference"] = read_lesions(case, rule).array
        slices = np.flatnonzero(brain.any(axis=(0, 1)))
        prepared = as_volume(of.image[0].astype(np.float32), of.grid.spacing_mm)
        after = {"reference": np.asarray(of.label) > 0} if of.has_label else {}
        greys = [{"greys": shown_window(it.array)} for it in (image, prepared)]
        for share in (0.25, 0.5, 0.75):
            index = int(slices[int(share * (len(slices) - 1))])
            on_grid = np.abs(of.grid.centres_along(2) - index * image.spacing_mm[2]).argmin()
            panels.append(Panel([case.name, f"{100 * share:.0f} % up the brain"], image, masks, index, greys[0]))
            panels.append(Panel([case.name, "prepared"], prepared, after, int(on_grid), greys[1]))
    return draw_panels(panels, 6)


def draw_registrations(cases: Sequence[Case], stored: Sequence[StoredCase | None]) -> Figure:
    """Two checkerboards of each sequence that was registered with the first one: by the headers, and registered.

    Where the registration is right, outlines go on from square to square. ``stored`` is None for a case whose
    registration failed: each of its sequences lies where the headers place it.
    """
    panels = []
    for case, of in zip(cases, stored, strict=True):
        first = read_volume(case.image, case.name)
        found = of.image_facts["registrations"] if of else [None, *[{}] * (len(case.images) - 1)]
        for path, registration in zip(case.images, found, strict=True):
            if registration is None:
                continue
            other, name = read_volume(path, case.name), path.name.removesuffix(".gz").removesuffix(".nii")
            places = {"by the headers" if of else "not registered": along_axes(np.eye(4), first, other)}
            if of:
                title = f"registered: moved by {registration['moved_mm']:.1f} mm"
                places[title] = along_axes(np.array(registration["matrix"]), first, other)
            panels += _checkerboards([case.name, name], first, other, places)
    return draw_panels(panels, 4 if len(panels) > 2 else 2)


def draw_earlier_dates(cases: Sequence[Case], earlier: Sequence[Case], stored: Sequence[StoredCase]) -> Figure:
    """Two checkerboards of each follow-up with the image of its earlier date: by the headers, and registered."""
    panels = []
    for case, before, of in zip(cases, earlier, stored, strict=True):
        assert of.earlier
        first, other = (read_volume(it.image, it.name) for it in (case, before))
        registered = f"registered: alike {of.earlier['alike']:.2f}"
        places = {"by the headers": along_axes(np.eye(4), first, other), registered: np.array(of.earlier["place"])}
        panels += _checkerboards([case.name], first, other, places)
    return draw_panels(panels, 4 if len(panels) > 2 else 2)


def _checkerboards(names: Sequence[str], first: Volume, other: Volume, places: Mapping[str, np.ndarray]) -> list[Panel]:
    """Squares of two images in turn, on an axial slice of the first, a panel for each place of the other, by its title.

    ``names`` are lines above the title: a long name is shortened there, and not the title. Each image has its own grey
    scale, from 0 to 1.
    """
    head = find_head(first.array, first.spacing_mm)
    low, high = (ends[2] for ends in head.box) if head else (0, first.array.shape[2])
    x, y = (np.arange(first.array.shape[axis]) * first.spacing_mm[axis] // SQUARE_MM for axis in (0, 1))
    source, target = (Grid(it.spacing_mm, it.array.shape) for it in (other, first))
    windows, panels = [shown_window(it.array) for it in (first, other)], []
    for title, place in places.items():
        arrays = first.array, resample(other.array, source, target, place=place)
        greys = [
            ((array[:, :, int((low + high) // 2)] - dark) / (bright - dark)).clip(0, 1)
            for array, (dark, bright) in zip(arrays, windows, strict=True)
        ]
        squares = as_volume(np.where((x[:, None] + y) % 2 == 0, *greys), first.spacing_mm[:2])
        panels.append(Panel([*names, title], squares, look={"greys": (0, 1)}))
    return panels


def draw_lesions_over_time(
    cohort: Cohort, dates: pd.DataFrame, lesions: pd.DataFrame, first: Sequence[int] = (), most: int = 4
) -> Figure:
    """A row a lesion, a column a date: the axial slice at the same place of the head, with the reference's outline.

    The slices are those of each image; a head that lies tilted is not turned back. Where an image does not show the
    place, the panel is empty.

    Parameters
    ----------
    cohort : Cohort
    dates, lesions : DataFrame
        From `follow_study`, of one patient and one model.
    first : sequence of int
        Lesions shown before others.
    most : int
        Lesions shown; after ``first`` the largest ones.
    """
    cases = [case_named(cohort.cases, name) for name in dates["case"]]
    images = {case.name: read_image(case) for case in cases}
    masks = {case.name: read_lesions(case, cohort.rule).array > 0 for case in cases}
    greys = {name: shown_window(image.array) for name, image in images.items()}
    to_date = {row.case: np.reshape(row.matrix, (4, 4)) for row in dates.itertuples()}
    panels = []
    largest = lesions.groupby("lesion")["diameter_mm"].max().sort_values(ascending=False).index
    for number in list(dict.fromkeys([*first, *largest]))[:most]:
        own = lesions[lesions["lesion"] == number].set_index("case")
        came = own[own["part"].notna()].iloc[0]
        back = np.linalg.inv(to_date[came.name]) @ images[came.name].affine
        place_mm = apply_affine(back, came[["x", "y", "z"]].to_numpy(float))
        for name, image in images.items():
            voxel = apply_affine(np.linalg.inv(image.affine) @ to_date[name], place_mm).tolist()
            index = round(voxel[2])
            look = {"window": window_around(image, voxel, 2, EDGE_MM), "greys": greys[name]}
            row = own.loc[name] if name in own.index else None
            what = "not yet there" if row is None else row["fate"]
            size = f", {row['diameter_mm']:.0f} mm" if row is not None and row["diameter_mm"] > 0 else ""
            title = [f"lesion {number}: {what}{size}", f"{name}, day {dates.set_index('case')['day'][name]}"]
            inside = all(0 <= round(place) < n for place, n in zip(voxel, image.array.shape, strict=True))
            panel = Panel(title, image, {"reference": masks[name]}, index, look)
            panels.append(panel if inside else Panel(title, None, missing="not in the image"))
    return draw_panels(panels, len(images))
