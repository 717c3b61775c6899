"""Results of a budget study are read whole, or everything that is missing or wrong is named."""

import shutil
from dataclasses import replace

import pandas as pd
import pytest
from budget_fakes import FakeBudget, fake_cohort, settings_with

from metaseg_nb.annotation.comparison import budget_gains
from metaseg_nb.annotation.results import read_budget
from metaseg_nb.checksums import read_record, write_record
from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.files import DamagedFile, read_table, write_json, write_table
from metaseg_nb.layout import StudyLayout

CONTOURED = 2 + 4 + 9  # minutes of a case of the fake cohort
EPOCHS = {"unet": 350, "unetr": 1400}  # of their parameter files


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A study of 24 patients in three folds: 14 to train on, 2 to select with, 8 to test on; results without noise."""
    home, arms = tmp_path_factory.mktemp("fake"), ("patients_25", "patients_100", "boxes_roi", "self_training_25")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METASEG_HOME", str(home))
        budget = FakeBudget(StudyLayout("fake"), fake_cohort(home), ("unet", "unetr"), arms, (0, 4), noise=0.0)
        budget.write({("unetr", "boxes_roi"): 0.1})
    return home, budget


@pytest.fixture
def fake(written, tmp_path, monkeypatch):
    """The study in a folder of its own, where a test may change it."""
    home, budget = written
    monkeypatch.setenv("METASEG_HOME", str(tmp_path / "home"))
    shutil.copytree(home, tmp_path / "home")
    return replace(budget, layout=StudyLayout("fake"))


def read(fake, **changes):
    asked = {"models": list(fake.models), "arms": list(fake.arms), "seeds": list(fake.seeds)} | changes
    return read_budget(fake.layout, fake.cohort, settings_with(**asked))


def problems(fake):
    with pytest.raises(CohortError) as error:
        read(fake)
    return error.value.problems


def rewrite(run, path, change):
    """Change a table of a run as a mistake of the program would, that is before it finished."""
    write_table(path, change(read_table(path)))
    facts = read_record(run.metrics)
    write_record(run.metrics, facts, [run.root / name for name in facts["files"]])


def test_every_patient_has_a_row_of_every_network_arm_and_seed(fake):
    results = read(fake)
    assert len(results.patients) == 2 * 4 * 2 * 24
    assert not results.patients.duplicated(["model", "arm", "seed", "patient"]).any()
    assert results.models == ["unet", "unetr"]
    dice = results.patients.groupby(["model", "arm"])["dice"].mean()
    assert dice["unet", "patients_100"] == pytest.approx(1 - 0.8 * 14**-0.4)
    assert dice["unetr", "boxes_roi"] == pytest.approx(1 - 0.8 * 14**-0.4 + 0.1)
    assert dice["unet", "patients_25"] == pytest.approx(1 - 0.8 * 4**-0.4)
    assert results.values("unet", "patients_25", "n_truth").shape == (2, 24)


def test_effort_is_counted_run_by_run(fake):
    results = read(fake)
    assert len(results.efforts) == 2 * 4 * 2 * 3
    arms = results.arms
    assert arms["patients"].to_dict() == dict(zip(fake.arms, (6, 16, 16, 6), strict=True))
    assert arms["selection_patients"].unique().tolist() == [2]
    assert arms["selection_minutes"].unique().tolist() == [2 * CONTOURED]
    assert arms.loc["patients_100", "minutes"] == 16 * CONTOURED
    assert arms.loc["boxes_roi", "minutes"] == 14 * (2 + 4 * 0.5) + 2 * CONTOURED
    assert arms.loc["self_training_25", "minutes"] == arms.loc["patients_25", "minutes"] == 6 * CONTOURED


def test_cases_only_for_training_are_in_every_run_and_take_their_measured_minutes(fake):
    extra = Case("new", fake.cohort.cases[0].images, fake.cohort.cases[0].label, "new", "lung", None, 4)
    by_hand = replace(extra, reader="R1", minutes=3.25, begun_with="proposal")
    other = replace(fake, cohort=replace(fake.cohort, training_only=[by_hand])).write()
    results = read(other)
    full = results.arms.loc["patients_100"]
    assert (full["patients"], full["measured_cases"]) == (17, 1)
    assert full["minutes"] == 16 * CONTOURED + 3.25
    boxes = results.arms.loc["boxes_roi"]
    assert (boxes["minutes"], boxes["measured_cases"]) == (15 * (2 + 4 * 0.5) + 2 * CONTOURED, 0)
    assert "new" not in {*results.patients["patient"]}, "it is never tested"
    run = other.layout.run("unet", 1, "patients_100", 0)
    rewrite_annotation = read_table(run.annotation_table).query("case != 'new'")
    write_table(run.annotation_table, rewrite_annotation)
    facts = read_record(run.metrics)
    write_record(run.metrics, facts, [run.root / name for name in facts["files"]])
    assert [problem.found for problem in problems(other)] == ["the case 0 times"]


def test_an_arm_is_known_by_its_file(fake):
    results = read(fake)
    assert results.budgets == ["patients_25", "patients_100"]
    assert results.arms.loc["boxes_roi", ["share", "annotation", "recipe"]].tolist() == [1.0, "boxes", "sampling: roi"]
    assert results.arms.loc["self_training_25", ["unannotated", "recipe"]].tolist() == ["self_training", ""]


def test_an_arm_without_annotation_takes_no_minutes(fake):
    one = replace(fake, models=("unet",), seeds=(0,), arms=("patients_25", "planted", "planted_25")).write()
    arms = read(one).arms
    assert arms["patients"].tolist() == [6, 0, 6]
    assert arms["minutes"].tolist() == [6 * CONTOURED, 0, 6 * CONTOURED]
    assert read(one).budgets == ["patients_25"]


def test_an_arm_whose_teacher_was_ranked_too_is_ranked_in_rounds(fake):
    arms = ("ranking_50", "ranking_50_rounds", "slices_2_75", "boxes")
    one = replace(fake, models=("unet",), seeds=(0,), arms=arms).write()
    arms = read(one).arms
    assert arms["unannotated"].tolist() == ["ranking", "ranking_in_rounds", "unused", "unused"]
    assert arms["slice_step"].tolist() == [0, 0, 2, 0]


def test_the_lesion_volume_of_added_patients_is_that_which_networks_found(fake):
    one = replace(fake, models=("unet",), seeds=(0,), arms=("ranking_50", "foreground_random_50", "boxes")).write()
    for arm, volumes in (("ranking_50", (300.0, 200.0, 500.0)), ("foreground_random_50", (200.0, 250.0, 900.0))):
        for fold in range(3):
            run = one.layout.run("unet", fold, arm, 0)
            done = read_table(run.annotation_table).query("role == 'training'").groupby("annotation")["patient"]
            patients = [*done.get_group("full").iloc[:2], done.get_group("none").iloc[0]]  # the last is not added
            write_table(run.ranking_table, pd.DataFrame({"patient": patients, "found_mm3": volumes}))
    arms = read(one).arms
    assert arms["added_mm3"].fillna(-1).tolist() == [500, 450, -1]
    against = budget_gains(read(one), 200, 0).set_index("question").loc["foreground", "against"]
    assert against.iloc[0] == "50 %, random with as much lesion (90 % of its volume)"


def test_a_patients_cases_are_averaged(fake):
    cases = [replace(case, patient="p00") if case.name == "case03" else case for case in fake.cohort.cases]
    other = replace(fake, cohort=replace(fake.cohort, cases=cases), noise=0.05).write()
    results = read(other, models=["unet"], arms=["patients_100"])
    found = results.patients.set_index(["seed", "patient"])["dice"]
    metrics = pd.read_csv(other.layout.run("unet", 0, "patients_100", 4).metrics_table).set_index("case")["dice"]
    assert found[4, "p00"] == pytest.approx(metrics[["case00", "case03"]].mean())
    assert len(found) == 2 * 23


def test_all_missing_runs_are_named_at_once(fake):
    fake.layout.run("unet", 2, "patients_25", 0).metrics.unlink()
    fake.layout.run("unetr", 1, "boxes_roi", 4).metrics.unlink()
    assert {(problem.case, problem.file) for problem in problems(fake)} == {
        ("patients_25, seed 0: unet, fold 2", "metrics.json"),
        ("boxes_roi, seed 4: unetr, fold 1", "metrics.json"),
    }


def test_a_case_twice_and_one_never_tested_are_named_with_their_arm(fake):
    run = fake.layout.run("unet", 1, "patients_25", 4)
    rewrite(run, run.metrics_table, lambda table: table.assign(case=table["case"].replace("case01", "case04")))
    assert {(problem.case, problem.found) for problem in problems(fake)} == {
        ("patients_25, seed 4: case01", "scored 0 times by unet"),
        ("patients_25, seed 4: case04", "scored 2 times by unet"),
    }


def test_an_arm_that_was_tested_by_other_folds_is_named(fake):
    cases = [replace(case, fold=(case.fold + 1) % 3) for case in fake.cohort.cases]
    dealt_again = replace(fake, cohort=replace(fake.cohort, cases=cases))
    for fold in range(3):
        dealt_again.write_run("unet", "boxes_roi", 0, fold)
    found = problems(fake)
    assert {problem.case for problem in found} == {f"boxes_roi, seed 0: unet, fold {fold}" for fold in range(3)}
    assert {problem.found for problem in found} == {"other cases, patients, folds or lesion values than now"}


def retrained(run, **changes):
    """Let a run say that it was trained otherwise."""
    facts = read_record(run.metrics)
    facts |= {key: value for key, value in changes.items() if key in facts}
    facts["settings"] |= changes
    write_record(run.metrics, facts, [run.root / name for name in facts["files"]])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 7}, "epochs 7 instead of 350"),
        ({"learning_rate": 0.5}, "learning_rate 0.5 instead of 0.0001"),
        ({"annotated_share": 0.9}, "annotated_share 0.9 instead of 0.25"),
        ({"seed": 9}, "seed 9 instead of 4"),
        ({"operating_point": "sensitive"}, "operating_point sensitive instead of balanced"),
        ({"epochs": 7, "loss": "blob"}, "epochs 7 instead of 350, loss blob instead of dice_ce"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_runs_that_were_trained_otherwise_than_their_files_say_are_all_named(fake, changes, words):
    """The arm is described by its file: all folds of a network alike, so that pooling finds nothing."""
    runs = [fake.layout.run("unet", fold, "patients_25", 4) for fold in range(3)]
    for run in runs:
        retrained(run, **changes)
    found = problems(fake)
    assert [problem.case for problem in found] == [f"patients_25, seed 4: unet, fold {fold}" for fold in range(3)]
    assert {problem.found for problem in found} == {f"other settings: {words}"}
    assert [str(run.root) in problem.fix for problem, run in zip(found, runs, strict=True)] == [True] * 3
    assert "restore the changed file" in found[0].fix


def test_the_run_that_differs_is_named_and_not_its_other_folds(fake):
    retrained(fake.layout.run("unet", 0, "boxes_roi", 0), sampling="voxel")
    (problem,) = problems(fake)
    assert (problem.case, problem.found) == (
        "boxes_roi, seed 0: unet, fold 0",
        "other settings: sampling voxel instead of roi",
    )


def test_a_study_file_that_changed_since_the_runs_is_noticed(fake):
    file = fake.layout.root / "changed.yaml"
    file.write_text(f"{fake.study_file.read_text()}epochs: 7\ntitle: Another title\n")
    write_json(fake.layout.workflow_settings, {"study": str(file)})
    found = problems(fake)
    assert len(found) == 2 * 4 * 2 * 3
    trained = {(problem.case.split(": ")[1].split(",")[0], problem.found) for problem in found}
    assert trained == {(model, f"other settings: epochs {n} instead of 7") for model, n in EPOCHS.items()}
    for damaged in ('{"study": "ch', "[]", "{}"):
        fake.layout.workflow_settings.write_text(damaged)
        with pytest.raises(DamagedFile, match=r"snakemake\.json: found no JSON that names the study"):
            read(fake)
    fake.layout.workflow_settings.unlink()  # it was never started with a file: then it has one in params/studies
    (problem,) = problems(fake)
    assert problem.file.endswith("params/studies/fake.yaml")
    assert "metaseg_nb study --study" in problem.fix


def test_a_setting_that_is_younger_than_a_run_and_not_used_makes_no_difference(fake):
    before = read(fake).patients
    for fold in range(3):
        run = fake.layout.run("unet", fold, "boxes_roi", 0)
        facts = read_record(run.metrics)
        assert facts["settings"].pop("sequence_dropout") == 0
        write_record(run.metrics, facts, [run.root / name for name in facts["files"]])
    assert read(fake).patients.equals(before)


def test_a_run_without_its_annotation_is_named(fake):
    fake.layout.run("unetr", 0, "patients_100", 0).annotation_table.unlink()
    (problem,) = problems(fake)
    assert (problem.case, problem.file) == ("patients_100, seed 0: unetr, fold 0", "annotation.csv")


def test_an_annotated_test_case_and_a_case_annotated_twice_are_named(fake):
    run = fake.layout.run("unet", 0, "patients_100", 0)
    rewrite(run, run.annotation_table, lambda table: pd.concat([table, table[:1], table[:1].assign(case="case00")]))
    found = {(problem.case.split(", ")[-1], problem.found) for problem in problems(fake)}
    assert found == {("case00", "the case 1 times"), ("case01", "the case 2 times")}


def test_problems_of_all_arms_come_together(fake):
    fake.layout.run("unet", 0, "patients_100", 0).annotation_table.unlink()
    fake.layout.run("unet", 2, "patients_25", 0).metrics.unlink()
    run = fake.layout.run("unetr", 1, "boxes_roi", 4)
    rewrite(run, run.metrics_table, lambda table: table.assign(dice=float("nan")))
    found = problems(fake)
    assert len(found) == 3
    assert len({problem.expected for problem in found}) == 3


def test_a_study_that_names_no_arms_is_told_so(fake):
    with pytest.raises(CohortError, match="no arms"):
        read(fake, arms=[])
