"""Networks that label or rank for a later arm: of the same fold and seed, only where they are sure, never leaking."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from metaseg_nb.annotation.ranking import next_patients
from metaseg_nb.annotation.training_set import annotated_training_set, load_teachers
from metaseg_nb.checksums import write_record
from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.datalist import write_datalist
from metaseg_nb.cohort.folds import Split
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.files import write_table
from metaseg_nb.layout import StudyLayout, parameter_file, parameter_names
from metaseg_nb.parameters import resolve
from metaseg_nb.preprocessing.case_store import UNKNOWN, drop_label
from metaseg_nb.settings import ParameterError
from metaseg_nb.training.checkpoints import save_checkpoint
from metaseg_nb.training.networks import build_network

CPU = torch.device("cpu")


@pytest.mark.parametrize("circle", [["a"], ["a", "b"], ["a", "b", "c"]])
def test_arms_that_teach_each_other_are_refused_before_the_work_starts(circle, tmp_path, monkeypatch):
    files = {arm: tmp_path / f"{arm}.yaml" for arm in circle}
    for arm, teacher in zip(circle, [*circle[1:], circle[0]], strict=True):
        files[arm].write_text(f"arm: {arm}\narm_title: {arm}\nunannotated: self_training\nteacher: {teacher}\n")
    monkeypatch.setattr("metaseg_nb.parameters.parameter_file", lambda kind, name: _file(kind, name, files))
    monkeypatch.setattr("metaseg_nb.settings.parameter_names", lambda kind: [*parameter_names(kind), *circle])
    with pytest.raises(ParameterError, match=f"{circle[-1]}.yaml: key 'teacher': found 'a'"):
        resolve("03_train", "demo_budget", "unet", 0, "a", 0)


def _file(kind, name, files):
    return files.get(name, parameter_file(kind, name)) if kind == "arm" else parameter_file(kind, name)


def test_an_arm_is_taught_by_the_networks_of_its_study_and_another_by_none():
    found = resolve("03_train", "demo_budget", "unet", 0, "self_training_25", 0)
    assert found["models"] == ["unet", "unetr"]
    assert resolve("03_train", "demo_budget", "unet", 0, "boxes", 0)["models"] == []


@pytest.mark.parametrize("model", ["unet", "unetr"])
def test_an_arm_that_names_the_network_itself_is_taught_by_no_other(model):
    assert resolve("03_train", "demo_budget", model, 0, "self_training_alone_25", 0)["models"] == [model]


@pytest.mark.parametrize(("named", "models"), [("[segresnet]", ["segresnet"]), ("[self, unetr]", ["unet", "unetr"])])
def test_an_arm_is_taught_by_the_networks_that_it_names(named, models, tmp_path, monkeypatch):
    file = tmp_path / "a.yaml"
    file.write_text(f"arm: a\nunannotated: self_training\nteacher: patients_25\nmodels: {named}\n")
    monkeypatch.setattr("metaseg_nb.parameters.parameter_file", lambda kind, name: _file(kind, name, {"a": file}))
    monkeypatch.setattr("metaseg_nb.settings.parameter_names", lambda kind: [*parameter_names(kind), "a"])
    assert resolve("03_train", "demo_budget", "unet", 0, "a", 0)["models"] == models


@pytest.fixture
def parts(store_blobs, tmp_path, monkeypatch):
    """A fold of six stored cases in training, two in selection, one in the test set; its folder is the study's."""
    monkeypatch.setenv("METASEG_HOME", str(tmp_path / "home"))
    layout = StudyLayout("tiny")
    layout.root.mkdir(parents=True)
    (tmp_path / "cases").mkdir()
    layout.case_store.symlink_to(tmp_path / "cases")
    cases = []
    for i in range(9):
        corners = [(9, 12, 8), (25, 20, 20)][: 1 + i % 2]
        store_blobs(f"c{i}", corners, seed=i)
        cases.append(Case(f"c{i}", (), tmp_path / "label", f"p{i}", "lung", 0, len(corners)))
    return Split(cases[:6], cases[6:8], cases[8:]), layout


@pytest.fixture
def teach(parts, tiny_training):
    """Leave a finished network of an arm, which gives every voxel this logit."""
    split, layout = parts

    def leave(logit, model="unet", seen=("c0", "c1"), arm="patients_25", seed=0, table=None):
        settings = tiny_training(model=model, arm=arm, annotated_share=0.25, seed=seed)
        network = build_network("unet", settings.width, settings.patch_size, 1)
        for parameter in network.parameters():
            torch.nn.init.zeros_(parameter)
        list(network.parameters())[-1].data.fill_(logit)
        assert network(torch.zeros(1, 1, 32, 32, 32)).unique().tolist() == [pytest.approx(logit)]
        run = layout.run(model, 0, arm, seed)
        identity = {
            "settings": {**settings.model_dump(), "loader_workers": 4},  # a setting that is none any more
            "recipe": {"sequences": 1},
            "cases": {case: ["a", "b"] for case in seen},
        }
        save_checkpoint(run.best_checkpoint, {"identity": identity, "network": network.state_dict()})
        rows = [
            {"case": case.name, "role": "training", "annotation": "full" if case.name in seen else "none"}
            for case in split.training
        ]
        write_table(run.annotation_table, pd.DataFrame(rows) if table is None else table)
        write_record(run.metrics, {})
        return settings

    return leave


