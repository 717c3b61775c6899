"""The command line: what it prints, and that a mistake ends in one message, exit code 2 and no work."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import nibabel as nib
import numpy as np
import papermill
import pytest
import SimpleITK as sitk
import torch

from metaseg_nb.__main__ import main
from metaseg_nb.inference import predict
from metaseg_nb.layout import NOTEBOOKS, PROJECT
from metaseg_nb.parameters import resolve
from metaseg_nb.preprocessing.steps import image_recipe
from metaseg_nb.settings import Preprocess
from metaseg_nb.training.checkpoints import save_checkpoint
from metaseg_nb.training.networks import build_network

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def study(tmp_path):
    """Write a study file."""

    def write(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
def no_kernel(monkeypatch):
    """Fail when a notebook is started."""

    def started(*_, **__):
        pytest.fail("a kernel was started")

    monkeypatch.setattr(papermill, "execute_notebook", started)


def test_score_prints_every_metric_as_json(write_nifti, capsys):
    truth, prediction = np.zeros((2, 24, 24, 20), np.uint8)
    truth[5:9, 5:9, 5:9] = truth[15:18, 15:18, 12:15] = 1
    prediction[5:9, 5:9, 5:7] = 1
    files = write_nifti("t.nii.gz", truth, (1.0, 1.0, 2.0)), write_nifti("p.nii.gz", prediction, (1.0, 1.0, 2.0), "LPS")
    assert main(["score", *map(str, files)]) == 0
    found = json.loads(capsys.readouterr().out)
    # 91 reference voxels of 2 mm³, 32 predicted, all of them inside
    assert found["dice"] == pytest.approx(2 * 32 / (91 + 32))
    assert (found["precision"], found["recall"]) == (1, pytest.approx(32 / 91))
    assert (found["n_truth"], found["n_missed"], found["n_false"]) == (2, 1, 0)
    assert sorted(lesion["volume_mm3"] for lesion in found["lesions"]) == pytest.approx([54, 128])


def test_score_refuses_two_grids_and_shows_both(write_nifti, capsys):
    mask = np.zeros((24, 24, 20), np.uint8)
    files = write_nifti("t.nii.gz", mask, (1.0, 1.0, 2.0)), write_nifti("p.nii.gz", mask, (1.0, 1.0, 2.5))
    assert main(["score", *map(str, files)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    for words in (*map(str, files), "1x1x2 mm", "1x1x2.5 mm"):
        assert words in printed.err


def test_a_reader_who_stops_reading_is_no_error(write_nifti):
    mask = str(write_nifti("t.nii.gz", np.ones((24, 24, 20), np.uint8)))
    command = [sys.executable, "-m", "metaseg_nb", "score", mask, mask]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as score:
        score.stdout.close()
        assert score.stderr.read() == ""
    assert score.returncode == 1


@pytest.mark.parametrize(
    "locale", [{"PYTHONIOENCODING": "latin-1"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_a_letter_that_a_terminal_cannot_show_is_no_error(home, locale):
    command = [sys.executable, "-m", "metaseg_nb", "status", "--study", "demo"]
    ran = subprocess.run(command, env={**os.environ, **locale}, cwd=PROJECT, capture_output=True)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert b"0/32  ?              ?" in ran.stdout  # – and –


@pytest.mark.parametrize("study", ["my studies/a b.yaml", "a'b\"c#?.yaml", "007"])
def test_make_hands_a_study_on_as_it_is(tmp_path, study):
    (tmp_path / "python").write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    (tmp_path / "python").chmod(0o755)
    for target in ("study", "status"):
        command = ["make", "-s", target, f"BIN={tmp_path}", "READY=", f"STUDY={study}"]
        printed = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
        assert printed.startswith(f"-m|metaseg_nb|{target}|--study|{study}|")


def test_make_checks_a_gpu_in_eight_minutes_at_most(tmp_path):
    """The speed is measured also if a test fails, and the failure is not lost; without a GPU one line says so."""
    (tmp_path / "python").write_text('#!/bin/sh\necho "$1 $2"\n[ "$1" != -m ]\n')
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "timeout").write_text('#!/bin/sh\necho "$@" >&2\nshift 3\nexec "$@"\n')
    (tmp_path / "timeout").chmod(0o755)
    command, path = ["make", "-s", "gpu-check", "READY="], f"{tmp_path}:{os.environ['PATH']}"
    fakes = {"cwd": PROJECT, "capture_output": True, "text": True, "env": os.environ | {"PATH": path}}
    ran = subprocess.run([*command, f"BIN={tmp_path}"], **fakes)
    assert ran.returncode != 0
    assert ran.stdout.splitlines()[1:] == ["-m pytest", "benchmarks/gpu.py "]
    limits = [[*map(int, pair)] for pair in re.findall(r"--kill-after=(\d+) (\d+) ", ran.stderr)]
    assert len(limits) == 2 and sum(map(sum, limits)) <= 8 * 60
    fakes["env"] = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    ran = subprocess.run([*command, f"BIN={Path(sys.executable).parent}"], **fakes)
    assert ran.returncode != 0
    assert (ran.stdout, ran.stderr.splitlines()[0]) == ("", "no GPU is visible here: nothing was checked")


def test_score_names_a_missing_file(write_nifti, tmp_path, capsys):
    truth = write_nifti("t.nii.gz", np.zeros((24, 24, 20), np.uint8))
    assert main(["score", str(truth), str(tmp_path / "gone.nii.gz")]) == 2
    assert "gone.nii.gz: found no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text", "named"),
    [
        (
            ["01_explore_data", "--study", "nowhere"],
            "",
            "demo, demo_budget, demo_follow_up, demo_sites, demo_sites_known, usz",
        ),
        (["01_explore_data", "--study", "FILE"], "study: mine\nn_fold: 3", "did you mean 'n_folds'?"),
        (["01_explore_data", "--study", "FILE"], "study: mine\nn_folds: 1", "'n_folds': found 1"),
        (["01_explore_data", "--study", "FILE"], "study: [mine", "not YAML"),
        (["01_explore_data", "--study", "FILE"], "study:\tmine", "What to do: write blanks instead of tabs"),
        (["01_explore_data", "--study", "FILE"], 'cohort: "C:\\data"', r"put a path with \ in single quotes"),
        (["01_explore_data", "--study", "FILE"], "study: mine\nn_folds: 3\nn_folds: 5", "keep one line of each key"),
        (["01_explore", "--study", "FILE"], "study: mine", "01_explore_data"),
        (["03_train", "--study", "FILE"], "study: mine", "give --model and --fold"),
        (["03_train", "--study", "FILE", "--fold", "0"], "study: mine", "give --model and --fold"),
        (["03_train", "--study", "FILE", "--model", "vnet", "--fold", "0"], "study: mine", "attention_unet, dynunet"),
        (
            ["03_train", "--study", "FILE", "--model", "unet", "--fold", "7"],
            "study: mine",
            "found fold 7; expected 0 to 4",
        ),
        (["03_train", "--study", "FILE", "--model", "unet", "--fold", "-1"], "study: mine", "found fold -1"),
    ],
)
def test_a_wrong_run_ends_before_anything_starts(study, no_kernel, home, capsys, arguments, text, named):
    file = study(text)
    arguments = [file if argument == "FILE" else argument for argument in arguments]
    assert main(["run", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert named in printed.err
    assert list(home.iterdir()) == []


def test_a_right_run_hands_the_notebook_its_parameters_and_prints_where_it_is(study, home, monkeypatch, capsys):
    """Only the kernel is left out: what would be executed, with what, and where to."""
    started = []
    monkeypatch.setattr(papermill, "execute_notebook", lambda *paths, **more: started.append((paths, more)))
    file = study("study: mine\nepochs: 3\nworkers: 5")
    assert main(["run", "03_train", "--study", file, "--model", "segresnet", "--fold", "2"]) == 0
    (((source, executed), more),) = started
    assert source.name == "03_train.ipynb"
    assert executed == home / "runs/mine/segresnet/fold2/03_train.ipynb"
    assert capsys.readouterr().out.strip() == str(executed)
    parameters = more["parameters"]
    assert [parameters[key] for key in ("study", "model", "fold", "epochs")] == ["mine", "segresnet", 2, 3]
    assert "workers" not in parameters


OPENED = [
    ("01_explore_data", [], "notebooks/01_explore_data.open.ipynb"),
    ("03_train", ["--model", "segresnet", "--fold", "2"], "segresnet/fold2/03_train.open.ipynb"),
    ("03b_pretrain", ["--model", "unet", "--fold", "0"], "pretraining/seed0/unet/fold0/03b_pretrain.open.ipynb"),
]


@pytest.mark.parametrize(("notebook", "which", "place"), OPENED)
def test_an_opened_notebook_holds_the_parameters_of_the_study(study, home, capsys, notebook, which, place):
    file = study("study: mine\nexclude: ['a  # \"b\"', é]\nepochs: 3\npatient_pattern: '(?P<patient>\\d+)'")
    assert main(["open", notebook, "--study", file, *which]) == 0
    opened = home / "runs/mine" / place
    assert capsys.readouterr().out.strip() == str(opened)
    committed, copy = (nbformat.read(path, 4).cells for path in (NOTEBOOKS / f"{notebook}.ipynb", opened))
    found = {}
    for cell in copy[1:3]:  # that of the notebook, and papermill's
        exec(cell.source, {}, found)
    found.pop("__annotations__", None)
    assert found == resolve(notebook, file, *([which[1], int(which[3])] if which else []))
    assert [cell.source for cell in copy[:2] + copy[3:]] == [cell.source for cell in committed]


def test_an_opened_notebook_that_was_changed_is_never_overwritten(study, home, capsys):
    file = study("study: mine")
    assert main(["open", "02_preprocess_n4", "--study", file]) == 0
    opened = home / "runs/mine/notebooks/02_preprocess_n4.open.ipynb"
    text = opened.read_text().replace("## ", "## My ")
    opened.write_text(text)
    assert main(["open", "02_preprocess_n4", "--study", file]) == 0
    study("study: mine\nspacing_mm: 2.0")
    assert main(["open", "02_preprocess_n4", "--study", file]) == 2
    assert "has other parameters than the study; open it as it is, or delete it" in capsys.readouterr().err
    assert opened.read_text() == text
    notebook = nbformat.read(opened, 4)
    del notebook.cells[2]
    nbformat.write(notebook, opened)
    assert main(["open", "02_preprocess_n4", "--study", file]) == 2


def test_ctrl_c_ends_in_one_line(study, monkeypatch, home, capsys):
    def interrupted(*_, **__):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(papermill, "execute_notebook", interrupted)
    assert main(["run", "01_explore_data", "--study", study("study: mine")]) == 130
    line = "01_explore_data: stopped by Ctrl-C; start the same notebook again to continue"
    assert capsys.readouterr().err.splitlines() == [line]
    record = json.loads((home / "runs/mine/notebooks/01_explore_data.run.json").read_text())
    assert record["state"] == "stopped"


def test_predict_says_that_there_is_no_checkpoint(write_nifti, tmp_path, capsys):
    image = write_nifti("image.nii.gz", np.zeros((24, 24, 20), np.float32))
    output = tmp_path / "mask.nii.gz"
    assert main(["predict", str(tmp_path / "best.pt"), str(image), "-o", str(output)]) == 2
    assert f"{tmp_path / 'best.pt'}: no such checkpoint" in capsys.readouterr().err
    assert not output.exists()


def test_predict_says_that_a_file_is_no_checkpoint(write_nifti, tmp_path, capsys):
    image = write_nifti("image.nii.gz", np.zeros((24, 24, 20), np.float32))
    (tmp_path / "best.pt").write_bytes(b"half of a file")
    assert main(["predict", str(tmp_path / "best.pt"), str(image), "-o", str(tmp_path / "mask.nii.gz")]) == 2
    assert "best.pt: not a complete checkpoint" in capsys.readouterr().err


@pytest.fixture
def model_folder(tmp_path, tiny_training):
    """Write a model's folder with two folds of an untrained network, the first with a decision."""
    torch.manual_seed(0)
    network = build_network("unet", 0.125, 32, 1).state_dict()
    recipe = image_recipe(Preprocess.check(resolve("02_preprocess_n4", "demo") | {"bias_correction": "none"}), 1)

    def write(**second):
        folder = tmp_path / "runs/tiny/unet"
        for fold, changes in enumerate([{}, second]):
            identity = {"settings": tiny_training(fold=fold, **changes).model_dump(), "recipe": recipe}
            content = {"identity": identity, "network": network}
            if fold == 0:
                content["decision"] = {"threshold": 0.3, "min_lesion_mm3": 10.0}
            save_checkpoint(folder / f"fold{fold}/best.pt", content)
        return folder

    return write


