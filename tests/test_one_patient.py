"""Who is one patient: named, read from names, or asked; and what a case may be called."""

import json
import random
import unicodedata

import pytest

from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.pseudonyms import case_codes, decoded, with_codes
from metaseg_nb.cohort.sources import read_cohort
from metaseg_nb.cohort.sources.naming import is_enhanced_t1
from metaseg_nb.cohort.sources.one_patient import time_points

EACH = "(?P<patient>.+)"


@pytest.fixture
def listed(tmp_path):
    """Write a list of images; keywords go into each entry. Returns the folder and reads the list."""

    def read(names, patients=(), **options):
        patients = patients or [None] * len(names)
        training = [
            {"image": f"images/{name}.nii.gz", "label": f"labels/{name}.nii.gz", "patient": patient}
            for name, patient in zip(names, patients, strict=True)
        ]
        (tmp_path / "a.json").write_text(json.dumps({"training": training}))
        return read_cohort("a.json", base=tmp_path, **options)

    return read


def product(patients, times, joint="_"):
    return [f"{patient}{joint}{time}" for patient in patients for time in times]


IDS = [f"P{i:02d}" for i in range(6)]
OF_ONE_PATIENT = {
    "words": product(IDS, ["baseline", "fu1"]),
    "letters": product([f"1001{i:02d}" for i in range(6)], "AB", ""),
    "last digits": product([f"genius_{i:02d}" for i in range(6)], ["00", "01"], ""),
    "one last digit": product([f"mr{i:03d}" for i in range(1, 6)], "12", ""),
    "numbers": product(IDS, "12"),
    "numbers with zeros": product(["pat-001", "pat-002", "pat-003"], ["000", "001"], "-"),
    "before and after": product(IDS, ["pre", "post"], ""),
    "dates": ["P1_20210304", "P1_20220101", "P2_20210505"],
    "dates with hyphens": ["Mueller_2021-03-04", "Mueller_2022-01-01", "Huber_2021-05-05"],
    "sessions": product(IDS, ["ses1", "ses2"], "-"),
    "months": product(IDS, ["0months", "6months"]),
    "t0, t1": product(["case_001", "case_002"], ["t0", "t1", "t2"]),
    "fractions": product(IDS, [f"fx{i}" for i in range(30)]),
    "a common ending": product(IDS, ["baseline_t1c", "fu1_t1c"]),
    "years": ["P00_2019", "P00_2020", "P01_2021", "P01_2022"],
    "accession numbers": ["P00_ACC17", "P00_ACC23", "P01_ACC31", "P01_ACC99", "P02_ACC5"],
    "time first": product(["baseline", "fu1"], IDS),
    "names": product(["Alpha", "Beta", "Gamma"], ["scan a", "scan b"]),
    "below a primary": product(["lung_P00", "lung_P01"], ["baseline", "fu"]),
    "one of many": ["Alpha_baseline", "Alpha_fu1", "Beta", "Gamma"],
    "a letter more": ["100101", "100101B", "100102"],
    "dates with a time": product(IDS[:2], ["20190101_120000", "20190601_130000"]),
    "dates of two-digit years": product(IDS, ["18-01-12", "18-02-12"]),
    "months by name": product(IDS, ["Jan 2019", "Mar 2019"]),
    "German words": product(["Müller", "Jäger"], ["vor", "nach"]),
    "planning": product(IDS, ["planning", "FU_3"]),
    "BIDS with a date": ["sub-007x20190101", "sub-007x20190601", "sub-008x20190101"],
    "numbers after names": ["Huber_1", "Huber_2", "Huber_3", "Meier_1", "Meier_2", "Koch_1", "Weber_1"],
    "numbers of patients": product(["001", "002", "003"], "12"),
    "numbers of one width": product(["01", "02", "03"], ["01", "02"]),
    "words after a site and number": product(["01-001", "01-002", "02-001"], ["baseline", "fu1"]),
    "UPENN": ["UPENN-GBM-00012_11", "UPENN-GBM-00012_21", "UPENN-GBM-00013_11"],
}
OF_MANY = {
    "running numbers": [f"case_{i:03d}" for i in range(1, 274)],
    "with gaps": [f"case_{i:03d}" for i in random.Random(1).sample(range(274), 120)],
    "with large gaps": [f"case_{i:04d}" for i in random.Random(2).sample(range(1000), 12)],
    "nnU-Net": [f"BRATS_{i:03d}" for i in range(1, 485)],
    "without zeros": [f"x{i}" for i in range(1, 300)],
    "numbers alone": [str(i) for i in range(1, 400)],
    "few": [f"case_{i:03d}" for i in range(1, 13)],
    "primaries": product(["Melanoma_nii", "NSCLC_nii", "Breast_nii"], [f"case_{i:03d}" for i in range(77)]),
    "few of each primary": product(["Melanoma_nii", "NSCLC_nii"], ["case_000", "case_001", "case_002"]),
    "numbered scans of primaries": product(["lung", "breast"], [f"scan_{i:03d}" for i in range(40)]),
    "sites": product(["site1", "site2"], [f"{i:03d}" for i in range(10)]),
    "years": product(["2020", "2021"], [f"{i:03d}" for i in range(40)]),
    "site and number": product(["01", "02", "03"], [f"{i:03d}" for i in range(1, 6)], "-"),
    "longer number of a site": product(["101", "102", "103"], [f"{i:03d}" for i in range(1, 4)], "-"),
    "field strength": product(["3T", "1.5T"], [f"{i:02d}" for i in range(1, 6)]),
    "sites below primaries": [f"lung_01-00{i}" for i in range(1, 5)]
    + ["lung_02-001", "breast_02-001", "breast_02-002"],
    "BraTS 2021": [f"BraTS2021_{i:05d}" for i in range(2, 40)],
    "UCSF-PDGM": [f"UCSF-PDGM-{i:04d}" for i in range(4, 200)],
    "TCGA": ["TCGA-FG-6692", "TCGA-FG-6691", "TCGA-DU-7010", "TCGA-CS-4938"],
    "one time each": product(IDS, ["baseline"]),
    "codes": [f"{random.Random(i).getrandbits(32):08x}" for i in range(300)],
    "surnames": ["Mueller_Hans", "Mueller_Anna", "Huber_Karl"],
    "one": ["x"],
    "none": [],
}


