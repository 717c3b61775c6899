"""Parameters: which file wins, what is refused and how it is said, and the project's own files."""

import ast
import math
import re
import shutil
import tomllib

import papermill
import pytest
import yaml

from metaseg_nb.layout import NOTEBOOKS, PARAMS, PROJECT, StudyLayout, home
from metaseg_nb.parameters import read_parameters, resolve
from metaseg_nb.settings import NOTEBOOK_SETTINGS, ParameterError, Preprocess, Train, settings_hash

MODELS = sorted(path.stem for path in (PARAMS / "models").glob("*.yaml"))
STUDIES = sorted(path.stem for path in (PARAMS / "studies").glob("*.yaml"))
ARMS = sorted(path.stem for path in (PARAMS / "arms").glob("*.yaml"))
UNET = "model: unet\ntitle: U\nnetwork: unet"
OTHERS = sorted(name for name, settings in NOTEBOOK_SETTINGS.items() if "model" not in settings.model_fields)


@pytest.fixture
def params(tmp_path, monkeypatch):
    """Write parameter files of a folder that stands in for the project's; returns their paths."""
    monkeypatch.setattr("metaseg_nb.layout.PARAMS", tmp_path)

    def write(model=UNET, study="study: tiny"):
        shutil.copytree(PARAMS / "models", tmp_path / "models", dirs_exist_ok=True)
        files = {"models/unet.yaml": model, "studies/tiny.yaml": study}
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        return [tmp_path / name for name in files]

    return write


def refusal(notebook, study, *more):
    with pytest.raises(ParameterError) as error:
        resolve(notebook, str(study), *more)
    return str(error.value)


def test_later_files_win(params):
    params(model=f"{UNET}\nepochs: 10\nlearning_rate: 0.5", study="study: tiny\nepochs: 30")
    found = resolve("03_train", "tiny", "unet", 3)
    assert (found["epochs"], found["learning_rate"]) == (30, 0.5)
    assert (found["model"], found["fold"], found["study"]) == ("unet", 3, "tiny")


def test_what_the_files_leave_out_is_the_size_of_a_real_study(params):
    _, study = params()
    found = resolve("03_train", "tiny", "unet", 0)
    assert (found["patch_size"], found["epochs"], found["sampling"]) == (128, 350, "voxel")
    assert resolve("02_preprocess_n4", "tiny")["spacing_mm"] == 1.0
    study.write_text("study: tiny\nspacing_mm: wide")
    assert refusal("02_preprocess_n4", "tiny").startswith(f"{study}: key 'spacing_mm': found 'wide'")


def test_a_network_says_what_it_is(params):
    model, _ = params(model="model: unet")
    assert (
        refusal("03_train", "tiny", "unet", 0) == f"{model}: missing: title, network; expected: a line for each of them"
    )


def test_a_key_may_stand_in_the_files_of_the_models_instead_of_the_studys(params):
    params(model=f"{UNET}\nloss: tversky")
    assert resolve("03_train", "tiny", "unet", 0)["loss"] == "tversky"
    assert resolve("03_train", "tiny", "segresnet", 0)["loss"] == "dice_ce"


def test_a_study_has_the_folds_that_it_says(params):
    *_, study = params(study="study: tiny\nn_folds: 10")
    assert resolve("03_train", "tiny", "unet", 9)["fold"] == 9
    assert refusal("03_train", "tiny", "unet", 10).startswith(f"{study}: n_folds is 10: found fold 10; expected 0 to 9")


def test_a_study_may_be_a_file_anywhere(params, tmp_path):
    params()
    elsewhere = tmp_path / "mine.yaml"
    elsewhere.write_text("study: mine\nn_folds: 3")
    assert resolve("01_explore_data", str(elsewhere))["study"] == "mine"
    assert resolve("03_train", str(elsewhere), "unet", 0)["study"] == "mine"


def test_a_notebook_gets_its_own_keys_only(params):
    params(study="study: tiny\nn_folds: 3\nspacing_mm: 2.0")
    for notebook in OTHERS:
        assert set(resolve(notebook, "tiny")) == set(NOTEBOOK_SETTINGS[notebook].model_fields)


