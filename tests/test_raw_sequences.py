"""Four sequences of a real head as they came from the scanner, on three grids, with skull: from a list to a mask.

They were published by others and lie beside the repository, or these tests say that they do not. One patient cannot be
divided into folds: a whole study has five synthetic heads too.
"""

import json
from dataclasses import replace
from importlib.util import find_spec

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from conftest import tiny_file
from nibabel.affines import apply_affine

from metaseg_nb.cohort.cases import LesionRule
from metaseg_nb.cohort.examination import examine
from metaseg_nb.cohort.head import head_mask
from metaseg_nb.cohort.sources import read_cohort
from metaseg_nb.cohort.volumes import read_mask, read_volume, write_volume
from metaseg_nb.demo_cohort.patients import plan_patient
from metaseg_nb.demo_cohort.raw_heads import LACKING, render_raw, true_motion
from metaseg_nb.inference.predict import predict
from metaseg_nb.layout import StudyLayout
from metaseg_nb.parameters import resolve
from metaseg_nb.preprocessing.case_store import open_case
from metaseg_nb.preprocessing.prepare import prepare_cohort
from metaseg_nb.preprocessing.registration import register_volume
from metaseg_nb.settings import Preprocess
from metaseg_nb.training.checkpoints import save_checkpoint
from metaseg_nb.training.networks import build_network
from metaseg_nb.training.patches import PatchBatches


@pytest.fixture
def real_head(shared_data, tmp_path):
    """An entry of a list: a real head, with a ball in the middle of its brain as its lesion."""
    raw = shared_data / "raw_sequences"
    images, mask = [str(raw / f"{name}.nii.gz") for name in ("t1c", "t1", "t2", "fla")], raw / "brain_mask_t1c.nii.gz"
    brain = read_mask(mask, "head")
    middle = np.argwhere(brain.array).mean(axis=0)
    places = np.indices(brain.array.shape).reshape(3, -1).T
    away_mm = np.linalg.norm((places - middle) * brain.spacing_mm, axis=1).reshape(brain.array.shape)
    write_volume(tmp_path / "label.nii.gz", replace(brain, array=(away_mm < 12).astype(np.uint8)))
    return {"case": "head", "image": images, "brain": str(mask), "label": "label.nii.gz", "patient": "p"}


@pytest.mark.slow
def test_four_raw_sequences_become_a_mask_on_the_grid_of_the_first(real_head, tiny_training, tmp_path):
    images, mask = real_head["image"], real_head["brain"]
    brain = read_mask(mask, "head")
    (tmp_path / "list.json").write_text(json.dumps({"training": [real_head]}), encoding="utf-8")
    cohort, problems = read_cohort("list.json", base=tmp_path, missing="zero")
    problems += examine(cohort.cases[0], LesionRule()).problems
    assert [problem.severity for problem in problems if problem.severity in ("error", "doubt")] == []

    values = resolve("02_preprocess_n4", "demo") | {"brain": "file", "missing": "zero", "workers": 1}
    prepared = prepare_cohort(cohort, tmp_path / "cases", Preprocess.check(values))
    assert prepared.problems == []
    stored = open_case(tmp_path / "cases", "head")
    row = prepared.table.iloc[0]
    assert (stored.channels, row["lost_lesions"], row["cut_lesions"]) == (4, 0, 0)
    of_t1, of_t2, of_flair = stored.image_facts["registrations"][1:]
    assert of_t1 is None, "on the grid of the first"
    for found in (of_t2, of_flair):  # this patient moved by about 2 cm between them
        assert found["agreeing"] >= 0.5
        assert 10 < found["moved_mm"] < 30
    assert row["brain_cm3"] > brain.array.sum() * np.prod(brain.spacing_mm) / 1000
    assert all(0.5 < channel.max() <= 1 for channel in stored.image)

    own = tiny_training(sequence_dropout=0.5)
    assert PatchBatches([stored], own)[0][0].shape[1] == 4
    network = build_network(own.network, own.width, own.patch_size, 4)
    identity = {"settings": own.model_dump(), "recipe": stored.recipe}
    save_checkpoint(tmp_path / "unet/fold0/best.pt", {"identity": identity, "network": network.state_dict()})
    alone = {"testing": [{"case": "alone", "image": [images[0], None, None, None], "brain": mask}]}
    (tmp_path / "new.json").write_text(json.dumps(alone), encoding="utf-8")
    (line,) = predict(tmp_path / "unet/fold0/best.pt", [tmp_path / "new.json"], tmp_path / "masks", None)
    assert "without sequences 2, 3 and 4" in line
    made, first = (nib.load(path) for path in (tmp_path / "masks/alone.nii.gz", images[0]))
    assert made.shape == first.shape
    np.testing.assert_array_equal(made.affine, first.affine)


@pytest.mark.slow
def test_a_head_that_is_bright_on_one_side_is_registered_too():
    """Without what lies around the head, all starts went astray: it stayed 9 mm from where it is."""
    plan = plan_patient(3, 9)
    images = render_raw(plan).images
    found = register_volume(images["t1c"], images["t2"])
    head_mm = apply_affine(images["t1c"].affine, np.argwhere(head_mask(images["t1c"].array)))
    truth = apply_affine(true_motion(3, 9, "t2"), head_mm)
    assert not found.failure
    assert np.linalg.norm(apply_affine(found.matrix, head_mm) - truth, axis=1).mean() < 2


