"""The leakage audit: what it finds in published lists, in lists with one fault each, and that clean lists are clean."""

import gzip
import json
import os
import unicodedata

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metaseg_nb.cohort import audit_entries
from metaseg_nb.cohort.audit import audit
from metaseg_nb.cohort.audit_entries import listed_entries


@pytest.fixture
def write_list(tmp_path):
    """Write a datalist; a part is a list of entries or of image paths. Returns its path."""

    def write(name, **parts):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lists = {
            part: [entry if isinstance(entry, dict) or part == "test" else {"image": entry} for entry in entries]
            for part, entries in parts.items()
        }
        path.write_text(json.dumps({"description": "synthetic", "labels": {"1": "lesion"}, **lists}))
        return path

    return write


def found_by(check, audited, *columns):
    rows = audited.findings[audited.findings["check"] == check]
    return [
        tuple(row) for row in rows[list(columns or ("severity", "list", "with_list", "n_entries", "n_cases"))].values
    ]


def run(*paths):
    found = audit(paths)
    assert found.unread == []
    return found


def problems_of(*paths):
    return audit(paths).unread


def cohort():
    """20 patients with a case each, four in each of five folds, two of either primary."""
    images = [f"NSCLC_nii/case_{i:03d}/image.nii.gz" for i in range(10)]
    images += [f"Melanoma_nii/case_{i:03d}/image.nii.gz" for i in range(10)]
    return [{"image": image, "patient": f"patient {i}", "fold": i % 5} for i, image in enumerate(images)]


def split_files(write_list, entries, **more):
    """Write a file for each fold, with training and validation."""
    plain = [{key: value for key, value in entry.items() if key != "fold"} for entry in entries]
    return [
        write_list(
            f"split_{k}.json",
            training=[p for p, e in zip(plain, entries, strict=True) if e["fold"] != k],
            validation=[p for p, e in zip(plain, entries, strict=True) if e["fold"] == k],
            **more,
        )
        for k in range(5)
    ]


# The published lists of a single-centre cohort: dataset_0/1 train and validate, split_0..4 only validate.


@pytest.fixture(scope="module")
def usz(shared_data):
    return shared_data / "usz_splits"


@pytest.fixture(scope="module")
def published(usz):
    return run(*sorted(usz.glob("*.json")))


def test_the_published_splits_are_scored_on_training_cases(usz):
    splits = [f"split_{k}.json" for k in range(5)]
    found = run(usz / "dataset_1.json", *(usz / split for split in splits))
    assert found.leaks
    assert found.answer == "LEAKAGE: 222 of 270 evaluation entries are training cases of dataset_1.json"
    assert found_by("trained on", found) == [
        ("leakage", split, "dataset_1.json", entries, cases)
        for split, entries, cases in zip(splits, (44, 48, 41, 44, 45), (39, 45, 39, 42, 40), strict=True)
    ]
    assert set(found.findings.loc[found.findings["severity"] == "leakage", "check"]) == {"trained on"}
    assert found.shared["n_entries"].tolist() == [54, 54, 54, 54, 54, 54]
    assert found.shared["n_cases"].tolist() == [54, 49, 51, 52, 51, 49]
    assert found.shared["dataset_1.json"].tolist() == [0, 39, 45, 39, 42, 40]


def test_two_versions_of_a_list_are_not_held_against_each_other(published):
    """One validation case of dataset_0 is trained on in dataset_1: another model, no leak, but in the matrix."""
    assert published.shared.loc["dataset_0.json", ["dataset_0.json", "dataset_1.json"]].tolist() == [0, 1]
    assert {row[1] for row in found_by("trained on", published)} == {f"split_{k}.json" for k in range(5)}
    assert published.answer == (
        "LEAKAGE: 222 of 270 evaluation entries are training cases of dataset_0.json; "
        "222 of 270 evaluation entries are training cases of dataset_1.json"
    )


def test_entries_of_the_published_splits_repeat(published):
    # entries that share their case with another, and their cases: 54 entries are 49, 51, 52, 51, 49 cases
    assert found_by("repeated", published) == [
        ("problem", "split_0.json", "", 9, 4),
        ("problem", "split_1.json", "", 6, 3),
        ("problem", "split_2.json", "", 4, 2),
        ("problem", "split_3.json", "", 6, 3),
        ("problem", "split_4.json", "", 10, 5),
    ]
    assert "Melanoma_nii/case_050 3 times" in found_by("repeated", published, "found")[0][0]


def test_the_published_splits_overlap(published):
    pairs = {tuple(row[1:3]): row[4] for row in found_by("evaluated twice", published) if row[0] == "problem"}
    splits = {(one[6], two[6]): n for (one, two), n in pairs.items() if one.startswith("split")}
    assert splits == {
        ("0", "1"): 12, ("0", "2"): 9, ("0", "3"): 8, ("0", "4"): 9, ("1", "2"): 17,
        ("1", "3"): 14, ("1", "4"): 8, ("2", "3"): 15, ("2", "4"): 5, ("3", "4"): 9,
    }  # fmt: skip
    assert pairs["dataset_0.json", "dataset_1.json"] == 54
    assert [pairs["dataset_1.json", f"split_{k}.json"] for k in range(5)] == [10, 6, 13, 9, 9]


