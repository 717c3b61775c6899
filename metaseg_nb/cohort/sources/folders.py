"""A folder as a cohort: its layout is recognised by names."""

import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.cohort.sources.bids import is_bids, read_bids
from metaseg_nb.cohort.sources.case_files import CaseFiles, cohort_of
from metaseg_nb.cohort.sources.naming import is_volume, primary_of, spelled_out, volumes_in
from metaseg_nb.cohort.sources.nnunet import is_nnunet, read_nnunet
from metaseg_nb.cohort.sources.other_files import other_files
from metaseg_nb.cohort.sources.strict import unwritable

# Without suffix: .nii and .nii.gz. The last are those of BraTS, in all its years.
USUAL_IMAGES = ("image", "t1c", "*[-_]t1c", "*[-_]t1ce")
USUAL_LABELS = ("label", "mask", "seg", "*[-_]seg")
# Named in an error.
SHOWN_ENTRIES = 8


def read_folder(folder: Path, image_files: Sequence[str] = (), label_file: str = "") -> tuple[Cohort, list[Problem]]:
    """Read a folder of one of these layouts; no image is opened.

    - nnU-Net raw (``imagesTr``; `read_nnunet`);
    - BIDS (``sub-<patient>/[ses-<time>/]anat``; `read_bids`);
    - a folder for each case, ``<case>/`` or ``<primary>/<case>/``: its image and mask are the files that
      ``image_files`` and ``label_file`` match, or ``image``, ``t1c``, ``*-t1c``, ``*_t1ce`` and
      ``label``, ``mask``, ``seg``, ``*-seg``, ``*_seg``, as in BraTS.

    An image without mask makes an unlabelled case and a warning. A mask without
    image, two files where one is meant and an empty folder are errors, and the case is left out.

    Raises
    ------
    CohortError
        No layout is recognised, or a pattern is none.
    """
    for pattern in [*image_files, *([label_file] if label_file else [])]:
        if not _is_pattern(pattern):
            expected = "glob patterns within a case's folder, such as *_t1c.nii.gz"
            raise CohortError.one("-", folder, f"{pattern!r}", expected, "correct `image_files` or `label_file`")
    for recognised, read in ((is_nnunet, read_nnunet), (is_bids, read_bids)):
        if recognised(folder):
            cohort, problems = read(folder, image_files, label_file)
            others, conversion = ("", "") if cohort.cases else other_files(folder)
            found = [Problem("-", str(folder), others, "NIfTI files (.nii or .nii.gz)", conversion)] if others else []
            return cohort, problems + found
    found = _case_folders(folder, image_files, label_file)
    if not any(any(files.images) for files in found):
        raise _unknown_layout(folder, image_files)
    return cohort_of(folder, "", found)


def _is_pattern(pattern: str) -> bool:
    with suppress(ValueError, NotImplementedError):  # pathlib's for "", absolute ones, and those such as "**x"
        any(Path(os.devnull).glob(pattern))
        return not unwritable(pattern)
    return False


def _case_folders(folder: Path, image_files: Sequence[str], label_file: str) -> list[CaseFiles]:
    wanted = [[pattern] for pattern in image_files] or [USUAL_IMAGES]
    labels = [label_file] if label_file else USUAL_LABELS
    cases: list[Path] = []
    for first in _subfolders(folder):
        is_case = volumes_in(first) or _matching(first, [*chain(*wanted), *labels])
        cases += [first] if is_case else _subfolders(first) or [first]
    return [_case_files(folder, case, wanted, labels) for case in cases]


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def _case_files(cohort: Path, folder: Path, wanted: Sequence[Sequence[str]], labels: Sequence[str]) -> CaseFiles:
    place = folder.relative_to(cohort)
    masks = _matching(folder, labels)
    images = tuple([path for path in _matching(folder, patterns) if path not in masks] for patterns in wanted)
    others = [path for path in volumes_in(folder) if path not in masks and not any(path in found for found in images)]
    return CaseFiles("_".join(place.parts), folder, images, masks, others, primary_of(place / "image"))


def _matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """The volumes below a folder that any pattern matches."""
    return sorted({path for pattern in spelled_out(patterns) for path in folder.glob(pattern) if is_volume(path)})


def _unknown_layout(folder: Path, image_files: Sequence[str]) -> CohortError:
    entries = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir() if not path.name.startswith("."))
    more = f" and {len(entries) - SHOWN_ENTRIES} more" if len(entries) > SHOWN_ENTRIES else ""
    found = f"{', '.join(entries[:SHOWN_ENTRIES])}{more}" if entries else "an empty folder"
    names = ", ".join(image_files) or f"{', '.join(USUAL_IMAGES)} (.nii or .nii.gz)"
    expected = (
        "imagesTr/ (nnU-Net), sub-*/anat/ or sub-*/ses-*/anat/ (BIDS), or <case>/ or <primary>/<case>/ "
        f"with an image named {names}"
    )
    fix = "name the files with `image_files` and `label_file`, or give a datalist (JSON) instead of the folder"
    others, conversion = other_files(folder)
    if others:
        found, fix = f"{found}: {others}", f"{conversion}; then give the folder of the NIfTI files"
    return CohortError.one("-", folder, found, expected, fix)
