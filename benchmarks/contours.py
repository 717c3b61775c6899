"""Masks through contours and back, and contours of small lesions against their analytic shapes; checked by others.

Prints a table. ``dciodvfy`` (dicom3tools) and ``plastimatch`` are used where they are installed.
"""

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from metaseg_nb.demo_cohort.dicom import write_series
from metaseg_nb.evaluation.voxel_metrics import voxel_metrics
from metaseg_nb.radiotherapy.contours import rasterise, trace
from metaseg_nb.radiotherapy.dicom_folder import read_dicom
from metaseg_nb.radiotherapy.structure_sets import read_structure_set, write_segmentation, write_structure_set

RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
GRIDS = {
    "axial 1 x 1 x 1 mm": ((1, 1, 1), (0, 0, 0)),
    "oblique 0.9 x 0.9 x 1.2 mm": ((0.9, 0.9, 1.2), (12, -18, 6)),
    "axial 0.4 x 0.4 x 1.5 mm": ((0.4, 0.4, 1.5), (0, 0, 0)),
}


def sphere(p, d):
    return np.linalg.norm(p, axis=-1) <= d / 2


def cylinder(p, d):
    return (np.linalg.norm(p[..., :2], axis=-1) <= d / 2) & (np.abs(p[..., 2]) <= d / 2)


def cube(p, d):
    return (np.abs(p) <= d / 2).all(axis=-1)


def shell(p, d):
    return sphere(p, d) & ~sphere(p, d / 2)


SHAPES = {
    "sphere": (sphere, np.pi / 6),
    "cylinder": (cylinder, np.pi / 4),
    "cube": (cube, 1.0),
    "hollow shell": (shell, np.pi / 6 * 7 / 8),
}
DIAMETERS_MM = (2, 3, 5, 10, 20, 30)


def grid(spacing, degrees, extent_mm):
    """Shape and affine (to LPS mm) of a grid around the origin, off its centre by part of a voxel."""
    shape = tuple(int(np.ceil((extent_mm + 8) / edge)) for edge in spacing)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() * spacing
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2) + 0.21
    return shape, affine


def centres(shape, affine, finer=1):
    """Centres of voxels, each divided into ``finer``³ parts, in mm."""
    axes = [(np.arange(n * finer) + 0.5) / finer - 0.5 for n in shape]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1) @ affine[:3, :3].T + affine[:3, 3]


def conformance():
    rows = []
    for name, (spacing, degrees) in GRIDS.items():
        for form, (inside, share) in SHAPES.items():
            for diameter in DIAMETERS_MM:
                shape, affine = grid(spacing, degrees, diameter)
                mask = inside(centres(shape, affine), diameter)
                contours = [points for _, points in trace(mask, affine)]
                back = rasterise([np.round(points, 4) for points in contours], shape, affine).mask
                volume = area_volume(contours, affine)
                rows.append(
                    {
                        "grid": name,
                        "shape": form,
                        "diameter_mm": diameter,
                        "voxels": int(mask.sum()),
                        "voxels_different": int((mask != back).sum()),
                        "contours_volume_error_%": 100 * (volume / (share * diameter**3) - 1),
                        **against_shape(contours, inside, diameter, shape, affine),
                    }
                )
    return pd.DataFrame(rows)


def area_volume(contours, affine):
    """Volume of contours, area times distance of slices, in mm³: a hole on its keyhole counts against."""
    normal = affine[:3, 2] / np.linalg.norm(affine[:3, 2])
    areas = [abs(np.cross(points, np.roll(points, -1, axis=0)).sum(axis=0) @ normal) / 2 for points in contours]
    return sum(areas) * np.linalg.norm(affine[:3, 2])


