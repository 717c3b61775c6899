"""The rules that a case is checked by: how bad a breach is, what is expected, and what to do."""

from pathlib import Path

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.problems import Problem

# Voxel edges that are usual in the clinic, and those that are possible at all.
USUAL_SPACING_MM, POSSIBLE_SPACING_MM = (0.3, 5.0), (0.05, 20.0)

EDGES = f"voxel edges of {USUAL_SPACING_MM[0]:g} to {USUAL_SPACING_MM[1]:g} mm"
INSIDE = "lesions inside the brain"
METASTASES = "a mask of metastases, not of the brain or a part of it"
OWN_MASK = "a mask of its own"
OVERLAY = "compare the overlay in your programs; masks written here keep this header"
OTHER_PLACE = "the label belongs to another image or another place"
UNSCALED = "give the image as the scanner made it; without it, notebook 02 corrects no bias field"
WHOSE_MASK = (
    "if both are images of one patient, give them the same `patient`; find the mask that belongs to each image; if "
    "both are right, name both cases in `confirmed`"
)
# Severity, what is expected, and what to do: the words of `Problem`.
RULES = {
    # headers
    "possible spacing": ("error", EDGES, "the header is wrong, or in other units: export it again"),
    "usual spacing": ("warning", EDGES, "take thinner slices if there are any: lesions within an edge cannot be seen"),
    "right angles": ("error", "axes at right angles", "resample image and label to right angles (gantry tilt)"),
    "a place": ("warning", "a header that names a place", f"convert the DICOM series again; otherwise {OVERLAY}"),
    "one place": ("warning", "one place", f"the sform is taken here, by others the qform or pixdim: {OVERLAY}"),
    "one grid": ("error", "the grid of the case's first image", "resample it onto the image, or export both again"),
    "same axes": ("note", "the axes of its image", "nothing, if it was meant: both are brought to RAS here"),
    # images
    "contrast": ("error", "an image with contrast", "export it again"),
    "no overflow": ("error", "no int16 overflow", "export it again as float, or scaled: int16 was too small"),
    "scanner's values": ("warning", "intensities as the scanner gives them", UNSCALED),
    "no negative values": ("warning", "no negative intensities", "export it again if there are more than a few"),
    "whole brain": ("warning", "an image of the whole brain", "take a series of the whole head, if there is one"),
    # labels
    "a lesion": ("warning", "at least one lesion", "look whether one was missed; if not, the patient stays in without"),
    "several voxels": ("warning", "lesions of several voxels", "if they are slips, set `min_lesion_mm3` in 02"),
    "not cut": ("warning", "lesions inside the volume", "take a series that covers them, or leave the case out"),
    "some inside": ("doubt", INSIDE, f"{OTHER_PLACE}; if the overlay is right, name the case in `confirmed`"),
    "all inside": ("warning", INSIDE, "look at the overlay and erase them"),
    "not the brain": ("error", METASTASES, "give the mask of lesions: `label_file` of a folder, `label` in a list"),
    "usual size": ("doubt", METASTASES, "look at the overlay; if all of it is lesion, name the case in `confirmed`"),
    "usual name": ("doubt", METASTASES, "give the mask of the lesions; if this is it, name the case in `confirmed`"),
    # between cases; brains are compared by coarse pictures, so a likeness is only a warning
    "image once": ("error", "each image once, however it is scaled", "remove one, or training and test share it"),
    "mask once": ("warning", OWN_MASK, "find the mask that belongs to this image"),
    "mask of one patient": ("doubt", OWN_MASK, WHOSE_MASK),
    "brain once": ("warning", "a brain of its own for each patient", "if it is one patient, write the same `patient`"),
    "one primary": ("warning", "one primary cancer a patient", "correct `patient` or `primary` in the list or table"),
}


def broken(rule: str, case: Case, file: str | Path | None, found: str) -> Problem:
    """Problem of a case that does not keep a rule."""
    severity, expected, fix = RULES[rule]
    return Problem(case.name, str(file), found, expected, fix, severity)