def test_most_published_cases_are_never_evaluated_by_the_splits(published):
    ((severity, found, n_cases, names),) = found_by(
        "never evaluated", published, "severity", "found", "n_cases", "cases"
    )
    assert (severity, n_cases, len(names)) == ("problem", 107, 107)
    assert found.startswith("107 of 273 cases not evaluated by split_0.json, split_1.json")


def test_the_primary_of_the_published_lists_is_confounded_with_the_split(published):
    for name in ("dataset_0.json", "dataset_1.json"):
        untrained = found_by("primary not trained on", published, "list", "with_list", "found", "n_cases")
        own = [row for row in untrained if row[:2] == (name, name)]
        assert [(row[2].split(" in ")[0], row[3]) for row in own] == [("9 cases of melanomapreopMRI", 9)]
        unscored = found_by("primary not evaluated", published, "list", "found", "severity")
        assert [row[1].split(" in ")[0] for row in unscored if row[0] == name] == [
            "27 cases of Breast",
            "77 cases of Melanoma",
        ]
        assert {row[2] for row in unscored} == {"problem"}


def test_the_published_melanoma_folders_may_hold_the_same_patients(published):
    ((severity, found, n_cases),) = found_by("possibly the same patients", published, "severity", "found", "n_cases")
    assert (severity, n_cases) == ("doubt", 18)
    assert found.startswith("9 case names in Melanoma_nii as in melanomapreopMRI_nii: case_000, case_001, case_002")
    assert "one trained on, the other evaluated, in dataset_0.json, dataset_1.json" in found


# Clean lists


def test_a_list_with_patient_folds_is_clean(write_list):
    found = run(write_list("dataset.json", training=cohort(), testing=["NSCLC_nii/new/image.nii.gz"]))
    assert found.findings.empty
    assert not found.leaks
    assert (
        found.answer
        == "No leakage found: 21 evaluation entries compared with their training cases; 0 problems, 0 notes"
    )
    assert found.shared.loc["dataset.json"].tolist() == [21, 21, 0]


def test_split_files_of_one_cross_validation_are_clean(write_list):
    """A validation case of one split is a training case of the four others: only the matrix shows it."""
    found = run(*split_files(write_list, cohort()))
    assert found.findings.empty
    for k in range(5):
        assert found.shared[f"split_{k}.json"].tolist() == [0 if i == k else 4 for i in range(5)]


def test_one_test_set_in_every_split_file_is_scored_once_for_all(write_list):
    found = run(
        *split_files(write_list, cohort(), testing=["NSCLC_nii/new/image.nii.gz", "NSCLC_nii/old/image.nii.gz"])
    )
    assert set(found.findings["check"]) == {"evaluated twice"}
    assert set(found.findings["severity"]) == {"note"}
    assert len(found.findings) == 10  # pairs of five files


def test_files_of_the_folds_beside_the_list_with_folds_are_clean(write_list):
    """Each file is scored by the model of its own fold."""
    whole = write_list("dataset.json", training=cohort())
    files = [
        write_list(f"fold_{k}.json", validation=[entry["image"] for entry in cohort() if entry["fold"] == k])
        for k in range(5)
    ]
    found = run(whole, *files)
    assert not found.leaks
    assert set(found.findings["severity"]) == {"note"}
    assert found.answer.startswith("No leakage found, if the model of its own fold scores each case: ")
    assert len(found_by("trained on in other folds", found)) == 5  # a mean of all folds has seen them


def test_other_images_of_a_patient_are_judged_alike_whatever_the_order_of_the_folds(write_list):
    """The model of fold 1 was trained on patient A, that of fold 0 on B: of A's other image only fold 0's is free."""
    folds = [{"image": f"{name}/image.nii.gz", "patient": name, "fold": i} for i, name in enumerate("AB")]
    external = write_list("external.json", testing=[{"image": "A2/image.nii.gz", "patient": "A"}])
    found = [run(write_list(f"{i}.json", training=order), external) for i, order in enumerate((folds, folds[::-1]))]
    assert [audited.leaks for audited in found] == [False, False]


# One fault at a time


def test_a_file_of_two_folds_is_trained_on_by_either_model(write_list):
    """Fold 0's model was trained on three of these cases, fold 1's on four, the others' on all seven."""
    mixed = [entry["image"] for entry in cohort() if entry["fold"] in (0, 1)]
    found = run(write_list("dataset.json", training=cohort()), write_list("mixed.json", validation=mixed[1:]))
    assert found_by("trained on", found) == [("leakage", "mixed.json", "dataset.json", 3, 3)]


def test_a_case_in_two_folds_leaks(write_list):
    entries = cohort()
    entries.append(entries[0] | {"fold": 3})
    found = run(write_list("dataset.json", training=entries))
    assert found_by("trained on", found, "list", "n_entries", "cases") == [
        ("dataset.json", 1, ["NSCLC_nii/case_000"]),
        ("dataset.json", 1, ["NSCLC_nii/case_000"]),
    ]
    assert found.answer == "LEAKAGE: 2 of 21 evaluation entries are training cases of dataset.json itself"
    assert found_by("evaluated twice", found) == found_by("repeated", found) == []


