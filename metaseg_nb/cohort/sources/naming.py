"""What paths tell: names of cases, patients and primary cancers."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path, PurePath

from metaseg_nb.cohort.problems import CohortError, Problem

SUFFIXES = (".nii.gz", ".nii")
# BraTS-METS names: a patient of five digits, then the time point.
BRATS_CASE = re.compile(r"BraTS-[A-Za-z]+-(\d{5})-\d{3}(?!\d)")
NO_PRIMARY = re.compile(r"\.\.|sub-.*|images\w*|train(ing)?|val(idation)?|test(ing)?", re.IGNORECASE)
# T1c, T1ce, T1Gd, T1_post, ce-gad_T1w, post-contrast T1 ...
CONTRAST_T1 = re.compile(
    r"t1w?[-_ ]?(c|ce|gd|gad|post|km)(?![a-z])|(?<![a-z])(ce|gd|gad)[-_]"
    r"|post[-_ ]?contrast|contrast[-_ ]enhanced|gadolin",
    re.IGNORECASE,
)


def stem(name: str) -> str:
    """Leave off the suffix of a NIfTI file, and nothing else: names may have dots."""
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)


def volumes_in(folder: Path) -> list[Path]:
    """The NIfTI files of a folder, by name; hidden ones are other programs' own."""
    return sorted(path for path in folder.iterdir() if is_volume(path)) if folder.is_dir() else []


def is_volume(path: Path) -> bool:
    """Whether a file is NIfTI by its name, and is there."""
    return path.name.endswith(SUFFIXES) and not path.name.startswith(".") and path.is_file()


def spelled_out(patterns: Iterable[str]) -> list[str]:
    """Glob patterns with both suffixes where they have none."""
    return [
        pattern + suffix
        for pattern in patterns
        for suffix in ([""] if pattern.endswith((*SUFFIXES, "*")) else SUFFIXES)
    ]


def unique_names(paths: Sequence[PurePath], given: Sequence[str | None]) -> list[str]:
    """Name each case by its file, or by as many parent folders as make the names differ.

    A file name that all cases share says nothing and is left off: ``lung/p1/image.nii.gz``
    is p1. Names that are ``given`` stay.

    Raises
    ------
    CohortError
        Different paths have one name however long.
    """
    parts = [(*path.parts[:-1], stem(path.name)) for path in paths]
    if len({p[-1] for p in parts}) == 1 < len(parts) and all(len(p) > 1 for p in parts):
        parts = [p[:-1] for p in parts]
    names: list[str] = []
    for depth in range(1, max((len(p) for p in parts), default=0) + 1):
        names = [name or "_".join(p[-depth:]) for name, p in zip(given, parts, strict=True)]
        if len(set(names)) == len(names):
            return names
    if names:
        twice = [name for name, count in Counter(names).items() if count > 1]
        raise CohortError(
            Problem(name, "-", "two images of this name", "a name for each case", 'give them names: "case"')
            for name in twice
        )
    return names


def patient_of(case: str) -> str:
    """The patient of a case that comes without: itself, or a BraTS name's patient number.

    ``BraTS-MET-00110-000`` and ``BraTS-MET-00110-001`` are two time points of one patient (arXiv:2306.00838).
    """
    brats = BRATS_CASE.match(case)
    return brats[1] if brats else case


def primaries_of(paths: Sequence[PurePath]) -> list[str]:
    """The primary cancer of each image that lies in ``<primary>/<case>/``, "unknown" otherwise.

    Longer paths count from below the folder that all images lie in.
    """
    folders = [path.parent.parts for path in paths]
    shared = 0
    if any(len(f) != 2 for f in folders):
        shared = len(list(takewhile(lambda level: len(set(level)) == 1, zip(*folders, strict=False))))
    below = [f[shared:] for f in folders]
    pairs = [pair for pair in below if len(pair) == 2]
    # many images in each folder: not the folders of cases; one name in all of them: <case>/anat/
    crowded = len(set(pairs)) <= len(pairs) / 2
    fixed = len({last for _, last in pairs}) == 1 < len(set(pairs))
    if crowded or fixed:
        return ["unknown"] * len(paths)
    return [f[0].removesuffix("_nii") if len(f) == 2 and not NO_PRIMARY.fullmatch(f[0]) else "unknown" for f in below]
