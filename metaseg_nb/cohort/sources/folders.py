"""A folder as a cohort: its layout is recognised by names, or given by patterns."""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.problems import CohortError, Problem, shortened
from metaseg_nb.cohort.sources.bids import is_bids, read_bids
from metaseg_nb.cohort.sources.case_files import CaseFiles, cohort_of, other_files
from metaseg_nb.cohort.sources.naming import is_volume, primary_of, spelled_out, volumes_in
from metaseg_nb.cohort.sources.nnunet import is_nnunet, read_nnunet
from metaseg_nb.cohort.sources.spelling import unwritable

# Layouts with a module of their own: how each is recognised and read. The first that recognises a folder reads it.
LAYOUTS = [(is_nnunet, read_nnunet), (is_bids, read_bids)]
# Without suffix: .nii and .nii.gz. The last are those of BraTS, in all its years.
USUAL_IMAGES = ("image", "t1c", "*[-_]t1c", "*[-_]t1ce")
USUAL_LABELS = ("label", "mask", "seg", "*[-_]seg")
# Stands for the patient in patterns of a folder without a folder for each case.
PATIENT = "{patient}"
PATTERNS = f"glob patterns within a case's folder, such as *_t1c.nii.gz, or all with {PATIENT}, such as {PATIENT}_t1c"
# Named in an error.
SHOWN_ENTRIES = 8


def read_folder(folder: Path, image_files: Sequence[str] = (), label_file: str = "") -> tuple[Cohort, list[Problem]]:
    """Read a folder of one of these layouts; no image is opened.

    - any folder, by patterns with ``{patient}``: ``{patient}_T1KM.nii.gz``, ``{patient}_GTV.nii.gz``;
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
    given = [*image_files, *([label_file] if label_file else [])]
    named = [PATIENT in pattern for pattern in given]
    wrong = [pattern for pattern in given if not _is_pattern(pattern)]
    if any(named) and not (all(named) and image_files and label_file):
        wrong = wrong or [pattern for pattern in (*image_files, label_file) if PATIENT not in pattern] or [""]
    if wrong:
        raise CohortError.one("-", folder, f"{wrong[0]!r}", PATTERNS, "correct `image_files` or `label_file`")
    problems = []
    if any(named):
        found, problems = _patient_files(folder, image_files, label_file)
    else:
        for recognised, read in LAYOUTS:
            if recognised(folder):
                cohort, problems = read(folder, image_files, label_file)
                others, fix = ("", "") if cohort.cases else other_files(folder)
                expected = "NIfTI files (.nii or .nii.gz)"
                return cohort, problems + ([Problem("-", str(folder), others, expected, fix)] if others else [])
        found = _case_folders(folder, image_files, label_file)
    if not any(any(files.images) for files in found):
        raise _unknown_layout(folder, image_files, given)
    cohort, wrong = cohort_of(folder, "", found)
    return cohort, problems + wrong


def _is_pattern(pattern: str) -> bool:
    with suppress(ValueError, NotImplementedError):  # pathlib's for "", absolute ones, and those such as "**x"
        any(Path(os.devnull).glob(pattern))
        return not unwritable(pattern)
    return False


def _patient_files(folder: Path, image_files: Sequence[str], label_file: str) -> tuple[list[CaseFiles], list[Problem]]:
    """The files of each patient by patterns with ``{patient}``, and volumes beside them that no pattern matches."""
    patterns = [label_file, *image_files]
    found: dict[str, list[list[Path]]] = defaultdict(lambda: [[] for _ in patterns])
    masks: set[Path] = set()
    images: set[Path] = set()
    for i, pattern in enumerate(patterns):
        for spelled in spelled_out([pattern]):
            whole = re.escape(spelled).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
            for group in ("(?P<patient>[^/]+?)", "(?P=patient)"):
                whole = whole.replace(re.escape(PATIENT), group, 1 if "<" in group else -1)
            for path in sorted({*folder.glob(spelled.replace(PATIENT, "*"))} - (masks if i else set())):
                match = re.fullmatch(whole, path.relative_to(folder).as_posix())
                if match and is_volume(path):
                    found[match["patient"]][i].append(path)
                    (images if i else masks).add(path)
    left = {path for place in {path.parent for path in masks | images} for path in volumes_in(place)} - masks - images
    what = f"{len(left)} files: {shortened(sorted(path.name for path in left))}"
    fix = "nothing, if they are not wanted; otherwise correct `image_files` or `label_file`"
    problem = Problem("-", str(folder), what, "volumes that the patterns match", fix, "warning")
    files = [CaseFiles(name, folder, tuple(of[1:]), of[0]) for name, of in sorted(found.items())]
    return files, [problem] if left else []


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


def _unknown_layout(folder: Path, image_files: Sequence[str], given: Sequence[str]) -> CohortError:
    entries = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir() if not path.name.startswith("."))
    more = f" and {len(entries) - SHOWN_ENTRIES} more" if len(entries) > SHOWN_ENTRIES else ""
    found = f"{', '.join(entries[:SHOWN_ENTRIES])}{more}" if entries else "an empty folder"
    names = ", ".join(image_files) or f"{', '.join(USUAL_IMAGES)} (.nii or .nii.gz)"
    layouts = "imagesTr/ (nnU-Net), sub-*/anat/ or sub-*/ses-*/anat/ (BIDS), or <case>/ or <primary>/<case>/ with "
    by_patient = any(PATIENT in pattern for pattern in given)
    expected = ("" if by_patient else layouts) + f"an image named {names}"
    fix = ("correct" if given else "name the files with") + " `image_files` and `label_file`"
    if volumes_in(folder) and not by_patient:
        fix += f" (with {PATIENT} in each where the files of all patients lie in one folder: {PATIENT}_T1c.nii.gz)"
    fix += ", or give a datalist (JSON) instead of the folder"
    others, conversion = other_files(folder)
    if others:
        found, fix = f"{found}: {others}", f"{conversion}; then give the folder of the NIfTI files"
    return CohortError.one("-", folder, found, expected, fix)