@pytest.mark.parametrize("names", OF_ONE_PATIENT.values(), ids=OF_ONE_PATIENT)
def test_names_that_may_be_time_points_are_found_and_the_pattern_reads_them_so(names, listed):
    cohort, problems = listed(names)
    assert "Not certain, please confirm" in cohort.patients_from
    (problem,) = [problem for problem in problems if problem.case == "-"]
    assert (problem.severity, "case names that look like time points of" in problem.found) == ("error", True)
    found = time_points(names, names)
    assert f"set patient_pattern: '{found.pattern}' in the study file" in problem.fix
    cohort, problems = listed(names, patient_pattern=found.pattern)
    assert problems == []
    patients = {case.name: case.patient for case in cohort.cases}
    groups = [sorted(name for name, of in patients.items() if of == patient) for patient in set(patients.values())]
    assert sorted(group for group in groups if len(group) > 1) == sorted(found.groups)
    cohort, problems = listed(names, patient_pattern=EACH)
    assert [case.patient for case in cohort.cases] == names
    assert [problem for problem in problems if problem.severity == "error"] == []


@pytest.mark.parametrize(("names", "patient"), [(OF_ONE_PATIENT[k], n) for k, n in (("words", 3), ("letters", 6))])
def test_the_patients_of_a_pattern_are_those_of_the_names(names, patient, listed):
    cohort, _ = listed(names, patient_pattern=time_points(names, names).pattern)
    assert {case.name: case.patient for case in cohort.cases} == {name: name[:patient] for name in names}


@pytest.mark.parametrize("names", OF_MANY.values(), ids=OF_MANY)
def test_running_numbers_and_primaries_are_no_time_points(names):
    assert time_points(names, names, {"lung", "breast"}) is None


