"""Cohorts as people bring them: what each layout gives, and that everything wrong is said at once.

The volumes are empty files: nothing may open them.
"""

import gzip
import json
from collections import Counter

import pytest

from metaseg_nb.cohort.datalist import read_datalist, write_datalist
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.sources import lists_of, read_cohort


@pytest.fixture
def tree(tmp_path):
    """Make empty files; returns the folder that they are below."""

    def make(*paths):
        for path in paths:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).touch()
        return tmp_path

    return make


@pytest.fixture
def write(tmp_path):
    """Write JSON, or text as it is."""

    def put(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return put


def entry(name, **more):
    return {"image": f"images/{name}.nii.gz", "label": f"labels/{name}.nii.gz", **more}


def entries(names, **more):
    return [entry(name, **more) for name in names]


def said(problems):
    return [(problem.severity, problem.case, problem.found) for problem in problems]


def files_of(case, base):
    return [str(path.relative_to(base)) for path in case.files]


# Lists


def test_a_validation_list_holds_labelled_cases_too(write, tmp_path):
    write("a.json", {"training": entries("ab"), "validation": entries("c"), "testing": ["images/d.nii.gz"]})
    cohort, problems = read_cohort("a.json", base=tmp_path)
    assert [(case.name, case.fold) for case in cohort.cases] == [("a", None), ("b", None), ("c", None)]
    assert [case.name for case in cohort.unlabelled] == ["d"]
    assert files_of(cohort.cases[2], tmp_path) == ["images/c.nii.gz", "labels/c.nii.gz"]
    assert problems == []


def test_folds_of_one_list_are_kept_and_a_fold_that_is_no_number_is_named(write, tmp_path):
    write("a.json", {"training": [entry("a", fold=1), entry("b", fold=0), entry("c", fold="first")]})
    cohort, problems = read_cohort("a.json", base=tmp_path)
    assert [(case.name, case.fold) for case in cohort.cases] == [("a", 1), ("b", 0)]
    assert said(problems) == [("error", "training[2]", "fold 'first'")]


def test_lists_that_validate_on_each_case_once_give_its_fold(write, tmp_path):
    names = ["a", "b", "c", "d"]
    for k, held in [(10, "c"), (8, "a"), (9, "bd")]:
        rest = [name for name in names if name not in held]
        write(f"splits/split_{k}.json", {"training": entries(rest), "validation": entries(held)})
    cohort, problems = read_cohort("splits/split_*.json", base=tmp_path)
    assert {case.name: case.fold for case in cohort.cases} == {"a": 0, "b": 1, "c": 2, "d": 1}
    assert problems == []
    by_name = "splits/split_8.json, splits/split_9.json,splits/split_10.json"
    assert read_cohort(by_name, base=tmp_path)[0] == cohort


def test_every_breach_of_split_lists_is_named_and_no_fold_is_given(write, tmp_path):
    write("split_0.json", {"training": entries("de"), "validation": entries("aab")})
    write("split_1.json", {"training": entries("de"), "validation": entries("bc")})
    cohort, problems = read_cohort("split_*.json", base=tmp_path)
    assert sorted(said(problems)) == [
        ("error", "a", "listed 2 times, in validation"),
        ("error", "b", "in the validation lists of split_0.json and split_1.json"),
        ("error", "d", "in no validation list"),
        ("error", "e", "in no validation list"),
    ]
    assert [(case.name, case.fold) for case in cohort.cases] == [(name, None) for name in "deabc"]


def test_a_case_twice_in_one_validation_list_alone_forbids_folds(write, tmp_path):
    write("split_0.json", {"validation": entries("aab")})
    write("split_1.json", {"validation": entries("c")})
    cohort, problems = read_cohort("split_*.json", base=tmp_path)
    assert said(problems) == [("error", "a", "listed 2 times, in validation")]
    assert {case.fold for case in cohort.cases} == {None}


def test_excluded_cases_are_not_held_against_the_folds(write, tmp_path):
    write("split_0.json", {"training": entries("x"), "validation": entries("ab")})
    write("split_1.json", {"validation": entries("cb")})
    cohort, problems = read_cohort("split_*.json", base=tmp_path, exclude=["b", "x"])
    assert {case.name: case.fold for case in cohort.cases} == {"a": 0, "c": 1}
    assert problems == []


@pytest.mark.parametrize(
    "names", [("split_a.json", "split_b.json"), ("one/list_0.json", "two/list_0.json"), ("k_9.json", "k_11.json")]
)
def test_lists_are_folds_in_their_order_whatever_their_names(write, tmp_path, names):
    for name, case in zip(names, "ab", strict=True):
        case = {key: f"{tmp_path}/{path}" for key, path in entry(case).items()}
        write(name, {"validation": [case]})
    cohort, problems = read_cohort(",".join(names), base=tmp_path)
    assert problems == []
    assert [case.fold for case in cohort.cases] == [0, 1]


def test_the_cases_of_a_missing_list_are_in_no_validation_list(write, tmp_path):
    for k, held in [(0, "a"), (2, "c")]:
        write(f"split_{k}.json", {"training": entries(set("abc") - {held}), "validation": entries(held)})
    cohort, problems = read_cohort("split_*.json", base=tmp_path)
    assert said(problems) == [("error", "b", "in no validation list")]
    assert {case.fold for case in cohort.cases} == {None}


def test_one_unreadable_list_does_not_hide_the_others(write, tmp_path):
    write("split_0.json", {"training": [{"label": "no image"}], "validation": entries("a")})
    write("split_1.json", "{half a li")
    write("split_2.json", {"validation": entries("b")})
    cohort, problems = read_cohort("split_*.json", base=tmp_path)
    assert [(case.name, case.fold) for case in cohort.cases] == [("a", None), ("b", None)]
    assert [problem.file.rpartition("/")[2] for problem in problems] == ["split_0.json", "split_1.json"]
    assert "not JSON" in problems[1].found


def test_the_published_lists_are_read_and_their_breaches_counted(shared_data):
    """Counted from the files by hand: 166 cases, 67 in several validation lists, 17 repeated within one."""
    cohort, problems = read_cohort("split_*.json", base=shared_data / "usz_splits")
    assert len(cohort.cases) == 166
    breaches = Counter(problem.expected for problem in problems)
    cases = Counter()
    for expected in breaches:
        cases[expected] = len({problem.case for problem in problems if problem.expected == expected})
    assert cases == {"each case in the validation list of exactly one fold": 67, "each case once in a list": 17}
    cohort, problems = read_cohort("dataset_0.json", base=shared_data / "usz_splits")
    primaries = Counter(case.primary for case in cohort.cases)
    assert primaries == {"NSCLC": 160, "Melanoma": 77, "Breast": 27, "melanomapreopMRI": 9}
    assert cohort.cases[0].name == "Melanoma_nii_case_034"
    assert problems == []


def test_repeated_and_contradictory_entries_are_named_and_kept_once(write, tmp_path):
    training = [entry("a"), entry("b"), entry("a", patient="P1"), entry("a", patient="P2")]
    write("a.json", {"training": training, "testing": [{"image": "images/b.nii.gz"}]})
    cohort, problems = read_cohort("a.json", base=tmp_path)
    assert said(problems) == [
        ("error", "a", "listed 3 times, in training"),
        ("error", "a", "patient P1 and P2"),
        ("error", "b", "listed 2 times, in training and testing"),
    ]
    assert [case.name for case in cohort.cases] == ["a", "b"]
    assert cohort.unlabelled == []


def test_another_mask_for_a_case_in_another_list_is_named(write, tmp_path):
    write("split_0.json", {"training": entries("b"), "validation": entries("a")})
    write("split_1.json", {"training": [entry("a") | {"label": "new/a.nii.gz"}], "validation": entries("b")})
    _, problems = read_cohort("split_*.json", base=tmp_path)
    assert said(problems) == [("error", "a", "label labels/a.nii.gz and new/a.nii.gz")]


def test_everything_wrong_in_a_list_is_said_at_once(write, tmp_path):
    training = [*entries("ab"), {"image": "images/c.nii.gz"}, {"label": "labels/d.nii.gz"}, 7]
    training += [entry("g", case="lung/g")]
    training += [{"image": "images/e.nii.gz", "label": ["one.nii.gz", "two.nii.gz"]}]
    write("a.json", {"training": training, "testing": [entry("f")], "validation": "none", "extra": entries("h")})
    cohort, problems = read_cohort("a.json", base=tmp_path)
    assert said(problems) == [
        ("error", "-", "validation 'none'"),
        ("error", "-", "entries in list extra"),
        ("error", "training[3]", "no image"),
        ("error", "training[4]", "image 7"),
        ("error", "training[5]", "case 'lung/g'"),
        ("error", "training[6]", "label ['one.nii.gz', 'two.nii.gz']"),
        ("error", "c", "no label in training"),
        ("note", "f", "a label in testing, which is not read"),
    ]
    assert [case.name for case in cohort.cases] == ["a", "b"]
    assert [(case.name, case.label) for case in cohort.unlabelled] == [("c", None), ("f", None)]


def test_what_is_missing_is_said_in_plain_words(write, tmp_path):
    training = [*entries("a"), {"label": "labels/b.nii.gz"}, {"image": []}]
    write("a.json", {"training": training, "lesion_values": []})
    _, problems = read_cohort("a.json", base=tmp_path)
    assert [(problem.found, problem.expected) for problem in problems] == [
        ("lesion_values []", "at least one of them"),
        ("no image", "this key"),
        ("image []", "at least one of them"),
    ]


def test_other_values_are_read_without_readable_lesion_values(write, tmp_path):
    write("a.json", {"training": entries("a"), "lesion_values": [0], "other_values": [2]})
    cohort, problems = read_cohort("a.json", base=tmp_path)
    assert said(problems) == [("error", "-", "lesion_values [0]")]
    assert (cohort.rule.values, cohort.rule.other_values) == ((1,), (2,))


def test_one_name_for_two_images_is_an_error_that_names_both_files(write, tmp_path):
    write("a.json", {"training": [entry("p1", case="a"), entry("p2", case="a"), entry("p3", case="b")]})
    cohort, (problem,) = read_cohort("a.json", base=tmp_path)
    assert (problem.case, problem.severity, "give the entry another name" in problem.fix) == ("a", "error", True)
    assert problem.file == f"{tmp_path}/images/p2.nii.gz"
    assert problem.found == f"the same name as {tmp_path}/images/p1.nii.gz"
    assert [case.name for case in cohort.cases] == ["a", "b"]
    cohort, problems = read_cohort("a.json", base=tmp_path, exclude=["a"])
    assert ([case.name for case in cohort.cases], problems) == (["b"], [])


def test_a_primary_depends_on_its_own_path_alone(write, tmp_path):
    training = [
        {"image": f"{primary}/p{i}/image.nii.gz", "label": "l.nii.gz"}
        for i, primary in enumerate(("Lung_nii", "Gynae"))
    ]

    def primaries(*more):
        write("a.json", {"training": [*training, *({"image": image, "label": "l.nii.gz"} for image in more)]})
        return [(case.name, case.primary) for case in read_cohort("a.json", base=tmp_path)[0].cases]

    alone = [("Lung_nii_p0", "Lung"), ("Gynae_p1", "Gynae")]
    assert primaries() == alone
    assert primaries("/elsewhere/x.nii.gz", "deep/down/in/p9/image.nii.gz") == [
        *alone,
        ("x", "unknown"),
        ("in_p9", "unknown"),
    ]


def test_primaries_are_told_by_folders_where_these_are_primaries(write, tmp_path):
    def primaries(*images):
        training = [{"image": image, "label": "label.nii.gz"} for image in images]
        write("a.json", {"training": training})
        return [case.primary for case in read_cohort("a.json", base=tmp_path)[0].cases]

    assert primaries("lung_nii/p1/i.nii.gz", "breast_nii/p2/i.nii.gz") == ["lung", "breast"]
    assert primaries("lung/p1/i.nii", "lung/p2/i.nii") == ["lung", "lung"]
    assert primaries("/data/usz/lung/p1/i.nii", "/data/usz/skin/p2/i.nii") == ["lung", "skin"]
    assert primaries("../data/lung/p1/i.nii", "../data/skin/p2/i.nii") == ["lung", "skin"]
    # sets, sequences, patients and cases are no primaries
    assert set(primaries("train/t1/p1.nii", "train/t1/p2.nii", "val/t1/p3.nii")) == {"unknown"}
    assert set(
        primaries("t1c/cohort_1/p1.nii", "t1c/cohort_1/p2.nii", "t1c/cohort_2/p3.nii", "t1c/cohort_2/p4.nii")
    ) == {"unknown"}
    assert set(primaries("imagesTr/p1.nii", "imagesTr/p2.nii")) == {"unknown"}
    assert set(primaries("p1/anat/i.nii", "p2/anat/i.nii")) == {"unknown"}
    assert set(primaries("sub-1/ses-1/i.nii", "sub-1/ses-2/i.nii", "sub-2/ses-1/i.nii")) == {"unknown"}
    assert set(primaries("p1/i.nii", "p2/i.nii")) == {"unknown"}


def test_several_sequences_of_an_entry_stay_in_order(write, tmp_path):
    write("a.json", {"training": [{"image": ["a/t1c.nii.gz", "a/flair.nii.gz"], "label": "a/seg.nii.gz"}]})
    (case,) = read_cohort("a.json", base=tmp_path)[0].cases
    assert files_of(case, tmp_path) == ["a/t1c.nii.gz", "a/flair.nii.gz", "a/seg.nii.gz"]


def test_a_file_is_one_sequence_or_one_mask_of_one_patient(write, tree):
    """A mask among the sequences would show networks what they are asked for."""

    def given(patient, *sequences):
        paths = {"image": [f"{patient}_{of}.nii.gz" for of in ("t1c", *sequences)], "label": f"{patient}_seg.nii.gz"}
        return paths | {"patient": patient}

    others_flair = given("d") | {"image": ["d_t1c.nii.gz", "c_flair.nii.gz"]}
    training = [given("a", "seg"), given("b", "t1c"), given("c", "flair"), others_flair, given("e", "flair")]
    dates = [given("e") | {"image": ["e_later.nii.gz", "e_flair.nii.gz"], "label": "e_later_seg.nii.gz"}]
    write("a.json", {"training": training + dates})
    _, problems = read_cohort("a.json", base=tree())
    twice = "listed 2 times, as sequence or mask"
    assert sorted(said(problems)) == [
        ("error", "a_t1c", twice),
        ("error", "b_t1c", twice),
        ("error", "c_t1c", "listed for patient d too"),
        ("error", "d_t1c", "listed for patient c too"),
    ]
    assert [problem.file[-13:] for problem in problems if problem.case == "a_t1c"] == ["/a_seg.nii.gz"]
    base = tree("flat/p_t1c.nii.gz", "flat/p_seg.nii.gz") / "flat"
    patterns = {"image_files": ["{patient}_t1c"], "label_file": "{patient}_seg", "brain_file": "{patient}_seg"}
    assert said(read_cohort(".", base=base, **patterns)[1]) == [("error", "p", twice)]


def test_lists_that_name_different_missing_sequences_contradict_each_other(write, tmp_path):
    gaps = [
        entry("a") | {"image": images} for images in (["a.nii.gz", None, "t.nii.gz"], ["a.nii.gz", "t.nii.gz", None])
    ]
    write("split_0.json", {"training": entries("b"), "validation": gaps[:1]})
    write("split_1.json", {"training": gaps[1:], "validation": entries("b")})
    _, problems = read_cohort("split_*.json", base=tmp_path, missing="zero")
    assert ("error", "a", "image a.nii.gz, null, t.nii.gz and a.nii.gz, t.nii.gz, null") in said(problems)


def test_lists_in_two_folders_that_list_two_images_alike_name_both(write, tmp_path):
    write("one/split_0.json", {"validation": entries("a")})
    write("two/split_1.json", {"validation": entries("a")})
    cohort, problems = read_cohort("*/split_*.json", base=tmp_path)
    assert said(problems) == [("error", "a", f"the same name as {tmp_path}/one/images/a.nii.gz")]
    assert [case.fold for case in cohort.cases] == [None]
    (tmp_path / "images").mkdir()
    cohort, problems = read_cohort("*/split_*.json", base=tmp_path, image_root=".")
    assert said(problems) == [("error", "a", "in the validation lists of split_0.json and split_1.json")]


# Where the images are


def test_relative_paths_follow_the_image_root(write, tree):
    base = tree("moved/images/a.nii.gz")
    write("lists/a.json", {"training": entries("a")})
    (case,) = read_cohort("lists/a.json", base=base)[0].cases
    assert files_of(case, base) == ["lists/images/a.nii.gz", "lists/labels/a.nii.gz"]
    cohort, problems = read_cohort("lists/a.json", base=base, image_root="moved")
    assert files_of(cohort.cases[0], base) == ["moved/images/a.nii.gz", "moved/labels/a.nii.gz"]
    assert problems == []


def test_absolute_paths_are_searched_below_the_image_root_only_where_they_are_gone(write, tree):
    base = tree("here/a.nii.gz", "new/here/a.nii.gz", "new/usz/p2/b.nii.gz", "new/b.nii.gz")
    listed = [f"{base}/here/a.nii.gz", "/scratch/old/usz/p2/b.nii.gz", "/scratch/old/c.nii.gz"]
    write("a.json", {"training": [{"image": image, "label": image} for image in listed]})
    cohort, _ = read_cohort("a.json", base=base, image_root="new")
    assert [str(case.image) for case in cohort.cases] == [
        f"{base}/here/a.nii.gz",
        f"{base}/new/usz/p2/b.nii.gz",  # as much of the path as there is, not the first file of that name
        "/scratch/old/c.nii.gz",
    ]
    assert [case.label for case in cohort.cases] == [case.image for case in cohort.cases]


def test_an_image_root_that_is_not_there_is_one_problem(write, tmp_path):
    write("a.json", {"training": entries("abc")})
    cohort, problems = read_cohort("a.json", base=tmp_path, image_root="nowhere")
    assert said(problems) == [("error", "-", "no such folder")]
    assert len(cohort.cases) == 3


def test_a_link_keeps_the_name_that_was_given(write, tmp_path):
    """As data version control stores it: the content lies under its checksum, without suffix."""
    for name in ("images/a.nii.gz", "labels/a.nii.gz", "cohort/p1/image.nii.gz", "cohort/p1/label.nii.gz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        content = tmp_path / "store" / name.replace("/", "_").partition(".")[0]
        content.parent.mkdir(exist_ok=True)
        content.touch()
        (tmp_path / name).symlink_to(content)
    write("a.json", {"training": entries("a")})
    (case,) = read_cohort("a.json", base=tmp_path)[0].cases
    assert files_of(case, tmp_path) == ["images/a.nii.gz", "labels/a.nii.gz"]
    (case,) = read_cohort("cohort", base=tmp_path)[0].cases
    assert files_of(case, tmp_path) == ["cohort/p1/image.nii.gz", "cohort/p1/label.nii.gz"]


def test_two_links_to_one_image_are_one_case(write, tree):
    base = tree("store/4f2a")
    for name in "ab":
        (base / "images").mkdir(exist_ok=True)
        (base / f"images/{name}.nii.gz").symlink_to(base / "store/4f2a")
    write("a.json", {"training": entries("ab")})
    cohort, problems = read_cohort("a.json", base=base)
    assert [case.name for case in cohort.cases] == ["a"]
    assert ("error", "a", "listed 2 times, in training") in said(problems)


# Folders


def test_nnunet_channels_are_sequences_and_the_contrast_enhanced_t1_comes_first(write, tree):
    images = [f"imagesTr/{case}_000{i}.nii.gz" for case in ("m_001", "m_002", "m_003") for i in range(3)]
    labels = ["labelsTr/m_001.nii.gz", "labelsTr/m_002.nii.gz", "labelsTr/m_004.nii.gz"]
    base = tree(*[f"D/{path}" for path in images + labels], *[f"D/imagesTs/t_000{i}.nii.gz" for i in range(3)])
    write("D/dataset.json", {"channel_names": {"0": "T1", "1": "FLAIR", "2": "T1Gd"}, "labels": {"lesion": 1}})
    cohort, problems = read_cohort("D", base=base)
    assert [case.name for case in cohort.cases] == ["m_001", "m_002"]
    assert files_of(cohort.cases[0], base / "D") == [
        "imagesTr/m_001_0002.nii.gz",
        "imagesTr/m_001_0000.nii.gz",
        "imagesTr/m_001_0001.nii.gz",
        "labelsTr/m_001.nii.gz",
    ]
    assert [case.name for case in cohort.unlabelled] == ["m_003", "t"]
    assert said(problems) == [
        ("warning", "m_003", "an image without a mask"),
        ("error", "m_004", "a mask without an image: m_004.nii.gz"),
    ]
    assert '"lesion": 1' in cohort.description


def test_nnunet_names_what_does_not_fit(write, tree):
    base = tree(
        *("imagesTr/a_0000.nii", "imagesTr/a_0001.nii", "labelsTr/a.nii"),
        *("imagesTr/b_0000.nii", "labelsTr/b.nii"),
        *("imagesTr/c_0000.nii", "imagesTr/c_0001.nii", "labelsTr/c.nii", "labelsTr/c.nii.gz"),
    )
    cohort, problems = read_cohort(".", base=base)
    assert [case.name for case in cohort.cases] == ["a"]
    assert said(problems) == [
        ("warning", "-", "channels [0, 1]; the first is used"),
        ("error", "b", "images b_0000.nii, none; mask b.nii"),
        ("error", "c", "images c_0000.nii, c_0001.nii; mask c.nii.gz and c.nii"),
    ]
    write("dataset.json", {"modality": {"0": "T1c"}, "file_ending": ".nrrd"})
    cohort, problems = read_cohort(".", base=base, label_file="*_seg")
    assert [case.name for case in cohort.cases] == ["a", "b"]
    assert [problem.found for problem in problems] == [
        "`label_file` set to '*_seg'",
        "file_ending '.nrrd'",
        "files that are not read: a_0001.nii, c_0001.nii",
        "images c_0000.nii; mask c.nii.gz and c.nii",
    ]


def test_decathlon_folders_without_channels_keep_four_digits_in_their_names(tree):
    base = tree("imagesTr/met_0000.nii.gz", "imagesTr/met_0002.nii.gz", "imagesTs/met_0003.nii.gz")
    tree("labelsTr/met_0000.nii.gz")
    cohort, problems = read_cohort(".", base=base)
    assert [case.name for case in cohort.cases] == ["met_0000"]
    assert [case.name for case in cohort.unlabelled] == ["met_0002", "met_0003"]
    assert said(problems) == [("warning", "met_0002", "an image without a mask")]


def brats(case, *kinds, joint="-"):
    return [f"{case}/{case}{joint}{kind}.nii.gz" for kind in kinds]


def test_brats_time_points_are_of_one_patient(tree):
    cases = ["BraTS-MET-00110-000", "BraTS-MET-00110-001", "BraTS-MET-00111-000"]
    base = tree(*[path for case in cases for path in brats(case, "t1c", "t1n", "t2f", "seg")])
    tree(f"{cases[0]}/._{cases[0]}-t1c.nii.gz")  # what macOS leaves behind
    cohort, problems = read_cohort(".", base=base)
    assert [(case.name, case.patient, case.primary) for case in cohort.cases] == [
        (cases[0], "00110", "unknown"),
        (cases[1], "00110", "unknown"),
        (cases[2], "00111", "unknown"),
    ]
    assert files_of(cohort.cases[0], base) == brats(cases[0], "t1c", "seg")
    assert problems == []


def test_several_patterns_are_several_sequences(tree):
    base = tree(*brats("BraTS-MET-00110-000", "t1n", "t1c", "t2f", "seg"), *brats("BraTS-MET-00111-000", "t1c", "seg"))
    cohort, problems = read_cohort(".", base=base, image_files=["*-t1c.nii.gz", "*-t2f"])
    assert [files_of(case, base) for case in cohort.cases] == [brats("BraTS-MET-00110-000", "t1c", "t2f", "seg")]
    assert [(problem.severity, problem.case) for problem in problems] == [("error", "BraTS-MET-00111-000")]
    with pytest.raises(CohortError, match="one file for each sequence, no file for two sequences"):
        read_cohort(".", base=base, image_files=["*-t1c", "*t1c*"])


def test_older_brats_names_are_known(tree):
    base = tree(*brats("BraTS2021_00002", "t1", "t1ce", "seg", joint="_"))
    (case,) = read_cohort(".", base=base)[0].cases
    assert files_of(case, base) == brats("BraTS2021_00002", "t1ce", "seg", joint="_")
    assert case.patient == "BraTS2021_00002"


def test_a_link_that_leads_to_itself_is_a_file_that_is_not_there(write, tree):
    base = tree("images/a.nii.gz", "labels/a.nii.gz", "labels/b.nii.gz")
    (base / "images/b.nii.gz").symlink_to("b.nii.gz")
    (base / "loop").symlink_to("loop")
    write("a.json", {"training": [*entries("ab"), {"image": "loop/c.nii.gz", "label": "labels/a.nii.gz"}]})
    cohort, problems = read_cohort("a.json", base=base)
    assert [(case.name, case.image.is_file()) for case in cohort.cases] == [("a", True), ("b", False), ("c", False)]
    assert problems == []


def test_folders_of_primaries_hold_cases(tree):
    base = tree(
        *("NSCLC_nii/p1/image.nii.gz", "NSCLC_nii/p1/label.nii.gz"),
        *("NSCLC_nii/p2/image.nii", "NSCLC_nii/p2/mask.nii", "NSCLC_nii/p2/.image.nii", "NSCLC_nii/p2/._image.nii.gz"),
        *("Breast_nii/p1/t1c.nii.gz", "Breast_nii/p1/seg.nii.gz", "notes.txt"),
    )
    cohort, problems = read_cohort(".", base=base)
    assert [(case.name, case.primary, case.patient) for case in cohort.cases] == [
        ("Breast_nii_p1", "Breast", "Breast_nii_p1"),
        ("NSCLC_nii_p1", "NSCLC", "NSCLC_nii_p1"),
        ("NSCLC_nii_p2", "NSCLC", "NSCLC_nii_p2"),
    ]
    assert files_of(cohort.cases[2], base) == ["NSCLC_nii/p2/image.nii", "NSCLC_nii/p2/mask.nii"]
    assert problems == []
    assert cohort.name == base.name


def test_a_folder_and_a_list_of_it_give_the_same_cohort(write, tree):
    places = ["lung_nii/p1", "lung_nii/p2", "breast_nii/p1"]
    base = tree(*[f"cohort/{place}/{name}.nii.gz" for place in places for name in ("image", "label")])
    training = [{"image": f"{place}/image.nii.gz", "label": f"{place}/label.nii.gz"} for place in sorted(places)]
    write("cohort/dataset.json", {"training": training})
    assert read_cohort("cohort", base=base) == read_cohort("cohort/dataset.json", base=base)


def test_file_names_can_be_told(tree):
    base = tree("p1/MR/p1_gado.nii", "p1/MR/p1_flair.nii", "p1/RT/p1_GTV.nii", "p1/RT/p1_brain.nii")
    cohort, problems = read_cohort(
        ".", base=base, image_files=["MR/*_gado.nii*", "MR/*_flair.nii*"], label_file="*/*_GTV.nii*"
    )
    (case,) = cohort.cases
    assert (case.name, case.primary) == ("p1", "unknown")
    assert files_of(case, base) == ["p1/MR/p1_gado.nii", "p1/MR/p1_flair.nii", "p1/RT/p1_GTV.nii"]
    assert problems == []


def test_capitals_in_names_of_files_make_no_difference(tree):
    base = tree(
        *("P14/IMAGE.NII.GZ", "P14/Label.nii.gz", "P15/image.nii.gz", "P15/MASK.nii.gz"),
        *("P16/P16_T1C.nii.gz", "P16/P16-SEG.Nii", "P17/MR/Gado.nii", "P17/gtv1.nii"),
        *("P18/image.nii.gz", "P18/MASK.nii.gz", "P18/mask.nii.gz", "P19/Image.nii", "P19/image.nii", "P19/seg.nii"),
    )
    cohort, problems = read_cohort(".", base=base, exclude=["P17"])
    assert [files_of(case, base) for case in cohort.all_cases] == [
        ["P14/IMAGE.NII.GZ", "P14/Label.nii.gz"],
        ["P15/image.nii.gz", "P15/MASK.nii.gz"],
        ["P16/P16_T1C.nii.gz", "P16/P16-SEG.Nii"],
    ]
    assert said(problems) == [
        ("error", "P18", "images image.nii.gz; mask MASK.nii.gz and mask.nii.gz; capitals make no difference"),
        ("error", "P19", "images Image.nii and image.nii; mask seg.nii; capitals make no difference"),
    ]
    others = ["P14", "P15", "P16", "P18", "P19"]
    given = {"image_files": ["mr/gad[m-o]"], "label_file": "GTV[!A-z].NII"}
    cohort, problems = read_cohort(".", base=base, exclude=others, **given)
    assert [files_of(case, base) for case in cohort.all_cases] == [["P17/MR/Gado.nii", "P17/gtv1.nii"]]
    assert problems == []


def test_capitals_make_no_difference_in_flat_folders_and_bids(tree):
    base = tree(
        *("flat/P1_t1km.nii.gz", "flat/P1_GTV.NII", "flat/p2_T1KM.nii", "flat/p2_gtv.nii"),
        *("bids/sub-1/anat/sub-1_ce-gad_T1W.NII.GZ", "bids/sub-1/anat/sub-1_T1w.nii.gz"),
        "bids/derivatives/manual/sub-1/anat/sub-1_label-lesion_MASK.NII.GZ",
    )
    given = {"image_files": ["{patient}_T1km"], "label_file": "{patient}_Gtv"}
    cohort, problems = read_cohort("flat", base=base, **given)
    assert [(case.name, *files_of(case, base / "flat")) for case in cohort.all_cases] == [
        ("P1", "P1_t1km.nii.gz", "P1_GTV.NII"),
        ("p2", "p2_T1KM.nii", "p2_gtv.nii"),
    ]
    assert problems == []
    for given in ({}, {"image_files": ["*_CE-gad_t1w"], "label_file": "*_Mask"}):
        cohort, problems = read_cohort("bids", base=base, **given)
        (case,) = cohort.cases
        assert [path.name for path in case.files] == ["sub-1_ce-gad_T1W.NII.GZ", "sub-1_label-lesion_MASK.NII.GZ"]
        assert problems == []
    tree("flat/P1_T1KM.nii.gz")
    given = {"image_files": ["{patient}_T1KM"], "label_file": "{patient}_GTV"}
    (problem,) = read_cohort("flat", base=base, **given)[1]
    assert "images P1_T1KM.nii.gz and P1_t1km.nii.gz; mask P1_GTV.NII; capitals" in problem.found


def test_a_wide_image_pattern_does_not_take_the_mask(tree):
    base = tree("p1/scan.nii.gz", "p1/outline.nii.gz")
    cohort, problems = read_cohort(".", base=base, image_files=["*.nii.gz"], label_file="outline.nii.gz")
    assert files_of(cohort.cases[0], base) == ["p1/scan.nii.gz", "p1/outline.nii.gz"]
    assert problems == []


def test_each_case_folder_that_is_not_right_is_named(tree):
    base = tree(
        *("good/image.nii.gz", "good/label.nii.gz"),
        "no_mask/image.nii.gz",
        "no_image/label.nii.gz",
        *("two_images/image.nii", "two_images/image.nii.gz", "two_images/label.nii"),
        *("two_masks/image.nii", "two_masks/label.nii", "two_masks/mask.nii"),
        "other/flair.nii.gz",
        "empty/readme.txt",
    )
    cohort, problems = read_cohort(".", base=base)
    assert [case.name for case in cohort.cases] == ["good"]
    assert [(case.name, case.label) for case in cohort.unlabelled] == [("no_mask", None)]
    assert said(problems) == [
        ("error", "empty", "no NIfTI file"),
        ("error", "no_image", "a mask without an image: label.nii.gz"),
        ("warning", "no_mask", "an image without a mask"),
        ("error", "other", "flair.nii.gz"),
        ("error", "two_images", "images image.nii and image.nii.gz; mask label.nii"),
        ("error", "two_masks", "images image.nii; mask label.nii and mask.nii"),
    ]
    wrong = ["empty", "no_image", "other", "two_images", "two_masks"]
    assert said(read_cohort(".", base=base, exclude=wrong)[1]) == [("warning", "no_mask", "an image without a mask")]


def test_a_bids_session_is_a_case_of_its_patient(write, tree):
    lesion = "derivatives/manual/sub-01/ses-2/anat/sub-01_ses-2_space-orig_label-lesion_mask.nii.gz"
    base = tree(
        *("sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz", "sub-01/ses-1/anat/sub-01_ses-1_dseg.nii.gz"),
        *("sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz", "sub-01/ses-2/anat/sub-01_ses-2_ce-gad_T1w.nii.gz", lesion),
        "derivatives/fmriprep/sub-01/ses-2/anat/sub-01_ses-2_desc-brain_mask.nii.gz",
        "derivatives/fmriprep/sub-01/ses-2/anat/sub-01_ses-2_dseg.nii.gz",
        *("sub-02/anat/sub-02_T1w.nii", "sub-02/anat/sub-02_mask.nii", "sub-02/func/sub-02_bold.nii"),
    )
    sidecar = {"Manufacturer": "Siemens", "ManufacturersModelName": "Skyra", "MagneticFieldStrength": 3}
    write("sub-01/ses-1/anat/sub-01_ses-1_T1w.json", sidecar | {"AcquisitionDateTime": "2021-03-04T10:11:12.5"})
    cohort, problems = read_cohort(".", base=base)
    assert [(case.name, case.patient, case.scanner, case.date) for case in cohort.cases] == [
        ("sub-01_ses-1", "sub-01", "Siemens Skyra 3 T", "2021-03-04"),
        ("sub-01_ses-2", "sub-01", "unknown", "unknown"),
        ("sub-02", "sub-02", "unknown", "unknown"),
    ]
    assert [case.site for case in cohort.cases] == ["Siemens 3 T", "unknown", "unknown"]
    assert files_of(cohort.cases[1], base) == ["sub-01/ses-2/anat/sub-01_ses-2_ce-gad_T1w.nii.gz", lesion]
    assert files_of(cohort.cases[2], base) == ["sub-02/anat/sub-02_T1w.nii", "sub-02/anat/sub-02_mask.nii"]
    assert {case.primary for case in cohort.cases} == {"unknown"}
    assert [(problem.case, problem.found) for problem in problems] == [("sub-01_ses-2", "no date that can be used")]


def test_bids_names_what_does_not_fit(write, tree):
    base = tree(
        *("sub-1/anat/sub-1_T1w.nii.gz", "sub-1/anat/sub-1_mask.nii.gz"),
        *("sub-2/anat/sub-2_T1w.nii.gz", "sub-2/anat/sub-2_FLAIR.nii.gz", "sub-2/anat/sub-2_mask.nii.gz"),
        "sub-3/anat/sub-3_T1w.nii.gz",
        "derivatives/hand/sub-4/anat/sub-4_label-lesion_mask.nii.gz",
        "derivatives/fmriprep/sub-5/anat/sub-5_desc-brain_mask.nii.gz",
        "sub-6/func/sub-6_bold.nii.gz",
    )
    write("sub-1/anat/sub-1_T1w.json", "[1, 2")
    cohort, problems = read_cohort(".", base=base)
    assert [case.name for case in cohort.cases] == ["sub-1"]
    assert [case.name for case in cohort.unlabelled] == ["sub-3"]
    assert [(problem.severity, problem.case) for problem in problems] == [
        ("warning", "sub-1"),
        ("error", "sub-2"),
        ("warning", "sub-3"),
        ("error", "sub-6"),
        ("error", "sub-4"),
    ]
    cohort, _ = read_cohort(".", base=base, image_files=["*_T1w"], label_file="*_mask")
    assert [case.name for case in cohort.cases] == ["sub-1", "sub-2"]


def test_a_folder_may_be_below_the_home_folder(tree, monkeypatch):
    monkeypatch.setenv("HOME", str(tree("cohort/p1/image.nii", "cohort/p1/label.nii")))
    assert [case.name for case in read_cohort("~/cohort", base=tree())[0].cases] == ["p1"]


def test_a_folder_of_no_known_layout_says_what_was_looked_for_and_found(tree):
    base = tree("images/a.nii.gz", "labels/a.nii.gz", "dataset.json")
    with pytest.raises(CohortError) as error:
        read_cohort(".", base=base)
    (problem,) = error.value.problems
    assert problem.found == "a folder with dataset.json, images/, labels/"
    assert all(word in problem.expected for word in ("imagesTr", "sub-*", "<primary>/<case>/", "t1c"))
    assert "datalist" in problem.fix


DICOM, STRUCTURES = bytes(128) + b"DICM", bytes(128) + b"DICM" + b"1.2.840.10008.5.1.4.1.1.481.3"


@pytest.mark.parametrize(
    ("name", "content", "kind", "way"),
    [
        ("IM0001", DICOM, "a DICOM file", "dcm2niix"),
        ("RS.dcm", STRUCTURES, "a DICOM structure set (RTSTRUCT)", "structures"),
        ("t1c.nrrd", b"NRRD0004\n", "an NRRD file", "SimpleITK"),
        ("t1c.mha", b"ObjectType = Image\nElementType = MET_SHORT\n", "a MetaImage file", "SimpleITK"),
        ("t1c.mgz", gzip.compress(b"\0\0\0\1\0\0" + bytes(600), mtime=0), "a gzip file", "convert what is in it"),
        ("list.json.gz", gzip.compress(b"{}", mtime=0), "a gzip file", "unpack it"),
    ],
)
def test_other_formats_are_named_with_the_way_to_nifti_wherever_they_are_given(tree, write, name, content, kind, way):
    """A folder of them, one of them as a list, and one of them as the patients table; no advice to list them."""
    base = tree(f"P1/series/{name}", "P1/notes.txt")
    (base / f"P1/series/{name}").write_bytes(content)
    for source in (".", "P1", f"P1/series/{name}"):
        with pytest.raises(CohortError) as error:
            read_cohort(source, base=base)
        (problem,) = error.value.problems
        assert kind in problem.found
        assert way in problem.fix
        assert "instead of the folder" not in problem.fix
    tree("P2/image.nii.gz", "P2/label.nii.gz", "P3/scan.txt")
    cohort, problems = read_cohort(".", base=base)
    assert [case.name for case in cohort.cases] == ["P2"]
    assert [(problem.case, kind in problem.found) for problem in problems] == [("P1_series", True), ("P3", False)]


@pytest.mark.parametrize("place", ["imagesTr/a_0000.nrrd", "sub-1/anat/sub-1_T1w.nrrd"])
def test_other_formats_in_a_known_layout_are_named_too(tree, place):
    base = tree(place)
    (base / place).write_bytes(b"NRRD0004\n")
    with pytest.raises(CohortError, match=r"found an NRRD file .*SimpleITK"):
        read_cohort(".", base=base)


def test_a_nifti_file_is_no_list(tree):
    base = tree("a.nii.gz")
    with pytest.raises(CohortError, match=r"found a NIfTI file; expected a datalist.* give a datalist of the"):
        read_cohort("a.nii.gz", base=base)


# The patients table


@pytest.fixture
def two_lists(write, tmp_path):
    """A list of two labelled cases and one without label."""
    write("a.json", {"training": [entry("a", primary="lung"), entry("b")], "testing": ["images/c.nii.gz"]})
    return tmp_path


def test_the_patients_table_overrides_what_the_list_says(write, two_lists):
    """As Excel saves it: semicolons, a byte-order mark, blanks; and leading zeros stay."""
    text = (
        "\ufeffCase;Patient; primary;scanner;date;Notes\na;007;skin;Skyra;2021-03-04;x\nb;007; ;;;\nc;8;lung;;;\n;;;\n"
    )
    write("p.csv", text)
    cohort, problems = read_cohort("a.json", base=two_lists, patients_table="p.csv")
    a, b = cohort.cases
    assert (a.patient, a.primary, a.scanner, a.date) == ("007", "skin", "Skyra", "2021-03-04")
    assert (b.patient, b.primary, b.scanner, b.date) == ("007", "unknown", "unknown", "unknown")
    assert [(case.patient, case.primary) for case in cohort.unlabelled] == [("8", "lung")]
    assert [(problem.case, problem.found) for problem in problems] == [("b", "no date that can be used")]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("first", "separator"),
    [
        ("", ";"),
        ("\ufeffsep=;", ";"),
        ("\ufeff\ufeffSEP=;;;;", ";"),
        ('"sep=,"', ","),
        ("sep=\t", "\t"),
        ("sep=|", "|"),
        ("\nsep= ;", ";"),
    ],
)
def test_a_table_is_read_as_excel_saves_it(two_lists, first, separator, end):
    """Its separator in the first line; names with other separators in quotes; columns of nothing; decimal commas."""
    rows = (
        ['"patient"', "case", "primary", "day", ""],
        ['"8;, 9"', "a", "skin", '"0,0"', ""],
        ['"8;, 9"', "b", "", "12", ""],
    )
    lines = [*filter(None, [first]), *map(separator.join, rows)]
    (two_lists / "p.csv").write_bytes((end.join(lines) + end).encode())
    cohort, problems = read_cohort("a.json", base=two_lists, patients_table="p.csv")
    assert [(case.patient, case.primary, case.day) for case in cohort.cases] == [
        ("8;, 9", "skin", 0),
        ("8;, 9", "unknown", 12),
    ]
    assert said(problems) == [("warning", "c", "no row for c")]


@pytest.mark.parametrize(
    "patient", ["#NV", "#WERT!", "#N/D!", "#¡DIV/0!", "1.23457E+10", "1.2346E+10", "1,23E+20", "2E+12"]
)
def test_what_a_spreadsheet_made_of_an_id_is_no_id(write, two_lists, patient):
    """An error in the language of the program; or a number of which six digits are left, so that two ids become one."""
    write("p.csv", f"case;patient\na;{patient}\nb;{patient}\nc;1\n")
    cohort, problems = read_cohort("a.json", base=two_lists, patients_table="p.csv")
    assert [found for found in said(problems) if found[0] == "error"] == [
        ("error", f"line {line}", f"patient '{patient}'") for line in (2, 3)
    ]
    assert [case.patient for case in cohort.cases] == ["a", "b"]


def test_ids_that_a_spreadsheet_keeps_as_text_are_read_without_its_marks(write, two_lists):
    write("p.csv", 'case;patient\na;\'007\nb;"=""007"""\nc;O\'Neil\n')
    cohort, problems = read_cohort("a.json", base=two_lists, patients_table="p.csv")
    assert [case.patient for case in cohort.all_cases] == ["007", "007", "O'Neil"]
    assert [found for found in said(problems) if found[0] != "warning"] == []


def test_a_row_without_a_patient_is_a_doubt_where_the_table_names_patients(write, two_lists):
    write("p.csv", "case,patient,primary\na,P1,\nb,,lung\nc,,\n")
    _, problems = read_cohort("a.json", base=two_lists, patients_table="p.csv")
    assert said(problems) == [("doubt", "b", "a row without a patient")]


@pytest.mark.parametrize(("day", "read"), [("12.0", 12), ("12,00", 12), ("1.000", None), ("2,000", None)])
def test_a_day_with_three_zeros_may_be_a_thousand(write, two_lists, day, read):
    write("p.csv", f"case;patient;day\na;P1;0\nb;P1;{day}\nc;P2;\n")
    cohort, problems = read_cohort("a.json", base=two_lists, patients_table="p.csv")
    assert [case.day for case in cohort.cases if case.name == "b"] == [read]
    assert any(problem.severity == "error" for problem in problems) is (read is None)


def test_columns_of_one_name_that_nobody_reads_are_left_alone(write, two_lists, recwarn):
    write("p.csv", "case,patient,note,note\na,P1,x,y\nb,P2,x,y\nc,P3,x,y\n")
    _, problems = read_cohort("a.json", base=two_lists, patients_table="p.csv")
    assert (problems, [str(one.message) for one in recwarn]) == ([], [])


def test_a_row_below_excels_first_line_is_named_by_its_line(write, two_lists):
    write("p.csv", "sep=;\ncase;patient;day\na;P1;0\nb;P1;12,5\nc;P1;7;x\n")
    _, problems = read_cohort("a.json", base=two_lists, patients_table="p.csv")
    assert said(problems)[:2] == [("error", "line 5", "4 cells: c, P1, 7, x"), ("error", "line 4", "day '12,5'")]


def test_a_table_of_patients_counts_for_all_of_their_cases(write, tmp_path):
    write("a.json", {"training": [entry("a", patient=1), entry("b", patient=1), entry("c", patient=2)]})
    write("p.csv", "patient,primary\n1,lung\n2,skin\n")
    cohort, problems = read_cohort("a.json", base=tmp_path, patients_table="p.csv")
    assert [case.primary for case in cohort.cases] == ["lung", "lung", "skin"]
    assert problems == []


def test_rows_and_cases_that_do_not_match_are_named(write, two_lists):
    write("p.csv", "case,patient,primary\na,P1,lung\na,P2,lung\nbb,P3,skin\nc,P4,lung\nc,P4,lung\nc,,\n")
    cohort, problems = read_cohort("a.json", base=two_lists, patients_table="p.csv")
    assert said(problems) == [
        ("error", "a", "patient P1 and P2"),
        ("warning", "bb", "a row that matches no case"),
        ("doubt", "b", "no row for b"),
    ]
    assert "write b, if that is meant" in problems[1].fix
    assert [(case.patient, case.primary) for case in cohort.cases] == [("a", "lung"), ("b", "unknown")]
    assert cohort.unlabelled[0].patient == "P4"


def test_a_table_without_patients_may_leave_cases_out(write, two_lists):
    """Where it says who is which patient, a case without a row may be of another's patient: then it is a doubt."""
    write("p.csv", "case,primary\na,lung\n")
    _, problems = read_cohort("a.json", base=two_lists, patients_table="p.csv")
    assert said(problems) == [("warning", "b", "no row for b"), ("warning", "c", "no row for c")]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("name,primary\na,lung\n", "columns name, primary"),
        ("case,cancer\na,lung\n", "columns case, cancer"),
        ("patient,age\na,50\n", "columns patient, age"),
        ("case,Case,primary\na,a,lung\n", "columns case, case, primary"),
        ("", "an empty table"),
        ("case,PatientID,primary\na,P1,lung\n", "the column patientid, which is not read"),
        ('case,primary\na,"lung\n', "a damaged table (line 2: unexpected end of data)"),
        (None, "no such file"),
    ],
    ids=["no key", "no fact", "patient alone", "twice", "empty", "misspelt", "an open quote", "missing"],
)
def test_a_table_that_cannot_be_used_is_an_error_beside_the_cohort(write, two_lists, text, found):
    if text is not None:
        write("p.csv", text)
    cohort, problems = read_cohort("a.json", base=two_lists, patients_table="p.csv")
    assert said(problems) == [("error", "-", found)]
    assert cohort == read_cohort("a.json", base=two_lists)[0]


