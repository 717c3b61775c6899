"""Pictures of what was done to images as they come: brains that were extracted, sequences that were registered."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from metaseg_nb.cohort.cases import Case, LesionRule
from metaseg_nb.cohort.head import find_head, shown_window
from metaseg_nb.cohort.volumes import Volume, read_lesions, read_mask, read_volume
from metaseg_nb.figures.slices import Panel, draw_panels
from metaseg_nb.preprocessing.brain import with_margin
from metaseg_nb.preprocessing.grid import Grid, resample
from metaseg_nb.preprocessing.registration import along_axes
from metaseg_nb.preprocessing.stored_case import StoredCase

SQUARE_MM = 30.0


def draw_brains(cases: Sequence[Case], stored: Sequence[StoredCase], rule: LesionRule) -> Figure:
    """A row a case: three axial slices of the image as it was read, with the outline of what is kept as brain.

    The slices lie a quarter, a half and three quarters up the brain; lesions of the reference have their outline too.
    """
    panels = []
    for case, of in zip(cases, stored, strict=True):
        image, brain = read_volume(case.image, case.name), read_mask(of.folder / "brain.nii.gz", case.name).array
        masks = {"brain": with_margin(brain, image.spacing_mm, of.recipe["brain_margin_mm"])}
        if case.label:
            masks["reference"] = read_lesions(case, rule).array
        slices = np.flatnonzero(brain.any(axis=(0, 1)))
        look = {"greys": shown_window(image.array)}
        for share in (0.25, 0.5, 0.75):
            title = [case.name, f"{100 * share:.0f} % up the brain"]
            panels.append(Panel(title, image, masks, int(slices[int(share * (len(slices) - 1))]), look))
    return draw_panels(panels, 3)


def draw_registrations(cases: Sequence[Case], stored: Sequence[StoredCase | None]) -> Figure:
    """A row for each sequence that was registered: checkerboards with the first one, by the headers and as registered.

    Where the registration is right, outlines go on from square to square. ``stored`` is None for a case whose
    registration failed.
    """
    panels = []
    for case, of in zip(cases, stored, strict=True):
        first = read_volume(case.image, case.name)
        found = of.image_facts["registrations"] if of else [None, *({"matrix": None} for _ in case.images[1:])]
        for path, registration in zip(case.images, found, strict=True):
            if registration is None:
                continue
            other, name = read_volume(path, case.name), path.name.removesuffix(".gz").removesuffix(".nii")
            panels.append(_checkerboard([case.name, f"{name}, by the headers"], first, other, np.eye(4)))
            if registration["matrix"] is None:
                panels.append(Panel([case.name, f"{name}: no plausible place found"], None))
            else:
                moved = f"{name}, registered: moved by {registration['moved_mm']:.1f} mm"
                matrix = np.array(registration["matrix"])
                panels.append(_checkerboard([case.name, moved], first, other, matrix))
    return draw_panels(panels, 4 if len(panels) > 2 else 2)


def _checkerboard(title: Sequence[str], first: Volume, other: Volume, matrix: np.ndarray) -> Panel:
    """Squares of one image and of the other in turn, each on its own grey scale, through the middle of the head."""
    head = find_head(first.array, first.spacing_mm)
    low, high = head.box if head else (np.zeros(3), np.array(first.array.shape))
    index = int((low[2] + high[2]) // 2)
    source, target = (Grid(it.spacing_mm, it.array.shape) for it in (other, first))
    placed = resample(other.array, source, target, place=along_axes(matrix, first, other))
    grey = []
    for array, of in ((first.array, first), (placed, other)):
        dark, bright = shown_window(of.array)
        grey.append(((array[:, :, index] - dark) / (bright - dark)).clip(0, 1))
    x, y = (np.arange(first.array.shape[axis]) * first.spacing_mm[axis] // SQUARE_MM for axis in (0, 1))
    board = np.where((x[:, None] + y) % 2 == 0, *grey)[:, :, None]
    return Panel(title, Volume(board, first.affine, first.native_orientation), look={"greys": (0, 1)})
