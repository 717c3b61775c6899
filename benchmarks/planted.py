"""Can a network learn from lesions that nobody drew? On synthetic patients, and on real volumes.

    make bench PART=planted

The arms `ARMS` as notebook 03 trains them, on the development cohort of `nnunet.py`, one fold, three seeds. What is
trained is kept in BENCH_FOLDER, so that a stopped program goes on. Real volumes: `planted_real.py`.
"""

import os

if __name__ == "__main__":
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # before PyTorch loads

from functools import partial

import numpy as np
import pandas as pd
import torch
from nnunet_cohorts import cohort_of, layout_of, parts_of

import metaseg_nb as ms
from metaseg_nb.evaluation.intervals import percentiles
from metaseg_nb.parameters import resolve
from metaseg_nb.settings import Train

CPU, COHORT = torch.device("cpu"), "development"
ARMS = ("patients_10", "planted", "planted_10", "patients_25", "planted_25", "patients_100")
SEEDS = (0, 1, 2)
RESAMPLES = 2000
PAIRS = (("planted", "patients_10"), ("planted_10", "patients_10"), ("planted_25", "patients_25"))


def tested(arm: str, seed: int) -> pd.DataFrame:
    """Scores of the test patients, a row each, by a U-Net that learned from an arm; the steps are notebook 03's."""
    layout, parts = layout_of(COHORT), parts_of(COHORT, 0)
    run = layout.run("unet", 0, arm, seed)
    if run.metrics_table.is_file():
        return ms.read_table(run.metrics_table)
    settings = Train.check(resolve("03_train", "demo_budget", "unet", 0, arm, seed) | {"study": COHORT})
    training = ms.annotation.annotated_training_set(parts, settings, layout, run, CPU)
    batches = ms.training.PatchBatches(training.cases, settings, len(parts.training), selection=training.selection)
    validate = partial(ms.inference.selection_dice, cases=training.selection, settings=settings, device=CPU)
    ms.training.train(run, batches, validate)
    network = ms.training.network_of(ms.training.keep_weights(run, training.n_selecting), CPU)
    decision = ms.inference.choose_decisions(network, training.selection, settings, CPU)["balanced"]
    print(f"{arm}, seed {seed}: {len(training.cases)} training cases; {decision}", flush=True)
    for case in ms.preprocessing.open_cases(layout.case_store, parts.test):
        ms.inference.predict_case(network, case, settings, {run.predictions / f"{case.name}.nii.gz": decision}, CPU)
    scores, lesions = ms.evaluation.score_cases(parts.test, run.predictions, cohort_of(COHORT).rule)
    small = lesions[lesions["diameter_mm"] < 10].groupby("case")["detected"].agg(["size", "sum"])
    scores = scores.join(small.set_axis(["n_small", "n_small_detected"], axis=1), on="case").fillna(0)
    ms.write_table(run.metrics_table, scores)
    return scores


def with_interval(values: np.ndarray, rng: np.random.Generator) -> str:
    """Mean of values, shape (S, P), and its 95 % interval over resampled patients and seeds."""
    seeds, patients = (rng.integers(n, size=(RESAMPLES, n)) for n in values.shape)
    means = values[seeds[:, :, None], patients[:, None, :]].mean(axis=(1, 2))
    low, high = percentiles(means, values.shape[1])
    return f"{values.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


def main() -> None:
    torch.set_num_threads(1)
    tables = {arm: [tested(arm, seed) for seed in SEEDS] for arm in ARMS}
    print("| arm | Dice | lesion-wise Dice | found | under 10 mm | false a patient |\n|---|---|---|---|---|---|")
    for arm, seeds in tables.items():
        found, small, counts = [], [], pd.concat(seeds)
        for name, of in (("n_detected", "n_truth"), ("n_small_detected", "n_small")):
            (found if of == "n_truth" else small).extend(f"{t[name].sum():.0f}/{t[of].sum():.0f}" for t in seeds)
        means = [f"{counts[name].mean():.3f}" for name in ("dice", "lesion_dice")]
        cells = [arm, *means, ", ".join(found), ", ".join(small), f"{counts['n_false'].mean():.2f}"]
        print(f"| {' | '.join(cells)} |")
    rng = np.random.default_rng(0)
    for arm, against in PAIRS:
        for name in ("dice", "lesion_dice"):
            pairs = zip(tables[arm], tables[against], strict=True)
            gains = np.stack([one[name].to_numpy() - other[name].to_numpy() for one, other in pairs])
            print(f"{arm} − {against}, {name}: {with_interval(gains, rng)}")


if __name__ == "__main__":
    main()
