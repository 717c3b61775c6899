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

from metaseg_nb.evaluation.voxel_metrics import voxel_metrics
from metaseg_nb.radiotherapy.contours import rasterise, trace
from metaseg_nb.radiotherapy.dicom_folder import read_dicom
from metaseg_nb.radiotherapy.round_trip import write_series
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
# For shapes of 10 mm and more: at least, and at most.
LIMITS = {"Dice": 0.95, "NSD_1mm": 0.95, "HD95_mm": 2.0, "volume_error_%": 3.0}
FINER = 4
POSITIONS = 20
PATIENTS, SLICES = 20, 200


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
                fine_shape, fine = finer(shape, affine)
                true = inside(centres(fine_shape, fine), diameter)
                volume = share * diameter**3
                of_mask = compared(true, mask.repeat(FINER, 0).repeat(FINER, 1), fine)
                of_mask["volume_error_%"] = 100 * (mask.sum() * np.linalg.det(affine[:3, :3]) / volume - 1)
                rows.append(
                    {
                        "grid": name,
                        "shape": form,
                        "diameter_mm": diameter,
                        "voxels": int(mask.sum()),
                        "voxels_different": int((mask != back).sum()),
                        **compared(true, rasterise(contours, fine_shape, fine).mask, fine),
                        "volume_error_%": 100 * (area_volume(contours, affine) / volume - 1),
                        **{f"mask_{name}": value for name, value in of_mask.items()},
                    }
                )
    return pd.DataFrame(rows)


def volume_over_positions():
    """Volume error of contours in %, where each shape lies at random on the grid: mean and SD over positions."""
    rng, rows = np.random.default_rng(0), []
    for name, (spacing, degrees) in GRIDS.items():
        for form, (inside, share) in SHAPES.items():
            for diameter in (d for d in DIAMETERS_MM if d >= 10):
                shape, affine = grid(spacing, degrees, diameter)
                errors = []
                for part_of_voxel in rng.uniform(-0.5, 0.5, (POSITIONS, 3)):
                    moved = affine.copy()
                    moved[:3, 3] += affine[:3, :3] @ part_of_voxel
                    contours = [points for _, points in trace(inside(centres(shape, moved), diameter), moved)]
                    errors.append(100 * (area_volume(contours, moved) / (share * diameter**3) - 1))
                rows.append((name, form, diameter, np.mean(errors), np.std(errors, ddof=1)))
    return pd.DataFrame(rows, columns=["grid", "shape", "diameter_mm", "mean_%", "SD_%"])


def area_volume(contours, affine):
    """Volume of contours, area times distance of slices, in mm³: a hole on its keyhole counts against."""
    normal = affine[:3, 2] / np.linalg.norm(affine[:3, 2])
    areas = [abs(np.cross(points, np.roll(points, -1, axis=0)).sum(axis=0) @ normal) / 2 for points in contours]
    return sum(areas) * np.linalg.norm(affine[:3, 2])


def finer(shape, affine):
    """The grid with pixels of a fourth of the edge in the plane of the slices."""
    fine = np.eye(4)
    fine[:2, :2] /= FINER
    fine[:2, 3] = 0.5 / FINER - 0.5
    return (shape[0] * FINER, shape[1] * FINER, shape[2]), affine @ fine


def compared(true, drawn, affine):
    """What was drawn and the analytic shape, both on the finer grid."""
    if not drawn.any() or not true.any():
        return {"Dice": float(not drawn.any() and not true.any()), "NSD_1mm": np.nan, "HD95_mm": np.nan}
    found = voxel_metrics(true, drawn, tuple(np.linalg.norm(affine[:3, :3], axis=0)))
    return {"Dice": found["dice"], "NSD_1mm": found["nsd_1mm"], "HD95_mm": found["hd95_mm"]}