def test_a_patient_in_two_folds_leaks(write_list):
    entries = cohort()
    entries[2]["patient"] = entries[1]["patient"]
    assert [entries[i]["fold"] for i in (1, 2)] == [1, 2]
    found = run(write_list("dataset.json", training=entries))
    assert found_by("patient trained on", found, "severity", "n_entries", "cases") == [
        ("leakage", 1, ["NSCLC_nii/case_001"]),
        ("leakage", 1, ["NSCLC_nii/case_002"]),
    ]
    assert found.answer == "LEAKAGE: 2 of 20 evaluation entries are of patients in training of dataset.json itself"


@pytest.mark.parametrize("part", ["validation", "testing", "test"])
def test_a_case_in_training_and_evaluation_of_a_list_leaks(write_list, part):
    images = [f"images/{name}.nii.gz" for name in "abcde"]
    found = run(write_list("dataset.json", training=images[:4], **{part: images[3:]}))
    assert found_by("trained on", found) == [("leakage", "dataset.json", "dataset.json", 1, 1)]
    assert found_by("trained on", found, "cases") == [(["images/d"],)]
    assert found.shared.loc["dataset.json", "dataset.json"] == 1


def test_a_patient_of_a_training_list_leaks_into_an_evaluation_list(write_list):
    train = write_list("train.json", training=[{"image": "a/t0.nii.gz", "patient": 7}, {"image": "b/t0.nii.gz"}])
    test = write_list("test.json", testing=[{"image": "a/t1.nii.gz", "patient": "7"}, {"image": "c/t0.nii.gz"}])
    found = run(train, test)
    assert found_by("patient trained on", found) == [("leakage", "test.json", "train.json", 1, 1)]
    assert found_by("trained on", found) == []
    assert found.answer == "LEAKAGE: 1 of 2 evaluation entries are of patients in training of train.json"


def test_repeated_training_entries_are_a_problem(write_list):
    found = run(write_list("dataset.json", training=["i/a.nii.gz"] * 2 + ["i/./a.nii.gz"], validation=["i/b.nii.gz"]))
    assert found_by("repeated", found) == [("problem", "dataset.json", "", 3, 1)]
    assert not found.leaks


def test_validation_and_testing_of_a_list_must_not_overlap(write_list):
    found = run(
        write_list(
            "dataset.json", training=["i/a.nii.gz"], validation=["i/b.nii.gz", "i/c.nii.gz"], testing=["i/c.nii.gz"]
        )
    )
    assert found_by("evaluated twice", found) == [("problem", "dataset.json", "dataset.json", 2, 1)]


def test_five_times_the_same_validation_set_is_a_problem(write_list):
    found = run(*(write_list(f"split_{k}.json", validation=["i/b.nii.gz", "i/c.nii.gz"]) for k in range(5)))
    assert {row[0] for row in found_by("evaluated twice", found)} == {"problem"}


def test_training_entries_without_a_fold_are_never_evaluated(write_list):
    entries = cohort()
    del entries[4]["fold"]
    found = run(write_list("dataset.json", training=entries))
    assert found_by("never evaluated", found, "severity", "cases") == [("problem", ["NSCLC_nii/case_004"])]


def test_a_single_split_leaves_its_training_cases_out_as_it_must(write_list):
    found = run(write_list("dataset.json", training=["i/a.nii.gz", "i/b.nii.gz"], validation=["i/c.nii.gz"]))
    assert found_by("never evaluated", found, "severity", "n_cases") == [("note", 2)]


def test_a_list_that_only_trains_is_not_said_to_evaluate(write_list):
    train = write_list("train.json", training=["i/a.nii.gz"])
    alone = run(train)
    assert found_by("nothing to compare", alone, "found") == [("no list evaluates anything",)]
    assert found_by("never evaluated", alone) == []
    both = run(train, write_list("dataset.json", training=["i/b.nii.gz"], validation=["i/c.nii.gz"]))
    assert found_by("never evaluated", both, "found") == [("2 of 3 cases not evaluated by dataset.json: i/a, i/b",)]


def test_a_primary_in_one_fold_only_is_confounded(write_list):
    entries = [entry | {"primary": "breast"} if entry["fold"] == 2 else entry for entry in cohort()]
    found = run(write_list("dataset.json", training=entries))
    assert found_by("primary not trained on", found) == [("problem", "dataset.json", "dataset.json", 4, 4)]
    assert "breast in fold 2 of dataset.json, none in the training of another fold" in found.as_text().replace("\n", "")
    assert not found.leaks


def test_an_unknown_primary_is_told_by_the_folder_or_not_judged(write_list):
    train = [{"image": f"lung_nii/{case}/image.nii.gz", "primary": "unknown"} for case in "ab"]
    test = [{"image": "breast_nii/c/image.nii.gz", "primary": "unknown"}]
    found = run(write_list("dataset.json", training=train, validation=test))
    assert "1 case of breast" in found_by("primary not trained on", found, "found")[0][0]
    flat = [entry | {"image": entry["image"].replace("/", "_")} for entry in (*train, *test)]
    assert (
        found_by("primary not trained on", run(write_list("flat.json", training=flat[:2], validation=flat[2:]))) == []
    )