def test_rows_that_do_not_fit_the_header_are_problems_with_their_lines(write, two_lists):
    """A comma in a name moved the values of a row into other columns; a row without case said nothing of anybody."""
    write(
        "p.csv", 'case,patient,primary,date\na,Mueller, Hans,lung,2021\n\nb,"Huber, ""Eva""",skin,\nc,P3\n,P4,lung,\n'
    )
    cohort, problems = read_cohort("a.json", base=two_lists, patients_table="p.csv")
    assert said(problems) == [
        ("error", "line 2", "5 cells: a, Mueller, Hans, lung, 2021"),
        ("error", "line 5", "2 cells: c, P3"),
        ("error", "line 6", "no case, but P4, lung"),
        ("doubt", "a", "no row for a"),
        ("warning", "c", "no row for c"),
    ]
    assert [(case.patient, case.primary) for case in cohort.cases] == [("a", "lung"), ('Huber, "Eva"', "skin")]


def test_ids_stay_text_and_words_for_unknown_are_no_ids(write, two_lists):
    write("p.csv", "case\tpatient\tprimary\na\t1e3\tNA\nb\tNA\tlung\nc\t007\tnan\n")
    cohort, problems = read_cohort("a.json", base=two_lists, patients_table="p.csv")
    assert said(problems) == [("error", "line 3", "patient 'NA'"), ("doubt", "b", "no row for b")]
    assert [(case.patient, case.primary) for case in cohort.cases] == [("1e3", "lung"), ("b", "unknown")]
    assert [case.patient for case in cohort.unlabelled] == ["007"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("case,primary\na,Schädel\n".encode("cp1252"), "not UTF-8 but another encoding, perhaps Windows-1252 (line 2"),
        ("case,primary\na,lung\n".encode("utf-16"), "not UTF-8 but UTF-16"),
        ("case,primary\na,lung\n".encode("utf-16-le"), "not UTF-8 but UTF-16, perhaps (line 1"),
        (b"PK\x03\x04\x14\x00\x06\x00\x08\x00\x00\x00!\x00\xdf", "not UTF-8 but an Excel workbook"),
        (b"PK\x03\x04\x14\x00\x06\x00\x08\x00\x00", "not UTF-8 but an Excel workbook"),
        (bytes.fromhex("d0cf11e0a1b11ae1") + bytes(20), "not UTF-8 but an Excel workbook"),
    ],
    ids=["Windows", "UTF-16", "UTF-16 without its mark", "Excel", "Excel, only ASCII", "old Excel"],
)
def test_files_in_another_encoding_say_which(two_lists, content, found):
    (two_lists / "p.csv").write_bytes(content)
    _, (problem,) = read_cohort("a.json", base=two_lists, patients_table="p.csv")
    assert problem.found.startswith(found)
    assert ("CSV" in problem.fix) == ("Excel" in found)
    with pytest.raises(CohortError, match=r"not UTF-8|an archive"):
        read_cohort("p.csv", base=two_lists)


