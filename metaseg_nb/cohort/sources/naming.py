"""What the path of one image tells: the name of its case, its primary cancer, its patient by a known convention."""

import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePath

SUFFIXES = (".nii.gz", ".nii")
# BraTS names: a patient of five digits, then the time point. BIDS names: the patient, then the session.
BRATS_CASE = re.compile(r"BraTS-[A-Za-z]+-(\d{5})-\d{3}(?!\d)")
BIDS_CASE = re.compile(r"(sub-[^_]+)_")
# Folders that hold a set of cases, and words for what an image is: they do not tell whose it is.
SET = re.compile(
    r"(images|labels)\w*|imgs?|train(ing)?|val(idation)?|test(ing)?|data(set)?s?|cohorts?|nifti|niis?|scans|cases|patients"
    r"|volumes|anat|mr|mri|/|\.\.?",
    re.IGNORECASE,
)
KIND_WORDS = re.compile(
    r"(image|img|scan|volume|data|brain|head|mri?|t1|t1w|t1c|t1ce|t1gd|t1km|ce|gd|gad|gado|contrast|enhanced"
    r"|mprage|flair|t2|ax|cor|sag|3d|reg(istered)?|stripped|bet|n4|corrected|norm(alized|alised)?|preproc(essed)?|resampled"
    r"|iso|mni|native|final|orig(inal)?|axial|coronal|sagittal|nifti)?",
    re.IGNORECASE,
)
SEPARATORS = re.compile(r"[-_. ]+")
# A folder of one patient: digits that are more than a grade (HER2) or a number of a set (site1).
NUMBERED_SET = re.compile(
    r"(site|cent(er|re)|batch|cohort|set|part|fold|split|group|scanner|year)[-_ ]?[A-Za-z0-9]{0,4}", re.IGNORECASE
)
PATIENT_ID = re.compile(r"\d\d|^\d|(^|[-_ ])(p|pat|patient|sub|subj|subject|case|id|s|mr)[-_ ]?\d", re.IGNORECASE)
CANCER = re.compile(
    r"(?<![a-z])(lung|nsclc|sclc|bronch|breast|mamma|brust|melanom|skin(?![a-z])|haut(?![a-z])|kidney|renal|rcc|niere"
    r"|colon(?![a-z])|colorect|rectal|rectum|crc|darm(?![a-z])|prostat|thyroid|gastr|stomach|o?esophag|pancrea|hepat|liver"
    r"|bladder|urothel|testic|sarcoma|cervi|endometri|uter|ovar)",
    re.IGNORECASE,
)
# When an image was taken: words, numbered words (tp2, 6months), dates.
DATE = (
    r"(?:19|20)\d\d[-_.]?[01]\d(?:[-_.]?[0-3]\d(?:[-_T ][0-2]\d[-:.]?[0-5]\d(?:[-:.]?[0-5]\d)?)?)?"
    r"|[0-3]?\d[-_.][01]?\d[-_.](?:19|20)\d\d"
)
SHORT_DATE = r"\d\d-[01]\d-[0-3]\d|[0-3]\d-[01]\d-\d\d|[0-3]?\d\.[01]?\d\.\d\d"
YEAR = r"(?:19|20)\d\d"
MONTH = r"(?:jan|feb|m[aä]r|mrz|apr|ma[iy]|jun|jul|aug|sep|o[ck]t|nov|de[cz])[a-zä]*"
TIME_WORDS = (
    r"baseline|base|bl|initial|first|second|third|last|pre|post|(?:pre|post)[-_]?(?:op|rt|srs|treatment|therapy|surgery)"
    r"|(?:follow[-_ ]?up|fu|f-u|baseline|bl|pre|post|time[-_ ]?point|time|tp|t|session|ses|visit|v|scan|exam|study|mri?"
    r"|week|wk|w|month|mo|m|day|d|year|yr|y|fraction|fx|kontrolle)[-_ ]?\d{1,4}|follow[-_ ]?up|fu|f-u|kontrolle|verlauf"
    r"|plan(?:ning)?|before|after|vor(?:her)?|nach(?:her)?|diagnosis|(?:re)?staging|recurrence|relapse|rezidiv"
    rf"|(?:[0-3]?\d[-_. ]?)?{MONTH}[-_. ]?{YEAR}|{YEAR}[-_. ]?{MONTH}"
    r"|\d{1,3}[-_ ]?(?:days?|d|weeks?|wk|w|months?|mo|m|years?|yr|y)"
)
TIME = re.compile(rf"{TIME_WORDS}|{DATE}|{YEAR}", re.IGNORECASE)