def test_predict_takes_the_folds_of_a_model_and_says_what_it_decided_by(model_folder, write_case, tmp_path, capsys):
    image, folder = write_case("a", axes="LPS").image, model_folder()
    mask, probability = tmp_path / "mask.nii.gz", tmp_path / "probability.nii.gz"
    assert main(["predict", str(folder), str(image), "-o", str(mask), "--probability", str(probability)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{mask}: ")
    assert "mm³ predicted as lesion by 2 network(s), probability ≥ 0.40, lesions ≥ 5 mm³; no threshold" in printed
    assert "the mean of several networks; 04 tested each alone, so its numbers may not hold for this mask" in printed
    assert "fold1/best.pt" in printed
    for file in (mask, probability):
        assert np.array_equal(nib.load(file).affine, nib.load(image).affine)
    assert nib.load(probability).get_data_dtype() == np.float32

    assert main(["predict", str(folder / "fold0/best.pt"), str(image), "-o", str(mask)]) == 0
    printed = capsys.readouterr().out
    assert printed.endswith("by 1 network(s), probability ≥ 0.30, lesions ≥ 10 mm³\n")


def test_predict_takes_a_folder_or_a_list_of_cases_below_the_home_too(model_folder, write_case, home, tmp_path, capsys):
    shutil.copytree(model_folder(), home / "runs/tiny/unet")
    cases = [write_case(name).image for name in "ab"]
    (tmp_path / "images").mkdir()
    for name, image in zip("ab", cases, strict=True):
        shutil.copy(image, tmp_path / f"images/{name}.nii.gz")
    listed = tmp_path / "list.json"
    labelled = {"image": str(write_case("c").image), "label": str(write_case("c").label)}
    listed.write_text(json.dumps({"training": [labelled], "testing": [{"image": str(image)} for image in cases]}))
    for source, folder in ((tmp_path / "images", "runs/tiny/testing"), (listed, tmp_path / "masks")):
        assert main(["predict", "runs/tiny/unet", str(source), "-o", str(folder)]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 2
        written = list((home / folder).glob("*.nii.gz"))
        assert len(written) == 2
    listed.write_text(json.dumps({"testing": [{"image": str(image)} for image in cases]}))
    assert main(["predict", "runs/tiny/unet", str(listed), "-o", str(tmp_path / "again")]) == 0
    shutil.copy(tmp_path / "images/a.nii.gz", tmp_path / "images/a.nii")
    assert main(["predict", "runs/tiny/unet", str(tmp_path / "images"), "-o", str(tmp_path / "twice")]) == 2
    assert "found a.nii with two endings" in capsys.readouterr().err
    listed.write_text(json.dumps({"training": [labelled]}))
    assert main(["predict", "runs/tiny/unet", str(listed), "-o", str(tmp_path / "masks")]) == 2
    assert "found no case without a mask" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["x.nii.gz", "x.NII", "x.dcm"])
@pytest.mark.parametrize("option", ["-o", "--probability"])
def test_predict_refuses_the_name_of_a_file_for_several_cases(write_nifti, tmp_path, capsys, option, name):
    images = write_nifti("images/a.nii.gz", np.zeros((24, 24, 20), np.float32)).parent
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps({"testing": [{"image": "images/a.nii.gz"}]}))
    others = {"-o": str(tmp_path / "masks")} | {option: str(tmp_path / name)}
    for source in (images, listed):
        assert main(["predict", "best.pt", str(source), *(part for pair in others.items() for part in pair)]) == 2
        assert f"{name}: found the name of a file; expected a folder for several cases" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == ["images", "list.json"]


def test_predict_goes_on_after_a_case_that_cannot_be_read_and_names_all_of_them(
    model_folder, write_nifti, tmp_path, capsys
):
    head = np.random.default_rng(0).uniform(90, 110, (24, 24, 20)).astype(np.float32)
    for name in "ace":
        write_nifti(f"images/{name}.nii.gz", head)
    write_nifti("images/b.nii.gz", np.full_like(head, np.nan))  # only its voxels say so
    nib.save(nib.Nifti1Image(head[:, :, 0], np.eye(4)), tmp_path / "images/aa.nii.gz")
    nib.save(nib.Nifti1Image(np.stack([head, head], -1), np.eye(4)), tmp_path / "images/d.nii.gz")
    images, masks = tmp_path / "images", tmp_path / "images/masks"
    write_nifti("images/sub/f.nii.gz", head)
    (images / "c.nii.gz").rename(images / "c.NII.GZ")
    for hidden in (images / "._a.nii.gz", images / "sub/._f.nii.gz"):  # macOS writes such on other systems' disks
        hidden.write_bytes(b"attributes")
    for _ in range(2):  # its own masks are no images in subfolders
        assert main(["predict", str(model_folder()), str(images), "-o", str(masks)]) == 2
        printed = capsys.readouterr()
        assert [line.partition(":")[0] for line in printed.out.splitlines()] == [f"{masks / n}.nii.gz" for n in "ace"]
        assert f"warning: case -, file {images}: found not looked at: sub/f.nii.gz; expected" in printed.err
        assert f"- case -, file {images}: found 3 of 6 cases predicted; expected all of them" in printed.err
        for name, found in (("aa", "2D"), ("b", "11520 NaN"), ("d", "4D")):
            assert f"case {name}.nii.gz, file {images / name}.nii.gz: found {found}" in printed.err
    assert sorted(path.name for path in masks.iterdir()) == [f"{name}.nii.gz" for name in "ace"]


def test_predict_names_all_bad_headers_before_it_loads_networks(write_nifti, tmp_path, capsys):
    for name in "ab":
        write_nifti(f"images/{name}.nii.gz", np.zeros((24, 24, 1, 2), np.float32))
    assert main(["predict", str(tmp_path / "none.pt"), str(tmp_path / "images"), "-o", str(tmp_path / "masks")]) == 2
    told = capsys.readouterr().err
    assert "0 of 2 cases predicted" in told
    assert "case a.nii.gz" in told
    assert "case b.nii.gz" in told


def test_predict_refuses_folds_that_were_trained_otherwise(model_folder, write_case, tmp_path, capsys):
    image, mask = write_case("a").image, tmp_path / "mask.nii.gz"
    assert main(["predict", str(model_folder(epochs=7)), str(image), "-o", str(mask)]) == 2
    assert "found epochs 7, fold0 2; expected the same settings in all folds" in capsys.readouterr().err
    assert not mask.exists()


def test_predict_never_replaces_an_image(model_folder, write_case, capsys):
    image = write_case("a").image
    before = image.read_bytes()
    assert main(["predict", str(model_folder()), str(image), "-o", str(image)]) == 2
    assert "the name of another given file" in capsys.readouterr().err
    assert image.read_bytes() == before


PLACES = {
    "folder": ("folder.nii.gz", "a folder; expected a file to write"),
    "below a file": ("file/mask.nii.gz", "a place that is not writable"),
    "too long a name": (f"{'m' * 260}.nii.gz", "a place that is not writable"),
    "system's folder": ("/proc/mask.nii.gz", "a place that is not writable"),
    "another ending": ("mask.nrrd", "another kind of file; expected a result ending in .nii or .nii.gz"),
    "no ending": ("mask", "another kind of file"),
    "link to the image": ("link.nii.gz", "the name of another given file"),
}


@pytest.mark.parametrize("option", ["--output", "--probability"])
@pytest.mark.parametrize(("name", "found"), PLACES.values(), ids=PLACES)
def test_predict_refuses_a_result_that_cannot_be_written_before_the_work(
    write_case, tmp_path, monkeypatch, capsys, option, name, found
):
    monkeypatch.setattr(predict, "load_ensemble", lambda *_: pytest.fail("the work began"))
    image = write_case("a").image
    (tmp_path / "folder.nii.gz").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "link.nii.gz").symlink_to(image)
    arguments = ["--output", str(tmp_path / "right.nii.gz"), option, str(tmp_path / name)]
    assert main(["predict", "best.pt", str(image), *arguments]) == 2
    assert found in capsys.readouterr().err
    assert not (tmp_path / "right.nii.gz").exists()