def test_an_unknown_key_is_named_with_its_file_and_what_was_meant(params):
    *_, study = params(study="study: tiny\nlearning_rat: 0.1\nepoch: 3\nxyzzy: 1")
    message = refusal("03_train", "tiny", "unet", 0)
    assert message.count(str(study)) == 3
    assert "key 'learning_rat' is declared by no notebook; did you mean 'learning_rate'?" in message
    assert "key 'epoch' is declared by no notebook; did you mean 'epochs'?" in message
    assert "key 'xyzzy' is declared by no notebook; expected one of " in message


def test_an_unknown_key_is_refused_by_notebooks_that_would_not_use_it(params):
    *_, study = params(study="study: tiny\nlearning_rat: 0.1")
    assert str(study) in refusal("01_explore_data", "tiny")


@pytest.mark.parametrize(("written", "rate"), [("3e-4", 0.0003), ("1.25E-4", 0.000125), (".5", 0.5), ("1", 1)])
def test_numbers_mean_what_they_say(params, written, rate):
    params(model=f"{UNET}\nlearning_rate: {written}")
    assert resolve("03_train", "tiny", "unet", 0)["learning_rate"] == rate


@pytest.mark.parametrize("written", ["3e-4", "125e-6", "1.0e5", "2E-5"])
def test_numbers_that_papermill_takes_for_text_come_with_the_way_to_write_them(written):
    assert yaml.safe_load(f"x: {written}")["x"] == written  # as papermill reads a file
    with pytest.raises(ParameterError) as error:
        Train.check(resolve("03_train", "demo", "unet", 0) | {"learning_rate": written})
    assert f"key 'learning_rate': found '{written}'" in str(error.value)
    assert str(error.value).endswith("a valid number (such as 0.0003, without quotes)")


@pytest.mark.parametrize(
    ("line", "papermill_reads", "advice"),
    [
        ("n_folds: 010", 8, "a valid integer (such as 10, without quotes)"),
        ("n_folds: 0x10", 16, "a valid integer"),
        ("n_folds: 0b11", 3, "a valid integer"),
        ("n_folds: 1_0", 10, "a valid integer"),
        ("n_folds: 1:30", 90, "a valid integer"),
        ("label_threshold: 1:30.5", 90.5, "a valid number"),
        ("label_threshold: .inf", math.inf, "a valid number"),
        ("label_threshold: 1e999", "1e999", "a finite number"),
        ("anonymise: yes", True, "a valid boolean"),
        ("exclude: [12]", [12], "in quotes"),
        ("label_threshold: '0.5'", "0.5", "a valid number (such as 0.0003, without quotes)"),
        ("n_folds: 5.0", 5.0, "a valid integer"),
        ("lesion_values: 1", 1, "a valid list (in brackets, such as [p3] or [1, 4])"),
        ("exclude: p3", "p3", "a valid list (in brackets"),
        ("exclude: [true]", [True], "in quotes"),
    ],
)
def test_what_papermill_reads_as_another_value_is_refused(params, line, papermill_reads, advice):
    assert next(iter(yaml.safe_load(line).values())) == papermill_reads
    params(study=f"study: tiny\n{line}")
    assert advice in refusal("01_explore_data", "tiny")


@pytest.mark.parametrize("name", ["001", "1_2", "2024-01-01", "1:30", "no", "on", "0x1F", "nan"])
def test_names_mean_what_they_say(params, name):
    params(study=f"study: tiny\nexclude: [{name}]")
    assert resolve("01_explore_data", "tiny")["exclude"] == [name]


@pytest.mark.parametrize("name", ["2024_01", "007", "1e3", "true", "null", "0x1", "1_000"])
def test_a_study_may_be_named_like_a_number(params, tmp_path, name):
    params()
    (tmp_path / f"studies/{name}.yaml").write_text(f'study: "{name}"\n')
    assert resolve("01_explore_data", name)["study"] == name


@pytest.mark.parametrize("name", ["-x", "Müller", "a b", "a/b", "..", "", "x" * 41])
def test_a_name_that_no_folder_and_no_job_can_have_is_refused(params, name):
    params(study=f"study: '{name}'")
    assert "at most 40 letters (a to z), digits, _ and -" in refusal("01_explore_data", "tiny")


@pytest.mark.parametrize(
    "name", ["unet-2", "2unet", "Ünet", "u net", "unet.v2", "report", "unet_fold0", "True", "cases"]
)
def test_a_model_file_whose_name_others_would_misread_is_refused_before_anything_starts(params, tmp_path, name):
    params(study=f"study: tiny\nmodels: ['{name}']")
    (tmp_path / f"models/{name}.yaml").write_text(UNET.replace("model: unet", f"model: '{name}'"))
    assert "What to do: rename the file" in refusal("04_cross_validation", "tiny")