def test_folders_of_patients_are_no_primaries(tmp_path):
    for patient in IDS:
        for time in ("baseline", "fu1"):
            for name in ("t1c", "seg"):
                path = tmp_path / "cohort" / patient / time / f"{name}.nii.gz"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    cohort, problems = read_cohort("cohort", base=tmp_path)
    assert [problem.found for problem in problems] == [
        "case names that look like time points of 6 patients: P00_baseline, P00_fu1; P01_baseline, P01_fu1; "
        "P02_baseline, P02_fu1; P03_baseline, P03_fu1; P04_baseline, P04_fu1; and 1 more"
    ]
    cohort, problems = read_cohort("cohort", base=tmp_path, patient_pattern="^(?P<patient>P..)_(?P<time>.+)$")
    assert [(case.patient, case.primary) for case in cohort.cases] == [(p, "unknown") for p in IDS for _ in "ab"]
    assert problems == []
    assert cohort.patients_from == "Patients are read from the names with `patient_pattern`."


def test_a_folder_that_turns_out_to_be_a_patient_is_no_primary(tmp_path):
    for place in ("Alpha/s1", "Alpha/s2", "Beta/s1"):
        for name in ("t1c", "seg"):
            (tmp_path / place).mkdir(parents=True, exist_ok=True)
            (tmp_path / place / f"{name}.nii.gz").touch()
    cohort, _ = read_cohort(".", base=tmp_path, patient_pattern="^(?P<patient>[^_]+)_")
    assert {(case.patient, case.primary) for case in cohort.cases} == {("Alpha", "unknown"), ("Beta", "unknown")}


@pytest.fixture
def folders(tmp_path):
    """Make a folder for each case, with an image and a mask; reads the cohort."""

    def read(places, **options):
        for place in places:
            (tmp_path / "cohort" / place).mkdir(parents=True, exist_ok=True)
            for name in ("image", "mask"):
                (tmp_path / "cohort" / place / f"{name}.nii.gz").touch()
        return read_cohort("cohort", base=tmp_path, **options)

    return read


@pytest.mark.parametrize(
    "places",
    [
        ["lung/Meier_pre", "lung/Meier_post", "breast/Koch_pre", "breast/Weber"],
        ["melanoma/Meier_baseline", "melanoma/Meier_fu1", "melanoma/Huber"],
        ["lung/Meier_MRI1", "lung/Meier_MRI2", "lung/Huber_MRI1"],
        ["lung/Meier_2019-01-01", "lung/Meier_2019-06-01", "lung/Huber_2018-02-02"],
        ["Lung/Müller_vor", "Lung/Müller_nach", "Lung/Huber_vor"],
    ],
)
def test_time_points_are_found_below_a_primary(places, folders):
    _, (problem,) = folders(places)
    one, other = sorted(place.replace("/", "_") for place in places[:2])
    assert (problem.severity, problem.case) == ("error", "-")
    assert problem.found == f"case names that look like time points of 1 patient: {one}, {other}"


@pytest.mark.parametrize(
    "cases",
    [
        product(["site1", "site2", "site3"], [f"{i:03d}" for i in range(8)]),
        [f"case_{i:03d}" for i in range(3)],
        [f"{i:03d}" for i in range(3)],
        ["T1c_1", "T1c_2", "T1c_3"],
        ["P1", "P2", "P3"],
    ],
)
def test_numbers_below_primaries_are_no_time_points(cases, folders):
    _, problems = folders([f"{primary}/{case}" for primary in ("lung", "breast_nii") for case in cases])
    assert problems == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("test/P007", "train/P007"),
        ("2018/P007", "2019/P007"),
        ("batch1/P007", "batch2/p-007"),
        ("test/patient_007", "train/patient_007"),
        ("breast/Meier", "lung/Meier"),
        ("breast/P007", "lung/P007"),
        ("Aera/Meier", "Skyra/Meier"),
    ],
)
def test_a_patients_folder_in_two_folders_is_a_doubt(one, other, folders):
    _, (problem,) = folders([one, other, "lung/Huber", "breast/Koch"])
    name = other.replace("/", "_")
    assert (problem.severity, problem.case) == ("doubt", name)
    assert problem.found == f"{other.partition('/')[2]} in two folders, as {one.replace('/', '_')} and {name}"
    assert folders([], patient_pattern=EACH)[1] == []