def test_a_rare_primary_that_another_split_evaluates_is_a_note(write_list):
    entries = cohort()
    for entry in entries[:2]:
        entry["primary"] = "breast"
    found = run(*split_files(write_list, entries))
    assert {row[0] for row in found_by("primary not evaluated", found)} == {"note"}
    assert not found.leaks


def test_folders_of_a_plain_layout_are_no_primaries(write_list):
    """In imagesTr and imagesTs the top folder is the split itself."""
    found = run(
        write_list(
            "dataset.json",
            training=["imagesTr/a.nii.gz", "imagesTr/b.nii.gz"],
            testing=["imagesTs/a.nii.gz", "imagesTs/c.nii.gz"],
        )
    )
    assert set(found.findings["check"]) == {"never evaluated", "may be the same"}
    assert found_by("may be the same", found, "cases") == [(["imagesTs/a"],)]


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("Melanoma_nii", "melanomapreopMRI_nii", True),
        ("Melanoma", "preop_melanoma", True),
        ("NSCLC", "SCLC", False),
        ("Melanoma", "Breast", False),
        ("patient_1", "patient_10", False),
    ],
)
def test_case_names_in_folders_of_similar_names_may_be_the_same_patients(write_list, one, other, alike):
    images = [f"{folder}/case_{i}/image.nii.gz" for folder in (one, other) for i in range(3)]
    found = run(write_list("dataset.json", training=images[:3], validation=images[4:]))
    assert found_by("possibly the same patients", found, "severity", "n_cases") == ([("doubt", 4)] if alike else [])
    assert (found.leaks, found.clean) == (False, not alike)
    swapped = run(write_list("dataset.json", training=images[4:], validation=images[:3]))
    assert found_by("possibly the same patients", swapped) == found_by("possibly the same patients", found)
    same_side = run(write_list("dataset.json", training=images, validation=["x/case_9/image.nii.gz"]))
    assert found_by("possibly the same patients", same_side, "severity", "n_cases") == ([("note", 6)] if alike else [])


def test_who_names_the_patients_is_not_asked_again(write_list):
    images = ["Melanoma/case_0/image.nii.gz", "Melanoma_preop/case_0/image.nii.gz"]
    entries = [{"image": image, "patient": i} for i, image in enumerate(images)]
    found = run(write_list("dataset.json", training=entries[:1], validation=entries[1:]))
    assert found_by("possibly the same patients", found) == []


# Which entries are one case


def test_lists_apart_from_their_images_are_compared_as_they_are_written(write_list):
    images = ["lung/case_0/image.nii.gz", "lung/case_1/image.nii.gz"]
    train = write_list("train/dataset.json", training=images)
    test = write_list("test/dataset.json", validation=["./lung/case_1/image.nii.gz"])
    found = run(train, test)
    assert found_by("trained on", found) == [("leakage", "test/dataset.json", "train/dataset.json", 1, 1)]
    assert found_by("taken for the same", found, "severity", "list", "n_cases") == [("note", "test/dataset.json", 1)]


def test_an_image_root_tells_where_the_images_of_all_lists_lie(write_list, tmp_path):
    """A list with absolute paths of another machine, and one with relative paths."""
    for name in ("a", "b"):
        (tmp_path / f"moved/lung/{name}.nii.gz").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"moved/lung/{name}.nii.gz").touch()
    train = write_list("train.json", training=["/scratch/old/lung/a.nii.gz"])
    test = write_list("test.json", validation=["lung/a.nii.gz", "lung/b.nii.gz"])
    found = audit([train, test], tmp_path / "moved")
    assert found_by("trained on", found, "n_entries") == [(1,)]
    assert found_by("taken for the same", found) == []


@pytest.mark.parametrize("order", [1, -1])
def test_the_list_beside_the_images_may_come_first_or_last(write_list, tmp_path, order):
    images = ["lung/case_0/image.nii.gz", "lung/case_1/image.nii.gz"]
    for image in images:
        (tmp_path / image).parent.mkdir(parents=True)
        (tmp_path / image).touch()
    lists = [write_list("dataset.json", training=images), write_list("splits/split_0.json", validation=images[1:])]
    found = run(*lists[::order])
    assert found_by("trained on", found) == [("leakage", "split_0.json", "dataset.json", 1, 1)]


def test_two_cohorts_with_images_of_the_same_names_are_two(write_list, tmp_path):
    images = ["imagesTr/case_0.nii.gz", "imagesTr/case_1.nii.gz"]
    for image in [f"{cohort}/{image}" for cohort in "ab" for image in images]:
        (tmp_path / image).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / image).touch()
    found = run(write_list("a/train.json", training=images), write_list("b/test.json", testing=images))
    assert not found.leaks
    assert found_by("taken for the same", found) == []


