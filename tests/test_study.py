"""A whole tiny study through Snakemake and papermill: what `make demo` does, smaller, with its values checked."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import nbformat
import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
import yaml
from conftest import tiny_file

from metaseg_nb.annotation.by_hand import Beginning, open_reading
from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.datalist import read_datalist
from metaseg_nb.cohort.volumes import read_volume
from metaseg_nb.evaluation.scoring import score_files
from metaseg_nb.layout import PROJECT, RunLayout, StudyLayout
from metaseg_nb.parameters import model_title
from metaseg_nb.radiotherapy.dicom_folder import read_dicom
from metaseg_nb.radiotherapy.round_trip import write_series
from metaseg_nb.radiotherapy.structure_sets import write_structure_set
from metaseg_nb.training.checkpoints import load_checkpoint

STUDY = Path(__file__).parent / "studies" / "tiny.yaml"
MODELS, FOLDS, PATIENTS = ["unet", "segresnet"], 2, 6


@pytest.fixture(scope="module")
def home(tiny_study, tmp_path_factory):
    """A copy of the tiny study's folder."""
    return shutil.copytree(tiny_study.home, tmp_path_factory.mktemp("study") / "home")


def test_a_killed_study_goes_on_where_it_was(tiny_study):
    home, kept = tiny_study.home, tiny_study.kept
    assert len(kept) >= 1 + PATIENTS
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())
    assert len(list(home.glob("runs/tiny/*/fold*/metrics.json"))) == len(MODELS) * FOLDS


def test_it_ends_with_the_leaderboard_and_the_place_of_the_report(tiny_study):
    home, result = tiny_study.home, tiny_study.result
    assert "report: reports/tiny/index.html" in result.stdout
    assert (home / "reports/tiny/index.html").is_file()
    assert all(model in result.stdout for model in [*MODELS, "intensity_threshold"])


def test_every_patient_is_scored_once_by_a_model_that_never_saw_them(home):
    datalist = json.loads((home / "runs/tiny/dataset.json").read_text())
    fold_of = {entry["case"]: entry["fold"] for entry in datalist["training"]}
    assert len(fold_of) == PATIENTS
    for model in MODELS:
        scored = []
        for fold in range(FOLDS):
            run = home / "runs/tiny" / model / f"fold{fold}"
            cases = json.loads((run / "metrics.json").read_text())["cases"]
            assert set(cases["test"]) == {case for case, of in fold_of.items() if of == fold}
            assert not set(cases["test"]) & {*cases["training"], *cases["selection"]}
            assert not set(cases["training"]) & set(cases["selection"])
            assert len(cases["selection"]) >= 2
            scored += pd.read_csv(run / "metrics.csv")["case"].tolist()
        assert sorted(scored) == sorted(fold_of)


def test_the_tables_hold_what_the_masks_on_disk_give(home):
    run = home / "runs/tiny/segresnet/fold0"
    for row in pd.read_csv(run / "metrics.csv").itertuples():
        truth = home / "runs/tiny/synthetic_cohort/labels" / f"{row.case}.nii.gz"
        scores = score_files(truth, run / "predictions" / f"{row.case}.nii.gz")
        assert row.dice == pytest.approx(scores["dice"])
        assert row.hd95_mm == pytest.approx(scores["hd95_mm"])
        assert row.n_missed == scores["n_missed"]


def test_predictions_lie_on_the_grid_of_their_image(home):
    for mask in home.glob("runs/tiny/*/fold*/predictions/*.nii.gz"):
        image = nib.load(home / "runs/tiny/synthetic_cohort/images" / mask.name)
        predicted = nib.load(mask)
        assert predicted.shape == image.shape
        np.testing.assert_allclose(predicted.affine, image.affine, atol=1e-4)
        assert set(np.unique(predicted.dataobj)) <= {0, 1}


