"""Predict one case, or all of a folder or a list, with trained networks."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from metaseg_nb.cohort.sources import read_cohort
from metaseg_nb.inference import ensemble
from metaseg_nb.inference.predict import predict_image, require_predictable
from metaseg_nb.layout import home
from metaseg_nb.machine import device

NIFTI = (".nii", ".nii.gz")


def predict(checkpoint: Path, images: Sequence[Path], output: Path, probability: Path | None) -> Iterator[str]:
    """Predict case by case; yields a line about each.

    Parameters
    ----------
    checkpoint : path
        As `load_ensemble` takes it.
    images : sequence of path
        All sequences of one case; or a folder, in which each NIfTI file is a case; or a datalist (JSON), whose cases
        without a mask are predicted.
    output, probability : path
        File to write; of a folder or a datalist, folder for ``<case>.nii.gz``.
        Paths that begin with ``runs/`` are in METASEG_HOME, as all that a study makes.

    Raises
    ------
    CohortError, ValueError, FileNotFoundError
        Before any case is predicted: networks, images or results that cannot be used.
    """
    checkpoint, output, *images = (_placed(path) for path in (checkpoint, output, *images))
    wanted = [output] if probability is None else [output, _placed(probability)]
    cases = _cases(images)
    work = [(files, wanted) for files in cases.values()]
    if _several(images):
        work = [(files, [folder / f"{name}.nii.gz" for folder in wanted]) for name, files in cases.items()]
    for files, results in work:
        for problem in require_predictable(files, results):
            print(f"{problem.severity}: {problem}", file=sys.stderr)
    networks = ensemble.load_ensemble(checkpoint, device())
    for files, results in work:
        volume_mm3 = predict_image(networks, files, device(), *results)
        yield f"{results[0]}: {volume_mm3:.0f} mm³ predicted as lesion by {networks}"


def _placed(path: Path) -> Path:
    return home() / path if path.parts[:1] == ("runs",) else path


def _several(images: Sequence[Path]) -> bool:
    """Whether this is one folder of NIfTI files, or one list."""
    return len(images) == 1 and (images[0].suffix == ".json" or any(_nifti_files(images[0])))


def _cases(images: Sequence[Path]) -> dict[str, Sequence[Path]]:
    """Images of each case by its name."""
    if not _several(images):
        return {"": images}
    if images[0].is_dir():
        return {path.name.removesuffix(".gz").removesuffix(".nii"): [path] for path in _nifti_files(images[0])}
    cohort, _ = read_cohort(str(images[0]), base=Path.cwd())
    if not cohort.unlabelled:
        raise ValueError(f'{images[0]}: found no case without a mask; list the cases to predict as "testing"')
    return {case.name: case.images for case in cohort.unlabelled}


def _nifti_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.name.endswith(NIFTI)) if folder.is_dir() else []
