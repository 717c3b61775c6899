"""Read the case, patient, primary cancer, time and sequence from names of files and folders; and the site.

All lists of words stand here.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePath

from metaseg_nb.cohort.sources.spelling import SUFFIXES, means_unknown, stem

# BraTS names: a patient of five digits, then the time point. BIDS names: the patient, then the session.
BRATS_CASE = re.compile(r"BraTS-[A-Za-z]+-(\d{5})-\d{3}(?!\d)")
BIDS_CASE = re.compile(r"(sub-[^_]+)_")
# Folders that hold a set of cases, and words for kinds of images: neither names a patient.
SET = re.compile(
    r"(images|labels)\w*|imgs?|(train(ing)?|val(id(ation)?)?|test(ing)?|tr|ts)[-_ ]?(set|data)?|data(set)?s?|cohorts?"
    r"|nifti|niis?|scans|cases|patients|volumes|anat|mr|mri|(fold|split)[-_ ]?\d+|/|\.\.?",
    re.IGNORECASE,
)
KIND_WORDS = re.compile(
    r"(image|img|scan|volume|data|brain|head|mri?|t1|t1w|t1c|t1ce|t1gd|t1km|ce|gd|gad|gado|contrast|enhanced"
    r"|mprage|flair|t2|ax|cor|sag|3d|reg(istered)?|stripped|bet|n4|corrected|norm(alized|alised)?|preproc(essed)?|resampled"
    r"|iso|mni|native|final|raw|orig(inal)?|axial|coronal|sagittal|nifti|masks?|labels?|seg(mentation)?s?)?",
    re.IGNORECASE,
)
SEPARATORS = re.compile(r"[-_. ]+")
# Digits in these names number a set of patients (site1, 3T), not a patient.
NUMBERED_SET = re.compile(
    r"(site|cent(er|re)|batch|cohort|set|part|fold|split|group|scanner|year)[-_ ]?[A-Za-z0-9]{0,4}|\d([.,]\d)?T",
    re.IGNORECASE,
)
PATIENT_WORDS = "p|pat|patient|patients|sub|subj|subject|case|id|no|nr"
# A folder of one patient: digits that are more than a grade (HER2).
PATIENT_ID = re.compile(rf"\d\d|^\d|(^|[-_ ])({PATIENT_WORDS}|s|mr)[-_ ]?\d", re.IGNORECASE)
RUNNING_ID = re.compile(rf"({PATIENT_WORDS}|s)[-_ ]?\d{{1,3}}", re.IGNORECASE)
# A case or image with its number, which starts anew in each folder.
NUMBERED = re.compile(rf"(case|site|cent(er|re)|{KIND_WORDS.pattern})?\d*", re.IGNORECASE)
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
ANY_YEAR = r"(?:19|20)\d\d"
ANY_DATE = rf"{DATE}|\d\d-[01]\d-[0-3]\d|[0-3]\d-[01]\d-\d\d|[0-3]?\d\.[01]?\d\.\d\d|{ANY_YEAR}"
MONTH = r"(?:jan|feb|m[aä]r|mrz|apr|ma[iy]|jun|jul|aug|sep|o[ck]t|nov|de[cz])[a-zä]*"
TIME_WORDS = (
    r"baseline|base|bl|initial|first|second|third|last|pre|post|(?:pre|post)[-_]?(?:op|rt|srs|treatment|therapy|surgery)"
    r"|(?:follow[-_ ]?up|fu|f-u|baseline|bl|pre|post|time[-_ ]?point|time|tp|t|session|ses|visit|v|scan|exam|study|mri?"
    r"|week|wk|w|month|mo|m|day|d|year|yr|y|fraction|fx|kontrolle)[-_ ]?\d{1,4}|follow[-_ ]?up|fu|f-u|kontrolle|verlauf"
    r"|plan(?:ning)?|before|after|vor(?:her)?|nach(?:her)?|diagnosis|(?:re)?staging|recurrence|relapse|rezidiv"
    rf"|(?:[0-3]?\d[-_. ]?)?{MONTH}[-_. ]?{ANY_YEAR}|{ANY_YEAR}[-_. ]?{MONTH}"
    r"|\d{1,3}[-_ ]?(?:days?|d|weeks?|wk|w|months?|mo|m|years?|yr|y)"
)
TIME = re.compile(rf"{TIME_WORDS}|{DATE}|{ANY_YEAR}", re.IGNORECASE)
# Contrast agents, and words for "with" and "without". (?<![a-z]) and (?![a-z]): whole words, between "_" or digits.
AGENT = r"(?:contrast(?:[-_ ]?(?:agent|medium|media))?|gadolinium|gadolin\w*|gado\w*|gad|gd|ce|km|kontrast\w*|dotarem)"
ENHANCED = rf"(?:{AGENT}|c|enhanc\w*|inject\w*)"
NO = r"(?:pre|no|non|not|none|without|w/?o|ohne|sans|senza|sin|before|vor|avant|free[-_ ]of|minus)"
YES = r"(?:with|mit|avec|post|after|nach|plus|\+)"
PLAIN_T1 = re.compile(
    rf"(?<![a-z]){NO}[-_ (]*(?:(?:any|iv|i\.v\.|intravenous|t1w?)[-_ ]*)*{ENHANCED}(?![a-z])"
    rf"|(?<![a-z])(?:unenhanced|nonenhanced|noncontrast|precontrast|nativ\w*|plain)(?![a-z])"
    rf"|(?<![a-z]){AGENT}[-_ ]*(?:[:=][-_ ]*)?(?:no|none|off|false|free|0)(?![a-z0-9])",
    re.IGNORECASE,
)
ENHANCED_T1 = re.compile(
    rf"(?:t1w?[-_ +]*|\+ ?)(?:c|{AGENT})(?![a-z])"
    r"|t1(?![0-9]).*(?<![a-z])post(?![a-z])(?![-_ ]?(?:op|surg|treat|rt|radi|therap|resect|chemo))"
    rf"|(?<![a-z]){AGENT}(?![a-z])"
    rf"|{YES}[-_ ]*(?:iv[-_ ]*)?{AGENT}(?![a-z])|(?<![a-z])enhanced(?![a-z])",
    re.IGNORECASE,
)
T1 = re.compile(r"t1(?![0-9])", re.IGNORECASE)
OTHER_SEQUENCE = re.compile(r"t2|flair|dwi|adc|swi|perf|pd(?![a-z])", re.IGNORECASE)
# Makers as headers call them, in capitals, by the first word; the rest keep theirs.
MAKERS = {"GE": "GE", "GENERAL": "GE", "UIH": "United Imaging", "UNITED": "United Imaging"}
MAKERS |= {"TOSHIBA_MEC": "Toshiba", "CANON_MEC": "Canon"}
# Field strengths of clinical scanners in tesla: headers give the magnet's own, such as 1.494.
TESLA = (0.35, 0.55, 1.0, 1.2, 1.5, 3.0, 5.0, 7.0)
TESLA_TOLERANCE = 0.12


def is_volume(path: Path) -> bool:
    """Tell whether a path is a NIfTI file by its name, and exists; hidden files belong to other programs."""
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".") and path.is_file()


def volumes_in(folder: Path) -> list[Path]:
    """The NIfTI files of a folder, by name."""
    return sorted(path for path in folder.iterdir() if is_volume(path)) if folder.is_dir() else []


def spelled_out(patterns: Iterable[str]) -> list[str]:
    """Glob patterns with both suffixes where they have none."""
    whole = (*SUFFIXES, "*")
    return [pattern + end for pattern in patterns for end in ([""] if pattern.lower().endswith(whole) else SUFFIXES)]


def in_any_capitals(pattern: str) -> str:
    """A glob pattern that matches small letters and capitals alike: of ``GTV[ab]`` it is ``[Gg][Tt][Vv][aABb]``."""

    def both(match: re.Match) -> str:
        if match["group"] is None:
            other = match[0].swapcase()
            return f"[{match[0]}{other}]" if other != match[0] and len(other) == 1 else match[0]
        parts = re.findall(".-.|.", match["group"])  # ranges, as a-z, and characters
        others = [other for part in parts if (other := part.swapcase()) != part and len(other) == len(part)]
        # "]" and "-" mean themselves at the start only, "-" at the end too
        return f"[{match['no']}{''.join([*parts[:1], *others, *parts[1:]])}]"

    return re.sub(r"\[(?P<no>!?)(?P<group>\]?[^]]*)\]|.", both, pattern)


def is_enhanced_t1(text: str) -> bool:
    """Tell whether the name of a file or channel means the contrast-enhanced T1.

    ``T1c``, ``T1ce``, ``T1Gd``, ``ce-gad_T1w``, ``T1 with gadolinium`` do; ``T1 without gadolinium``,
    ``non-contrast-enhanced``, ``pre_gd``, ``contrast-enhanced FLAIR`` do not.
    """
    other = OTHER_SEQUENCE.search(text) and not T1.search(text)
    return bool(ENHANCED_T1.search(text)) and not is_plain(text) and not other


def is_plain(text: str) -> bool:
    """Tell whether a name says that no contrast agent was given."""
    return bool(PLAIN_T1.search(text))


def is_kind(name: str, *or_else: re.Pattern) -> bool:
    """Tell whether all words of a name describe a kind of image (or match one of other patterns)."""
    words = (KIND_WORDS, *or_else)
    return all(any(kind.fullmatch(word) for kind in words) for word in SEPARATORS.split(name))


def is_kind_or_time(name: str) -> bool:
    """Tell whether a name holds only the kind of image and the time."""
    return bool(TIME.fullmatch(name)) or is_kind(name, TIME)


def is_patient(folder: str) -> bool:
    """Tell whether a folder has the name of one patient."""
    return bool(PATIENT_ID.search(folder)) and not NUMBERED_SET.fullmatch(folder)


def name_of(path: PurePath) -> str:
    """Name a case by the path of its image as it is listed.

    The file's name without suffix. Where it is only a kind of image (``image``, ``t1c``), the two
    folders above instead: ``lung/p1/image.nii.gz`` is lung_p1. Where it is only a time (``baseline``), or
    the folder is a patient's or a primary's, folder and file: ``P01/baseline.nii.gz`` is P01_baseline.
    Folders of sets (``images``, ``train``) are no part of a name.
    """
    own = stem(path.name) or path.name
    folders = _above(path)
    if is_kind(own):
        return "_".join(folders) or own
    if is_kind_or_time(own):
        return "_".join([*folders, own])
    if folders and (is_patient(folders[-1]) or CANCER.search(folders[-1])) and folders[-1] not in own:
        return f"{folders[-1]}_{own}"
    return own


def _above(path: PurePath) -> list[str]:
    """The two folders above a file that are no sets; of an absolute path often the lower one only."""
    login = len(home_of(path)) == 3  # which is no patient
    below = path.parts[3 if login else 0 : -1]
    folders = [folder for folder in below if not SET.fullmatch(folder)][-2:]
    if len(folders) == 2 and (path.is_absolute() or ".." in path.parts):
        upper, lower = folders
        return folders if CANCER.search(upper) or is_patient(upper) or TIME.fullmatch(lower) else [lower]
    return folders


def home_of(path: PurePath) -> tuple[str, ...]:
    """The first folders of an absolute path: a home with its login, or the top folder."""
    return path.parts[: 3 if path.parts[1:2] in (("home",), ("Users",)) else 2]


def convention_patient(case: str) -> str | None:
    """The patient in a name that BraTS or BIDS made; None in other names.

    ``BraTS-MET-00110-000`` and ``BraTS-MET-00110-001`` are two time points of one patient
    (arXiv:2306.00838), and so are ``sub-01_ses-1`` and ``sub-01_ses-2``.
    """
    found = BRATS_CASE.match(case) or BIDS_CASE.match(case)
    return found[1] if found else None


def primary_of(path: PurePath) -> str:
    """The primary cancer in the path of an image as it is listed, or "unknown".

    A folder that names a cancer; or the first folder of ``<primary>/<case>/<image>``, unless
    it is a patient's, a set's or a sequence's, or the second one is a sequence's.
    """
    folders = path.parts[:-1]
    primary = next((folder for folder in reversed(folders) if CANCER.search(folder)), None)
    if primary is None and len(folders) == 2 and not is_patient(folders[0]):
        others = (SET, KIND_WORDS, TIME, NUMBERED_SET)
        primary = None if any(other.fullmatch(name) for other in others for name in folders) else folders[0]
    return "unknown" if primary is None else primary.removesuffix("_nii")


def site_of(maker: str, field_strength: str) -> str:
    """Name a site by its scanner's maker and field strength, such as ``Siemens 1.5 T``.

    Parameters
    ----------
    maker, field_strength : str
        The DICOM elements Manufacturer and MagneticFieldStrength (tesla, in old headers gauss); "" where there is none.

    Returns
    -------
    str
        "" if one of them is missing or was anonymised, or no clinical scanner has that strength.
    """
    tesla = 0.0
    with suppress(ValueError):
        tesla = float(field_strength)
    tesla /= 10_000 if tesla >= 1000 else 1  # old headers give gauss
    nearest = min(TESLA, key=lambda usual: abs(usual - tesla))
    first = (maker.replace(",", " ").split() or [""])[0]
    unknown = not first or means_unknown(maker) or maker.lower().startswith("anonym")
    if unknown or not abs(nearest - tesla) <= TESLA_TOLERANCE * nearest:
        return ""
    return f"{MAKERS.get(first.upper(), first.capitalize())} {nearest:g} T"