def test_one_image_under_two_names_is_one_case(write_list, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.nii.gz").touch()
    os.symlink(tmp_path / "images/a.nii.gz", tmp_path / "images/z.nii.gz")
    absolute = str(tmp_path / "images/a.nii.gz")
    found = run(write_list("dataset.json", training=["images/z.nii.gz"], validation=[absolute, "images/b.nii.gz"]))
    assert found_by("trained on", found) == [("leakage", "dataset.json", "dataset.json", 1, 1)]


def test_a_list_in_a_linked_folder_means_the_folder_that_it_lies_in(write_list, tmp_path):
    write_list("data/splits/train.json", training=["../images/a.nii.gz", "../images/b.nii.gz"])
    os.symlink(tmp_path / "data/splits", tmp_path / "linked")
    test = write_list("test.json", testing=[str(tmp_path / "data/images/a.nii.gz")])
    assert run(tmp_path / "linked/train.json", test).leaks


def test_a_case_is_named_by_its_folder_only_where_files_are_named_alike(write_list):
    flat = write_list("dataset.json", training=["imagesTr/a.nii.gz", "imagesTr/b.nii.gz"], testing=["imagesTs/c.nii"])
    assert listed_entries([flat])[0]["name"].tolist() == ["imagesTr/a", "imagesTr/b", "imagesTs/c"]
    alike = write_list("dataset.json", training=["lung/a/t1c.nii.gz"], testing=["lung/b/t1c.nii.gz"])
    assert listed_entries([alike])[0]["name"].tolist() == ["lung/a", "lung/b"]


def test_the_first_of_several_sequences_tells_the_case(write_list):
    train = [{"image": ["i/a_t1c.nii.gz", "i/a_flair.nii.gz"]}]
    found = run(write_list("dataset.json", training=train, validation=["i/a_t1c.nii.gz"]))
    assert found.leaks


# One case in two spellings, and what may be one

OTHER = {"image": "images/c1.nii.gz", "patient": "other"}
NFC, NFD = "Zürich", unicodedata.normalize("NFD", "Zürich")


@pytest.mark.parametrize(
    ("trained", "evaluated"),
    [
        ("images\\c0.nii.gz", "images/c0.nii.gz"),
        (".\\images\\sub\\..\\c0.nii.gz", "images//c0.nii.gz"),
        ("C:\\data\\c0.nii.gz", "c:/data/c0.nii.gz"),
        ("\\\\nas\\data\\c0.nii.gz", "//nas/data/c0.nii.gz"),
        (f"images/{NFC}.nii.gz", f"images/{NFD}.nii.gz"),
        ("images/c0.nii.gz", "images/c0.nii"),
        (" images/c0.nii.gz ", "images/c0.nii.gz"),
        (["a_t1c.nii.gz", "a_flair.nii.gz"], ["a_flair.nii.gz", "a_t1c.nii.gz"]),
    ],
)
def test_one_image_in_two_spellings_is_one_case(write_list, trained, evaluated):
    found = run(write_list("dataset.json", training=[{"image": trained}, OTHER], validation=[{"image": evaluated}]))
    assert found_by("trained on", found, "n_entries") == [(1,)]
    assert found.answer == "LEAKAGE: 1 of 1 evaluation entries are training cases of dataset.json itself"


@pytest.mark.parametrize(("trained", "evaluated"), [("p1 ", "p1"), (NFC, NFD), (7, "7")])
def test_a_patient_in_two_spellings_is_one_patient(write_list, trained, evaluated):
    entries = [{"image": f"{name}.nii.gz", "patient": p} for name, p in (("a", trained), ("b", evaluated))]
    found = run(write_list("dataset.json", training=entries[:1], validation=entries[1:]))
    assert found_by("patient trained on", found, "n_entries") == [(1,)]


def test_a_patient_who_is_named_by_blanks_is_not_named(write_list):
    entries = [{"image": f"{name}.nii.gz", "patient": " "} for name in ("lung_x", "breast_y")]
    assert run(write_list("dataset.json", training=entries[:1], validation=entries[1:])).clean


def test_a_packed_file_and_its_unpacked_copy_are_one_case(write_list, tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("a.nii.gz", "b.nii"):
        (tmp_path / "images" / name).touch()
    lists = write_list("dataset.json", training=["images/a.nii"], validation=["images/a.nii.gz", "images/b.nii.gz"])
    assert found_by("trained on", run(lists), "cases") == [(["images/a"],)]


@pytest.mark.parametrize("packed", [True, False])
def test_a_copy_under_another_name_is_the_same_case(write_list, tmp_path, packed):
    """Packed again, the bytes of a file are others; their content is not."""
    contents = [np.random.default_rng(seed).bytes(100_000) for seed in (0, 0, 1)]
    for level, (name, content) in enumerate(zip(("here/a", "there/z", "there/y"), contents, strict=True), start=1):
        path = tmp_path / (name + (".nii.gz" if packed else ".nii"))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(content, level) if packed else content)
    found = run(write_list("dataset.json", training=["here/a.nii.gz"], validation=["there/z.nii", "there/y.nii"]))
    assert found_by("trained on", found, "cases") == [(["there/z"],)]
    assert "under another name: there/z" in found_by("taken for the same", found, "found")[0][0]


MAY_BE = {
    "absolute and relative": ("/data/cohort/images/c0.nii.gz", "images/c0.nii.gz"),
    "relative to another folder": ("cohort/lung/p1/image.nii.gz", "lung/p1/image.nii.gz"),
    "two hosts": ("/home/a/cohort/images/c0.nii.gz", "/mnt/nas/cohort/images/c0.nii.gz"),
    "two homes": ("/home/anna/cohort/images/c0.nii.gz", "/home/ben/cohort/images/c0.nii.gz"),
    "a drive": ("D:\\cohort\\images\\c0.nii.gz", "/mnt/d/cohort/images/c0.nii.gz"),
    "another letter case": ("Images/C0.nii.gz", "images/c0.nii.gz"),
    "another letter case of a plain name": ("IMAGE.nii.gz", "image.nii.gz"),
    "zeros in front": ("images/case_7.nii.gz", "images/case_007.nii.gz"),
    "copied into the folder of the test set": ("train/lung/c0/image.nii.gz", "test/lung/c0/image.nii.gz"),
    "a name that is not given twice": ("siteA/BraTS-MET-00110-000.nii.gz", "sent/BraTS-MET-00110-000.nii.gz"),
    "a time point, by the names of BraTS": ("BraTS-MET-00110-000.nii.gz", "BraTS-MET-00110-001.nii.gz"),
    "a session, by the names of BIDS": ("sub-01/ses-1/sub-01_ses-1_T1w.nii", "sub-01/ses-2/sub-01_ses-2_T1w.nii"),
    "a sequence that was corrected": ("p3/t1c.nii.gz", "p3/t1c_n4.nii.gz"),
    "another sequence": ("p3/t1c.nii.gz", "p3/flair.nii.gz"),
    **{
        f"a format, {end}": ("data/p7.nii.gz", f"data/p7.{end}") for end in ("nrrd", "mha", "npz", "npy", "b2nd", "hdr")
    },
    "a pair": ("data/p7.nii.gz", "data/p7.img"),
    "the channel of nnU-Net": ("imagesTr/mets_003_0000.nii.gz", "test/mets_003.nii.gz"),
    "two roots": ("/mnt/a/images/p3.nii.gz", "/home/u/proj/images/p3.nii.gz"),
    "before and after a step": ("raw/p3.nii.gz", "preproc/p3.nii.gz"),
    "an escaped blank": ("data/p%207.nii.gz", "data/p 7.nii.gz"),
    "an umlaut written out": ("data/Müller.nii.gz", "data/Mueller.nii.gz"),
    "a stroke left off": ("data/Łucja.nii.gz", "data/Lucja.nii.gz"),
    "full-width letters": ("data/Ｐ３.nii.gz", "data/p3.nii.gz"),
    "a time point, by its word": ("P00/baseline.nii.gz", "P00/fu1.nii.gz"),
}


@pytest.mark.parametrize("pair", MAY_BE)
def test_what_may_be_one_case_is_said(write_list, pair):
    trained, evaluated = MAY_BE[pair]
    found = run(write_list("dataset.json", training=[trained, "images/c1.nii.gz"], validation=[evaluated]))
    assert {row[:2] + row[3:] for row in found_by("may be the same", found)} == {("doubt", "dataset.json", 1, 1)}
    assert (found.leaks, found.clean) == (False, False)
    assert found.answer.startswith(
        "MAY BE LEAKAGE: 1 of 1 evaluation entries may be training cases, or of patients in training;"
    )
    assert "DOUBT: may be the same" in found.as_text()


@pytest.mark.parametrize(
    ("trained", "evaluated"),
    [
        ({"label": "labels/a.nii.gz", "patient": 1}, {"label": "labels/a.nii", "patient": 2}),
        ({"image": ["a_t1c.nii", "a_flair.nii"]}, {"image": ["a_flair.nii", "other.nii"]}),
        ({"patient": "P-01"}, {"patient": "p1"}),
        ({"patient": "Meier Anna"}, {"patient": "Anna Meier"}),
        ({"patient": "P007"}, {"patient": "007"}),
        ({"patient": "Müller"}, {"patient": "MUELLER"}),
        ({"patient": "P007"}, {"image": "scans/p007/t1c.nii.gz"}),
        ({"image": "scans/p007/t1c.nii.gz"}, {"patient": "P007"}),
        ({"case": "P003"}, {"case": "p003"}),
    ],
    ids=[
        *("one mask", "one sequence", "one patient", "turned name", "number alone", "umlaut"),
        *("path of the evaluated", "path of the trained", "one case"),
    ],
)
def test_what_two_entries_share_is_said(write_list, trained, evaluated):
    entries = [{"image": "lung_x.nii.gz"} | trained, {"image": "breast_y.nii.gz"} | evaluated]
    found = run(write_list("dataset.json", training=[entries[0], OTHER], validation=entries[1:]))
    assert found_by("may be the same", found, "severity", "n_entries") == [("doubt", 1)]


CLEAN = {
    "files of one name": [f"lung/p{i}/t1c.nii.gz" for i in range(4)],
    "deeper": [f"/data/p{i}/baseline/anat/t1c.nii.gz" for i in range(4)],
    "numbered anew in each primary": [f"{p}/case_{i:03d}/image.nii.gz" for p in ("lung", "breast") for i in range(4)],
    "absolute": [f"/data/{p}/case_{i}/image.nii.gz" for p in ("lung", "breast") for i in range(4)],
    "files numbered anew in each primary": [f"{p}/{i:03d}.nii.gz" for p in ("lung", "breast") for i in range(4)],
    "in folders of no known primary": [f"{p}/case_{i:03d}.nii.gz" for p in ("GIST", "CUP") for i in range(4)],
    "scans of many in one folder": [f"lung/scan{i}.nii.gz" for i in range(4)],
    "sites": [f"site{s}/raw/{i:03d}_0000.nii.gz" for s in (1, 2) for i in range(4)],
    "two dates": [f"p{i}/2019-03-04/t1c.nii.gz" for i in range(4)],
    "flat": [f"imagesTr/BraTS-MET-{i:05d}-000_0000.nii.gz" for i in range(4)],
}


@pytest.mark.parametrize("layout", CLEAN)
def test_names_that_are_alike_by_their_layout_are_no_doubt(write_list, layout):
    images = CLEAN[layout]
    half = len(images) // 2
    found = run(write_list("dataset.json", training=images[:half], validation=images[half:]))
    assert found.clean
    assert found.answer.startswith("No leakage found: ")


@pytest.mark.parametrize(("one", "other"), [("P007", "S007"), ("P007", "P008"), ("Anna Meier", "Anna Maier")])
def test_patients_of_other_names_are_no_doubt(write_list, one, other):
    entries = [{"image": f"{name}.nii.gz", "patient": p} for name, p in (("lung_x", one), ("breast_y", other))]
    assert run(write_list("dataset.json", training=entries[:1], validation=entries[1:])).clean


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("value", [0, 1])
def test_one_mask_for_two_images_is_told_by_its_content(write_list, tmp_path, suffix, value):
    """A z-scored image keeps its mask. Empty masks are alike by chance."""
    mask = np.zeros((16, 16, 16), np.uint8)
    mask[4:9, 4:9, 7:9] = value
    for name in ("a", "b"):
        nib.save(nib.Nifti1Image(mask, np.eye(4)), tmp_path / f"mask_{name}{suffix}")
    entries = [
        {"image": f"{image}.nii.gz", "label": f"mask_{name}{suffix}", "patient": name}
        for image, name in (("lung_x", "a"), ("breast_y", "b"))
    ]
    found = run(write_list("dataset.json", training=entries[:1], validation=entries[1:]))
    assert found_by("may be the same", found, "severity", "n_entries") == [("doubt", 1)] * value
    assert found.clean == (not value)
    assert all("one mask for two images" in row[0] for row in found_by("may be the same", found, "found"))


def test_a_case_of_the_list_of_the_whole_cohort_may_have_been_trained_on(write_list):
    images = [f"images/{name}.nii.gz" for name in ("anna", "ben", "cleo")]
    whole = write_list("dataset.json", training=images[:2])
    found = run(whole, write_list("split_0.json", training=images[::2], validation=images[1:2]))
    assert not found.clean
    assert found.answer.startswith(
        "MAY BE LEAKAGE: dataset.json also trains on 1 evaluated case; the audit takes it as the list of the whole "
        "cohort: if a network was trained on it, this is leakage"
    )
    assert found_by("trained on elsewhere", found, "severity", "cases") == [("doubt", ["images/ben"])]
    apart = run(whole, write_list("split_1.json", training=images[:2], validation=images[2:]))
    assert apart.clean


def test_one_list_without_folds_has_nothing_wrong(write_list):
    path = write_list("dataset.json", training=["images/anna.nii.gz", "images/ben.nii.gz"])
    assert run(path).answer == "One list without folds: there is nothing to compare."
    assert set(run(path).findings["severity"]) == {"note"}
    twice = write_list("dataset.json", training=["images/anna.nii.gz"] * 2)
    assert run(twice).answer.endswith(
        "nothing to compare. Problem: 2 entries of training of dataset.json are 1 case: images/anna 2 times."
    )


@pytest.mark.parametrize(("path", "found", "fix"), [("", "a folder", "give a data"), ("no.json", "no such", "path")])
def test_what_is_no_list_is_said_with_what_to_give(tmp_path, path, found, fix):
    (problem,) = problems_of(tmp_path / path)
    assert found in problem.found
    assert fix in problem.fix
    assert "study file" not in str(problem)


def test_who_is_named_differently_is_another_patient(write_list):
    entries = [{"image": f"{folder}/images/c0.nii.gz", "patient": i} for i, folder in enumerate(("/a/x", "/b/x"))]
    assert run(write_list("dataset.json", training=entries[:1], validation=entries[1:])).clean


WORDS = st.text("abcäöüß Éñ09_-", min_size=1, max_size=8).filter(lambda word: word.strip() == word)
RESPELLINGS = (
    lambda path: path.replace("/", "\\"),
    lambda path: unicodedata.normalize("NFD", path),
    lambda path: f" ./{path} ",
    lambda path: path.replace("/", "/x/..//"),
    lambda path: path.removesuffix(".gz"),
)


FUZZED = {"deadline": None, "database": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@settings(max_examples=40, **FUZZED)
@given(folder=WORDS, name=WORDS, ways=st.lists(st.sampled_from(RESPELLINGS), min_size=1, unique=True))
def test_no_respelling_hides_a_case(write_list, folder, name, ways):
    listed = respelled = f"{folder}/{name}.nii.gz"
    for way in ways:
        respelled = way(respelled)
    assert run(write_list("dataset.json", training=[listed], validation=[respelled])).leaks


@settings(max_examples=100, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    paths=st.lists(st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=30), min_size=2, max_size=6)
)
def test_whatever_is_listed_is_audited(write_list, paths):
    found = run(write_list("dataset.json", training=paths[1:], validation=paths[:1]))
    assert found.leaks or found.answer.startswith(("MAY BE", "No leakage"))


# What is handed out, and what is refused


def test_lists_of_one_side_only_are_not_called_clean(write_list):
    found = run(write_list("a.json", validation=["i/a.nii.gz"]), write_list("b.json", validation=["i/b.nii.gz"]))
    assert found_by("nothing to compare", found, "severity", "found") == [("problem", "no list trains on anything")]
    assert found.answer == "Nothing was compared; 1 problem, 0 notes"


def test_a_list_given_twice_is_one_list(write_list):
    path = write_list("dataset.json", training=cohort())
    found = audit([path, path.parent / "." / "dataset.json"])
    assert found.lists == ["dataset.json"]
    assert len(found.shared) == 1


def test_the_audit_as_json_and_as_text_says_what_the_table_says(published):
    content = json.loads(published.as_json())
    assert (content["answer"], content["leaks"]) == (published.answer, True)
    assert len(content["findings"]) == len(published.findings)
    assert content["shared"]["split_1.json"] == {
        "n_entries": 54, "n_cases": 51, "dataset_0.json": 45, "dataset_1.json": 45,
    }  # fmt: skip
    text = published.as_text()
    assert text.splitlines()[0] == published.answer
    assert max(map(len, text.splitlines()[1:])) <= 120
    for words in [*published.findings["found"], *published.findings["why"], *published.findings["fix"]]:
        assert words in " ".join(text.split())


def test_the_worst_comes_first(write_list):
    test_set = ["images/a.nii.gz"]
    one = write_list("one.json", training=["images/b.nii.gz"] * 2, testing=test_set)
    found = run(one, write_list("two.json", training=["images/c.nii.gz"], testing=test_set))
    assert found_by("evaluated twice", found, "severity") == [("note",)]
    assert found_by("repeated", found, "severity") == [("problem",)]
    severities = found.findings["severity"].tolist()
    assert severities == sorted(severities, key=["leakage", "doubt", "problem", "note"].index)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "not JSON"),
        ("[]", "no entries"),
        ('{"training": []}', "no entries"),
        (
            '{"train": [{"image": "a.nii.gz"}], "validation": [{"image": "b.nii.gz"}]}',
            "entries in list train;",
        ),
        ('{"training": [{"image": "a.nii.gz"}, {"label": "b.nii.gz"}]}', "training[1]"),
        ('{"training": [{"image": "a.nii.gz"}, {"image": []}]}', "training[1]"),
        ('{"training": [{"image": "a.nii.gz", "fold": 1.5}]}', "fold 1.5"),
        ('{"training": [{"image": "a.nii.gz"}], "validation": "b.nii.gz"}', "validation 'b.nii.gz'"),
    ],
)
def test_a_list_that_cannot_be_read_is_named_with_what_was_found(tmp_path, text, named):
    path = tmp_path / "dataset.json"
    path.write_text(text)
    told = "\n".join(map(str, problems_of(path)))
    assert str(path) in told
    assert named in told


