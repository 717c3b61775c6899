"""Datalists: what is read, what is refused, what is written."""

import json
import shutil
from dataclasses import replace

import pytest

from metaseg_nb.cohort.cases import Case, Cohort, LesionRule, case_named
from metaseg_nb.cohort.datalist import read_datalist, write_datalist
from metaseg_nb.cohort.problems import CohortError


@pytest.fixture
def datalist(tmp_path):
    """Write a datalist and return its path."""

    def write(content):
        path = tmp_path / "dataset.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def entries(*names, **more):
    return [{"image": f"images/{name}.nii.gz", "label": f"labels/{name}.nii.gz", **more} for name in names]


def test_folds_patients_and_primaries_are_read(datalist, tmp_path):
    path = datalist(
        {
            "training": [
                {"image": "i/a.nii.gz", "label": "l/a.nii.gz", "patient": "P1", "primary": "lung", "fold": 1},
                {"image": "i/b.nii.gz", "label": "l/b.nii.gz", "patient": 7, "primary": "breast", "fold": 0},
            ],
            "lesion_values": [1, 2],
            "seed": 5,
        }
    )
    cohort = read_datalist(path)
    a = Case("a", (tmp_path / "i/a.nii.gz",), tmp_path / "l/a.nii.gz", patient="P1", primary="lung", fold=1)
    b = Case("b", (tmp_path / "i/b.nii.gz",), tmp_path / "l/b.nii.gz", patient="7", primary="breast", fold=0)
    assert cohort.cases == [a, b]
    assert (cohort.n_folds, cohort.rule.values, cohort.seed) == (2, (1, 2), 5)


def test_without_patients_and_folds_each_case_is_a_patient_of_its_own(datalist):
    cohort = read_datalist(datalist({"training": entries("a", "b")}))
    assert [(case.patient, case.primary, case.fold) for case in cohort.cases] == [
        ("a", "unknown", None),
        ("b", "unknown", None),
    ]
    assert cohort.rule.values == (1,)


def test_a_decathlon_testing_list_of_bare_paths_is_read(datalist, tmp_path):
    cohort = read_datalist(datalist({"training": entries("a"), "testing": ["imagesTs/x.nii.gz", "imagesTs/y.nii"]}))
    assert [(case.name, case.image, case.label) for case in cohort.unlabelled] == [
        ("x", tmp_path / "imagesTs/x.nii.gz", None),
        ("y", tmp_path / "imagesTs/y.nii", None),
    ]


def test_a_case_is_named_by_its_own_entry_whatever_else_the_list_holds(datalist):
    """One unlabelled image more renamed every case, so that stored cases, `exclude` and verdicts no longer matched."""
    places = ["lung/p1", "lung/p2", "breast/p1"]
    training = [{"image": f"{place}/image.nii.gz", "label": f"{place}/mask.nii.gz"} for place in places]

    def names(training, *testing):
        cohort = read_datalist(datalist({"training": training, "testing": list(testing)}))
        return [case.name for case in [*cohort.cases, *cohort.unlabelled]]

    assert names(training[:2]) == ["lung_p1", "lung_p2"]
    assert names(training) == ["lung_p1", "lung_p2", "breast_p1"]
    assert names(training[:2], "lung/p3/t1c.nii.gz") == ["lung_p1", "lung_p2", "lung_p3"]
    assert names(training[:2], "images/other.nii.gz") == ["lung_p1", "lung_p2", "other"]


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("images/P1.nii.gz", "P1"),
        ("Melanoma_nii/case_034/image.nii.gz", "Melanoma_nii_case_034"),
        ("p1/MRI_brain.nii.gz", "p1"),
        ("P00/baseline/t1c.nii.gz", "P00_baseline"),
        ("P00/baseline.nii.gz", "P00_baseline"),
        ("P00/scanA.nii.gz", "P00_scanA"),
        ("lung/p1.nii.gz", "lung_p1"),
        ("sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz", "sub-01_ses-1_T1w"),
        ("sub-01/ses-1/anat/image.nii.gz", "sub-01_ses-1"),
        ("BraTS-MET-00110-000/BraTS-MET-00110-000-t1c.nii.gz", "BraTS-MET-00110-000-t1c"),
        ("/home/mueller/P01/image.nii.gz", "P01"),
        ("images/image.nii.gz", "image"),
    ],
)
def test_names_come_from_the_file_or_from_the_folders_that_tell_whose_it_is(datalist, image, name):
    cohort = read_datalist(datalist({"training": [{"image": image, "label": "label.nii.gz"}]}))
    assert [case.name for case in cohort.cases] == [name]


def test_a_list_saved_with_a_byte_order_mark_is_read(datalist):
    cohort = read_datalist(datalist("\ufeff" + json.dumps({"training": entries("a")})))
    assert [case.name for case in cohort.cases] == ["a"]


