"""Real post-contrast T1 volumes through the same notebooks, with no change but a study file.

The volumes are published by others and lie beside the repository, or these tests say that they do not.
Four epochs on one or two cases train nothing worth looking at; the tests are that nothing gets lost, turned or moved.
"""

from pathlib import Path

import nbformat
import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from metaseg_nb.cohort.volumes import read_volume
from metaseg_nb.preprocessing.case_store import open_case

pytestmark = pytest.mark.slow

STUDY = Path(__file__).parent / "studies" / "real_t1c.yaml"
LABELLED = ["thick_brain1", "thick_brain2", "ms_patient26", "tcga_fg6692", "gli_00001"]


@pytest.fixture(scope="module")
def originals(shared_data):
    folder = shared_data / "real_t1c"
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.nii.gz")}


@pytest.fixture(scope="module")
def home(shared_data, originals, tmp_path_factory, tiny_study, metaseg):
    """The whole study on the six volumes; the unlabelled one predicted by a network of the tiny synthetic study."""
    home = tmp_path_factory.mktemp("real")
    image = shared_data / "real_t1c/images/met_00110.nii.gz"
    checkpoint = tiny_study.home / "runs/tiny/segresnet/fold0/best.pt"
    predicted = metaseg(home, "predict", checkpoint, image, "-o", home / "runs/real/testing/met_00110.nii.gz")
    assert predicted.returncode == 0, predicted.stderr
    result = metaseg(home, "study", "--study", STUDY)
    assert result.returncode == 0, result.stderr[-3000:]
    return home


def test_facts_are_those_published_with_the_volumes(home):
    cases = pd.read_csv(home / "runs/real/cases.csv").set_index("case")
    assert sorted(cases.index) == sorted([*LABELLED, "met_00110"])
    assert cases.loc["thick_brain1", "lesion_volume_mm3"] == pytest.approx(16412.66, abs=0.01)
    assert cases.loc["thick_brain2", "lesion_volume_mm3"] == pytest.approx(1797.18, abs=0.01)
    assert cases.loc["ms_patient26", "n_lesions"] == 19
    assert cases.loc["ms_patient26", "lesion_volume_mm3"] == 8227
    assert cases.loc["tcga_fg6692", "n_lesions"] == 5
    assert cases["axes"].to_dict() | {"met_00110": "RAS"} == {
        **dict.fromkeys(["thick_brain1", "thick_brain2", "ms_patient26"], "LAS"),
        **dict.fromkeys(["tcga_fg6692", "gli_00001"], "LPS"),
        "met_00110": "RAS",
    }


def test_no_lesion_is_lost_on_the_way_to_the_study_grid(home):
    table = pd.read_csv(home / "runs/real/preprocessing.csv").set_index("case")
    kept = (table["stored_volume_mm3"] / table["lesion_volume_mm3"])[LABELLED]
    # 3 mm voxels are coarse for ms_patient26, whose 19 lesions are small and thin
    assert kept.between(0.95, 1.05).all(), kept.to_dict()
    assert (table["lost_lesions"][LABELLED] == 0).all()
    for name in [*LABELLED, "met_00110"]:
        stored = open_case(home / "runs/real/cases", name)
        assert 0 <= stored.image.min() < stored.image.max() <= 1
        assert stored.grid.spacing_mm == (3.0, 3.0, 3.0)


def test_each_labelled_case_is_tested_once_and_never_trained_on_then(home):
    metrics = pd.concat(pd.read_csv(path) for path in home.glob("runs/real/unet/fold*/metrics.csv"))
    assert sorted(metrics["case"]) == sorted(LABELLED)
    assert metrics["dice"].between(0, 1).all()
    assert metrics["hd95_mm"].notna().all()


@pytest.mark.parametrize("network", ["unetr"])
def test_the_studys_other_networks_train_and_are_scored_too(home, metaseg, network):
    result = metaseg(home, "run", "03_train", "--study", STUDY, "--model", network, "--fold", "0")
    assert result.returncode == 0, result.stderr[-3000:]
    run = home / f"runs/real/{network}/fold0"
    assert pd.read_csv(run / "history.csv")["loss"].notna().tolist() == [True, True]
    expected = pd.read_csv(home / "runs/real/unet/fold0/metrics.csv")["case"]
    scored = pd.read_csv(run / "metrics.csv").set_index("case")
    assert scored.index.tolist() == expected.tolist()
    assert scored["dice"].between(0, 1).all()


def test_predictions_lie_on_the_original_grids(home, shared_data):
    masks = [*home.glob("runs/real/unet/fold*/predictions/*.nii.gz"), *home.glob("runs/real/testing/*.nii.gz")]
    assert len(masks) == len(LABELLED) + 1
    for path in masks:
        image, mask = nib.load(shared_data / "real_t1c/images" / path.name), nib.load(path)
        assert mask.shape == image.shape
        np.testing.assert_allclose(mask.affine, image.affine, atol=1e-3)


def test_the_unlabelled_case_is_shown_with_its_prediction(home):
    # so short a training may mark nothing; where a mark would lie is tested in test_inference.py
    mask = read_volume(home / "runs/real/testing/met_00110.nii.gz", "met_00110")
    assert set(np.unique(mask.array)) <= {0, 1}
    assert (home / "figures/real/05_unlabelled_met_00110.png").stat().st_size > 50_000
    executed = nbformat.read(home / "runs/real/notebooks/05_qualitative_review.ipynb", as_version=4)
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    said = [output.get("data", {}).get("text/markdown", "") for output in outputs]
    assert any("1 of 1 unlabelled cases have a predicted mask" in text for text in said)


def test_nobody_s_original_file_was_changed(home, originals):
    assert originals
    assert {path: path.stat().st_mtime_ns for path in originals} == originals


def test_an_undeclared_label_value_is_refused_before_any_work(shared_data, tmp_path, metaseg):
    cohort = shared_data / "real_t1c/dataset.json"
    study = tmp_path / "real.yaml"
    text = STUDY.read_text().replace("lesion_values: [1, 2, 3, 4]", "lesion_values: [1]")
    study.write_text(text.replace("../shared/data/real_t1c/dataset.json", str(cohort)))
    result = metaseg(tmp_path, "run", "01_explore_data", "--study", study)
    assert result.returncode == 1
    assert "case tcga_fg6692" in result.stderr
    assert "case gli_00001" in result.stderr
    assert "thick_brain1" not in result.stderr
    assert "lesion_values" in result.stderr
    assert not (tmp_path / "runs/real/dataset.json").exists()