def test_all_that_cannot_be_read_is_said_at_once(tmp_path):
    (tmp_path / "b.json").write_text('{"training": [{"image": 3}, {"image": "a.nii.gz", "fold": "1"}]}')
    found = problems_of(tmp_path / "a.json", tmp_path / "b.json")
    assert [problem.found for problem in found] == ["no such file", "image 3", "fold '1'"]


def test_no_lists_and_a_list_without_a_readable_entry_are_compared_too(tmp_path):
    assert not audit([]).leaks
    (tmp_path / "dataset.json").write_text('{"training": [{"label": "a.nii.gz"}]}')
    found = audit([tmp_path / "dataset.json"])
    assert (found.lists, found.leaks, found.clean) == ([], False, False)
    assert found.answer == "Nothing was compared; 1 problem, 0 notes; not everything could be read"


@pytest.mark.parametrize("place", ["lung/p{:04}/t1c.nii.gz", "lung/pat{:04}/study{}/t1c.nii.gz"])
def test_many_cases_are_not_compared_each_with_each(write_list, monkeypatch, place):
    """Of cases whose paths have a folder in common only, and whose folders hold the same names."""
    compared = []
    monkeypatch.setattr(audit_entries, "_paths_alike", lambda *of: compared.append(of))
    paths = [place.format(i // 2 if "study" in place else i, i % 2) for i in range(400)]
    run(write_list("a.json", training=paths[:300], validation=paths[300:]))
    assert len(compared) < len(paths)
