"""Four sequences of a real head as they came from the scanner, on three grids, with skull: from a list to a mask.

They were published by others and lie beside the repository, or this test says that they do not. No whole study is run:
one patient cannot be divided into folds.
"""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine

from metaseg_nb.cohort.cases import LesionRule
from metaseg_nb.cohort.examination import examine
from metaseg_nb.cohort.head import head_mask
from metaseg_nb.cohort.sources import read_cohort
from metaseg_nb.cohort.volumes import read_mask, write_volume
from metaseg_nb.demo_cohort.patients import plan_patient
from metaseg_nb.demo_cohort.raw_heads import render_raw, true_motion
from metaseg_nb.inference.predict import predict
from metaseg_nb.parameters import resolve
from metaseg_nb.preprocessing.case_store import open_case
from metaseg_nb.preprocessing.prepare import prepare_cohort
from metaseg_nb.preprocessing.registration import register
from metaseg_nb.settings import Preprocess
from metaseg_nb.training.checkpoints import save_checkpoint
from metaseg_nb.training.networks import build_network
from metaseg_nb.training.patches import PatchBatches


@pytest.mark.slow
def test_four_raw_sequences_become_a_mask_on_the_grid_of_the_first(shared_data, tiny_training, tmp_path):
    raw = shared_data / "raw_sequences"
    images, mask = [str(raw / f"{name}.nii.gz") for name in ("t1c", "t1", "t2", "fla")], raw / "brain_mask_t1c.nii.gz"
    brain = read_mask(mask, "head")
    middle = np.argwhere(brain.array).mean(axis=0)
    places = np.indices(brain.array.shape).reshape(3, -1).T
    away_mm = np.linalg.norm((places - middle) * brain.spacing_mm, axis=1).reshape(brain.array.shape)
    write_volume(tmp_path / "label.nii.gz", replace(brain, array=(away_mm < 12).astype(np.uint8)))
    entry = {"case": "head", "image": images, "brain": str(mask), "label": "label.nii.gz", "patient": "p"}
    (tmp_path / "list.json").write_text(json.dumps({"training": [entry]}), encoding="utf-8")
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
    alone = {"testing": [{"case": "alone", "image": [images[0], None, None, None], "brain": str(mask)}]}
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
    found = register(images["t1c"], images["t2"])
    head_mm = apply_affine(images["t1c"].affine, np.argwhere(head_mask(images["t1c"].array)))
    truth = apply_affine(true_motion(3, 9, "t2"), head_mm)
    assert not found.failure
    assert np.linalg.norm(apply_affine(found.matrix, head_mm) - truth, axis=1).mean() < 2
