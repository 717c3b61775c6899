"""Lesions at every date, side by side at the same place."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from nibabel.affines import apply_affine

from metaseg_nb.cohort.cases import Cohort, case_named
from metaseg_nb.cohort.head import shown_window
from metaseg_nb.cohort.volumes import read_lesions
from metaseg_nb.figures.reviewed import read_image
from metaseg_nb.figures.slices import Panel, draw_panels, window_around

EDGE_MM = 50.0


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