# What is left out, and what leaves nothing


def test_excluded_cases_and_their_problems_are_left_out(write, two_lists):
    write("p.csv", "case,primary\na,lung\n")
    cohort, problems = read_cohort("a.json", base=two_lists, patients_table="p.csv", exclude=["b", "c"])
    assert [case.name for case in cohort.cases] == ["a"]
    assert cohort.unlabelled == []
    assert problems == []


def test_an_unknown_excluded_name_is_an_error_with_a_near_one(write, tmp_path):
    write("a.json", {"training": entries(["case_001", "case_002"])})
    write("p.csv", "case,primary\ncase_001,lung\ncase_002,lung\ncase_02,lung\n")
    cohort, problems = read_cohort("a.json", base=tmp_path, exclude=["case_02"], patients_table="p.csv")
    assert len(cohort.cases) == 2
    assert [(problem.severity, problem.fix) for problem in problems] == [("error", "write case_002, if that is meant")]


def test_a_confirmed_name_that_no_case_has_is_an_error(write, two_lists):
    _, problems = read_cohort("a.json", base=two_lists, confirmed=["a ", "aa"])
    assert said(problems) == [("error", "aa", "no such case")]
    assert (problems[0].file, problems[0].fix) == ("confirmed", "write a, if that is meant")


@pytest.mark.parametrize("options", [{"exclude": ["a", "b"]}, {}], ids=["all excluded", "none labelled"])
def test_no_labelled_case_at_all_is_raised(write, two_lists, options):
    write("b.json", {"testing": ["images/c.nii.gz"]})
    with pytest.raises(CohortError, match="no labelled cases"):
        read_cohort("a.json" if options else "b.json", base=two_lists, **options)