def test_numbers_that_start_anew_in_one_primary_only_are_a_doubt(folders):
    _, (problem,) = folders([*(f"lung/P00{i}" for i in range(1, 9)), "breast/P007"])
    assert (problem.severity, problem.found) == ("doubt", "P007 in two folders, as breast_P007 and lung_P007")


@pytest.mark.parametrize("case", ["007", "case_007", "scan7"])
def test_numbers_may_start_anew_in_each_folder(case, folders):
    assert folders([f"{part}/{case}" for part in ("train", "test", "lung")])[1] == []


def test_primaries_that_differ_in_spelling_are_one(folders):
    cohort, _ = folders(["LUNG/001", "Lung/002", "lung/003", "breast/004"])
    assert [case.primary for case in cohort.cases] == ["LUNG", "LUNG", "breast", "LUNG"]


@pytest.mark.parametrize("word", ["unknown", "-", "?", "n.a.", "TBD", "#REF!", ".", "Unbekannt", "--"])
def test_words_for_unknown_are_no_patient(word, listed, tmp_path):
    with pytest.raises(CohortError) as error:
        listed(["a", "b"], patients=[word, word])
    assert [problem.case for problem in error.value.problems][:2] == ["training[0]", "training[1]"]
    (tmp_path / "p.csv").write_text(f"case,patient,primary\na,{word},lung\nb,P2,{word}\n")
    cohort, problems = listed(["a", "b"], patients_table="p.csv")
    assert [problem.case for problem in problems if problem.severity == "error"] == ["line 2"]
    assert [case.primary for case in cohort.cases] == ["unknown", "unknown"]


@pytest.mark.parametrize(("one", "other"), [("7", "7.0"), ("100000", "1E+05"), ("1234000", "1,234E+06")])
def test_ids_that_a_spreadsheet_may_have_changed_are_a_doubt(one, other, listed):
    _, (problem,) = listed(["a", "b", "c"], patients=[one, other, "8"])
    assert (problem.severity, problem.case) == ("doubt", "b")
    assert problem.found == f"patients {one} and {other}"
    assert "a spreadsheet may have changed the id" in problem.fix


def test_what_a_list_or_table_says_is_no_guess(listed, tmp_path):
    names = ["P1_baseline", "P1_fu1", "P2_baseline"]
    cohort, problems = listed(names, patients=["P1", "P1", "P2"])
    assert (problems, cohort.patients_from) == ([], "Patients are named by the list or the patients table.")
    cohort, problems = listed(names, patients=["P1", None, "P2"])
    assert [problem.case for problem in problems] == ["-"]  # nobody says whose P1_fu1 is
    (tmp_path / "p.csv").write_text("case,patient\nP1_baseline,P1\nP1_fu1,P1\nP2_baseline,P2\n")
    cohort, problems = listed(names, patients_table="p.csv")
    assert ([case.patient for case in cohort.cases], problems) == (["P1", "P1", "P2"], [])
    _, problems = listed(names, patients=["P1", "P1", "P2"], patient_pattern=EACH)
    assert [problem.expected for problem in problems] == ["no pattern where a list or table names every patient"]


def test_conventions_are_no_guess_and_the_basis_is_always_said(listed):
    cohort, problems = listed(["BraTS-MET-00110-000-t1c", "BraTS-MET-00110-001-t1c", "sub-7_ses-1_T1w", "x"])
    assert ([case.patient for case in cohort.cases], problems) == (["00110", "00110", "sub-7", "x"], [])
    assert cohort.patients_from == (
        "Patients of 3 cases are read from names in the form of BraTS or BIDS. Patients of 1 cases are not named: each "
        "case counts as a patient of its own."
    )
    cohort, problems = listed(["a", "b"])
    assert cohort.patients_from == "Patients are not named: each case counts as a patient of its own."


def test_a_table_by_patient_finds_patients_that_a_pattern_reads(listed, tmp_path):
    (tmp_path / "p.csv").write_text("patient,primary\nP1,lung\nP2,skin\n")
    pattern = "^(?P<patient>P.)_"
    cohort, problems = listed(["P1_a", "P1_b", "P2_a"], patients_table="p.csv", patient_pattern=pattern)
    assert ([case.primary for case in cohort.cases], problems) == (["lung", "lung", "skin"], [])