def test_the_leaderboard_pools_the_folds(home):
    tables = home / "runs/tiny/cross_validation"
    board = pd.read_csv(tables / "leaderboard.csv").set_index("model")
    assert sorted(board.index) == sorted([*MODELS, "intensity_threshold"])
    for model in MODELS:
        folds = [pd.read_csv(home / "runs/tiny" / model / f"fold{fold}/metrics.csv") for fold in range(FOLDS)]
        dice = pd.concat(folds)["dice"]
        assert board.loc[model, "patients"] == PATIENTS == len(dice)
        assert board.loc[model, "dice_mean"] == pytest.approx(dice.mean())
        low, high = board.loc[model, ["dice_low", "dice_high"]]
        if np.ptp(dice) > 0:
            assert low <= dice.mean() <= high
        else:
            assert np.isnan([low, high]).all(), "a network that finds nothing in anyone: no interval of no width"
        assert board.loc[model, "failures"] == (dice == 0).sum()


def test_notebook_07_counts_the_lesions_of_04_and_its_patients_come_back_from_dicom(home):
    margins = pd.read_csv(home / "runs/tiny/radiotherapy/margins.csv").set_index("network")
    lesions = pd.read_csv(home / "runs/tiny/cross_validation/lesions.csv")
    for model in MODELS:
        own, row = lesions[lesions["model"] == model], margins.loc[model_title(model)]
        assert (row["lesions"], row["missed"]) == (len(own), (~own["detected"]).sum())
    executed = nbformat.read(home / "runs/tiny/notebooks/07_radiotherapy.ipynb", as_version=4)
    words = [
        output.get("data", {}).get("text/markdown", "") for cell in executed.cells for output in cell.get("outputs", [])
    ]
    assert "In 2 synthetic patients 0 voxels differ after both ways." in words
    n = f"n = {margins['lesions'].max()} lesions in {margins['patients'].max()} patients"
    assert n in (home / "figures/tiny/07_lesions.svg").read_text()  # its words stand in comments
    assert len(pd.read_csv(home / "runs/tiny/radiotherapy/organs.csv")) > 0


def run_annotate(home, metaseg, file, changes):
    file.write_text(tiny_file(changes), encoding="utf-8")
    result = metaseg(home, "run", "08_annotate", "--study", file)
    assert result.returncode == 0, result.stderr[-2000:]
    executed = nbformat.read(home / "runs/tiny/notebooks/08_annotate.ipynb", as_version=4)
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    return "\n".join(output.get("data", {}).get("text/markdown", "") for output in outputs)


@pytest.mark.slow
def test_notebook_08_proposes_for_the_patient_without_a_mask_and_opens_it_in_a_browser(home, metaseg, tmp_path):
    home = shutil.copytree(home, tmp_path / "home")
    words = run_annotate(home, metaseg, tmp_path / "tiny.yaml", 'reader: R1\nassistance: "proposal"')
    assert "this cell opens synthetic&#95;007" in words
    (proposal,) = home.glob("runs/tiny/proposals/*/synthetic_007.nii.gz")
    image = nib.load(home / "runs/tiny/synthetic_cohort/images/synthetic_007.nii.gz")
    assert np.array_equal(nib.load(proposal).affine, image.affine)
    assert "**0 finished readings of 0 cases: 0 lesions drawn in 0 active minutes.**" in words
    assert (home / "figures/tiny/08_proposal.png").is_file()