def test_predict_refuses_an_image_of_another_kind_before_the_work(tmp_path, capsys):
    (tmp_path / "series").mkdir()
    (tmp_path / "series/1.dcm").write_bytes(bytes(128) + b"DICM" + bytes(500))
    mask = str(tmp_path / "mask.nii.gz")
    assert main(["predict", "best.pt", str(tmp_path / "series"), "-o", mask]) == 2
    assert "found a DICOM file without SOPInstanceUID" in capsys.readouterr().err
    assert main(["predict", "best.pt", str(tmp_path / "series/1.dcm"), "-o", mask]) == 2
    printed = capsys.readouterr().err
    assert "found a DICOM file; expected a NIfTI file" in printed
    assert "dcm2niix" in printed


def test_dicom_options_without_what_they_need_are_refused(write_case, tmp_path, capsys):
    image, mask = str(write_case("a").image), str(tmp_path / "mask.nii.gz")
    assert main(["predict", "best.pt", image, "-o", mask, "--seg"]) == 2
    assert "found --seg with images that are not DICOM" in capsys.readouterr().err
    assert main(["export", "--study", "demo"]) == 2
    assert "expected one: a network" in capsys.readouterr().err
    assert main(["export", "--study", "demo", "--model", "unet"]) == 2
    assert "found a cohort that is not DICOM" in capsys.readouterr().err


