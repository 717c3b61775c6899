"""Notebook 01 on lists whose images are not there, and on a cohort with faults: it shows all, then stops."""

import json
import re
import socket
import unicodedata

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from conftest import STUDIES, all_said_in

from metaseg_nb.cohort.lesions import largest_diameter_mm
from metaseg_nb.cohort.volumes import read_volume


@pytest.mark.slow
def test_lists_without_images_are_told_apart_from_their_leaks(shared_data, tmp_path, metaseg):
    study = STUDIES / "usz_lists.yaml"
    result = metaseg(tmp_path, "run", "01_explore_data", "--study", study)
    assert result.returncode == 1
    assert "no such file" in result.stderr or "problem(s) in the input" in result.stderr
    assert not (tmp_path / "runs/usz_lists/dataset.json").exists()
    problems = pd.read_csv(tmp_path / "runs/usz_lists/problems.csv")
    missing = problems[problems["found"] == "no such file"]
    assert missing["case"].nunique() == 273
    assert len(missing) == 2 * 273
    page = metaseg(tmp_path, "report", "--study", study, "--notebook", "01_explore_data")
    assert page.returncode == 0, page.stderr
    html = (tmp_path / "reports/usz_lists/01_explore_data.html").read_text()
    assert "222 of 270 evaluation entries are training cases of dataset_1.json" in html
    assert "This notebook stopped before its end." in html
    assert html.count("An Exception was encountered") == 0


@pytest.mark.slow
def test_a_faulty_case_stops_the_study_and_is_left_out_by_name(write_case, tmp_path, metaseg):
    cases = [write_case(name, seed=i) for i, name in enumerate("abcdefg")]
    cases[4].image.write_bytes(b"")
    entries = [{"case": c.name, "image": str(c.image), "label": str(c.label), "patient": c.patient} for c in cases]
    (tmp_path / "list.json").write_text(json.dumps({"training": entries}))
    study = tmp_path / "faulty.yaml"
    study.write_text(f"study: faulty\ncohort: {tmp_path / 'list.json'}\nn_folds: 2\nworkers: 1\n")
    stopped = metaseg(tmp_path, "run", "01_explore_data", "--study", study)
    assert stopped.returncode == 1
    assert "case e, file image.nii.gz: found 0 bytes" in stopped.stderr
    assert str(tmp_path) not in stopped.stderr.partition("failed with")[2], "no private path in what may be shared"
    facts = pd.read_csv(tmp_path / "runs/faulty/cases.csv").set_index("case")
    assert facts.loc[list("abcdfg"), "n_lesions"].tolist() == [2] * 6
    study.write_text(f"{study.read_text()}exclude: [e]\n")
    again = metaseg(tmp_path, "run", "01_explore_data", "--study", study)
    assert again.returncode == 0, again.stderr
    listed = json.loads((tmp_path / "runs/faulty/dataset.json").read_text())["training"]
    assert sorted(entry["case"] for entry in listed) == list("abcdfg")
    assert sorted(entry["fold"] for entry in listed) == [0, 0, 0, 1, 1, 1]


@pytest.mark.slow
def test_a_folder_is_a_cohort_that_no_other_settings_replace(write_case, tmp_path, metaseg):
    for seed, name in enumerate(("lung/a", "lung/b", "lung/c", "renal/d", "renal/e", "renal/f")):
        write_case(f"cohort/{name}", seed=seed)
    study = tmp_path / "folder.yaml"
    study.write_text(f"study: folder\ncohort: {tmp_path / 'cohort'}\nn_folds: 2\nworkers: 1\n")
    result = metaseg(tmp_path, "run", "01_explore_data", "--study", study)
    assert result.returncode == 0, result.stderr
    listed = json.loads((tmp_path / "runs/folder/dataset.json").read_text())["training"]
    assert {entry["case"]: entry["primary"] for entry in listed} == {
        **dict.fromkeys(["lung_a", "lung_b", "lung_c"], "lung"),
        **dict.fromkeys(["renal_d", "renal_e", "renal_f"], "renal"),
    }
    before = {path.name: path.read_bytes() for path in (tmp_path / "runs/folder").glob("*.*")}
    assert metaseg(tmp_path, "run", "01_explore_data", "--study", study).returncode == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "runs/folder").glob("*.*")} == before
    study.write_text("study: folder\ncohort: synthetic\nsynthetic_patients: 4\nn_folds: 2\nworkers: 1\n")
    result = metaseg(tmp_path, "run", "01_explore_data", "--study", study)
    assert result.returncode == 1
    assert "now 'synthetic'" in result.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "runs/folder").glob("*.*")} == before