@pytest.mark.slow
def test_notebook_08_counts_minutes_and_compares_readers(home, metaseg, tmp_path):
    """Two readers read the same two patients; R2 needs a third of the time with proposals, and agrees on one."""
    home = shutil.copytree(home, tmp_path / "home")
    layout, clock = StudyLayout("tiny", home), [0.0]
    for reader, name, how, seconds, size in (
        ("R1", "synthetic_001", "nothing", 30, 4),
        ("R1", "synthetic_002", "nothing", 24, 4),
        ("R2", "synthetic_001", "proposal", 12, 4),
        ("R2", "synthetic_002", "proposal", 6, 3),
    ):
        path = home / f"runs/tiny/synthetic_cohort/images/{name}.nii.gz"
        image, case = read_volume(path, name), Case(name, (path,), None, name, "unknown")
        nothing = np.zeros(image.array.shape, bool)
        reading = open_reading(
            layout, case, image, reader, Beginning(how, nothing, by_chance=True), True, now=lambda: clock[0]
        )
        mask = nothing.copy()
        mask[20 : 20 + size, 20:24, 10:12] = True
        clock[0] += seconds
        reading.save(mask)
        reading.close(finished=True)
    changes = "annotate: [synthetic_001, synthetic_002]\nassistance: randomised\nreader: R1\nsecond_reading: true"
    words = run_annotate(home, metaseg, tmp_path / "tiny.yaml", changes)
    assert "**4 finished readings of 2 cases: 4 lesions drawn in 1 active minutes.**" in words
    # 9 seconds with, 27 without
    assert "a proposal saves, in %: 67 (95 % interval" in words
    assert "2 cases with a proposal, 2 without" in words
    drawn = {name: (home / f"figures/tiny/08_{name}.svg").read_text(encoding="utf-8") for name in ("minutes", "saved")}
    assert all((home / f"figures/tiny/08_{name}.png").is_file() for name in drawn)
    assert [text.count('id="axes_') for text in drawn.values()] == [2, 1]
    assert [drawn["minutes"].count(f"<!-- {panel} -->") for panel in ("per case", "per lesion")] == [1, 1]
    assert "<!-- published, other data: -->" in drawn["saved"]
    agreement = pd.read_csv(layout.by_hand / "agreement.csv").set_index("case")
    assert agreement["dice"].tolist() == pytest.approx([1, 2 * 3 / 7])
    assert "n = 2 cases" in words


def test_training_learned_something_and_kept_its_history(home):
    settings = yaml.safe_load(STUDY.read_text())
    for run in home.glob("runs/tiny/*/fold*"):
        history = pd.read_csv(run / "history.csv")
        assert history["epoch"].tolist() == [4, 8, 12, 16]
        assert history["epoch"].iloc[-1] == settings["epochs"]
        assert history["loss"].iloc[-1] < history["loss"].iloc[0]


@pytest.fixture
def train_until(home, tmp_path):
    """Start 03 of the tiny study, with so many epochs; send SIGTERM at a moment; returns run, exit code and message.

    What another 03 left of the training is there, but for results.
    """

    def start(moment, epochs, without=()):
        left_out = (
            "notebooks",
            "segresnet",
            "cross_validation",
            "review",
            "radiotherapy",
            "predictions*",
            "*.json",
            *without,
        )
        shutil.copytree(home / "runs/tiny/unet", tmp_path / "runs/tiny/unet", ignore=shutil.ignore_patterns(*left_out))
        for part in ("dataset.json", "cases", "synthetic_cohort"):
            source, target = home / "runs/tiny" / part, tmp_path / "runs/tiny" / part
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
        study = tmp_path / "long.yaml"
        study.write_text(STUDY.read_text().replace("epochs: 16", f"epochs: {epochs}"))
        command = [sys.executable, "-m", "metaseg_nb", "run", "03_train", "--study", study, "--model", "unet"]
        env, run = {**os.environ, "METASEG_HOME": str(tmp_path)}, tmp_path / "runs/tiny/unet/fold0"
        process = subprocess.Popen([*command, "--fold", "0"], env=env, stderr=subprocess.PIPE, cwd=PROJECT)
        while not moment(run):
            assert process.poll() is None, process.stderr.read().decode()[-2000:]
            time.sleep(0.02)
        process.terminate()
        said = process.communicate(timeout=120)[1].decode()
        return run, process.returncode, said

    return start


