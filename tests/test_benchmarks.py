"""Benchmarks that train for hours: what can be known of them without training."""

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from metaseg_nb.cohort.problems import CohortError

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmarks(monkeypatch, tmp_path):
    """The folder of benchmarks on the path of imports, as when they are run; results go to an empty folder."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("BENCH_FOLDER", str(tmp_path))
    for name in ("nnunet", "nnunet_cohorts", "nnunet_scores", "nnunet_workbook"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    return tmp_path


@pytest.mark.parametrize("seed", [[], ["2"]])
def test_the_seed_of_planted_real_may_be_left_out(benchmarks, monkeypatch, seed):
    """It goes on until it misses the list."""
    monkeypatch.setattr(sys, "argv", ["planted_real.py", str(benchmarks / "six"), *seed])
    with pytest.raises(CohortError, match=r"six.dataset\.json"):
        runpy.run_path(str(BENCHMARKS / "planted_real.py"), run_name="__main__")


@pytest.mark.parametrize("configuration", ["nnunet", "dynunet"])
def test_neither_program_sees_a_gpu(benchmarks, monkeypatch, configuration):
    """Both are stopped by a clock of the processor, which does not count what a GPU does."""
    import nnunet

    seen = []
    monkeypatch.setattr(nnunet, "data_set", lambda *_: benchmarks)
    monkeypatch.setattr(subprocess, "run", lambda command, env, **_: seen.append(env["CUDA_VISIBLE_DEVICES"]))
    nnunet.train("test", configuration, 0, 1)
    assert seen == [""]


def test_each_configuration_changes_what_it_names(benchmarks):
    """And nothing else, so that a difference has one cause."""
    import nnunet_workbook

    plain = nnunet_workbook.settings_of("dynunet", 0, 1).model_dump()
    for name, changes in nnunet_workbook.CONFIGURATIONS.items():
        found = nnunet_workbook.settings_of(name, 0, 1).model_dump()
        assert {key: value for key, value in found.items() if value != plain[key]} == changes, name


def cubes(*places, size=3):
    mask = np.zeros((20, 20, 20), bool)
    for x in places:
        mask[x : x + size, 2 : 2 + size, 2 : 2 + size] = True
    return mask


def test_scores_are_by_both_rules(benchmarks):
    """Two lesions of 27 mm³ and one of 8 mm³; one large is found, with a false lesion of 27 mm³ and one of 8 mm³.

    By hand, 2026: F1 of large 2 / (2 + 1 + 2), of small 0 / (0 + 1 + 2); lesion-wise Dice 1 / (2 large + 2 false).
    """
    import nnunet_scores

    truth, mask = cubes(1, 7) | cubes(13, size=2), cubes(1)
    mask[1:4, 12:15, 12:15] = mask[10:12, 12:14, 12:14] = True
    scores = nnunet_scores.scored(truth, mask, (1.0, 1.0, 1.0))
    found = {title: scores[part] / scores[whole] for title, (part, whole) in nnunet_scores.MEASURES.items()}
    assert found == {
        "Dice": pytest.approx(2 * 27 / (62 + 62)),
        "lesion-wise Dice": pytest.approx(1 / 5),
        "lesions found": pytest.approx(1 / 3),
        "under 10 mm": pytest.approx(1 / 3),
        "false a patient": 2,
        "lesion-wise Dice, 2026": pytest.approx(1 / 4),
        "F1 large, 2026": pytest.approx(2 / 5),
        "F1 small, 2026": 0,
    }


def test_f1_is_of_counts_added_over_patients(benchmarks):
    """Two patients: (2 + 0) / (2 + 4) of one program, (4 + 2) / (4 + 2) of the other; the first has Dice 0.2 less."""
    import nnunet_scores

    columns = {column for pair in nnunet_scores.MEASURES.values() for column in pair}
    rows = []
    for name, dice, right, counted in (("a", 0.5, (2, 0), (2, 4)), ("b", 0.7, (4, 2), (4, 2))):
        for i in range(2):
            facts = {"configuration": name, "rule": "0.5", "seed": 1, "patient": f"p{i}", "decision": "half"}
            own = {"dice": dice, "large_right_2026": right[i], "large_counted_2026": counted[i]}
            rows.append(dict.fromkeys(columns, 1.0) | facts | own)
    table = pd.DataFrame(rows)
    assert "| a | 0.5: half | 0.500 (0.500–0.500) |" in nnunet_scores.summary(table)
    assert "| 0.333 (0.333–0.333) |" in nnunet_scores.summary(table)
    line = nnunet_scores.paired(table, ("a", "0.5"), ("b", "0.5"))
    assert "| -0.200 [" in line
    assert "| -0.667 [" in line


def test_scores_of_earlier_runs_are_not_taken_for_these(benchmarks, monkeypatch):
    """A run that has scores.csv is scored again."""
    import nnunet_scores

    folder = benchmarks / "trained" / "test" / "unet" / "fold0_seed1"
    folder.mkdir(parents=True)
    (folder / "scores.csv").write_text("patient,dice\np1,0.9\n")
    monkeypatch.setattr(nnunet_scores, "parts_of", lambda *_: (_ for _ in ()).throw(LookupError("scored again")))
    with pytest.raises(LookupError, match="scored again"):
        nnunet_scores.of_test([("unet", 0, 1)])