def test_a_model_may_have_digits_and_capitals_in_its_name(params, tmp_path):
    params(study="study: tiny\nmodels: [unet_2, UNet3D]")
    names = ("unet_2", "UNet3D")
    for name in names:
        (tmp_path / f"models/{name}.yaml").write_text(UNET.replace("model: unet", f"model: {name}"))
    for name in names:
        assert resolve("03_train", "tiny", name, 0)["model"] == name
    assert resolve("04_cross_validation", "tiny")["models"] == ["unet_2", "UNet3D"]


IMPOSSIBLE = [
    ("01_explore_data", "n_folds: 1"),
    ("01_explore_data", "other_values: [1]"),
    ("01_explore_data", "lesion_values: []"),
    ("01_explore_data", "lesion_values: [1, 0]"),
    ("01_explore_data", "synthetic_patients: 3"),
    ("01_explore_data", "seed: -1"),
    ("01_explore_data", "workers: 0"),
    ("01_explore_data", "study: up/../and away"),
    ("02_preprocess_n4", "intensity_percentiles: [99.0, 1.0]"),
    ("02_preprocess_n4", "intensity_percentiles: [50.0, 50.0]"),
    ("02_preprocess_n4", "intensity_percentiles: [0.0, 50.0, 100.0]"),
    ("02_preprocess_n4", "intensity_percentiles: [0.0, 101.0]"),
    ("02_preprocess_n4", "spacing_mm: 0.0"),
    ("02_preprocess_n4", "interpolation: nearest"),
    ("02_preprocess_n4", "intensity_scaling: zscore"),
    ("02_preprocess_n4", "min_lesion_mm3: -1.0"),
    ("02_preprocess_n4", "outside_head: keep"),
    ("03_train", "patch_size: 40"),
    ("03_train", "patch_size: 16"),
    ("03_train", "epochs: 3.5"),
    ("03_train", "epochs: yes"),
    ("03_train", "lesion_share: 1.5"),
    ("03_train", "overlap: 1.0"),
    ("03_train", "learning_rate: 0.0"),
    ("03_train", "precision: off"),
    ("03_train", "model: resnet"),
    ("04_cross_validation", "models: [unet, resnet]"),
    ("05_qualitative_review", "models: []"),
]


@pytest.mark.parametrize(("notebook", "line"), IMPOSSIBLE)
def test_an_impossible_value_is_refused_with_file_key_and_what_was_found(params, notebook, line):
    *_, study = params(study=f"study: tiny\n{line}" if not line.startswith("study") else line)
    message = refusal(notebook, "tiny", *(["unet", 0] if notebook == "03_train" else []))
    key, value = list(read_parameters(study).items())[-1]
    assert re.match(rf"{re.escape(str(study))}: key '{key}(\.\d)?': found ", message)
    assert "expected: " in message
    assert repr(value) in message or any(f"found {item!r};" in message for item in value)


def test_every_wrong_value_is_reported_at_once(params):
    model, study = params(model=f"{UNET}\nepochs: 0", study="study: tiny\npatch_size: 40")
    message = refusal("03_train", "tiny", "unet", 0)
    assert f"{model}: key 'epochs'" in message
    assert f"{study}: key 'patch_size'" in message


@pytest.mark.parametrize("text", ["study: [tiny", "study: tiny\n\tepochs: 3", "- epochs", "demo"])
def test_a_file_that_is_not_key_value_lines_is_named(params, text):
    *_, study = params(study=text)
    assert refusal("01_explore_data", "tiny").startswith(f"{study}: ")


def test_a_missing_file_lists_what_is_there(params, tmp_path):
    model, study = params()
    for message, wanted, there in (
        (refusal("03_train", "tiny", "unett", 0), f"no model file {model.with_stem('unett')}", ", ".join(MODELS)),
        (refusal("03_train", "timy", "unet", 0), f"no study file {study.with_stem('timy')}", "tiny"),
        (refusal("03_train", tmp_path / "studies/mine.yaml", "unet", 0), "no study file", "tiny"),
        (refusal("01_explore_data", tmp_path / "mine.yaml"), "no study file", "none"),
    ):
        assert wanted in message
        assert message.endswith(f" has: {there}")


def test_training_without_model_or_fold_says_what_to_give(params):
    params()
    for model, fold in ((None, None), ("unet", None), (None, 0)):
        assert "give --model and --fold" in refusal("03_train", "tiny", model, fold)