def test_predict_says_that_a_place_is_not_known_and_its_mask_lies_on_the_image(
    model_folder, write_case, tmp_path, capsys
):
    image, mask = write_case("a", spacing_mm=(2, 2, 3)).image, tmp_path / "new/folder/mask.nii.gz"
    raw = nib.load(image)
    nowhere = nib.Nifti1Image(np.asarray(raw.dataobj), None)  # no form has a code
    nowhere.header.set_zooms((2, 2, 3))
    nib.save(nowhere, image)
    assert main(["predict", str(model_folder()), str(image), "-o", str(mask)]) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("warning: case image.nii.gz")
    assert "sform and qform codes of 0" in printed.err
    assert printed.out.startswith(f"{mask}: ")
    there, here = (sitk.ReadImage(str(path)) for path in (image, mask))
    for corner in ((0, 0, 0), (23, 23, 19)):
        expected = there.TransformIndexToPhysicalPoint(corner)
        assert here.TransformIndexToPhysicalPoint(corner) == pytest.approx(expected)
    assert np.array_equal(nib.load(mask).affine, nib.load(image).affine)
    assert nib.load(mask).header["sform_code"] == nib.load(mask).header["qform_code"] == 0


def test_a_file_is_never_scored_against_a_volume_of_time_points(write_nifti, tmp_path, capsys):
    mask = write_nifti("t.nii.gz", np.zeros((24, 24, 20), np.uint8))
    series = tmp_path / "series.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((24, 24, 20, 3), np.uint8), np.eye(4)), series)
    assert main(["score", str(mask), str(series)]) == 2
    assert "4D, shape (24, 24, 20, 3)" in capsys.readouterr().err


