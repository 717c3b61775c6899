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
OVERLAY = "compare the overlay in your programs; masks written here keep this header, so they stay with their image"
THINNER = "lesions smaller than a voxel edge cannot be seen; take the thinner series where there is one"
NORMALISED = (
    "give the image as the scanner made it, if there is one; otherwise notebook 02 scales it as any other, but "
    "corrects no bias field, as a field multiplies signals that start at 0"
)
STRAY = "nothing, if they are few: they take no part in the bias correction; otherwise export it again"
WHOLE_HEAD = "take a series of the whole head; from this one nothing is known of lesions in the rest of the brain"
SLIPS = "look whether they are slips of the brush; `min_lesion_mm3` of notebook 02 removes them from training"
WHOLE_LESION = "take a series that covers the whole lesion, or leave the case out: its volume is not known"
WHICH_MASK = "give the mask of the lesions: in a folder of cases by its file name (`label_file`), in a list as `label`"
ONE_MASK = (
    "look whether both are images of one patient, and give them the same `patient`; find the mask that belongs to each "
    "image; if both are right, name both cases in `confirmed`"
)
# Severity, what is expected, and what to do: the words of `Problem`.
RULES = {
    # headers
    "possible spacing": ("error", EDGES, "the header is wrong, or in other units: export it again"),
    "usual spacing": ("warning", EDGES, THINNER),
    "right angles": (
        *("error", "axes at right angles"),
        "resample it onto a grid of right angles (gantry tilt), image and label alike",
    ),
    "a place": ("warning", "a header that names a place", f"convert the DICOM series again; otherwise {OVERLAY}"),
    "one place": (
        *("warning", "one place"),
        f"this workbook takes the sform, other programs the qform or pixdim: {OVERLAY}",
    ),
    "one grid": ("error", "the grid of the case's first image", "resample it onto the image, or export both again"),
    "same axes": ("note", "the axes of its image", "nothing, if it was meant: both are brought to RAS here"),
    # images
    "contrast": ("error", "an image with contrast", "export it again"),
    "no overflow": (
        *("error", "no int16 overflow"),
        "the image overflowed when it was saved as int16: export it again as float or scaled",
    ),
    "scanner's values": ("warning", "intensities as the scanner gives them", NORMALISED),
    "no negative values": ("warning", "no negative intensities", STRAY),
    "whole brain": ("warning", "an image of the whole brain", WHOLE_HEAD),
    # labels
    "a lesion": (
        *("warning", "at least one lesion"),
        "make sure that none was missed; if so, it stays in as a patient without",
    ),
    "several voxels": ("warning", "lesions of several voxels", SLIPS),
    "not cut": ("warning", "lesions inside the volume", WHOLE_LESION),
    "some inside": ("error", INSIDE, "the label belongs to another image or another place: compare the overlay"),
    "all inside": ("warning", INSIDE, "look at the overlay and erase them"),
    "not the brain": ("error", METASTASES, WHICH_MASK),
    "usual size": ("doubt", METASTASES, "look at the overlay; if all of it is lesion, name the case in `confirmed`"),
    "usual name": ("doubt", METASTASES, "give the mask of the lesions; if this is it, name the case in `confirmed`"),
    # between cases
    "image once": (
        *("error", "each image once, however its intensities are scaled"),
        "remove one of the two, or training and test will share it",
    ),
    "mask once": ("warning", OWN_MASK, "find the mask that belongs to this image"),
    "mask of one patient": ("doubt", OWN_MASK, ONE_MASK),
    # a warning, because coarse pictures of the brains are compared
    "brain once": (
        *("warning", "a brain of its own for each patient"),
        "compare the two images; if they show one patient, give them the same `patient`",
    ),
    "one primary": (
        *("warning", "one primary cancer a patient"),
        "correct `patient` or `primary` in the datalist or the patients table",
    ),
}


def broken(rule: str, case: Case, file: str | Path | None, found: str) -> Problem:
    """Problem of a case that does not keep a rule."""
    severity, expected, fix = RULES[rule]
    return Problem(case.name, str(file), found, expected, fix, severity)