def test_an_error_that_leaves_no_cohort_comes_with_all_others(write, tmp_path):
    write("a.json", {"training": [{"image": "images/a.nii.gz"}, {"label": "labels/b.nii.gz"}]})
    with pytest.raises(CohortError) as error:
        read_cohort("a.json", base=tmp_path, patients_table="p.csv")
    assert [problem.case for problem in error.value.problems] == ["training[1]", "a", "-"]


@pytest.mark.parametrize("source", ["nowhere", "no/split_*.json", "a.json, nowhere.json", " "])
def test_a_source_that_is_not_there_is_raised(write, two_lists, source):
    with pytest.raises(CohortError, match=r"no such file or folder|found nothing"):
        read_cohort(source, base=two_lists)


@pytest.mark.parametrize("path", ["x" * 5000, "x" * 300, "a\0b"])
@pytest.mark.parametrize("option", ["source", "image_root", "patients_table"])
def test_paths_that_no_file_system_takes_are_an_error(two_lists, path, option):
    with pytest.raises(CohortError, match=r"no access|without control characters"):
        read_cohort(**{"source": "a.json", "base": two_lists} | {option: path})


def test_what_is_wrong_with_the_cohort_cannot_be_excluded(write, tmp_path):
    write("a.json", {"training": entries(["P1_pre", "P1_post", "P2_pre"])})
    _, problems = read_cohort("a.json", base=tmp_path, exclude=["-"])
    assert [(problem.case, problem.file) for problem in problems] == [("-", "a.json"), ("-", "exclude")]