@pytest.mark.slow
@pytest.mark.landing
def test_a_training_that_gets_sigterm_saves_and_tells_it_by_its_exit_code(train_until):
    run, code, said = train_until(lambda run: (run / "history.csv").exists(), 4000, without=["fold0"])
    assert code == 75, said
    assert "TrainingStopped" in said
    assert "start the same notebook again" in (run / "03_train.ipynb").read_text()
    assert not (run / "metrics.json").exists()
    assert load_checkpoint(run / "last.pt")["state"]["step"] >= len(pd.read_csv(run / "history.csv"))


@pytest.mark.slow
def test_sigterm_after_training_ends_the_run_as_stopped_too(train_until):
    run, code, said = train_until(lambda run: (run / "predictions").exists(), 16)
    assert code == 75, said
    assert "03_train: stopped on request" in said
    record = json.loads((run / "03_train.run.json").read_text())
    assert record["state"] == "stopped"
    assert not (run / "metrics.json").exists()


@pytest.mark.slow
def test_sigterm_at_the_start_ends_the_run_as_stopped_too(train_until):
    run, code, said = train_until(lambda run: (run / "03_train.run.json").exists(), 16)
    assert code == 75, said
    assert json.loads((run / "03_train.run.json").read_text())["state"] == "stopped"


def test_all_that_a_run_writes_is_named_in_one_place(home):
    for folder in home.glob("runs/tiny/*/fold*"):
        run = RunLayout(folder)
        own = [folder / name for name in ("03_train.ipynb", "03_train.run.json", ".03_train.lock")]
        assert set(folder.iterdir()) <= {*run.trained, *run.results, *own}


def test_the_report_has_all_pages_and_asks_nothing_of_the_network(tiny_study):
    home = tiny_study.home  # where it was made
    report = home / "reports/tiny"
    index = (report / "index.html").read_text()
    assert all(model_title(model) in index for model in MODELS)
    assert "ynthetic" in index
    pages = set(re.findall(r'href="([^"#]+)"', index))
    assert sum(not page.startswith(("gallery", "index")) for page in pages) == 5 + len(MODELS) * FOLDS
    assert pages == {page.name for page in report.glob("*.html")}, "a page that nothing leads to, or a dead link"
    for page in report.glob("*.html"):
        text = page.read_text()
        assert not re.findall(r'(?:src|href)="(?:https?:)?//[^"]*"|@import|url\(["\']?https?:', text), page.name
        assert str(home) not in text, f"{page.name} names a path of this machine"


def test_executed_notebooks_are_kept_without_errors(home):
    executed = [*home.glob("runs/tiny/notebooks/*.ipynb"), *home.glob("runs/tiny/*/fold*/03_train.ipynb")]
    assert len(executed) == 5 + len(MODELS) * FOLDS
    for path in executed:
        cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        assert all(output.output_type != "error" for cell in cells for output in cell.outputs)
        assert cells[-1].outputs


def test_a_finished_study_has_nothing_to_do(home, metaseg):
    before = {path: path.stat().st_mtime_ns for path in home.glob("runs/tiny/**/*.csv")}
    result = metaseg(home, "study", "--study", STUDY)
    assert result.returncode == 0
    assert "Nothing to be done" in (home / "runs/tiny/snakemake.log").read_text()
    assert {path: path.stat().st_mtime_ns for path in home.glob("runs/tiny/**/*.csv")} == before


@pytest.mark.slow
def test_run_all_shows_a_finished_run_and_writes_nothing(home, metaseg):
    run, own = home / "runs/tiny/unet/fold0", ("03_train", ".03_train")
    files = [path for path in run.rglob("*") if path.is_file() and not path.name.startswith(own)]
    assert {"best.pt", "metrics.json", "metrics.csv"} <= {path.name for path in files}
    assert not (run / "last.pt").exists(), "with its optimiser it takes eight times the place of best.pt"
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
    result = metaseg(home, "run", "03_train", "--study", STUDY, "--model", "unet", "--fold", "0")
    assert result.returncode == 0, result.stderr
    assert "This run is finished" in (run / "03_train.ipynb").read_text()
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files} == before