@pytest.fixture
def learn(parts, tiny_training):
    """Make the training set of an arm that is taught by patients_25."""
    split, layout = parts

    def make(**changes):
        settings = tiny_training(**{"teacher": "patients_25", "models": ["unet"]} | changes)
        run = layout.run("unet", 0, changes.get("arm", "later"), settings.seed)
        return annotated_training_set(split, settings, layout, run, CPU)

    return make


@pytest.mark.parametrize(("logit", "value"), [(4.0, 1), (-4.0, 0), (1.0, UNKNOWN), (-1.0, UNKNOWN)])
def test_a_label_is_taken_over_where_the_teachers_are_sure_and_else_unknown(teach, learn, logit, value):
    teach(logit)
    found = learn(unannotated="self_training", annotated_share=0.34)
    assert len(found.cases) == 6
    labelled = [case for case in found.cases if case.annotation]
    names = {case.name for case in labelled}
    table = found.table.set_index("case")
    assert set(table.index[table["annotation"] == "self_training"]) == names
    assert len(names) == 4
    head = labelled[0].image[0] > 0
    assert set(np.unique(labelled[0].label[head])) == {value}
    assert found.absent == []


def test_all_networks_of_the_study_teach_together_and_no_other(teach, learn):
    teach(4.0)
    teach(-4.0, model="segresnet")

    def values(models):
        found = learn(unannotated="self_training", annotated_share=0.34, models=models)
        case = next(case for case in found.cases if case.annotation)
        return set(np.unique(case.label[case.image[0] > 0]))

    assert values(["unet", "segresnet"]) == {UNKNOWN}, "two that contradict each other are sure of nothing"
    assert values(["unet"]) == {1}, "a network that is no longer in the study does not teach"
    assert values(["self"]) == {1}, "nor does another network where each is taught by itself"


def test_what_they_say_is_kept_until_they_change(teach, learn):
    def identity():
        found = learn(unannotated="self_training", annotated_share=0.34)
        case = next(case for case in found.cases if case.annotation)
        return case.identity, (case.annotation / "label.npy").stat().st_mtime_ns

    teach(4.0)
    first, second = identity(), identity()
    assert first == second
    teach(4.0, seen=("c0", "c2"))
    assert identity()[0] != first[0]


def test_teachers_of_another_seed_do_not_count(teach, learn):
    teach(4.0, seed=1)
    with pytest.raises(CohortError, match=r"case patients_25, seed 0: segresnet, fold 0, .*no such file") as error:
        learn(unannotated="self_training", models=["unet", "segresnet"])
    assert len(error.value.problems) == 2, "every network that is missing is named"


@pytest.mark.parametrize("case", ["c6", "c8"])
def test_a_teacher_that_saw_a_case_of_selection_or_test_set_is_refused(teach, learn, case):
    teach(4.0, seen=("c0", "c1", case))
    with pytest.raises(CohortError, match=f"case {case}, .*it was trained with this case"):
        learn(unannotated="self_training")


def test_a_ranked_arm_begins_with_the_teachers_patients_and_takes_the_work_of_the_even_one(
    teach, learn, parts, tiny_training
):
    teach(-1.0)
    found = learn(unannotated="ranking", annotated_share=0.5)
    assert {"c0", "c1"} < {case.name for case in found.cases}
    split, layout = parts
    ranking = pd.read_csv(layout.run("unet", 0, "later", 0).ranking_table)
    assert ranking["rank"].tolist() == [1, 2, 3, 4]
    assert set(ranking["patient"]) == {"p2", "p3", "p4", "p5"}
    even = annotated_training_set(split, tiny_training(annotated_share=0.5), layout, layout.run("unet", 0), CPU)
    spent, wanted = (one.table.query("role == 'training'")["n_slices"].sum() for one in (found, even))
    assert abs(spent - wanted) <= 6, "a case has contours on 6 slices, or on 12"


def test_a_second_round_keeps_the_patients_of_the_first_and_is_ranked_by_networks_that_learned_from_them(
    teach, learn, parts
):
    teach(-1.0)
    first = learn(unannotated="ranking", annotated_share=0.5, arm="ranking_37")
    names = {case.name for case in first.cases}
    assert {"c0", "c1"} < names < {f"c{i}" for i in range(6)}
    teach(-1.0, seen=sorted(names), arm="ranking_37", table=first.table)
    second = learn(unannotated="ranking", annotated_share=0.84, teacher="ranking_37", arm="ranking_50_rounds")
    assert names < {case.name for case in second.cases}
    ranking = pd.read_csv(parts[1].run("unet", 0, "ranking_50_rounds", 0).ranking_table)
    assert set(ranking["patient"]) == {f"p{i}" for i in range(6) if f"c{i}" not in names}, "whom nobody has annotated"