def test_the_lists_that_a_source_means_come_in_the_order_of_their_numbers(write, tree):
    base = tree("cohort/p1/image.nii")
    lists = [write(f"split_{k}.json", {"validation": entries("a")}) for k in (0, 2, 10)]
    assert lists_of("split_*.json", base) == lists
    assert lists_of("split_2.json", base) == lists[1:2]
    assert lists_of("split_2.json, split_*.json", base) == [lists[1], lists[0], lists[2]]
    assert lists_of("cohort", base) == []


def test_options_that_mean_nothing_for_a_source_are_errors(write, tree):
    base = tree("cohort/p1/image.nii", "cohort/p1/label.nii")
    write("a.json", {"training": entries("a")})
    _, problems = read_cohort("a.json", base=base, image_files=["*_t1c"], label_file="*_seg")
    assert [problem.found for problem in problems] == ["`image_files` set to ['*_t1c']", "`label_file` set to '*_seg'"]
    _, problems = read_cohort("cohort", base=base, image_root="cohort")
    assert said(problems) == [("error", "-", "`image_root` set to 'cohort'")]


FLAT = {"image_files": ["{patient}_T1KM"], "label_file": "{patient}_GTV"}


def test_a_flat_folder_is_read_by_patterns_with_the_patient(tree):
    base = tree(*[f"{p}_{kind}.nii.gz" for p in ("Meier", "Huber") for kind in ("T1KM", "GTV", "T2")], "Koch_T1KM.nii")
    cohort, problems = read_cohort(".", base=base, **FLAT)
    assert [(case.name, case.patient, case.primary) for case in cohort.cases] == [
        ("Huber", "Huber", "unknown"),
        ("Meier", "Meier", "unknown"),
    ]
    assert files_of(cohort.cases[0], base) == ["Huber_T1KM.nii.gz", "Huber_GTV.nii.gz"]
    assert [case.name for case in cohort.unlabelled] == ["Koch"]
    assert said(problems) == [
        ("warning", "-", "2 files that no pattern matches: Huber_T2.nii.gz, Meier_T2.nii.gz"),
        ("warning", "Koch", "an image without a mask"),
    ]
    several = {"image_files": ["{patient}_T1KM", "{patient}_T2"], "label_file": FLAT["label_file"]}
    cohort, _ = read_cohort(".", base=base, **several)
    assert files_of(cohort.cases[1], base) == ["Meier_T1KM.nii.gz", "Meier_T2.nii.gz", "Meier_GTV.nii.gz"]


