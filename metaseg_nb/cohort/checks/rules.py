"""The rules that a case is checked by: what is expected, what to do where it is not so, and how bad that is."""

from pathlib import Path
from typing import NamedTuple

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.problems import Problem

# Voxel edges in millimetres that are usual in the clinic.
USUAL_SPACING_MM = (0.3, 5.0)


class Rule(NamedTuple):
    """One rule; the words are those of `Problem`."""

    expected: str
    fix: str
    severity: str = "error"


EDGES = f"voxel edges of {USUAL_SPACING_MM[0]:g} to {USUAL_SPACING_MM[1]:g} mm"
INSIDE = "lesions inside the brain"
METASTASES = "a mask of metastases, not of the brain or a part of it"
OWN_MASK = "a mask of its own"
OVERLAY = "compare the overlay in your programs; masks written here keep this header, so they stay with their image"

RULES = {
    # headers
    "possible spacing": Rule(EDGES, "the header is wrong, or in other units: export it again"),
    "usual spacing": Rule(
        EDGES,
        "lesions smaller than a voxel edge cannot be seen; take the thinner series where there is one",
        "warning",
    ),
    "right angles": Rule(
        "axes at right angles", "resample it onto a grid of right angles (gantry tilt), image and label alike"
    ),
    "a place": Rule("a header that names a place", f"convert the DICOM series again; otherwise {OVERLAY}", "warning"),
    "one place": Rule(
        "one place", f"this workbook takes the sform, other programs the qform or pixdim: {OVERLAY}", "warning"
    ),
    "one grid": Rule("the grid of the case's first image", "resample it onto the image, or export both again"),
    "same axes": Rule("the axes of its image", "nothing, if it was meant: both are brought to RAS here", "note"),
    # images
    "contrast": Rule("an image with contrast", "export it again"),
    "no overflow": Rule(
        "no int16 overflow", "the image overflowed when it was saved as int16: export it again as float or scaled"
    ),
    "scanner's values": Rule(
        "intensities as the scanner gives them",
        "give the image as the scanner made it, if there is one; otherwise notebook 02 scales it as any other, but "
        "corrects no bias field, as a field multiplies signals that start at 0",
        "warning",
    ),
    "no negative values": Rule(
        "no negative intensities",
        "nothing, if they are few: they take no part in the bias correction; otherwise export it again",
        "warning",
    ),
    "whole brain": Rule(
        "an image of the whole brain",
        "take a series of the whole head; from this one nothing is known of lesions in the rest of the brain",
        "warning",
    ),
    # labels
    "a lesion": Rule(
        "at least one lesion", "make sure that none was missed; if so, it stays in as a patient without", "warning"
    ),
    "several voxels": Rule(
        "lesions of several voxels",
        "look whether they are slips of the brush; `min_lesion_mm3` of notebook 02 removes them from training",
        "warning",
    ),
    "not cut": Rule(
        "lesions inside the volume",
        "take a series that covers the whole lesion, or leave the case out: its volume is not known",
        "warning",
    ),
    "some inside": Rule(INSIDE, "the label belongs to another image or another place: compare the overlay"),
    "all inside": Rule(INSIDE, "look at the overlay and erase them", "warning"),
    "not the brain": Rule(
        METASTASES,
        "give the mask of the lesions: in a folder of cases by its file name (`label_file`), in a list as `label`",
    ),
    "usual size": Rule(
        METASTASES, "look at the overlay; if all of it is lesion, name the case in `confirmed`", "doubt"
    ),
    "usual name": Rule(
        METASTASES, "give the mask of the lesions; if this is it, name the case in `confirmed`", "doubt"
    ),
    # between cases
    "image once": Rule(
        "each image once, however its intensities are scaled",
        "remove one of the two, or training and test will share it",
    ),
    "mask once": Rule(OWN_MASK, "find the mask that belongs to this image", "warning"),
    "mask of one patient": Rule(
        OWN_MASK,
        "look whether both are images of one patient, and give them the same `patient`; find the mask that belongs to "
        "each image; if both are right, name both cases in `confirmed`",
        "doubt",
    ),
    # a warning, because coarse pictures of the brains are compared
    "brain once": Rule(
        "a brain of its own for each patient",
        "compare the two images; if they show one patient, give them the same `patient`",
        "warning",
    ),
    "one primary": Rule(
        "one primary cancer a patient",
        "correct `patient` or `primary` in the datalist or the patients table",
        "warning",
    ),
}


def broken(rule: str, case: Case, file: str | Path | None, found: str) -> Problem:
    """Problem of a case that does not keep a rule."""
    expected, fix, severity = RULES[rule]
    return Problem(case.name, str(file), found, expected, fix, severity)
