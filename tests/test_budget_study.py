"""A study of annotation budgets through Snakemake: what depends on what, and from images to the answers."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from metaseg_nb.files import read_table
from metaseg_nb.layout import PROJECT

TINY = Path(__file__).parent / "studies" / "tiny_budget.yaml"


def dry_run(home, *targets):
    """Rules that Snakemake would run of the demo, and how often."""
    command = [sys.executable, "-m", "snakemake", "-n", *targets, "--snakefile", str(PROJECT / "workflow/Snakefile")]
    command += ["--config", "study=demo_budget", "--nolock", "--quiet", "rules", "--cores", "1", "--resources", "gpu=1"]
    env = {**os.environ, "METASEG_HOME": str(home)}
    result = subprocess.run(command, env=env, cwd=home, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", result.stdout, re.MULTILINE)}


@pytest.mark.slow
def test_an_arm_waits_for_those_that_teach_it_and_for_its_own_pretraining(tmp_path):
    # two networks and two folds: four runs an arm
    assert dry_run(tmp_path, "boxes") == {"boxes": 1, "explore": 1, "preprocess": 1, "train_arm": 4, "total": 7}
    assert dry_run(tmp_path, "ranking_50")["train_arm"] == 4 + 4, "the arm that ranks comes first"
    rounds = dry_run(tmp_path, "runs/demo_budget/arms/ranking_50_rounds/seed0/unet/fold0/metrics.json")
    assert rounds["train_arm"] == 2 + 2 + 1, "its patients, those of the first round, then this network"
    assert dry_run(tmp_path, "pretraining_25")["pretrain"] == 4
    alone = "runs/demo_budget/arms/self_training_alone_25/seed0/unet/fold0/metrics.json"
    assert dry_run(tmp_path, alone)["train_arm"] == 2, "a network that is taught by itself waits for no other"
    whole = dry_run(tmp_path)
    assert (whole["train_arm"], whole["pretrain"], whole["annotation_budget"], whole["report"]) == (36, 4, 1, 1)


@pytest.mark.slow
def test_from_images_to_the_answers_and_nothing_twice(tiny_study, metaseg, tmp_path):
    for made in ("synthetic_cohort", "cases"):  # of the first patients, who are the same: the others are added
        shutil.copytree(tiny_study.home / "runs/tiny" / made, tmp_path / "runs/tiny_budget" / made)
    result = metaseg(tmp_path, "study", "--study", TINY)
    assert result.returncode == 0, result.stderr
    assert "How many patients are enough?" in result.stdout
    assert result.stdout.rstrip().endswith("report: reports/tiny_budget/index.html")
    root = tmp_path / "runs/tiny_budget"
    curves = read_table(root / "annotation_budget/curves.csv")
    assert set(curves["arm"]) == {"patients_50", "patients_100", "boxes", "lines"}
    assert read_table(root / "annotation_budget/line_errors.csv")["dice"].between(0.2, 1).all()
    for arm, counted in (("boxes", "n_boxes"), ("lines", "n_lines")):
        annotation = read_table(root / f"arms/{arm}/seed0/unet/fold0/annotation.csv").query("role == 'training'")
        assert (annotation[counted] == annotation["n_lesions"]).all()
    half, whole = (read_table(root / f"arms/patients_{n}/seed0/unet/fold0/annotation.csv") for n in (50, 100))
    annotated = [set(t.query("role == 'training' and annotation == 'full'")["case"]) for t in (half, whole)]
    assert annotated[0] < annotated[1]
    page = (tmp_path / "reports/tiny_budget/index.html").read_text()
    assert "With how few annotations?" in page
    assert str(tmp_path) not in page
    again = metaseg(tmp_path, "study", "--study", TINY)
    assert again.returncode == 0
    assert "steps done" not in again.stdout, "nothing is done again"
    for run in (["06_annotation_budget"], ["03_train", "--model", "unet", "--fold", "0", "--arm", "boxes"]):
        by_hand = metaseg(tmp_path, "run", *run, "--study", TINY)
        assert by_hand.returncode == 0, by_hand.stderr
    assert read_table(root / "annotation_budget/curves.csv").equals(curves)