def test_patterns_with_the_patient_read_two_flat_folders_and_time_points_are_still_asked(tree):
    """A wide image pattern does not take the masks; a name for the patient twice in a pattern is one name."""
    base = tree(*[f"{kind}/{p}/{p}{end}.nii" for p in ("P1_pre", "P1_post", "P2_pre") for kind, end in (("t1", ""),)])
    tree(*[f"t1/{p}/{p}_GTV.nii" for p in ("P1_pre", "P1_post", "P2_pre")], "t1/a/b.nii")
    patterns = {"image_files": ["t1/{patient}/{patient}.nii"], "label_file": "t1/{patient}/*_GTV.nii"}
    cohort, problems = read_cohort(".", base=base, **patterns)
    assert [case.name for case in cohort.cases] == ["P1_post", "P1_pre", "P2_pre"]
    assert "names that look like time points of 1 patient: P1_post, P1_pre" in problems[0].found
    wide, _ = read_cohort("t1/P2_pre", base=base, image_files=["{patient}.nii"], label_file="{patient}_GTV.nii")
    assert files_of(wide.cases[0], base) == ["t1/P2_pre/P2_pre.nii", "t1/P2_pre/P2_pre_GTV.nii"]


def test_the_advice_for_a_flat_folder_is_patterns_with_the_patient(tree):
    with pytest.raises(
        CohortError, match=r"set `image_files` and `label_file` to the file names .* write \{patient\} in each"
    ):
        read_cohort(".", base=tree("P1_T1KM.nii.gz", "P1_GTV.nii.gz"))


