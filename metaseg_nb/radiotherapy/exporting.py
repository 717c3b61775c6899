"""Predictions, and masks drawn by hand, as structure sets on the slices that a planning system holds."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np

from metaseg_nb.annotation.readings import PROPOSAL, read_readings
from metaseg_nb.checksums import checksum
from metaseg_nb.cohort.lesions import label_lesions
from metaseg_nb.cohort.problems import CohortError, broken
from metaseg_nb.cohort.pseudonyms import read_key
from metaseg_nb.layout import StudyLayout
from metaseg_nb.parameters import resolve
from metaseg_nb.radiotherapy.dicom_folder import DicomFolder, described, read_dicom, without_names
from metaseg_nb.radiotherapy.importing import IMAGE, RECORD, dicom_cohort, save_image, whole_record
from metaseg_nb.radiotherapy.series import Series, read_pixels
from metaseg_nb.radiotherapy.structure_sets import (
    BY_HAND,
    CORRECTED,
    PREDICTED,
    is_own,
    write_segmentation,
    write_structure_set,
)

DRAWN_IN = "08_annotate"


def lesion_regions(mask: np.ndarray, name: str = PREDICTED) -> dict[str, np.ndarray]:
    """Masks of the lesions of a mask, from large to small, as ``GTV_auto_01`` and so on."""
    labels, n = label_lesions(mask)
    sizes = np.bincount(labels.ravel(), minlength=n + 1)[1:]
    order = np.argsort(-sizes, kind="stable") + 1
    return {f"{name}{number:02d}": labels == lesion for number, lesion in enumerate(order, 1)}


@dataclass(frozen=True)
class Drawn:
    """A mask to write: what made it (a network, or the notebook of a reader), and how its regions are called."""

    mask: Path
    model: str
    reader: str = ""
    name: str = PREDICTED


def write_regions(path: Path, drawn: Drawn, series: Series, segmentation: bool) -> int:
    """Write the lesions of a mask as a structure set or a segmentation; returns their number.

    Without lesions nothing is written, and an earlier file is removed: DICOM has no structure set without a region.

    Raises
    ------
    ValueError
        The mask is not on the grid of the series; the series names no frame of reference; or no segmentation
        can be made of its images.
    """
    image = nib.Nifti1Image.from_filename(drawn.mask)
    if image.shape != series.shape or not np.allclose(np.asarray(image.affine, float), series.affine_ras, atol=1e-3):
        raise ValueError(
            f"file {drawn.mask}: found another grid than that of series {described(series)}; expected the same. "
            f"What to do: {'draw' if drawn.reader else 'predict'} it again on these images."
        )
    regions = lesion_regions(np.asarray(image.dataobj) > 0, drawn.name)
    if not regions:
        path.unlink(missing_ok=True)
        return 0
    if not series.frame_of_reference:
        found = f"series {described(series)}: found no Frame of Reference UID; expected one"
        raise ValueError(f"{found}. What to do: export the series again; anonymisation must keep this element.")
    with warnings.catch_warnings(action="ignore"):  # of values in the images that the standard forbids
        write = write_segmentation if segmentation else write_structure_set
        write(path, regions, series, drawn.model, drawn.reader)
    return len(regions)


def one_series(folder: Path) -> Series:
    """The series of a folder that is to be predicted: the only one, or the only one with contrast agent.

    Raises
    ------
    ValueError
        There is none, or more than one, or it is damaged; a file cannot be read.
    """
    dicom = read_dicom(folder)
    if dicom.unread:
        raise CohortError(problem for _, problem in dicom.unread)
    found = [series for series in dicom.series if not series.left_aside]
    found = [series for series in found if series.contrast] or found
    if len(found) != 1:
        names = ", ".join(map(described, found)) or "no MR series"
        raise ValueError(f"folder {folder}: found {names}; expected one MR series. What to do: give its folder alone.")
    if found[0].error:
        raise ValueError(f"folder {folder}, series {described(found[0])}: {found[0].error}")
    return found[0]


def predict_dicom(
    checkpoint: Path, images: Sequence[Path], output: Path, probability: Path | None, segmentation: bool
) -> Iterator[str]:
    """Predict a DICOM series; yields a line about it.

    Parameters
    ----------
    checkpoint : path
        As `load_ensemble` takes it.
    images : sequence of path
        A folder with the files of one series.
    output : path
        ``.dcm``: a structure set, or a DICOM segmentation; else the mask as NIfTI.
    probability : path
        Probabilities to write as NIfTI.
    segmentation : bool
        Write a DICOM segmentation instead of a structure set.

    Raises
    ------
    ValueError
        Several folders, or none or several series in it; networks that cannot be used.
    """
    from metaseg_nb.inference.predict import predict  # here: it takes seconds, and 07 writes what was predicted before

    if len(images) > 1:
        found = f"found {len(images)} paths; expected one folder, with one DICOM series"
        fix = "predict each patient by a call of its own; networks of several sequences need NIfTI files"
        raise ValueError(f"{found}. What to do: {fix}.")
    to_dicom = output.suffix.lower() == ".dcm"
    if segmentation and not to_dicom:
        raise ValueError(f"{output}: found another ending with --seg; expected a file to write that ends in .dcm")
    for result in filter(None, (output, probability)):
        # it would be read as part of the export, or replace it
        if result.resolve().is_relative_to(images[0].resolve()):
            raise ValueError(f"{result}: found a place in the folder of the images; expected another folder")
    if to_dicom and output.exists() and not is_own(output, PREDICTED):
        found = f"{output}: found a file that `predict` did not write; expected a new file"
        raise ValueError(f"{found}. What to do: give another name: this one is not replaced.")
    series = one_series(images[0])
    with TemporaryDirectory() as temporary:
        image, mask = Path(temporary) / "image.nii.gz", Path(temporary) / "mask.nii.gz"
        save_image(image, read_pixels(series.frames), series)
        try:
            (line,) = predict(checkpoint, [image], mask if to_dicom else output, probability)
        except CohortError as error:
            names = {str(image): str(images[0]), image.name: described(series)}
            told = [(names.get(one.case, one.case), names.get(one.file, one.file), one) for one in error.problems]
            raise CohortError(replace(one, case=case, file=file) for case, file, one in told) from None
        if to_dicom:
            n = write_regions(output, Drawn(mask, checkpoint.stem), series, segmentation)
            line = f"{_written(output, n)}; {line.removeprefix(f'{mask}: ')}"
        yield line


def export_study(study: str, model: str | None, reader: str | None, segmentation: bool) -> Iterator[tuple[str, bool]]:
    """Write masks of a study's imported cases as structure sets; yields a line about each, and whether it could be.

    What an earlier export wrote of a case stays where that case cannot be written now; its line says so.

    Parameters
    ----------
    study : str
    model : str or None
        Network whose predictions of the test cases are written; or
    reader : str or None
        code of the person whose finished masks of notebook 08 are written.
    segmentation : bool
        Write DICOM segmentations instead of structure sets.

    Raises
    ------
    ValueError
        The cohort of the study is no DICOM cohort; there is no such mask, or one is damaged or without its record; not
        one of both is given.
    """
    if (model is None) == (reader is None):
        raise ValueError("found --model and --reader, or neither; expected one: a network, or who drew in notebook 08")
    settings = resolve("01_explore_data", study)
    layout, folder = StudyLayout(settings["study"]), dicom_cohort(settings["cohort"])
    if folder is None:
        found = f"study {study}: found a cohort that is not DICOM; expected an imported one"
        raise ValueError(f"{found}. What to do: nothing, its masks are NIfTI files in {layout.root}.")
    masks, unfinished = _predictions(layout, model) if model else _readings(layout, str(reader))
    dicom = read_dicom(folder)
    series = {one.fingerprint: one for one in dicom.series if one.is_volume}
    results = layout.radiotherapy / (model or f"by_hand/{reader}")
    for earlier in results.glob("*.dcm"):
        if earlier.stem not in masks:
            earlier.unlink()
    yield from ((f"{case}: begun, and not finished; nothing is written", True) for case in unfinished)
    for case, drawn in masks.items():
        record, path = whole_record(layout.imported / case / RECORD), results / f"{case}.dcm"
        if record is None:
            wrong = f"{case}: its import is missing or damaged; run 01 again."
        elif record["series"] not in series:
            wrong = _unusable(case, dicom, layout, folder.name)
        else:
            try:
                yield _written(path, write_regions(path, drawn, series[record["series"]], segmentation)), True
                continue
            except ValueError as error:
                wrong = f"{case}: {error}"
        earlier = f"; {path}, of an earlier export, stays and may be outdated" if path.is_file() else ""
        yield f"{wrong} Nothing is written{earlier}", False


def _unusable(case: str, dicom: DicomFolder, layout: StudyLayout, folder: str) -> str:
    """Say why a case has no series any more: what is wrong with those of its examination, or that it is gone."""
    known = read_key(layout.key)  # names examinations as `plan_cases` does
    own = [one for one in dicom.series if known.get(f"{one.patient} {one.study}") == case]
    problems = [problem for one in own if one.error for problem in one.error.problems(case, described(one))]
    gone = broken("imported series", case, folder, "that its series is no longer in this folder")
    clean = without_names(dicom.headers, {patient: known.get(patient, "…") for patient in dicom.patients})
    return clean(" ".join(map(str, problems or [gone])))


def _predictions(layout: StudyLayout, model: str) -> tuple[dict[str, Drawn], list[str]]:
    """Predicted masks of the test cases by case; none is unfinished."""
    files = sorted((layout.root / model).glob("fold*/predictions/*.nii.gz"))
    if not files:
        raise ValueError(f"study {layout.study}: found no prediction of {model}; run 03_train for this network first")
    return {file.name.removesuffix(".nii.gz"): Drawn(file, model) for file in files}, []


def _readings(layout: StudyLayout, reader: str) -> tuple[dict[str, Drawn], list[str]]:
    """Masks that a reader drew and stands by, by case; and the cases that are begun only."""
    readings = read_readings(layout, reader)
    finished = readings[readings["finished"].eq(True)]
    if finished.empty:
        fix = "press done in notebook 08, or correct the code of the reader"
        raise ValueError(f"study {layout.study}: found no finished mask of reader {reader}. What to do: {fix}.")
    images = {one.case: (layout.imported / one.case / IMAGE, one.image_sha256) for one in finished.itertuples()}
    problems = [
        broken("image of export", case, image, "another image")
        for case, (image, drawn_on) in images.items()
        if image.is_file() and checksum(image) != drawn_on
    ]
    if problems:
        raise CohortError(problems)
    masks = {one.case: Drawn(one.mask, DRAWN_IN, reader, _name_of(one)) for one in finished.itertuples()}
    return masks, readings["case"][~readings["case"].isin(list(masks))].tolist()


def _name_of(reading: Any) -> str:
    """How the regions of a reading are called: a proposal that nobody changed is a prediction, whoever confirmed it."""
    if reading.begun_with != PROPOSAL:
        return BY_HAND
    return CORRECTED if reading.voxels_added or reading.voxels_removed else PREDICTED


def _written(path: Path, n: int) -> str:
    return f"{path}: {n} lesions" if n else f"{path}: no lesion, so no file is written"