SYNTHETIC = [plan_patient(3, index) for index in range(5)]


@pytest.fixture
def raw_study(real_head, tmp_path):
    """A study file: the real head and synthetic ones, three patients of each of two sites; T1c, T1, T2, FLAIR."""
    entries = [real_head]
    for plan in SYNTHETIC:
        head = render_raw(plan)
        for name, volume in {"label": head.label, "brain": head.brain, **head.images}.items():
            write_volume(tmp_path / plan.case / f"{name}.nii.gz", volume)
        images = [
            f"{plan.case}/{name}.nii.gz" if name in head.images else None for name in ("t1c", "t1", "t2", "flair")
        ]
        masks = {name: f"{plan.case}/{name}.nii.gz" for name in ("label", "brain")}
        entries.append({"case": plan.case, "image": images, "patient": plan.patient, **masks})
    (tmp_path / "list.json").write_text(json.dumps({"training": entries}), encoding="utf-8")
    sites = {entry["case"]: ("south", "north")[i % 2] for i, entry in enumerate(entries)}
    pd.Series(sites, name="site").rename_axis("case").to_csv(tmp_path / "sites.csv")
    (tmp_path / "raw.yaml").write_text(
        tiny_file(
            f"""study: raw
models: [unet]
cohort: {tmp_path / "list.json"}
patients_table: {tmp_path / "sites.csv"}
missing: zero                # the synthetic heads have no T1, and one has no FLAIR
brain: {"deepbet" if find_spec("deepbet") else "file"}
register_sequences: all      # the real T1 has the grid of the T1c, but the patient moved by 9 mm
spacing_mm: 4.0
width: 0.125
epochs: 4
"""
        ),
        encoding="utf-8",
    )
    return tmp_path / "raw.yaml"


@pytest.mark.slow
def test_a_study_of_four_raw_sequences_runs_from_01_to_05(raw_study, real_head, metaseg, home):
    for notebook in ("01_explore_data", "02_preprocess_n4", "03_train", "04_cross_validation", "05_qualitative_review"):
        for fold in ([0], [1]) if notebook == "03_train" else ([],):
            of = ["--model", "unet", "--fold", *fold] if fold else []
            result = metaseg(home, "run", notebook, "--study", raw_study, *of)
            assert result.returncode == 0, result.stderr[-3000:]
    layout = StudyLayout("raw", home)

    _, of_t1, of_t2, of_flair = open_case(layout.case_store, "head").image_facts["registrations"]
    for found, least, most in ((of_t1, 7, 11), (of_t2, 10, 30), (of_flair, 10, 30)):
        assert least < found["moved_mm"] < most
    for plan in SYNTHETIC:
        first = read_volume(raw_study.parent / plan.case / "t1c.nii.gz", plan.case)
        head_mm = apply_affine(first.affine, np.argwhere(head_mask(first.array))[::100])
        found = open_case(layout.case_store, plan.case).image_facts["registrations"]
        present = [name for name in ("t2", "flair") if (raw_study.parent / plan.case / f"{name}.nii.gz").exists()]
        assert found[0] is None and len(found) == 1 + len(present) == (2 if plan.index == LACKING else 3)
        for name, of in zip(present, found[1:], strict=True):
            truth = apply_affine(true_motion(plan.seed, plan.index, name), head_mm)
            assert np.linalg.norm(apply_affine(np.array(of["matrix"]), head_mm) - truth, axis=1).mean() < 2
    for name in ("02_registration", "02_brains"):
        assert (layout.figures / f"{name}.png").is_file()

    images = {plan.case: raw_study.parent / plan.case / "t1c.nii.gz" for plan in SYNTHETIC}
    images["head"] = real_head["image"][0]
    predicted = {
        mask.name.removesuffix(".nii.gz"): mask for mask in layout.root.glob("unet/fold*/predictions/*.nii.gz")
    }
    assert predicted.keys() == images.keys()
    for name, path in predicted.items():
        mask, image = nib.load(path), nib.load(images[name])
        assert mask.shape == image.shape
        np.testing.assert_allclose(mask.affine, image.affine, atol=1e-4)
        assert set(np.unique(mask.dataobj)) <= {0, 1}

    metrics = pd.read_csv(layout.cross_validation / "metrics.csv").query("model == 'unet'")
    assert sorted(metrics["case"]) == sorted(images)
    assert np.isfinite(metrics["unlikeness"]).all() and np.ptp(metrics["unlikeness"]) > 0
    strata = pd.read_csv(layout.cross_validation / "strata.csv").query("stratum == 'site'")
    assert set(zip(strata["model"], strata["class"], strict=True)) == {
        (model, site) for model in ("unet", "intensity_threshold") for site in ("north", "south")
    }
    assert (strata["n_patients"] == 3).all()
    assert (strata["low"] < strata["high"]).all() and strata["sensitivity"].between(strata["low"], strata["high"]).all()
    assert list(layout.figures.glob("05_*.png"))