@pytest.mark.parametrize(
    ("files", "given", "pattern"),
    [
        (["P1_T1KM.nii.gz", "P1_GTV.nii.gz"], FLAT | {"image_files": ["{patient}_T1"]}, "{patient}_T1"),
        (["P1/T1KM.nii.gz", "P1/GTV.nii.gz"], {"image_files": ["*_T1"], "label_file": "GTV"}, "*_T1"),
    ],
)
def test_patterns_that_no_file_matches_are_corrected_and_not_set_again(tree, files, given, pattern):
    with pytest.raises(CohortError) as error:
        read_cohort(".", base=tree(*files), **given)
    (problem,) = error.value.problems
    assert problem.found == f"only {', '.join(sorted(files))}"
    assert problem.expected == f"a file that matches {pattern}, which `image_files` says"
    assert problem.fix.startswith("correct the pattern")


@pytest.mark.parametrize("given", [{"image_files": ["{patient}_T1"]}, FLAT | {"label_file": "*_GTV"}])
def test_the_patient_stands_in_each_pattern_or_in_none(tree, given):
    with pytest.raises(CohortError, match=r"all with \{patient\}"):
        read_cohort(".", base=tree("P1_T1.nii.gz", "P1_GTV.nii.gz"), **given)


def test_masks_of_brains_are_found_in_folders_and_lists(tree, write):
    names = ("P1", "P2")
    flat = tree(*[f"flat/{p}_{kind}.nii" for p in names for kind in ("T1KM", "GTV", "brain")]) / "flat"
    cohort, problems = read_cohort(".", base=flat, brain_file="{patient}_brain", **FLAT)
    assert [case.brain.name for case in cohort.cases] == ["P1_brain.nii", "P2_brain.nii"]
    assert problems == []
    nested = tree(*[f"own/{p}/{kind}.nii" for p in names for kind in ("image", "label")], "own/P1/bet.nii") / "own"
    cohort, problems = read_cohort(".", base=nested, brain_file="bet")
    assert [case.brain and case.brain.name for case in cohort.cases] == ["bet.nii", None]
    assert said(problems) == [("warning", "P2", "an image without a mask of its brain")]
    tree("own/P1/bet.nii.gz")
    with pytest.raises(CohortError, match=r"mask of the brain bet\.nii and bet\.nii\.gz"):
        read_cohort(".", base=nested, brain_file="bet", exclude=["P2"])
    write("a.json", {"training": [entry("a", brain="masks/a.nii.gz"), entry("b")]})
    cohort, problems = read_cohort("a.json", base=flat.parent)
    assert [case.brain and str(case.brain.relative_to(flat.parent)) for case in cohort.cases] == [
        "masks/a.nii.gz",
        None,
    ]
    write_datalist(flat / "again.json", cohort)
    assert [case.brain for case in read_datalist(flat / "again.json").cases] == [case.brain for case in cohort.cases]


def test_a_list_written_on_windows_finds_its_files(write, tree):
    base = tree("moved/images/a.nii.gz", "moved/labels/a.nii.gz")
    drive = {key: f"D:\\cohort\\{value}".replace("/", "\\") for key, value in entry("a").items()}
    write("a.json", {"training": [drive]})
    cohort, problems = read_cohort("a.json", base=base, image_root="moved")
    assert files_of(cohort.cases[0], base) == ["moved/images/a.nii.gz", "moved/labels/a.nii.gz"]
    assert problems == []


@pytest.mark.parametrize("pattern", ["", "/data/image.nii.gz", "**x", "a\0b"])
def test_a_pattern_that_is_none_is_refused(tree, pattern):
    base = tree("p1/image.nii", "p1/label.nii")
    with pytest.raises(CohortError, match="file patterns in a case's folder"):
        read_cohort(".", base=base, image_files=[pattern])
