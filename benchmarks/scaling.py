"""Which scaling of intensities serves patients of a new hospital: percentiles, Nyul's landmarks, or z-scores.

    make bench PART=scaling

The study `demo_sites` with each scaling and a U-Net: synthetic heads of two hospitals, each tested by networks that
saw only the other. Each seed is another cohort and another start of the training; patients are compared in pairs.
"""

import os

if __name__ == "__main__":
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # before PyTorch loads

import re

import numpy as np
import pandas as pd
from nnunet_cohorts import FOLDER

import metaseg_nb as ms
from metaseg_nb.batch.runner import run_notebook
from metaseg_nb.batch.runs import Run
from metaseg_nb.evaluation.intervals import percentiles
from metaseg_nb.layout import PROJECT

SCALINGS = ("percentiles", "nyul", "z_score")
SEEDS = [int(seed) for seed in os.environ.get("BENCH_SEEDS", "3 4").split()]
RESAMPLES = 2000


def scores_of(scaling: str, seed: int) -> pd.DataFrame:
    """Scores of all patients of one cohort, a row each; what was run before is kept in BENCH_FOLDER."""
    study = f"scaling_{scaling}_{seed}"
    lines = (PROJECT / "params/studies/demo_sites.yaml").read_text(encoding="utf-8")
    for key, value in {"study": study, "models": "[unet]", "seed": seed, "workers": 1}.items():
        lines = re.sub(rf"^{key}: .*$", f"{key}: {value}", lines, flags=re.MULTILINE)
    file = FOLDER / f"{study}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{lines}intensity_scaling: {scaling}\n", encoding="utf-8")
    layout = ms.StudyLayout(study)
    runs = [layout.run("unet", fold) for fold in (0, 1)]
    if not all(run.metrics_table.is_file() for run in runs):
        for name in ("01_explore_data", "02_preprocess_n4"):
            run_notebook(Run(name, str(file)))
        for fold in (0, 1):
            run_notebook(Run("03_train", str(file), "unet", fold))
    return pd.concat([ms.read_table(run.metrics_table) for run in runs]).assign(seed=seed).set_index(["seed", "case"])


def interval(values: np.ndarray, rng: np.random.Generator) -> str:
    """Mean, with its 95 % interval over resampled patients."""
    means = values[rng.integers(len(values), size=(RESAMPLES, len(values)))].mean(axis=1)
    low, high = percentiles(means, len(values))
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    os.environ["METASEG_HOME"] = str(FOLDER)
    scores = {scaling: pd.concat([scores_of(scaling, seed) for seed in SEEDS]) for scaling in SCALINGS}
    rng, n = np.random.default_rng(0), len(scores["percentiles"])
    print(f"{n} synthetic patients, cohorts {SEEDS}\n")
    print("| scaling | Dice | minus percentiles, in pairs | found | false a patient |\n|---|---|---|---|---|")
    for scaling, of in scores.items():
        gains = (of["dice"] - scores["percentiles"]["dice"]).to_numpy()
        found = f"{of['n_detected'].sum():.0f} of {of['n_truth'].sum():.0f}"
        cells = [scaling, interval(of["dice"].to_numpy(), rng), interval(gains, rng), found]
        print(f"| {' | '.join(cells)} | {of['n_false'].mean():.1f} |")


if __name__ == "__main__":
    main()