@pytest.fixture
def folds(tmp_path):
    """Write a datalist of four cases with the given folds, and a list that only validates the first."""
    images = [f"images/{name}.nii.gz" for name in "abcd"]

    def write(*of):
        entries = [{"image": image, "fold": fold} for image, fold in zip(images, of, strict=True)]
        dataset, validation = tmp_path / "dataset.json", tmp_path / "validation.json"
        dataset.write_text(json.dumps({"training": entries}))
        validation.write_text(json.dumps({"validation": entries[:1]}))
        return str(dataset), str(validation)

    return write


def test_audit_of_clean_folds_ends_with_0(folds, capsys):
    assert main(["audit", folds(0, 1, 0, 1)[0]]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("No leakage found: 4 evaluation entries")
    assert printed.err == ""


def test_audit_of_leaking_lists_ends_with_1_and_the_answer_comes_first(folds, capsys):
    lists = folds(None, None, None, None)
    assert main(["audit", *lists]) == 1
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "LEAKAGE: 1 of 1 evaluation entries are training cases of dataset.json"
    assert main(["audit", *lists, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["answer"], found["leaks"]) == (first, True)
    assert found["findings"][0]["cases"] == ["images/a"]


def test_audit_of_a_list_that_cannot_be_read_ends_with_2(folds, tmp_path, capsys):
    assert main(["audit", folds(0, 1, 0, 1)[0], str(tmp_path / "gone.json")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"file {tmp_path / 'gone.json'}: found no such file" in printed.err


def test_audit_loads_no_imaging_library(folds):
    """It is to answer at once."""
    code = "import sys; from metaseg_nb.__main__ import main; main(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    ran = subprocess.run([sys.executable, "-c", code, "audit", *folds(0, 1, 0, 1)], capture_output=True, text=True)
    assert ran.returncode == 0
    assert not {"torch", "monai", "SimpleITK", "nibabel", "matplotlib"} & set(ran.stderr.split())


@pytest.mark.parametrize("arguments", [[], ["run"], ["audit"], ["score", "one.nii.gz"], ["trian"]])
def test_incomplete_commands_show_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: python -m metaseg_nb" in capsys.readouterr().err