@pytest.mark.slow
def test_other_settings_for_a_finished_run_are_one_error_that_says_what_to_do(home, metaseg, tmp_path):
    for part in ("cases", "synthetic_cohort", "unet/fold0"):
        shutil.copytree(home / "runs/tiny" / part, tmp_path / "runs/tiny" / part)
    shutil.copy(home / "runs/tiny/dataset.json", tmp_path / "runs/tiny")
    changed = tmp_path / "tiny.yaml"
    changed.write_text(STUDY.read_text().replace("epochs: 16", "epochs: 24"))
    kept = (tmp_path / "runs/tiny/unet/fold0/best.pt").read_bytes()
    result = metaseg(tmp_path, "run", "03_train", "--study", changed, "--model", "unet", "--fold", "0")
    assert result.returncode == 1
    assert "epochs: 16 then, 24 now" in result.stderr
    assert "another study name" in result.stderr
    assert (tmp_path / "runs/tiny/unet/fold0/best.pt").read_bytes() == kept
    assert not [*tmp_path.rglob("superseded_*")]


def rules_to_run(home, study):
    """Rules that Snakemake would run of a study."""
    command = [sys.executable, "-m", "snakemake", "-n", "--snakefile", str(PROJECT / "workflow/Snakefile"), "--nolock"]
    command += ["--config", "study=" + str(study), "--quiet", "rules", "--cores", "1", "--resources", "gpu=1"]
    env = {**os.environ, "METASEG_HOME": str(home)}
    plan = subprocess.run(command, env=env, cwd=home, capture_output=True, text=True, check=True).stdout
    return {rule for rule, n in re.findall(r"^(\w+) +(\d+)$", plan, re.MULTILINE) if rule != "total"}


def test_a_changed_parameter_asks_for_what_depends_on_it_and_no_more(home, tmp_path):
    changed = tmp_path / "tiny.yaml"
    changed.write_text(tiny_file("n_bootstrap: 500\n"))
    assert rules_to_run(home, changed) == {"cross_validate", "review", "radiotherapy", "report"}


def test_a_new_mask_of_an_unlabelled_case_asks_for_the_review_and_the_report(home):
    before, mask = rules_to_run(home, STUDY), home / "runs/tiny/testing/synthetic_007.nii.gz"
    mask.parent.mkdir()
    mask.touch()
    after = rules_to_run(home, STUDY)
    shutil.rmtree(mask.parent)
    assert (before, after) == (set(), {"review", "report"})