def against_shape(contours, inside, diameter, shape, affine):
    """Contours and the analytic shape, both on a grid with a fourth of the pixels' edge in the plane."""
    finer = np.eye(4)
    finer[:2, :2] /= 4
    finer[:2, 3] = 0.5 / 4 - 0.5
    fine, fine_shape = affine @ finer, (shape[0] * 4, shape[1] * 4, shape[2])
    drawn = rasterise(contours, fine_shape, fine).mask
    true = inside(centres(fine_shape, fine), diameter)
    if not drawn.any() or not true.any():
        return {"Dice": float(not drawn.any() and not true.any()), "NSD_1mm": np.nan, "HD95_mm": np.nan}
    spacing = tuple(np.linalg.norm(fine[:3, :3], axis=0))
    found = voxel_metrics(true, drawn, spacing)
    return {"Dice": found["dice"], "NSD_1mm": found["nsd_1mm"], "HD95_mm": found["hd95_mm"]}


def by_others(folder):
    """What other programs make of our files."""
    shape, affine = grid((0.8, 0.8, 1.5), (0, 0, 0), 40)
    mask = shell(centres(shape, affine) - np.array([-8, 0, 0]), 16) | sphere(
        centres(shape, affine) - np.array([14, 0, 0]), 6
    )
    write_series(folder / "mr", np.full(shape, 100), RAS @ affine, "synthetic", PatientName="Synthetic^One")
    series = read_dicom(folder / "mr").series[0]
    write_structure_set(folder / "rs.dcm", {"GTV_auto_01": mask}, series, "benchmark")
    write_segmentation(folder / "seg.dcm", {"GTV_auto_01": mask}, series, "benchmark")
    if shutil.which("dciodvfy"):
        for name in ("rs.dcm", "seg.dcm"):
            said = subprocess.run(
                ["dciodvfy", folder / name], capture_output=True, encoding="utf-8", check=False
            ).stderr
            errors = [line for line in said.splitlines() if line.startswith("Error")]
            print(f"dciodvfy {name}: {len(errors)} errors", *errors, sep="\n")
    if shutil.which("plastimatch"):
        command = ["plastimatch", "convert", "--input", folder / "rs.dcm", "--referenced-ct", folder / "mr"]
        subprocess.run(
            [*command, "--output-prefix", folder / "pm", "--prefix-format", "nii"], check=True, capture_output=True
        )
        theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(next((folder / "pm").glob("*.nii"))))).T > 0
        print(f"plastimatch: {(theirs != mask).sum()} of {mask.sum()} voxels different")
    own = read_structure_set(folder / "rs.dcm").regions[0]
    print(f"own reader: {(rasterise(own.contours, series.shape, series.affine).mask != mask).sum()} voxels different")
    segment = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "seg.dcm")))
    print(f"SimpleITK reads {np.count_nonzero(segment)} voxels of the segmentation, {mask.sum()} were written")


def import_speed(folder):
    from metaseg_nb.radiotherapy.importing import import_dicom
    from metaseg_nb.radiotherapy.planning import Choice

    image = np.random.default_rng(0).integers(0, 900, (256, 256, 200))
    for number in range(2):
        place = folder / "speed" / str(number)
        write_series(place / "mr", image, np.diag([-1.0, -1, 1, 1]), f"P{number}")
        series = read_dicom(place / "mr").series[0]
        mask = sphere(centres(series.shape, series.affine) - series.affine[:3] @ [128, 128, 100, 1], 20)
        write_structure_set(place / "rs.dcm", {"GTV": mask}, series, "benchmark")
    started = time.perf_counter()
    import_dicom(
        folder / "speed",
        folder / "imported",
        Choice(),
        lambda kind, names: {n: f"{kind}_{i}" for i, n in enumerate(names)},
    )
    print(f"import: {(time.perf_counter() - started) / 2:.2f} s a patient of 200 slices of 256 x 256, one process")


if __name__ == "__main__":
    table = conformance()
    print(table.round(3).to_string())
    large = table[table["diameter_mm"] >= 10]
    print(f"voxels different after a round trip: {table['voxels_different'].sum()}")
    error = large["contours_volume_error_%"].abs().max()
    print(f"10 mm and more, worst: volume {error:.2f} %, Dice {large['Dice'].min():.3f},")
    print(f"surface Dice at 1 mm {large['NSD_1mm'].min():.3f}, HD95 {large['HD95_mm'].max():.2f} mm")
    with tempfile.TemporaryDirectory() as temporary:
        by_others(Path(temporary))
        import_speed(Path(temporary))