def stem(name: str) -> str:
    """Leave off the suffix of a NIfTI file, and nothing else: names may have dots."""
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)


def volumes_in(folder: Path) -> list[Path]:
    """The NIfTI files of a folder, by name; hidden ones are other programs' own."""
    return sorted(path for path in folder.iterdir() if is_volume(path)) if folder.is_dir() else []


def is_volume(path: Path) -> bool:
    """Whether a file is NIfTI by its name, and is there."""
    return path.name.endswith(SUFFIXES) and not path.name.startswith(".") and path.is_file()


def as_named(path: Path) -> Path:
    """Absolute path of a file under the name that it was given: a link may lead to a file without suffix."""
    # realpath: unlike resolve, it ends where a link leads to itself
    return Path(os.path.realpath(path.parent), path.name)


def spelled_out(patterns: Iterable[str]) -> list[str]:
    """Glob patterns with both suffixes where they have none."""
    return [
        pattern + suffix
        for pattern in patterns
        for suffix in ([""] if pattern.endswith((*SUFFIXES, "*")) else SUFFIXES)
    ]


def name_of(path: PurePath) -> str:
    """Name a case by the path of its image, as it is listed, and by nothing else.

    The file's name without suffix. Where it only says what the image is (``image``, ``t1c``), the two
    folders above instead: ``lung/p1/image.nii.gz`` is lung_p1. Where it only says when (``baseline``), or
    the folder is a patient's or a primary's, folder and file: ``P01/baseline.nii.gz`` is P01_baseline.
    Folders of sets (``images``, ``train``) are no part of a name.
    """
    own = stem(path.name) or path.name
    folders = _above(path)
    words = SEPARATORS.split(own)
    if all(KIND_WORDS.fullmatch(word) for word in words):
        return "_".join(folders) or own
    if TIME.fullmatch(own) or all(KIND_WORDS.fullmatch(word) or TIME.fullmatch(word) for word in words):
        return "_".join([*folders, own])
    if folders and (_of_a_patient(folders[-1]) or CANCER.search(folders[-1])) and folders[-1] not in own:
        return f"{folders[-1]}_{own}"
    return own


def _above(path: PurePath) -> list[str]:
    """The two folders above a file that are no sets; of a path from elsewhere the upper one only if it tells something.

    The folders of a home or a project may be anybody's.
    """
    below = path.parts[3 if path.parts[1:2] in (("home",), ("Users",)) else 0 : -1]  # a login is nobody's name here
    folders = [folder for folder in below if not SET.fullmatch(folder)][-2:]
    if len(folders) == 2 and (path.is_absolute() or ".." in path.parts):
        upper, lower = folders
        return folders if CANCER.search(upper) or _of_a_patient(upper) or TIME.fullmatch(lower) else [lower]
    return folders


def _of_a_patient(folder: str) -> bool:
    return bool(PATIENT_ID.search(folder)) and not NUMBERED_SET.fullmatch(folder)


def convention_patient(case: str) -> str | None:
    """The patient in a name that BraTS or BIDS made; None in other names.

    ``BraTS-MET-00110-000`` and ``BraTS-MET-00110-001`` are two time points of one patient
    (arXiv:2306.00838), and so are ``sub-01_ses-1`` and ``sub-01_ses-2``.
    """
    found = BRATS_CASE.match(case) or BIDS_CASE.match(case)
    return found[1] if found else None


def primary_of(path: PurePath) -> str:
    """The primary cancer that the path of an image tells, as it is listed; "unknown" where it does not.

    A folder that names a cancer; or, in a path ``<primary>/<case>/<image>``, the first one, unless
    it is a patient's, a set's or a sequence's, or the second one is a sequence's.
    """
    folders = path.parts[:-1]
    primary = next((folder for folder in reversed(folders) if CANCER.search(folder)), None)
    if primary is None and len(folders) == 2 and _is_primary(*folders):
        primary = folders[0]
    return "unknown" if primary is None else primary.removesuffix("_nii")


def _is_primary(folder: str, case: str) -> bool:
    others = (SET, KIND_WORDS, TIME, NUMBERED_SET)
    return not (_of_a_patient(folder) or any(other.fullmatch(name) for other in others for name in (folder, case)))