def test_an_unknown_notebook_lists_the_notebooks(params):
    params()
    assert "03_train" in refusal("03_trian", "tiny")


@pytest.mark.parametrize(
    ("value", "place"), [("scratch", PROJECT / "scratch"), ("", PROJECT), ("  ", PROJECT), ("~/s", "s")]
)
def test_the_home_is_one_place_for_processes_in_all_folders(tmp_path, monkeypatch, value, place):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("METASEG_HOME", value)
    monkeypatch.chdir(tmp_path)
    assert home() == tmp_path / place
    assert StudyLayout("demo").dataset == tmp_path / place / "runs/demo/dataset.json"


def test_a_home_of_nobody_is_refused(monkeypatch):
    monkeypatch.setenv("METASEG_HOME", "~nobody_of_that_name/runs")
    with pytest.raises(ValueError, match="METASEG_HOME: found '~nobody_of_that_name/runs'; expected a folder"):
        home()


def test_a_file_is_no_home(monkeypatch, tmp_path):
    (tmp_path / "results").touch()
    monkeypatch.setenv("METASEG_HOME", str(tmp_path / "results"))
    with pytest.raises(ValueError, match=r"METASEG_HOME: found the file .*results'; expected a folder"):
        home()


@pytest.mark.parametrize("study", STUDIES)
def test_every_study_of_the_project_resolves_for_every_notebook(study):
    for notebook in OTHERS:
        assert resolve(notebook, study)["study"] == study
    for model in MODELS:
        for fold in range(resolve("01_explore_data", study)["n_folds"]):
            for notebook in sorted(set(NOTEBOOK_SETTINGS) - set(OTHERS)):
                found = resolve(notebook, study, model, fold)
                assert (found["study"], found["model"], found["fold"]) == (study, model, fold)


def test_the_two_studies_of_sites_differ_in_their_folds_alone():
    """So 04 of the first may compare them; both networks are trained on as many patients."""
    by_site, by_patient = (
        read_parameters(PARAMS / f"studies/{name}.yaml") for name in ("demo_sites", "demo_sites_known")
    )
    assert by_patient == by_site | {"study": "demo_sites_known", "folds_by": "patient"}
    assert (by_site["folds_by"], by_site["n_folds"]) == ("site", 2)


@pytest.mark.parametrize("study", STUDIES)
def test_there_is_a_model_file_for_all_that_a_study_compares(study):
    assert set(resolve("04_cross_validation", study)["models"]) <= set(MODELS)


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_is_laid_over_the_study_and_a_seed_over_all(arm):
    found = resolve("03_train", "usz_budget", "unet", 0, arm, 7)
    assert (found["arm"], found["seed"]) == (arm, 7)
    assert found["arm_title"]
    said = read_parameters(PARAMS / "arms" / f"{arm}.yaml")
    said |= {"models": ["unet"]} if said.get("models") == ["self"] else {}
    assert said.items() <= found.items()


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_names_arms_that_there_are_and_every_teacher_before_its_pupil(study):
    arms = resolve("06_annotation_budget", study)["arms"]
    for place, arm in enumerate(arms):
        assert read_parameters(PARAMS / "arms" / f"{arm}.yaml").get("teacher", arm) in arms[: place + 1]


@pytest.mark.parametrize("document", ["annotation_budgets", "cluster"])
def test_the_full_matrix_has_every_arm_and_documents_say_its_size(document):
    found = resolve("06_annotation_budget", "usz_budget")
    arms, seeds = len(found["arms"]), len(found["seeds"])
    assert sorted(found["arms"]) == sorted(ARMS)
    text = " ".join((PROJECT / f"docs/{document}.md").read_text(encoding="utf-8").split())
    assert f"({arms} arms, {seeds} seeds) takes {arms * seeds} times the GPU hours" in text


@pytest.mark.parametrize("study", ["demo", "demo_budget", "usz", "usz_budget"])
def test_a_study_of_the_project_says_every_value_that_its_notebooks_read(study):
    """Its file, and those of its networks and arms: a default that changes one day changes none of its results."""
    found = resolve("06_annotation_budget", study)
    own = read_parameters(PROJECT / f"params/studies/{study}.yaml")
    after = ["06_annotation_budget"] if found["arms"] else ["04_cross_validation", "05_qualitative_review"]
    after += [] if found["arms"] else ["07_radiotherapy"]
    notebooks = ["01_explore_data", "02_preprocess_n4", "03_train", "03b_pretrain", *after]
    needed = {key for notebook in notebooks for key in NOTEBOOK_SETTINGS[notebook].model_fields} - {"fold", "arm"}
    for model in found["models"]:
        assert needed <= own.keys() | read_parameters(PROJECT / f"params/models/{model}.yaml").keys()