def test_a_name_with_dots_keeps_them(datalist):
    cohort = read_datalist(datalist({"training": entries("p1.t1c", "p1.t2")}))
    assert [case.name for case in cohort.cases] == ["p1.t1c", "p1.t2"]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{not json", "not JSON"),
        ("[]", "a list"),
        ({"testing": ["x.nii.gz"]}, "no labelled cases"),
        ({"training": []}, "no entries, but 'training'"),
        ({"train": entries("a")}, "entries in list train"),
        ({"training": entries("a"), "lesion_values": "1"}, "lesion_values '1'"),
        ({"training": entries("a", "b", "a")}, "case a, "),
        ({"training": entries("a"), "testing": ["images/a.nii.gz"]}, "case a, "),
        ({"training": [*entries("a"), {"image": "images/b.nii.gz"}]}, "case b, "),
        ({"training": [*entries("a"), {"label": "labels/b.nii.gz"}]}, "case training[1], "),
        ({"training": [{"image": ["t1c.nii.gz", 2], "label": "l.nii.gz"}]}, "case training[0], "),
        ('{"training": [{"image": "a.nii", "label": "b.nii", "image": "c.nii"}]}', 'the key "image" more than once'),
        ({"training": entries("a"), "lesion_values": [True]}, "lesion_values [True]"),
        ({"training": entries("a"), "label_threshold": -1}, "label_threshold -1"),
        ({"training": entries("a"), "seed": True}, "seed True"),
        ({"training": entries("a", fold=True)}, "fold True"),
        ({"training": entries("a", n_lesions=1.5)}, "n_lesions 1.5"),
        ({"training": entries("a", patient=["P1"])}, "patient ['P1']"),
        ({"training": entries("a", patient=True)}, "patient True"),
        ({"training": entries("a", patient="nan")}, "patient 'nan'"),
        ({"training": entries("a", patient_id="P1")}, '"patient_id" in entries'),
        ({"training": [{"image": "a.nii", "label": 5}]}, "label 5"),
        ({"training": [{"image": "a\0.nii", "label": "l.nii"}]}, "image 'a\\x00.nii'"),
        ({"training": [{"image": "\ud800.nii", "label": "l.nii"}]}, "image '"),
        ("[" * 100_000, "not JSON"),
    ],
    ids=[
        *("text", "list", "none labelled", "empty", "another name", "values"),
        *(
            "twice",
            "in both",
            "no label",
            "no image",
            "no path",
            "equal keys",
            "bool value",
            "negative threshold",
            "bool seed",
        ),
        *("bool fold", "half a lesion", "list of patients", "bool patient", "nan patient", "misspelt"),
        *("number as label", "NUL", "half a character", "deep"),
    ],
)
def test_a_datalist_that_cannot_be_used_is_refused_by_name(datalist, content, named):
    path = datalist(content)
    with pytest.raises(CohortError) as error:
        read_datalist(path)
    assert named in str(error.value)
    assert str(path) in str(error.value)


def test_nan_is_not_given_as_null_is_and_ids_stay_as_they_are(datalist):
    """As json.dump writes a data frame: whole numbers of a column with gaps are floats."""
    given = [float("nan"), None, "", 3.0, "007", "1e3", 12]
    training = [
        entry | {"patient": patient, "fold": float("nan")}
        for entry, patient in zip(entries(*"abcdefg"), given, strict=True)
    ]
    cohort = read_datalist(datalist({"training": training}))
    assert [case.patient for case in cohort.cases] == ["a", "b", "c", "3", "007", "1e3", "12"]
    assert {case.fold for case in cohort.cases} == {None}


def test_a_missing_datalist_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(CohortError, match="no such file") as error:
        read_datalist(tmp_path / "nowhere.json")
    assert str(tmp_path / "nowhere.json") in str(error.value)


@pytest.fixture
def study_cohort(write_case, tmp_path):
    cases = [replace(write_case(name), fold=fold) for fold, name in enumerate("ab")]
    unlabelled = [write_case("c", labelled=False)]
    return Cohort("tiny", "two and one", cases, unlabelled, rule=LesionRule((1, 3), (2,)), seed=4)


def test_what_is_written_is_read_back_the_same(study_cohort, tmp_path):
    write_datalist(tmp_path / "runs/dataset.json", study_cohort)
    assert read_datalist(tmp_path / "runs/dataset.json") == study_cohort


def test_a_datalist_moves_with_its_data(study_cohort, tmp_path):
    write_datalist(tmp_path / "dataset.json", study_cohort)
    moved = tmp_path.with_name(f"{tmp_path.name}_moved")
    shutil.move(tmp_path, moved)
    cohort = read_datalist(moved / "dataset.json")
    for case in [*cohort.cases, *cohort.unlabelled]:
        assert case.image.is_relative_to(moved)
        assert case.image.is_file()
        assert case.label is None or case.label.is_file()


def test_a_datalist_in_a_linked_folder_finds_its_data(study_cohort, tmp_path):
    """A cluster's runs/ is often a link to scratch storage, where a step up leads elsewhere."""
    (tmp_path / "scratch/large/runs").mkdir(parents=True)
    (tmp_path / "runs").symlink_to(tmp_path / "scratch/large/runs")
    write_datalist(tmp_path / "runs/dataset.json", study_cohort)
    assert read_datalist(tmp_path / "runs/dataset.json") == study_cohort


def test_monai_finds_its_keys_in_what_is_written(study_cohort, tmp_path):
    write_datalist(tmp_path / "dataset.json", study_cohort)
    content = json.loads((tmp_path / "dataset.json").read_text())
    assert content["training"][1]["image"] == "b/image.nii.gz"
    assert content["training"][1]["label"] == "b/label.nii.gz"
    assert [entry["fold"] for entry in content["training"]] == [0, 1]
    assert content["testing"] == [{"case": "c", "image": "c/image.nii.gz", "patient": "patient_c", "primary": "lung"}]


def test_a_case_is_found_by_its_name(study_cohort):
    assert case_named(study_cohort.cases, "b") is study_cohort.cases[1]
