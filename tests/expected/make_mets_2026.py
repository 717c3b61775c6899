"""Write mets_2026.json: what the official package of BraTS 2026 finds for the pairs of tests/mets_2026_pairs.py.

The package (AGPL) needs an environment of its own. It is only run here, and is no part of the workbook:

    python3.11 -m venv oracle && oracle/bin/pip install brats-evaluation==0.0.10
    oracle/bin/python tests/expected/make_mets_2026.py ../shared/data/metric_vectors/mask_pairs
"""

import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from mets_2026_pairs import NOT_TURNED, at_random, by_hand, from_files  # noqa: E402

# Columns of the official table, of the region "et".
KEPT = [f"{size}_instance_{what}" for size in ("large", "small") for what in ("tp", "fn", "fp", "f1")]
KEPT += ["all_instance_fp", *(f"lesionwise_{what}_mean" for what in ("dsc", "nsd", "hd95"))]


def official(pairs, turned=True):
    """Run the package's two commands on the pairs, as files.

    Version 0.0.10 takes the voxel edges of a file in the wrong order: those of X, Y, Z for the axes Z, Y, X. So it is
    given masks that are ``turned`` to Z, Y, X, and its distances are right.
    """
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for i, (truth, prediction, spacing_mm) in enumerate(pairs.values()):
            for kind, mask in (("ref", truth), ("pred", prediction)):
                (scratch / kind).mkdir(exist_ok=True)
                array = (mask.T if turned else mask).astype(np.uint8) * 3
                image = nib.Nifti1Image(array, np.diag([*spacing_mm, 1.0]))
                nib.save(image, scratch / kind / f"BraTS-MET-{i:05d}-000.nii.gz")
        commands = [
            "brats-evaluate --config mets --ref_path ref --pred_path pred --summary_json all.json",
            "brats-parse-metrics mets --json_path all.json --output_csv_path all.csv",
        ]
        for program, *arguments in map(str.split, commands):
            command = [str(Path(sys.executable).parent / program), *arguments]
            subprocess.run(command, cwd=scratch, check=True, stdout=subprocess.DEVNULL)
        with open(scratch / "all.csv") as file:
            rows = {row["subject_id"]: row for row in csv.DictReader(file)}
    found = {}
    for i, (name, (truth, prediction, _)) in enumerate(pairs.items()):
        row = rows[f"BraTS-MET-{i:05d}-000.nii.gz"]
        values = {key: float(row[f"{key}_et"]) if row[f"{key}_et"] else None for key in KEPT}
        found[name] = {"voxels": [int(truth.sum()), int(prediction.sum())], **values}
    return found


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    vectors = json.loads((folder / "brats2023_expected.json").read_text())
    real = from_files(folder, vectors, lambda path: np.asarray(nib.load(path).dataobj))
    made = by_hand() | at_random()
    results = {"made by": "brats-evaluation 0.0.10", "made": official(made), "files": official(real)}
    results["not turned"] = official({name: made[name] for name in NOT_TURNED}, turned=False)
    lines = [f'"made by": {json.dumps(results.pop("made by"))}']
    for part, of in results.items():
        rows = ",\n".join(f"  {json.dumps(name, ensure_ascii=False)}: {json.dumps(row)}" for name, row in of.items())
        lines.append(f'"{part}": {{\n{rows}\n}}')
    (HERE / "mets_2026.json").write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")