def test_an_arm_or_a_seed_where_there_is_none_is_refused():
    assert "takes no --arm and no --seed" in refusal("04_cross_validation", "demo", None, None, "boxes", 1)
    assert "takes no --arm" in refusal("03b_pretrain", "demo", "unet", 0, "boxes")
    assert "no arm file" in refusal("03_train", "demo", "unet", 0, "boxxes")


def test_an_arm_is_not_said_by_a_study(params):
    params(study="study: tiny\narm: boxes")
    assert "key 'arm': found 'boxes'; expected: ''" in refusal("03_train", "tiny", "unet", 0)


def test_every_parameter_file_is_read_strictly():
    files = sorted(PARAMS.rglob("*.yaml"))
    assert len(files) == len(MODELS) + len(STUDIES) + len(ARMS) + 5 + 1  # folds, for papermill by hand; defaults
    for file in files:
        assert read_parameters(file)


@pytest.mark.parametrize("notebook", NOTEBOOK_SETTINGS)
def test_a_parameters_cell_holds_the_values_of_the_demo(notebook):
    """So that Run All of a committed notebook, after the demo, is the demo again."""
    declared = papermill.inspect_notebook(NOTEBOOKS / f"{notebook}.ipynb")
    others = {"03b_pretrain": "demo_budget", "06_annotation_budget": "demo_budget", "09_follow_up": "demo_follow_up"}
    study = others.get(notebook, "demo")
    run = ("unet", 0) if notebook.startswith("03") else ()
    assert {name: ast.literal_eval(entry["default"]) for name, entry in declared.items()} == resolve(
        notebook, study, *run
    )


def test_the_notebook_reads_its_own_names_and_refuses_a_wrong_one():
    namespace = {"__name__": "__main__", "pd": object(), **resolve("02_preprocess_n4", "demo")}
    assert Preprocess.read(namespace).spacing_mm == namespace["spacing_mm"]
    with pytest.raises(ParameterError, match=r"the notebook's parameters cell: key 'spacing_mm': found -1\.0"):
        Preprocess.read({**namespace, "spacing_mm": -1.0})


def test_the_hash_changes_with_every_setting():
    values = resolve("03_train", "demo", "unet", 0)
    hashes = {settings_hash(values)}
    for key, value in values.items():
        other = f"{value}x" if isinstance(value, str) else [*value, "x"] if isinstance(value, list) else value + 1
        hashes.add(settings_hash({**values, key: other}))
    assert len(hashes) == len(values) + 1


def test_the_hash_does_not_depend_on_the_order_of_the_settings():
    values = resolve("03_train", "demo", "unet", 0)
    assert settings_hash(dict(reversed(values.items()))) == settings_hash(values) == settings_hash(Train(**values))


def test_environment_yml_installs_what_the_package_depends_on():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    *names, package = yaml.safe_load((PROJECT / "environment.yml").read_text())["dependencies"][-1]["pip"]
    assert package == "--editable ."
    assert [name.split("==")[0] for name in names] == [pin.split("==")[0] for pin in project["dependencies"]]
    torch = next(pin for pin in project["dependencies"] if pin.startswith("torch=="))
    assert torch in names


@pytest.mark.parametrize(
    ("files", "key"),
    [
        ({"study": "study: tiny\nmodel: segresnet"}, "model"),
        ({"study": "study: tiny\nfold: 1"}, "fold"),
        ({"model": UNET.replace("model: unet", "model: segresnet")}, "model"),
    ],
)
def test_a_file_cannot_send_results_to_another_run_than_was_asked_for(params, files, key):
    params(**files)
    assert f"key '{key}': found" in refusal("03_train", "tiny", "unet", 0)


def test_a_study_file_must_name_its_study(params):
    *_, study = params(study="n_folds: 5")
    assert refusal("01_explore_data", "tiny").startswith(f"{study}: missing: study; ")


def test_a_model_is_refused_where_nothing_trains(params):
    params()
    assert "takes no --model and no --fold" in refusal("01_explore_data", "tiny", "unet", 0)