def test_networks_that_learned_from_different_patients_do_not_rank_together(teach, learn):
    teach(-1.0)
    teach(-1.0, model="segresnet", seen=("c0", "c2"))
    with pytest.raises(CohortError, match="segresnet and unet learned from different patients") as error:
        learn(unannotated="ranking", annotated_share=0.5, models=["unet", "segresnet"], arm="ranking_50")
    assert "fold 0" in str(error.value) and "ranking_50.yaml" in str(error.value)
    assert len(learn(unannotated="self_training", annotated_share=0.34, models=["unet", "segresnet"]).cases) == 6


def test_random_patients_with_as_much_lesion_take_the_work_of_the_even_choice_too(teach, learn, parts, tiny_training):
    teach(-1.0)
    split, layout = parts
    even = annotated_training_set(split, tiny_training(annotated_share=0.5), layout, layout.run("unet", 0), CPU)
    found = learn(unannotated="foreground_random", annotated_share=0.5)
    assert {"c0", "c1"} < {case.name for case in found.cases}
    spent, wanted = (one.table.query("role == 'training'")["n_slices"].sum() for one in (found, even))
    assert abs(spent - wanted) <= 6, "a case has contours on 6 slices, or on 12"
    again = learn(unannotated="foreground_random", annotated_share=0.5)
    assert [case.name for case in again.cases] == [case.name for case in found.cases]


def test_a_ranking_is_made_once_and_again_when_its_teachers_change(teach, learn, parts, monkeypatch):
    table = parts[1].run("unet", 0, "later", 0).ranking_table

    def ranked():
        chosen = [case.name for case in learn(unannotated="ranking", annotated_share=0.5).cases]
        return chosen, table.stat().st_mtime_ns, table.read_bytes()

    teach(-1.0)
    first = ranked()
    with monkeypatch.context() as without_networks:
        without_networks.setattr("metaseg_nb.annotation.training_set.case_probability", None)
        assert ranked() == first
    table.write_bytes(table.read_bytes()[:-5])
    assert ranked()[2] == first[2], "a damaged table is made again"
    teach(-1.0, seen=("c0", "c2"))
    chosen = ranked()[0]
    assert {"c0", "c2"} < set(chosen)


def test_teachers_know_whom_they_learned_from(teach, parts, tiny_training):
    teach(0.0)
    split, layout = parts
    settings = tiny_training(teacher="patients_25", unannotated="ranking", models=["unet"])
    assert load_teachers(settings, layout, split, CPU).annotated == {"c0", "c1"}


def test_unlabelled_patients_are_ranked_and_the_table_is_kept(parts, store_blobs, tmp_path, tiny_training, monkeypatch):
    split, layout = parts
    settings = tiny_training()
    network = build_network("unet", settings.width, settings.patch_size, 1)
    for model in ("unet", "segresnet"):
        identity = {"settings": settings.model_dump(), "recipe": {"sequences": 1}, "cases": {}}
        content = {"identity": identity, "network": network.state_dict()}
        save_checkpoint(layout.run(model, 0).best_checkpoint, content)
    cases = [case for part in (split.training, split.selection, split.test) for case in part]
    for name in ("u0", "u1"):
        store_blobs(name, ())
        drop_label(tmp_path / "cases", name)
    unlabelled = [Case(name, (tmp_path / name,), None, name, "lung") for name in ("u0", "u1")]
    labelled = [Case(c.name, (tmp_path / c.name,), c.label, c.patient, c.primary, c.fold, c.n_lesions) for c in cases]
    by_hand = replace(labelled.pop(0), fold=None, reader="R1", minutes=2.0)  # only for training: nothing to ask again
    cohort = Cohort("blobs", "synthetic cubes", labelled, unlabelled, training_only=[by_hand])
    write_datalist(layout.dataset, cohort)
    monkeypatch.setattr(
        "metaseg_nb.annotation.ranking.resolve", lambda *_: {"study": "tiny", "models": ["unet", "segresnet"]}
    )
    table = next_patients("tiny", CPU)
    assert table["rank"].tolist() == [1, 2]
    assert set(table.index) == {"u0", "u1"}
    assert pd.read_csv(layout.next_patients_table)["patient"].tolist() == table.index.tolist()


def test_a_study_without_unlabelled_cases_has_nothing_to_rank(parts, tmp_path, monkeypatch):
    _, layout = parts
    cases = [Case("c0", (tmp_path / "c0",), tmp_path / "label", "p0", "lung", 0, 1)]
    write_datalist(layout.dataset, Cohort("blobs", "synthetic cubes", cases))
    monkeypatch.setattr("metaseg_nb.annotation.ranking.resolve", lambda *_: {"study": "tiny", "models": ["unet"]})
    with pytest.raises(CohortError, match="no case without a label"):
        next_patients("tiny", CPU)
