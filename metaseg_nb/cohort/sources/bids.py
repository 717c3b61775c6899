"""BIDS-like folders: ``sub-<patient>/[ses-<time>/]anat``, masks beside the images or below ``derivatives``.

Brain Imaging Data Structure: Gorgolewski et al., Scientific Data 3, 2016.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.cohort.sources.case_files import CaseFiles, cohort_of
from metaseg_nb.cohort.sources.naming import is_enhanced_t1, is_volume, spelled_out, volumes_in
from metaseg_nb.cohort.sources.spelling import fact, stem
from metaseg_nb.cohort.sources.text_files import read_json

ENTITIES = re.compile(r"(sub-[^_]+)(?:_(ses-[^_]+))?_")
MASK = re.compile(r"_(mask|dseg|seg|roi)$")
# Masks of something else, as brain extraction and tissue segmentation leave them.
ANATOMY = re.compile(r"(desc|label)-(brain|aseg|aparcaseg|gm|wm|csf|head)", re.IGNORECASE)
LESION = re.compile(r"lesion|tumou?r|gtv|metasta", re.IGNORECASE)
SCANNER = ("Manufacturer", "ManufacturersModelName", "MagneticFieldStrength")


def is_bids(folder: Path) -> bool:
    """Whether a folder has a patient with anatomical images."""
    return any(next(folder.glob(f"sub-*/{place}"), None) for place in ("anat", "ses-*/anat"))


def read_bids(folder: Path, image_files: Sequence[str] = (), label_file: str = "") -> tuple[Cohort, list[Problem]]:
    """Read a case for each patient and session.

    Without ``image_files`` the image is the one of its ``anat`` folder that is no mask; of several, the
    contrast-enhanced T1 by its name (``ce-gad_T1w``). Without ``label_file`` the mask is named
    ``*_mask``, ``*_dseg``, ``*_seg`` or ``*_roi``, and is not that of the brain; of several, the one that names a
    lesion (``label-lesion_mask``). Scanner and date come from the image's JSON sidecar.
    """
    derived = _derived(folder / "derivatives")
    anats = {"_".join(anat.parent.relative_to(folder).parts): anat for anat in _anat_folders(folder)}
    orphans = [name for name in derived if name not in anats and _labels(derived[name], label_file)]
    anats |= {name: folder.joinpath(*name.split("_"), "anat") for name in orphans}
    files, problems = [], []
    for name, anat in anats.items():
        case = _case_files(name, anat, derived[name], image_files, label_file)
        scanner, date, found = _sidecar(name, case.images[0])
        problems += found
        files.append(replace(case, scanner=scanner, date=date))
    cohort, found = cohort_of(folder, "", files)
    return cohort, problems + found


def _derived(folder: Path) -> dict[str, list[Path]]:
    """Volumes of the derivatives, by patient and session."""
    derived = defaultdict(list)
    for path in sorted(folder.rglob("*.nii*")):
        entities = ENTITIES.match(path.name)
        if entities and is_volume(path):
            derived["_".join(filter(None, entities.groups()))].append(path)
    return derived


def _anat_folders(folder: Path) -> Iterator[Path]:
    """Each ``anat`` folder; where a patient has none, the one they should have."""
    for patient in sorted(path for path in folder.glob("sub-*") if path.is_dir()):
        found = sorted(path for place in ("anat", "ses-*/anat") for path in patient.glob(place) if path.is_dir())
        yield from found or [patient / "anat"]


def _case_files(
    name: str, anat: Path, derived: Sequence[Path], image_files: Sequence[str], label_file: str
) -> CaseFiles:
    volumes = volumes_in(anat)
    labels = _labels([*volumes, *derived], label_file)
    free = [path for path in volumes if path not in labels]
    images = [_matching(free, pattern) for pattern in image_files]
    if not images:
        images = [_preferred([path for path in free if not MASK.search(stem(path.name))], is_enhanced_t1)]
    others = [path for path in free if not any(path in found for found in images)]
    return CaseFiles(name, anat, tuple(images), labels, others)


def _labels(volumes: Sequence[Path], label_file: str) -> Sequence[Path]:
    if label_file:
        return _matching(volumes, label_file)
    masks = [path for path in volumes if MASK.search(stem(path.name)) and not ANATOMY.search(path.name)]
    return _preferred(masks, LESION.search)


def _matching(volumes: Sequence[Path], pattern: str) -> list[Path]:
    return [path for path in volumes if any(path.match(spelled) for spelled in spelled_out([pattern]))]


def _preferred(paths: Sequence[Path], is_meant: Callable[[str], object]) -> Sequence[Path]:
    """Of several paths those with a wanted name, or all if none has one."""
    named = [path for path in paths if is_meant(path.name)]
    return named if named and len(paths) > 1 else paths


def _sidecar(name: str, images: Sequence[Path]) -> tuple[str, str, list[Problem]]:
    """Scanner and date of the image, "unknown" where its sidecar does not hold them."""
    path = images[0].with_name(f"{stem(images[0].name)}.json") if images else None
    content, problems = {}, []
    if path is not None and path.is_file():
        try:
            content = read_json(path)
            if not isinstance(content, dict):
                fix = "repair the file; scanner and date are unknown"
                raise CohortError.one(name, path, "no JSON object", "a JSON object", fix)
        except CohortError as error:
            content, problems = {}, [replace(each, case=name, severity="warning") for each in error.problems]
    maker, model, tesla, *dates = (_text(content, key) for key in (*SCANNER, "AcquisitionDateTime", "AcquisitionDate"))
    date = next(filter(None, dates), "unknown")
    scanner = " ".join(part for part in (maker, model, tesla and f"{tesla} T") if part)
    return scanner or "unknown", date.partition("T")[0], problems


def _text(content: Mapping[str, Any], key: str) -> str | None:
    """Text of a header field; what is neither text nor a number is unknown."""
    with suppress(ValueError):
        return fact(content.get(key))
    return None
