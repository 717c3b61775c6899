"""The rules that each case is checked by: severity, what is expected, and what to do."""

from pathlib import Path

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.problems import Problem

# Voxel edges that are usual in the clinic, and those that are possible at all.
USUAL_SPACING_MM, POSSIBLE_SPACING_MM = (0.3, 5.0), (0.05, 20.0)

EDGES = f"voxel edges of {USUAL_SPACING_MM[0]:g} to {USUAL_SPACING_MM[1]:g} mm"
INSIDE = "lesions inside the brain"
METASTASES = "a mask of metastases, not of the brain or a part of it"
OWN_MASK = "a mask of its own for each image"
OVERLAY = "check the overlay in your viewer; masks that the workbook writes get the same header"
OTHER_PLACE = "find the right label: this one is of another image, or misplaced"
UNSCALED = "give the image with the scanner's intensities; otherwise notebook 02 does not correct its bias field"
WHOSE_MASK = (
    "if both are images of one patient, give them the same `patient`; find the mask that belongs to each image; if "
    "both are right, name both cases in `confirmed`"
)
# Severity, what is expected, and what to do: the words of `Problem`.
RULES = {
    # headers
    "possible spacing": ("error", EDGES, "the header is wrong, or in other units: export it again"),
    "usual spacing": ("warning", EDGES, "use thinner slices if there are any: these voxels hide small lesions"),
    "right angles": ("error", "axes at right angles", "resample image and label to right angles (gantry tilt)"),
    "a position": ("warning", "a header that gives a position", f"convert the DICOM series again; otherwise {OVERLAY}"),
    "one position": ("warning", "one position", f"the workbook uses the sform, others the qform or pixdim: {OVERLAY}"),
    "one grid": ("error", "the grid of the case's first image", "resample it onto the image, or export both again"),
    "same axes": ("note", "the axes of its image", "nothing, if intended: the workbook brings both to RAS"),
    # images
    "contrast": ("error", "an image with contrast", "export it again"),
    "no overflow": ("error", "no int16 overflow", "export it again as float, or scaled: int16 was too small"),
    "scanner's values": ("warning", "intensities as the scanner gives them", UNSCALED),
    "no negative values": ("warning", "no negative intensities", "export it again if there are more than a few"),
    "whole brain": ("warning", "an image of the whole brain", "use a series of the whole head, if there is one"),
    # labels
    "a lesion": ("warning", "at least one lesion", "check whether one was missed; if not, the patient is kept"),
    "several voxels": ("warning", "lesions of several voxels", "if they are errors, set `min_lesion_mm3` in 02"),
    "not cut": ("warning", "lesions inside the volume", "use a series that covers them, or leave the case out"),
    "some inside": ("doubt", INSIDE, f"{OTHER_PLACE}; if the overlay is right, name the case in `confirmed`"),
    "all inside": ("warning", INSIDE, "check the overlay and erase these lesions"),
    "not the brain": ("error", METASTASES, "give the mask of lesions: `label_file` for a folder, `label` in a list"),
    "usual size": ("doubt", METASTASES, "check the overlay; if all of it is lesion, name the case in `confirmed`"),
    "usual name": ("doubt", METASTASES, "give the mask of the lesions; if this is it, name the case in `confirmed`"),
    # between cases; brains are compared on a coarse grid, so a resemblance is only a warning
    "image once": ("error", "each image once, however it is scaled", "remove one, or training and test may share it"),
    "mask once": ("warning", OWN_MASK, "find the mask that belongs to this image"),
    "mask of one patient": ("doubt", OWN_MASK, WHOSE_MASK),
    "brain once": ("warning", "a different brain for each patient", "if it is one patient, give both one `patient`"),
    "one primary": ("warning", "one primary cancer per patient", "correct `patient` or `primary` in the list or table"),
}


def broken(rule: str, case: Case, file: str | Path | None, found: str) -> Problem:
    """Make the problem of a case that breaks a rule."""
    severity, expected, fix = RULES[rule]
    return Problem(case.name, str(file), found, expected, fix, severity)