@pytest.mark.slow
def test_an_entry_that_cannot_be_read_hides_no_other_problem(write_case, tmp_path, metaseg):
    cases = [write_case(name, seed=i) for i, name in enumerate("ab")]
    cases[1].image.write_bytes(b"")
    entries = [{"image": str(case.image), "label": str(case.label)} for case in cases]
    (tmp_path / "list.json").write_text(json.dumps({"training": [*entries, {"label": "without_image.nii.gz"}]}))
    study = tmp_path / "entry.yaml"
    study.write_text(f"study: entry\ncohort: {tmp_path / 'list.json'}\nworkers: 1\n")
    assert metaseg(tmp_path, "run", "01_explore_data", "--study", study).returncode == 1
    problems = pd.read_csv(tmp_path / "runs/entry/problems.csv")
    errors = problems[problems["severity"] == "error"]
    assert sorted(errors["case"]) == ["b", "training[2]"]
    assert errors.set_index("case").loc["training[2]", "found"] == "no image"


@pytest.mark.slow
def test_nothing_that_is_shared_of_an_anonymised_cohort_names_anybody_or_runs(
    write_case, tmp_path, metaseg, monkeypatch, chromium
):
    home, decomposed = tmp_path / "of hmueller", unicodedata.normalize("NFD", "MÜLLER^ÄNNE")
    monkeypatch.setenv("LOGNAME", "hmueller")
    private = f"{decomposed}^0, müller, änne 1; by HMueller on {socket.gethostname()}, in {tmp_path}/x.csv, scan 7"
    runs = "<img src=x onerror=\"document.title='RAN'\"> $\\\\frac$"
    entries = []
    for i in range(6):
        case = write_case(f"Müller_Änne_{i}", seed=i)
        image = nib.load(case.image)
        image.header["descrip"] = b"MULLER^HANNE"
        nib.save(image, case.image)
        entry = {"case": ("7", f"Müller_Änne_{i}")[i > 0], "image": str(case.image), "label": str(case.label)}
        words = f"{runs} {private}"
        entries.append(entry | {"patient": f"MÜLLER^ÄNNE^{i}", "primary": words, "scanner": words})
    told = {"name": f"{runs} {private}", "description": f"{runs} {private}", "training": entries}
    (tmp_path / "Müller_Änne.json").write_text(json.dumps(told), encoding="utf-8")
    study = tmp_path / "private.yaml"
    asked = f"study: private\ncohort: {tmp_path}/Müller_Änne.json\nanonymise: true\nn_folds: 2\nworkers: 1\n"
    study.write_text(asked)
    result = metaseg(home, "run", "01_explore_data", "--study", study)
    assert result.returncode == 0, result.stderr
    assert metaseg(home, "report", "--study", study, "--notebook", "01_explore_data").returncode == 0
    for folder in ("reports", "figures"):
        said = all_said_in(home / folder / "private")
        assert len(said) > 10_000
        for name in ("müller", "änne", "muller^hanne", "hmueller", f"on {socket.gethostname()}".lower(), str(tmp_path)):
            assert name not in said, (folder, name, said[max(0, said.find(name) - 80) :][:200])
    kept = json.loads((home / "runs/private/dataset.json").read_text())
    for words in (kept["name"], kept["description"]):
        assert re.search(r"(case|patient)_\d{4}, (case|patient)_\d{4}; by HMueller .* scan case_\d{4}$", words)
    page = chromium.new_page()
    page.goto((home / "reports/private/01_explore_data.html").as_uri())
    page.wait_for_timeout(200)
    assert page.title().startswith("01 ")
    page.close()


@pytest.mark.parametrize(("name", "published_mm"), [("thick_brain1", 69.601), ("thick_brain2", 24.445)])
def test_the_diameter_is_that_of_the_surface_mesh_but_for_a_voxel(shared_data, name, published_mm):
    path = shared_data / "real_t1c/labels" / f"{name}.nii.gz"
    label = read_volume(path, name)
    found = largest_diameter_mm(np.argwhere(label.array), label.spacing_mm)
    voxel_mm = sum(edge**2 for edge in label.spacing_mm) ** 0.5
    assert published_mm < found < published_mm + voxel_mm