@pytest.mark.parametrize("pattern", ["(", "P..", "(?P<who>.+)", "(?P<patient>.+", "(?P<patient>a){99999999999}"])
def test_a_pattern_that_cannot_read_patients_is_refused(listed, pattern):
    with pytest.raises(CohortError, match=r"expected a regular expression with the group \(\?P<patient>"):
        listed(["a", "b"], patient_pattern=pattern)


def test_each_case_in_whose_name_a_pattern_finds_nobody_is_named(listed):
    _, problems = listed(["P1_a", "P2_a", "x", "_b"], patient_pattern="^(?P<patient>[^_]*)_")
    assert [(problem.severity, problem.case) for problem in problems] == [("error", "x"), ("error", "_b")]


def test_a_pattern_that_leaves_time_points_apart_is_a_warning(listed):
    names = ["P1_pre", "P1_post", "P1_week3", "P2_pre", "P2_post"]
    _, problems = listed(names, patient_pattern="^(?P<patient>.+?)(?:_(?P<time>pre|post))?$")
    assert [(problem.severity, problem.case) for problem in problems] == [("warning", "-")]
    assert problems[0].found.endswith(": P1, P1_week3")


def test_patients_that_differ_in_spelling_only_are_a_doubt(listed):
    _, problems = listed(["a", "b", "c", "d"], patients=["P01", "p-01", "P02 ", "P02"])
    assert [(problem.severity, problem.case, problem.found) for problem in problems] == [
        ("doubt", "b", "patients P01 and p-01")
    ]


# Names


@pytest.mark.parametrize(
    "name",
    [
        "a b",
        "50%",
        "#7",
        "why?",
        "{x}",
        "a,b",
        "it's",
        'say "x"',
        "<i>",
        "Übung",
        "患者",
        "-x",
        "~x",
        "$HOME",
        "a\u202eb",
    ],
)
def test_names_are_data(listed, name):
    cohort, problems = listed([name, "other"])
    assert ([case.name for case in cohort.cases], problems) == ([name, "other"], [])


@pytest.mark.parametrize("name", ["..", ".", ".hidden", "a/b", "a\\b", "a\0b", "a\nb", "x" * 151, "ü" * 76, "\ud800"])
def test_a_name_that_cannot_be_a_folder_is_an_error_of_its_entry(tmp_path, name):
    training = [{"image": f"i/{i}.nii", "label": f"l/{i}.nii", "case": case} for i, case in enumerate((name, "good"))]
    (tmp_path / "a.json").write_text(json.dumps({"training": training}))
    cohort, (problem,) = read_cohort("a.json", base=tmp_path)
    assert [case.name for case in cohort.cases] == ["good"]
    assert (problem.severity, problem.case, problem.file) == ("error", "training[0]", f"{tmp_path}/a.json")
    str(problem).encode()


@pytest.mark.parametrize("name", [".hidden", "x" * 151, "a\\b", "a\nb"])
def test_a_file_whose_name_cannot_be_a_folder_is_an_error_of_its_case(tmp_path, name):
    for part in ("imagesTr", "labelsTr"):
        (tmp_path / part).mkdir()
        for case in (name, "good"):
            (tmp_path / part / f"{case}.nii.gz").touch()
    if name.startswith("."):  # hidden files are other programs' own
        assert [case.name for case in read_cohort(".", base=tmp_path)[0].cases] == ["good"]
        return
    cohort, (problem,) = read_cohort(".", base=tmp_path)
    assert [case.name for case in cohort.cases] == ["good"]
    assert "at most 150 bytes" in problem.expected


@pytest.mark.parametrize(("one", "other"), [("Case", "case"), ("Mü", unicodedata.normalize("NFD", "Mü"))])
def test_names_that_some_file_systems_take_for_one_are_an_error(tmp_path, one, other):
    training = [{"image": f"i/{i}.nii", "label": f"l/{i}.nii", "case": case} for i, case in enumerate((one, other))]
    (tmp_path / "a.json").write_text(json.dumps({"training": training}))
    cohort, (problem,) = read_cohort("a.json", base=tmp_path)
    assert [case.name for case in cohort.cases] == [one]
    assert "the same name as " in problem.found and "0.nii" in problem.found
    assert problem.file.endswith("1.nii")