def beyond_limits(large):
    """Rows that miss a limit, and whether their mask misses it before any contour is drawn."""
    least = [name for name in LIMITS if name in ("Dice", "NSD_1mm")]
    rows = []
    for row in large.to_dict("records"):
        for name, limit in LIMITS.items():
            kept = [
                value >= limit if name in least else abs(value) <= limit for value in (row[name], row[f"mask_{name}"])
            ]
            if not kept[0]:
                about = {key: row[key] for key in ("grid", "shape", "diameter_mm")} | {"limit": f"{name} {limit:g}"}
                rows.append(about | {"contours": row[name], "mask": row[f"mask_{name}"], "mask_keeps_it": kept[1]})
    return pd.DataFrame(rows)


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
            output = subprocess.run(
                ["dciodvfy", folder / name], capture_output=True, encoding="utf-8", check=False
            ).stderr
            errors = [line for line in output.splitlines() if line.startswith("Error")]
            print(f"dciodvfy {name}: {len(errors)} errors", *errors, sep="\n")
    if shutil.which("plastimatch"):
        command = ["plastimatch", "convert", "--input", folder / "rs.dcm", "--referenced-ct", folder / "mr"]
        subprocess.run(
            [*command, "--output-prefix", folder / "pm", "--prefix-format", "nii"], check=True, capture_output=True
        )
        theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(next((folder / "pm").glob("*.nii"))))).T > 0
        print(f"plastimatch: {(theirs != mask).sum()} of {mask.sum()} voxels different")
    else:
        print("plastimatch is not here: not checked")
    own = read_structure_set(folder / "rs.dcm").regions[0]
    print(f"own reader: {(rasterise(own.contours, series.shape, series.affine).mask != mask).sum()} voxels different")
    segment = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "seg.dcm")))
    print(f"SimpleITK reads {np.count_nonzero(segment)} voxels of the segmentation, {mask.sum()} were written")


def import_speed(folder):
    from metaseg_nb.radiotherapy.examinations import Choice
    from metaseg_nb.radiotherapy.importing import import_dicom

    image = np.random.default_rng(0).integers(0, 900, (256, 256, SLICES))
    affine = np.diag([1.0, 1, 1, 1])
    mask = sphere(centres(image.shape, affine) - [128, 128, SLICES // 2], 20)
    for number in range(PATIENTS):
        place = folder / "speed" / str(number)
        write_series(place / "mr", image, RAS @ affine, f"P{number}")
        write_structure_set(place / "rs.dcm", {"GTV": mask}, read_dicom(place / "mr").series[0], "benchmark")
    started = time.perf_counter(), time.process_time()
    import_dicom(
        folder / "speed",
        folder / "imported",
        Choice(),
        lambda kind, names: {n: f"{kind}_{i}" for i, n in enumerate(names)},
    )
    wall, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
    started = time.process_time()
    for number in range(PATIENTS):
        place = str(folder / "speed" / str(number) / "mr")
        (series,) = sitk.ImageSeriesReader.GetGDCMSeriesIDs(place)
        files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(place, series)
        sitk.WriteImage(sitk.ReadImage(files), str(folder / f"{number}.nii.gz"), useCompression=True)
    theirs = time.process_time() - started
    print(
        f"import of {PATIENTS} patients of {SLICES} slices of 256 x 256, one process: {cpu / PATIENTS:.2f} s of a "
        f"processor a patient ({wall / PATIENTS:.2f} s passed); SimpleITK reads and writes the images alone in "
        f"{theirs / PATIENTS:.2f} s, {theirs / cpu:.1f} times as long"
    )


if __name__ == "__main__":
    table = conformance()
    print(table.round(3).to_string())
    large = table[table["diameter_mm"] >= 10]
    print(f"voxels different after a round trip: {table['voxels_different'].sum()}")
    for part in ("", "mask_"):
        error = large[f"{part}volume_error_%"].abs().max()
        print(f"10 mm and more, worst of {'masks before any contour' if part else 'contours'}: volume {error:.2f} %,")
        print(f"Dice {large[f'{part}Dice'].min():.3f}, surface Dice at 1 mm {large[f'{part}NSD_1mm'].min():.3f},")
        print(f"HD95 {large[f'{part}HD95_mm'].max():.2f} mm")
    moved = volume_over_positions()
    print(f"volume error over {POSITIONS} random positions:", moved.round(2).to_string(), sep="\n")
    print("beyond a limit:", beyond_limits(large).round(3).to_string(), sep="\n")
    with tempfile.TemporaryDirectory() as temporary:
        by_others(Path(temporary))
        import_speed(Path(temporary))