@pytest.mark.slow
def test_a_notebook_that_fails_is_kept_and_named_and_leaves_no_result(home, tmp_path):
    """In folders, and of a study, whose names shells, Snakemake, YAML or papermill would take for something else."""
    odd = tmp_path / "a b%20#?{x},{}ü'q\"&$HOME*[y]"
    project, broken, study = odd / "project", odd / "home", odd / "my {study}.yaml"
    for part in ("metaseg_nb", "notebooks", "params", "workflow"):
        shutil.copytree(PROJECT / part, project / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(home / "runs/tiny/synthetic_cohort", broken / "cohort")
    (broken / "cohort/images/synthetic_002.nii.gz").write_bytes(b"not a volume")
    text = STUDY.read_text().replace("study: tiny", "study: '2024_01'").replace("segresnet", "unet_2")
    study.write_text(text.replace("cohort: synthetic", f"cohort: {json.dumps(str(broken / 'cohort/dataset.json'))}"))
    unet = (project / "params/models/unet.yaml").read_text()
    (project / "params/models/unet_2.yaml").write_text(unet.replace("model: unet", "model: unet_2"))
    env = {**os.environ, "METASEG_HOME": str(broken), "PYTHONPATH": str(project)}
    command = [sys.executable, "-m", "metaseg_nb", "study", "--study", str(study)]
    result = subprocess.run(command, env=env, cwd=project, capture_output=True, text=True)
    assert result.returncode == 1
    assert "synthetic_002" in result.stderr
    assert "train" in (broken / "runs/2024_01/snakemake.log").read_text()  # all rules were understood
    assert not (broken / "runs/2024_01/dataset.json").exists()
    assert (broken / "runs/2024_01/notebooks/01_explore_data.ipynb").is_file()


@pytest.mark.slow
def test_papermill_by_hand_runs_one_network_on_one_fold(home, tmp_path):
    by_hand = tmp_path / "home"
    shutil.copytree(home / "runs/tiny", by_hand / "runs/tiny", ignore=shutil.ignore_patterns("unet", "segresnet"))
    files = [PROJECT / "params/models/unet.yaml", PROJECT / "params/folds/fold1.yaml", STUDY]
    command = [sys.executable, "-m", "papermill", "notebooks/03_train.ipynb", str(tmp_path / "out.ipynb")]
    command += [part for file in files for part in ("-f", str(file))]
    env = {**os.environ, "METASEG_HOME": str(by_hand)}
    result = subprocess.run(command, env=env, cwd=PROJECT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    again, first = (root / "runs/tiny/unet/fold1/metrics.csv" for root in (by_hand, home))
    pd.testing.assert_frame_equal(pd.read_csv(again), pd.read_csv(first))


@pytest.mark.slow
def test_preprocessing_run_again_does_no_case_again_and_says_the_same(home, metaseg):
    table = home / "runs/tiny/preprocessing.csv"
    first = pd.read_csv(table)
    stored = {path: path.stat().st_mtime_ns for path in (home / "runs/tiny/cases").rglob("*")}
    result = metaseg(home, "run", "02_preprocess_n4", "--study", STUDY)
    assert result.returncode == 0, result.stderr
    again = pd.read_csv(table)
    assert (first["seconds"] > 0).all()
    assert {path: path.stat().st_mtime_ns for path in stored} == stored
    pd.testing.assert_frame_equal(again, first)


@pytest.mark.slow
@pytest.mark.landing
def test_a_dicom_cohort_goes_in_and_predictions_go_out_as_structure_sets(home, tmp_path, metaseg):
    """Six synthetic patients as DICOM: 01 reads them, `predict` and `export` write what a planning system reads."""
    cases = read_datalist(home / "runs/tiny/dataset.json").cases[:6]
    for number, case in enumerate(cases):
        folder, image, label = tmp_path / "export" / str(number), nib.load(case.image), nib.load(case.label)
        write_series(folder / "mr", np.asarray(image.dataobj), image.affine, f"Patient{number}")
        series = read_dicom(folder / "mr").series[0]
        mask = np.asarray(label.dataobj) > 0
        mask = mask if np.allclose(image.affine, series.affine_ras, atol=1e-3) else mask[:, :, ::-1]
        write_structure_set(folder / "rs.dcm", {"GTV 1": mask}, series, "synthetic")
    listed = metaseg(home, "dicom", tmp_path / "export")
    assert "6 patients, 6 series, 6 structure sets" in listed.stdout
    assert "GTV 1 (6)" in listed.stdout
    study = tmp_path / "clinic.yaml"
    study.write_text(tiny_file(f"study: clinic\ncohort: {tmp_path / 'export'}\n"))
    result = metaseg(home, "run", "01_explore_data", "--study", study)
    assert result.returncode == 0, result.stderr
    lesions = pd.read_csv(home / "runs/clinic/lesions.csv")
    assert set(lesions["regions"]) == {"GTV 1"}
    before = pd.read_csv(home / "runs/tiny/lesions.csv")
    assert len(lesions) == before["case"].isin([case.name for case in cases]).sum()
    assert "Patient" not in (home / "runs/clinic/notebooks/01_explore_data.ipynb").read_text().replace("Patients", "")
    mask = tmp_path / "mask.nii.gz"
    result = metaseg(home, "predict", home / "runs/tiny/segresnet", tmp_path / "export/0/mr", "-o", mask)
    assert result.returncode == 0, result.stderr
    assert nib.load(mask).shape == nib.load(cases[0].image).shape
    for case in read_datalist(home / "runs/clinic/dataset.json").cases:
        mask = home / f"runs/clinic/segresnet/fold{case.fold}/predictions/{case.name}.nii.gz"
        mask.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(case.label, mask)
    result = metaseg(home, "export", "--study", study, "--model", "segresnet", "--seg")
    assert result.stdout.count(" lesions") == 6, result.stdout + result.stderr
    assert len(list(home.glob("runs/clinic/radiotherapy/segresnet/*.dcm"))) == 6


@pytest.mark.slow
def test_published_plans_go_in_through_a_study_file(tmp_path, metaseg, shared_data):
    """Five metastases, a Gamma Knife plan and a sarcoma of the thigh, with two synthetic patients to fill the folds."""
    export, published = tmp_path / "export", shared_data / "radiotherapy"
    shutil.copytree(published / "mr_rtstruct_nifti/STS_008", export / "sts", ignore=shutil.ignore_patterns("*.nii.gz"))
    with tarfile.open(published / "vs_gammaknife_t1c_rtstruct/t1c_dicom_slices_020-045.tar.xz") as slices:
        slices.extractall(export / "gamma", filter="data")
    shutil.copy(published / "vs_gammaknife_t1c_rtstruct/RTSTRUCT_GammaPlan.dcm", export / "gamma")
    plan, brain = (
        published / "met_rtss_brainlab/RS_5mets_scrubbed.dcm",
        published / "met_rtss_brainlab/whole_brain_1mm.nii.gz",
    )
    frame = pydicom.dcmread(plan).StructureSetROISequence[0].ReferencedFrameOfReferenceUID
    noise, head = np.random.default_rng(0).uniform(0, 50, (142, 163, 143)).round(), nib.load(brain)
    image = noise + 300.0 * np.asarray(head.dataobj)  # the plan was published without its images
    write_series(export / "mets", image, head.affine, "BM-RTSS-001", FrameOfReferenceUID=frame)
    shutil.copy(plan, export / "mets")
    for name, other, edge in (("A", image[::-1], 70), ("B", image[:, ::-1], 72)):
        write_series(export / name, other, head.affine, name)
        lesion = np.zeros(image.shape, bool)
        lesion[60:edge, 80:90, 70:80] = True
        write_structure_set(export / name / "rs.dcm", {"GTV": lesion}, read_dicom(export / name).series[0], "x")

    study = tmp_path / "plans.yaml"
    study.write_text(f"study: plans\nmodels: [unet]\ncohort: {export}\nn_folds: 3\nworkers: 1\n")
    result = metaseg(tmp_path, "run", "01_explore_data", "--study", study)
    doubt = re.search(
        r"case (examination_\d+), .*1 of 1 lesions outside the brain.*name the case in `confirmed`", result.stderr
    )
    assert doubt, "a thigh is no brain: " + result.stderr
    study.write_text(study.read_text() + f"confirmed: [{doubt[1]}]\n")
    result = metaseg(tmp_path, "run", "01_explore_data", "--study", study)
    assert result.returncode == 0, result.stderr
    lesions = pd.read_csv(tmp_path / "runs/plans/lesions.csv").query("regions != 'GTV'").set_index("regions")["voxels"]
    published = {"1 GTV": 1066.1, "2 GTV": 2154.6, "3 GTV": 162.7, "4 GTV": 179.7, "5 GTV": 116.4}  # mm³ of polygons
    assert lesions.drop(["TV", "GTV_Mass_MR_T1"]).to_dict() == pytest.approx(published, rel=0.05)
    assert lesions[["TV", "GTV_Mass_MR_T1"]].tolist() == [13307, 8862]