def test_names_and_ids_are_in_one_spelling(tmp_path):
    decomposed = unicodedata.normalize("NFD", "Müller")
    training = [
        {"image": f"i/{i}.nii", "label": f"l/{i}.nii", "case": f" c{i} ", "patient": patient, "primary": " Lung "}
        for i, patient in enumerate(("Müller", f"{decomposed} "))
    ]
    (tmp_path / "a.json").write_text(json.dumps({"training": training}))
    cohort, problems = read_cohort("a.json", base=tmp_path, exclude=[" c1"])
    assert [(case.name, case.patient, case.primary) for case in cohort.cases] == [("c0", "Müller", "Lung")]
    cohort, problems = read_cohort("a.json", base=tmp_path)
    assert ({case.patient for case in cohort.cases}, problems) == ({"Müller"}, [])


def test_cases_may_be_named_by_their_codes(listed, tmp_path):
    """Also where the patient, who is called like the case, has another code."""
    cohort, problems = listed(["a", "b"])
    with_codes(cohort, problems, [], tmp_path / "key.csv")
    codes = case_codes(tmp_path / "key.csv")
    assert {name: code.startswith("case_") for name, code in codes.items()} == {"a": True, "b": True}
    assert decoded([codes["b"], " a ", "x"], tmp_path / "key.csv") == ["b", "a", "x"]


# Sequences


@pytest.mark.parametrize(
    "text",
    [
        *("T1c", "T1ce", "T1Gd", "T1_post", "t1_gad", "ce-gad_T1w", "T1+Gd", "T1_KM", "T1 mit KM", "T1 MPRAGE +C"),
        *(
            "T1 with gadolinium",
            "post-contrast T1",
            "contrast-enhanced T1",
            "gadolinium-enhanced T1",
            "T1 after contrast",
        ),
        *("preop T1c", "T1w post-Gd, pre-op", "pre-op contrast-enhanced T1", "T1 post-contrast (no motion)"),
        *("sub-01_ses-2_ce-gad_T1w.nii.gz", "BraTS-MET-00110-000-t1c.nii.gz", "T1CE_nonlinear"),
    ],
)
def test_names_of_the_contrast_enhanced_t1_are_known(text):
    assert is_enhanced_t1(text)


@pytest.mark.parametrize(
    "text",
    [
        *("T1", "T1n", "T1 native", "T1 nativ", "T2", "FLAIR", "T10c", "scene_T1", "sub-01_T1w.nii.gz", "T1_post-op"),
        *("T1 without gadolinium", "non-contrast-enhanced", "pre_gd", "T1_pre_gd", "pre-contrast T1", "T1 precontrast"),
        *(
            "unenhanced T1",
            "non enhanced T1",
            "noncontrast T1",
            "not contrast-enhanced T1",
            "T1 w/o contrast",
            "T1_noGd",
        ),
        *(
            "T1 without contrast enhancement",
            "contrast-free T1",
            "T1 contrast: no",
            "gd=0 T1",
            "T1 ohne KM",
            "T1 vor KM",
        ),
        *(
            "T1 sans gadolinium",
            "without intravenous contrast T1",
            "T1 (no contrast)",
            "contrast-enhanced FLAIR",
            "ce_T2",
        ),
    ],
)
def test_names_that_deny_contrast_are_not_the_contrast_enhanced_t1(text):
    assert not is_enhanced_t1(text)


def test_the_channel_without_gadolinium_does_not_come_first(tmp_path):
    for path in ("imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz", "labelsTr/a.nii.gz"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    channels = {"0": "T1 without gadolinium", "1": "T1 with gadolinium"}
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": channels}))
    (case,) = read_cohort(".", base=tmp_path)[0].cases
    assert [image.name for image in case.images] == ["a_0001.nii.gz", "a_0000.nii.gz"]
