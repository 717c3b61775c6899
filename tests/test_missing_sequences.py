"""A case may lack a sequence other than the first: from the list to the mask, and in what networks learn from."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import nbformat
import nibabel as nib
import numpy as np
import pytest
import torch

import metaseg_nb
from metaseg_nb.cohort.cases import Case, Cohort, LesionRule
from metaseg_nb.cohort.datalist import read_datalist, write_datalist
from metaseg_nb.cohort.examination import examine
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.sources import read_cohort
from metaseg_nb.inference.ensemble import learn_likeness, load_ensemble
from metaseg_nb.inference.predict import new_case, predict, predict_image
from metaseg_nb.layout import NOTEBOOKS
from metaseg_nb.parameters import resolve
from metaseg_nb.preprocessing.case_store import open_case
from metaseg_nb.preprocessing.prepare import prepare_cohort
from metaseg_nb.preprocessing.steps import image_recipe, read_images
from metaseg_nb.settings import Preprocess
from metaseg_nb.training.augmentation import augment_strongly, draw_change
from metaseg_nb.training.checkpoints import load_checkpoint, save_checkpoint
from metaseg_nb.training.networks import build_network
from metaseg_nb.training.patches import PatchBatches

CPU = torch.device("cpu")


@pytest.fixture
def settings():
    values = {**resolve("02_preprocess_n4", "demo"), "spacing_mm": 1.0, "bias_correction": "none", "workers": 1}
    return Preprocess.check(values | {"missing": "zero"})


@pytest.fixture
def cohort(write_case, write_nifti, tmp_path):
    """Two cases of three sequences on one grid; one lacks the second. Read from a list, as a user gives it."""
    entries = []
    for seed, (name, lacks) in enumerate((("whole", False), ("bare", True))):
        case = write_case(name, seed=seed)
        others = [
            str(write_nifti(f"{name}/{kind}.nii.gz", factor * nib.load(case.image).get_fdata().astype(np.float32)))
            for kind, factor in (("flair", 2), ("t2", 3))
        ]
        images = [str(case.image), None if lacks else others[0], others[1]]
        entries.append({"case": name, "image": images, "label": str(case.label), "patient": name, "primary": "lung"})
    (tmp_path / "list.json").write_text(json.dumps({"training": entries}), encoding="utf-8")
    return read_cohort("list.json", base=tmp_path, missing="zero")[0]


@pytest.fixture
def stored(cohort, settings, tmp_path):
    found = prepare_cohort(cohort, tmp_path / "cases", settings)
    assert found.problems == []
    assert found.table.set_index("case")["lacking"].fillna(0).to_dict() == {"whole": 0, "bare": 1}
    return {name: open_case(tmp_path / "cases", name) for name in ("whole", "bare")}


@pytest.fixture
def checkpoint(stored, tiny_training, tmp_path):
    """A network of three sequences that was not trained."""
    own = tiny_training(patch_size=32)
    network = build_network(own.network, own.width, own.patch_size, 3)
    identity = {"settings": own.model_dump(), "recipe": stored["bare"].recipe}
    save_checkpoint(tmp_path / "unet/fold0/best.pt", {"identity": identity, "network": network.state_dict()})
    return tmp_path / "unet/fold0/best.pt"


def test_a_list_says_by_null_which_sequence_is_missing_and_keeps_it(cohort, tmp_path):
    whole, bare = cohort.cases
    assert (whole.lacking, bare.lacking) == ((), (2,))
    assert [path.name for path in bare.images] == ["image.nii.gz", "t2.nii.gz"]
    assert (whole.sequences, bare.sequences) == (3, 3)
    write_datalist(tmp_path / "runs/again.json", cohort)
    again = read_datalist(tmp_path / "runs/again.json").cases
    assert [(case.lacking, case.images) for case in again] == [(case.lacking, case.images) for case in cohort.cases]
    assert not [problem for problem in examine(bare, LesionRule()).problems if problem.severity == "error"]


@pytest.mark.parametrize(
    ("names", "dropout", "said"), [("whole bare", 0.0, True), ("whole", 0.0, False), ("bare", 0.2, False)]
)
def test_03_says_that_no_sequence_was_dropped_where_cases_lack_one(stored, names, dropout, said):
    """Run its cell, with a training set of these cases, and no other."""
    shown, steps = [], MagicMock()
    steps.preprocessing.missing_scans = metaseg_nb.preprocessing.missing_scans
    steps.preprocessing.open_cases.return_value = []
    cases = [stored[name] for name in names.split()]
    steps.annotation.annotated_training_set.return_value = SimpleNamespace(cases=cases, selection=[], absent=[])
    own = {"ms": steps, "Markdown": shown.append, "cohort": MagicMock(), "layout": MagicMock(), "settings": None}
    own |= dict.fromkeys(("fold", "run", "unannotated", "operating_point", "model", "seed", "name"), "")
    own |= {"batch_size": 1, "patches_per_case": 1, "sequence_dropout": dropout}
    cells = nbformat.read(NOTEBOOKS / "03_train.ipynb", 4).cells
    (cell,) = [cell.source for cell in cells if "ms.training.PatchBatches(" in cell.source]
    exec(cell, own)
    assert ("1 cases lack a sequence, but `sequence_dropout` is 0" in shown[0]) == said


def test_by_default_a_case_that_lacks_a_sequence_is_an_error(cohort, settings, tmp_path):
    _, problems = read_cohort("list.json", base=tmp_path)
    assert [(problem.severity, problem.case, problem.found) for problem in problems] == [
        ("error", "bare", "no sequence 2")
    ]
    assert "missing: zero" in problems[0].fix
    refusing = settings.model_copy(update={"missing": "refuse"})
    (problem,) = prepare_cohort(cohort, tmp_path / "cases", refusing).problems
    assert (problem.case, problem.found[:13]) == ("bare", "no sequence 2")
    assert image_recipe(refusing, 3).keys() < image_recipe(settings, 3).keys(), "as before there was a choice"
    assert image_recipe(settings, 1) == image_recipe(refusing, 1)


def test_the_first_sequence_is_never_missing(cohort, tmp_path):
    content = json.loads((tmp_path / "list.json").read_text(encoding="utf-8"))
    content["training"][0]["image"][0] = None
    (tmp_path / "list.json").write_text(json.dumps(content), encoding="utf-8")
    _, problems = read_cohort("list.json", base=tmp_path, missing="zero")
    assert ["a path of the first sequence" in problem.expected for problem in problems] == [True]
    with pytest.raises(ValueError, match="in place of the first image"):
        new_case([Path("-"), Path("a.nii.gz")])


def test_a_folder_may_lack_files_of_sequences(cohort, tmp_path):
    given = {"base": tmp_path, "image_files": ["image", "flair", "t2"]}
    (tmp_path / "bare/flair.nii.gz").unlink()
    found, problems = read_cohort(".", **given, missing="zero")
    assert {case.name: case.lacking for case in found.cases} == {"bare": (2,), "whole": ()}
    assert problems == []
    assert [case.name for case in read_cohort(".", **given)[0].cases] == ["whole"]


def test_the_channel_of_a_missing_sequence_is_0_and_the_others_are_where_they_belong(stored):
    whole, bare = stored["whole"], stored["bare"]
    assert (bare.lacking, bare.channels, whole.lacking) == ([2], 3, [])
    assert not bare.image[1].any()
    assert all(channel.any() for channel in (bare.image[0], bare.image[2], *whole.image))
    assert bare.image[2].max() == pytest.approx(1)


def test_a_found_sequence_makes_the_case_again(stored, cohort, settings, tmp_path):
    whole, bare = cohort.cases
    now = replace(bare, images=(bare.image, bare.image.with_name("flair.nii.gz"), bare.images[1]), lacking=())
    found = prepare_cohort(Cohort("", "", [whole, now]), tmp_path / "cases", settings)
    assert found.made == ["bare"]
    assert open_case(tmp_path / "cases", "bare").image[1].any()


def test_a_missing_sequence_stays_0_in_training_whatever_is_changed(stored, tiny_training):
    own = tiny_training(patch_size=32, intensity_scale=0.1, intensity_shift=0.1, flip_probability=0.5)
    batches = PatchBatches(list(stored.values()), own)
    images, labels = (torch.cat(parts) for parts in zip(*(batches[step] for step in range(4)), strict=True))
    assert torch.equal(batches.on(CPU)[0][0], batches[0][0]), "also where cases are kept on the device"
    lacking = ~images[:, 1].flatten(1).any(dim=1)
    assert lacking.sum() == len(images) // 2
    assert images[:, 0].flatten(1).any(dim=1).all()
    bent = augment_strongly(images[lacking].repeat(12, 1, 1, 1, 1), labels[lacking].repeat(12, 1, 1, 1, 1), 3)[0]
    assert not bent[:, 1].any()
    assert bent[:, 2].flatten(1).any(dim=1).all()


def test_sequences_are_dropped_with_the_stated_probability_and_never_the_first(tiny_training):
    own = tiny_training(sequence_dropout=0.3)
    drawn = [draw_change(own, 3, np.random.default_rng([own.seed, patch])).intensity for patch in range(2000)]
    again = [draw_change(own, 3, np.random.default_rng([own.seed, patch])).intensity for patch in range(2000)]
    np.testing.assert_array_equal(drawn, again)
    dropped = (np.array(drawn) == 0).all(axis=2)
    assert not dropped[:, 0].any()
    np.testing.assert_allclose(dropped[:, 1:].mean(axis=0), 0.3, atol=4 * np.sqrt(0.3 * 0.7 / 2000))
    assert (dropped[:, 1] & dropped[:, 2]).mean() == pytest.approx(0.09, abs=0.03), "each by its own draw"


def test_without_dropout_nothing_else_is_drawn(tiny_training):
    """A study of before there was dropout goes on as it began."""
    rng = np.random.default_rng(0)
    draw_change(tiny_training(), 3, rng)
    flips_turn_scales_shifts = 3 + 1 + 3 + 3
    assert rng.random() == np.random.default_rng(0).random(flips_turn_scales_shifts + 1)[-1]


def test_a_patient_without_a_sequence_is_predicted_on_the_grid_of_the_first(cohort, checkpoint, tmp_path):
    bare, mask = cohort.cases[1], tmp_path / "mask.nii.gz"
    images = [bare.image, Path("-"), bare.images[1]]
    (line,) = predict(checkpoint, images, mask, None)
    assert "without sequence 2" in line
    np.testing.assert_allclose(nib.load(mask).affine, nib.load(bare.image).affine, atol=1e-5)
    assert nib.load(mask).shape == nib.load(bare.image).shape
    testing = {"testing": [{"image": [None if str(path) == "-" else str(path) for path in images]}]}
    (tmp_path / "new.json").write_text(json.dumps(testing), encoding="utf-8")
    (line,) = predict(checkpoint, [tmp_path / "new.json"], tmp_path / "several", None)
    assert "without sequence 2" in line
    with pytest.raises(ValueError, match="`-` for a missing one"):
        predict_image(load_ensemble(checkpoint, CPU), new_case(bare.images), CPU, mask)


def test_predict_says_how_far_an_image_lies_from_the_training_cases(cohort, stored, checkpoint, write_nifti, tmp_path):
    learned = {"training_images": learn_likeness([stored["whole"]], [])}
    save_checkpoint(checkpoint, load_checkpoint(checkpoint) | learned)
    (line,) = predict(checkpoint, cohort.cases[0].images, tmp_path / "mask.nii.gz", None)
    assert re.search(r"; distance from the training cases 0\.0\d \(1: the farthest of the selection set\)$", line)
    noise = write_nifti("noise.nii.gz", np.random.default_rng(0).uniform(50, 150, (24, 24, 20)).astype(np.float32))
    (line,) = predict(checkpoint, [noise, *cohort.cases[0].images[1:]], tmp_path / "mask.nii.gz", None)
    assert float(re.search(r"training cases (\S+) ", line)[1]) > 2
    assert line.endswith("look at this mask with care")


def test_networks_that_saw_all_sequences_are_given_all(cohort, checkpoint, settings, tmp_path):
    ensemble = load_ensemble(checkpoint, CPU)
    strict = replace(ensemble, recipe=image_recipe(settings.model_copy(update={"missing": "refuse"}), 3))
    bare = cohort.cases[1].without_label
    two = replace(bare, images=(bare.image,), lacking=(2, 3))
    for case, found in ((bare, "no sequence 2"), (two, "no sequences 2 and 3")):
        words = rf"found {found}; expected all 3, because of `missing: refuse`\. What to do"
        with pytest.raises(CohortError, match=words):
            predict_image(strict, case, CPU, tmp_path / "mask.nii.gz")


def test_no_case_is_predicted_before_all_are_known_to_have_their_sequences(cohort, checkpoint, tmp_path):
    entries = [{"image": [str(path) for path in case.images], "case": case.name} for case in cohort.cases]
    (tmp_path / "new.json").write_text(json.dumps({"testing": entries}), encoding="utf-8")
    with pytest.raises(CohortError, match=r"case bare.*2 sequence\(s\); expected 3"):
        list(predict(checkpoint, [tmp_path / "new.json"], tmp_path / "several", None))
    assert not (tmp_path / "several").exists()


def test_a_case_of_fewer_images_is_no_case_that_lacks_one(cohort, settings, tmp_path):
    whole, bare = cohort.cases
    two = Case("two", bare.images, bare.label, "two", "lung")
    found = prepare_cohort(Cohort("", "", [whole, bare, two]), tmp_path / "cases", settings)
    assert [(problem.case, problem.found) for problem in found.problems] == [("two", "2 sequence(s)")]
    assert len(read_images(bare)) == 2
