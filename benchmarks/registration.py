"""Compare rigid registration with elastix (Klein et al., IEEE TMI 29, 2010): error and processor time, one thread each.

    make bench PART=registration                                synthetic pairs
    python benchmarks/registration.py [PAIRS [FIRST OTHER ...]]    also pairs of files: images of one head

PAIRS (6 by default) are made of the MNI152 template (skull-stripped): the head moves, its contrast is turned round, and
it is cut into oblique slices of 4 mm with noise. The truth of a pair of files is not known: a movement is put on top of
it, and it is found again if the result moves by just as much. Movements are drawn, up to 15 mm and 15 degrees. Both
ways begin where the headers place the images. elastix: its default parameters of a rigid registration, mutual
information, four resolutions. It has an environment of its own in BENCH_FOLDER
(``runs/bench_registration`` unless told).
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}  # before ITK loads

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from nilearn.datasets import load_mni152_template
from scipy.spatial.transform import Rotation

from metaseg_nb.cohort.head import head_mask
from metaseg_nb.cohort.volumes import Volume, read_volume
from metaseg_nb.preprocessing.grid import Grid, resample
from metaseg_nb.preprocessing.registration import along_axes, register_volume

FOLDER = Path(os.environ.get("BENCH_FOLDER", "runs/bench_registration")).absolute()
PYTHON = FOLDER / "venv" / "bin" / "python"
RAS = np.array([[0, 1], [1, 1], [2, 1]])
MOST_MM, MOST_DEGREES = 15.0, 15.0
NOISE = 12.0


def install() -> None:
    if (FOLDER / "venv" / "done").exists():
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "venv", FOLDER / "venv"], check=True)
    subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", "itk-elastix==0.25.4"], check=True)
    (FOLDER / "venv" / "done").touch()


def movement(rng: np.random.Generator, centre_mm: np.ndarray) -> np.ndarray:
    """A rotation about a centre and a shift, 4 x 4, of random size and direction."""
    axis, shift = (vector / np.linalg.norm(vector) for vector in rng.normal(size=(2, 3)))
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(np.radians(rng.uniform(0, MOST_DEGREES)) * axis).as_matrix()
    matrix[:3, 3] = centre_mm + rng.uniform(0, MOST_MM) * shift - matrix[:3, :3] @ centre_mm
    return matrix


def template_pair(rng: np.random.Generator) -> tuple[Volume, Volume, np.ndarray]:
    """The template, the same head after a movement, and the movement."""
    image = load_mni152_template(resolution=1)
    first = Volume(np.asarray(image.dataobj, np.float32) * 500, image.affine, RAS)
    matrix = movement(rng, np.array([0.0, -18.0, 8.0]))
    tilted = np.eye(4)
    tilted[:3, :3] = Rotation.from_rotvec(np.radians([8.0, -5.0, 3.0])).as_matrix() * [1.0, 1.0, 4.0]
    tilted[:3, 3] = -95, -130, -75
    other = Volume(np.zeros((190, 220, 46), np.float32), tilted, RAS)
    turned = np.where(first.array > 0, 600 - first.array, 0).astype(np.float32)
    grids = [Grid(it.spacing_mm, it.array.shape) for it in (first, other)]
    array = resample(turned, *grids, "linear", along_axes(np.linalg.inv(matrix), other, first))
    noisy = np.abs(array + rng.normal(0, NOISE, array.shape)).astype(np.float32)
    return first, Volume(noisy, tilted, RAS), matrix


def workbook(first: Volume, other: Volume) -> tuple[np.ndarray, float]:
    start = time.process_time()
    matrix = register_volume(first, other).matrix
    return matrix, time.process_time() - start


def elastix(first: Volume, other: Volume) -> tuple[np.ndarray, float]:
    with tempfile.TemporaryDirectory() as scratch:
        for name, volume in (("first", first), ("other", other)):
            image = nib.Nifti1Image(volume.array, volume.affine)
            image.set_qform(volume.affine, 1)
            image.set_sform(None, 0)  # ITK takes no axes that rounding has turned from right angles
            nib.save(image, Path(scratch) / f"{name}.nii.gz")
        theirs = Path(__file__).with_name("registration_theirs.py")
        done = subprocess.run([PYTHON, theirs, scratch], check=True, capture_output=True, encoding="utf-8")
    found = json.loads(done.stdout.splitlines()[-1])
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0])
    return to_lps @ np.array(found["matrix"]) @ to_lps, found["seconds"]


def errors(found: np.ndarray, truth: np.ndarray, first: Volume) -> tuple[float, float]:
    """Mean distance over the head in mm, and angle in degrees, between two placements."""
    points = apply_affine(first.affine, np.argwhere(head_mask(first.array))[::2000])
    apart = np.linalg.norm(apply_affine(found, points) - apply_affine(truth, points), axis=1)
    return float(apart.mean()), float(np.degrees(Rotation.from_matrix(found[:3, :3].T @ truth[:3, :3]).magnitude()))


def row(name: str, way: Callable, measured: list[tuple[float, float, float]]) -> None:
    mm, degrees, seconds = np.array(measured).T
    cells = [f"{len(mm)}", f"{mm.mean():.2f} ({mm.max():.2f})", f"{degrees.mean():.2f} ({degrees.max():.2f})"]
    print(f"| {name} | {way.__name__} | {' | '.join(cells)} | {(mm > 2).sum()} | {seconds.mean():.1f} |", flush=True)


def main() -> None:
    n, files = int(sys.argv[1]) if len(sys.argv) > 1 else 6, [Path(file) for file in sys.argv[2:]]
    install()
    print("| images | way | n | off, mm: mean (most) | degrees | more than 2 mm off | CPU s |")
    print("|---|---|---|---|---|---|---|")
    for way in (workbook, elastix):
        rng, measured = np.random.default_rng(0), []
        for _ in range(n):
            first, other, truth = template_pair(rng)
            found, seconds = way(first, other)
            measured.append((*errors(found, truth, first), seconds))
        row("template (synthetic)", way, measured)
    for first_file, other_file in zip(files[::2], files[1::2], strict=True):
        first, other = (read_volume(file, file.name) for file in (first_file, other_file))
        centre_mm = apply_affine(other.affine, np.array(other.array.shape) / 2)
        for way in (workbook, elastix):
            rng, measured = np.random.default_rng(0), []
            unmoved, _ = way(first, other)
            for _ in range(n):
                matrix = movement(rng, centre_mm)
                found, seconds = way(first, Volume(other.array, matrix @ other.affine, other.native_orientation))
                measured.append((*errors(found, matrix @ unmoved, first), seconds))
            row(f"{first_file.name} and {other_file.name}", way, measured)


if __name__ == "__main__":
    main()
