"""Nothing that is handed on says where files lie, who made it, or, where it is asked for, who a case is."""

import base64
import io
import re
import socket
import unicodedata
from dataclasses import replace

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from conftest import all_said_in
from matplotlib.text import Text
from PIL import Image

from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.problems import Problem
from metaseg_nb.cohort.pseudonyms import read_key, with_codes, with_parts
from metaseg_nb.figures.reviewed import read_case_images
from metaseg_nb.figures.style import Records
from metaseg_nb.layout import PROJECT, StudyLayout
from metaseg_nb.privacy import cleaned_of
from metaseg_nb.report.gallery import WEBP, draw_networks
from metaseg_nb.report.pages import slice_view
from metaseg_nb.settings import CrossValidate

PATIENT = "MUELLER^HANS"


@pytest.fixture
def somebody(monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "hmueller")
    monkeypatch.setattr(socket, "gethostname", lambda: "rt-node17")


@pytest.fixture
def clean(somebody):
    return cleaned_of({}, ["/data/Herr Huber/a b"], {})


@pytest.fixture
def coded(somebody):
    names = {"MUELLER_HANS": "case_0001", "12": "case_0002", "0012345": "patient_0001", "Älg^Örjan": "patient_0002"}
    names |= {"Li": "patient_0003", "case_0002": "case_0004", "a.*b": "case_0005"}
    return cleaned_of(with_parts(names, []), ["/data/Herr Huber"], {"huber_anna": "case_0003"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("read /data/clinic/huber/t1.nii.gz now", "read …/t1.nii.gz now"),
        ("cd /data/clinic/huber", "cd …"),
        ("'~/mri/x.nii', \"/mnt/a/b.csv\"", "'…/x.nii', \"…/b.csv\""),
        ("../../patients/huber/a.nii", "…/a.nii"),
        ("file:///srv/pacs/a.dcm", "…/a.dcm"),
        (r"C:\Users\huber\a.nii", "…/a.nii"),
        (r"\\server\patients\huber\a.nii", "…/a.nii"),
        ("/data/#1&2/huber^anna/a.nii", "…/a.nii"),
        ('cohort = "/data/Frau Huber, 2/list.json"', 'cohort = "…/list.json"'),
        ("cohort = '../Frau Huber/list.json'", "cohort = '…/list.json'"),
        ("read /data/Herr Huber/a b/t1.nii", "read …/t1.nii"),
        (f"{PROJECT}/runs/demo/x.csv", "runs/demo/x.csv"),
        ("by hmueller@rt-node17, HMueller", "by …@…, …"),
        ("x\u202egpj.exe\0", "x\ufffdgpj.exe\ufffd"),
    ],
)
def test_private_words_are_taken_out(clean, text, expected):
    assert clean(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MUELLER_HANS_t1.nii.gz, case MUELLER_HANS", "case_0001_t1.nii.gz, case case_0001"),
        ("Mueller, Hans and mueller hans", "case_0001 and case_0001"),
        ("MRN 0012345", "MRN patient_0001"),
        ("XMUELLER_HANSX", "XMUELLER_HANSX"),  # another name
        ("12 lesions, Dice 0.12", "12 lesions, Dice 0.12"),  # a number, though a case is called so
        ("12_t1.nii.gz of 12", "case_0002_t1.nii.gz of 12"),
        ("Li.json, Li", "patient_0003.json, Li"),
        (unicodedata.normalize("NFD", "älg örjan, ÄLG"), "patient_0002, …"),
        ("huber_anna.nii.gz", "case_0003.nii.gz"),
        ("case_0002", "case_0002"),  # a code, though a case was called so
        ("a.*b and axxb", "case_0005 and axxb"),
        ("read /data/huber/t1.nii.gz now", "read … now"),
        ("read /data/Herr Huber/t1.nii.gz now", "read … now"),
    ],
)
def test_codes_stand_for_names_in_any_spelling(coded, text, expected):
    assert coded(text) == expected


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("Müller_Hans", "Hans Müller; MÜLLER, Hans; Müller and Hans", "x; x; … and …"),
        ("Hans Müller", "Müller, Hans; Mueller; Muller; Hansen", "x; …; …; Hansen"),
        ("Müller, Hans", "Mueller; Hans and hans mueller", "x and x"),
        ("Müller, Hans", "by Mueller", "by …"),
        ("Müller-Lüdenscheidt^Hans", "Müller; Luedenscheidt or Hans Mueller-Lüdenscheidt", "…; … or x"),
        ("Hans Peter Groß", "Gross, Hans Peter; Groß; Gross", "x; …; …"),
        ("Mueller_Rene", "René, Müller", "x"),
        ("René_Muller", "Rene or Müller", "… or …"),
        ("Sørensen Łucja", "Lucja Soerensen; Sorensen", "x; …"),
        ("O'Brien_Mary", "Mary O’Brien; Brien", "x; …"),
        ("Li_Wu", "Wu Li or Li or Wu", "x or Li or Wu"),  # a short part may be a word
        ("MUELLER^HANS^12", "Hans, 12 lesions", "…, 12 lesions"),
        ("P00_baseline", "baseline of P00; p00 baseline", "baseline of P00; x"),
        ("AE1_x", "A1_x and ae1 x", "A1_x and x"),
        ("patient_Müller", "a patient, patient_0002, case 3: Müller", "a patient, patient_0002, case 3: …"),
    ],
)
def test_a_person_is_not_named_in_another_order_in_part_or_without_accents(somebody, name, text, expected):
    names = {name: "patient_0001", "P7": "patient_0002", "Q7": "case_0001"}
    for form in ("NFC", "NFD"):
        told = cleaned_of(with_parts(names, []), [], {})(unicodedata.normalize(form, text))
        assert told.replace("patient_0001", "x") == expected


def test_words_that_the_names_of_many_share_and_primaries_are_no_parts_of_a_name(write_case):
    people = ["Huber_Anna", "Müller_Hans", "Müller_Bert", "Schmidt_Ida", "Nowak_Jan"]
    told = {
        f"{who}_{when}": f"case_{2 * i + j}" for i, who in enumerate(people) for j, when in enumerate(("pre", "post"))
    }
    told["lung_Weber"] = "case_10"
    cases = [
        replace(write_case(code), patient=f"patient_{int(code[5:]) // 2}", primary="lung") for code in told.values()
    ]
    clean = cleaned_of(with_parts(told, cases), [], {})
    assert clean("pre and post, Müller, Anna, Weber of lung") == "pre and post, …, …, … of lung"
    one = [replace(case, patient="patient_0") for case in cases[:2]]
    assert cleaned_of(with_parts(dict(list(told.items())[:2]), one), [], {})("Huber, Anna") == "…, …"


def test_two_people_whose_names_differ_in_an_accent_have_their_own_codes():
    clean = cleaned_of(with_parts({"Müller_Hans": "case_0001", "Muller_Hans": "case_0002"}, []), [], {})
    assert clean("Müller Hans, Muller Hans, Mueller Hans") == "case_0001, case_0002, case_0001"


@pytest.mark.parametrize(
    "text",
    [
        "https://monai.io/docs/a.html",
        "<td>a</td><td>b/c</td></tr>",
        "text/html and TP / (TP + FP), 1/2/3, mm²/voxel",
        "runs/demo/unet/fold0",
        "runs/<study>/review/verdicts.csv",
        "[a](04_cross_validation.html)",
    ],
)
def test_other_words_stay(clean, text):
    assert clean(text) == text


@pytest.fixture
def cohort(write_case):
    cases = [write_case(f"Huber_Anna_{i}", seed=i) for i in range(8)]
    cases = [replace(case, patient=f"MRN00{i // 2}", date="2021-03-04", fold=i % 2) for i, case in enumerate(cases)]
    return Cohort("c", "", cases[:7], cases[7:])


def test_codes_replace_names_of_cases_and_patients_and_keep_who_belongs_together(cohort, tmp_path):
    places = ["-", "training[3]", "line 12"]
    problems = [Problem(name, "a.nii", "x", "y", "z") for name in ("Huber_Anna_3", "MRN001", *places)]
    coded, problems_coded = with_codes(cohort, problems, ["Huber_Anna_left_out"], tmp_path / "key.csv")
    every = [*coded.cases, *coded.unlabelled]
    assert all(re.fullmatch(r"case_\d{4}", case.name) for case in every)
    assert all(re.fullmatch(r"patient_\d{4}", case.patient) for case in every)
    assert len({case.name for case in every}) == 8
    for old, new in zip([*cohort.cases, *cohort.unlabelled], every, strict=True):
        assert (new.files, new.fold, new.primary, new.date) == (old.files, old.fold, old.primary, "2021")
    groups = [[case.patient for case in cases] for cases in ([*cohort.cases, *cohort.unlabelled], every)]
    assert [groups[0].index(name) for name in groups[0]] == [groups[1].index(name) for name in groups[1]]
    key = read_key(tmp_path / "key.csv")
    assert problems_coded[0].case == key["Huber_Anna_3"] == coded.cases[3].name
    assert problems_coded[1].case == key["MRN001"] == coded.cases[3].patient
    assert [problem.case for problem in problems_coded[2:]] == places
    assert not {*places} & {*key}, "the place of a problem is no case"
    assert key["Huber_Anna_left_out"].startswith("case_")


def test_codes_stay_when_cases_are_added_and_tell_nothing_of_the_order_of_names(cohort, tmp_path):
    key = tmp_path / "key.csv"
    few = replace(cohort, cases=cohort.cases[4:], unlabelled=[])
    with_codes(few, [], [], key)
    before = read_key(key)
    coded, _ = with_codes(cohort, [], [], key)
    after = read_key(key)
    assert {name: after[name] for name in before} == before
    assert len(set(after.values())) == len(after) == 8 + 4
    orders = set()
    for i in range(6):
        coded, _ = with_codes(cohort, [], [], tmp_path / f"{i}.csv")
        orders.add(tuple(case.name for case in coded.cases))
    assert len(orders) > 1


@pytest.fixture
def planted(write_case, tmp_path, monkeypatch):
    """A case whose files carry a patient's name in header, extension and path, and its prediction."""
    monkeypatch.setenv("METASEG_HOME", str(tmp_path / "home"))
    case = replace(write_case(f"{PATIENT}/scan", shape=(60, 60, 50)), name="c0", fold=0)
    image = nib.load(case.image)
    image.header["descrip"], image.header["db_name"] = PATIENT.encode(), b"MUELLER"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", PATIENT.encode()))
    nib.save(image, case.image)
    layout = StudyLayout("planted")
    prediction = layout.run("unet", 0).predictions / "c0.nii.gz"
    prediction.parent.mkdir(parents=True)
    prediction.write_bytes(case.label.read_bytes())
    return read_case_images(layout, Cohort("c", "", [case]), "c0", ["unet"])


def _sprite(page):
    """The picture of all slices in a slice view."""
    return base64.b64decode(re.search(r'id="spriteImg"[^>]*src="data:image/\w+;base64,([^"]+)"', page)[1])


def test_a_slice_view_holds_a_box_of_voxels_and_no_field_of_the_file(planted):
    page = slice_view(planted, "unet", (7, 7, 8), view_mm=20.0)
    assert "MUELLER" not in page
    near, far = (_sprite(view) for view in (page, slice_view(planted, "unet", (7, 7, 8), view_mm=100.0)))
    assert "MUELLER" not in near.decode("latin-1")
    near, far = (Image.open(io.BytesIO(sprite)).size for sprite in (near, far))
    assert np.prod(near) < np.prod(far) / 4
    assert planted.nifti(planted.image.array).to_bytes().find(b"MUELLER") == -1


def test_a_picture_of_the_gallery_names_nobody(planted, tmp_path):
    plt.switch_backend("Agg")
    figure = draw_networks(planted, (7, 7, 8), {"unet": "missed"}, 40.0)
    words = [text.get_text() for axes in figure.axes for text in [axes.title, *axes.texts]]
    assert not [word for word in words if "c0" in word or "MUELLER" in word]
    figure.savefig(tmp_path / "picture.webp", **WEBP)
    assert b"MUELLER" not in (tmp_path / "picture.webp").read_bytes()
    plt.close(figure)


def test_words_about_an_anonymised_cohort_name_nobody(cohort, tmp_path):
    told = replace(cohort, name="huber_anna_1, Anna", description="Huber Anna 2 of MRN003, 1.5 T, 3 mm")
    coded, _ = with_codes(told, [], [], tmp_path / "key.csv")
    key = read_key(tmp_path / "key.csv")
    assert coded.name == f"{key['Huber_Anna_1']}, Anna"  # a part of an identifier is no name
    assert coded.description == f"{key['Huber_Anna_2']} of {key['MRN003']}, 1.5 T, 3 mm"
    people = [
        replace(case, patient=f"Müller_{who}") for case, who in zip(cohort.cases[:2], ("Hans", "Ida"), strict=True)
    ]
    told = Cohort("Hans Müller", "Mueller, lung, 12 lesions; ida", people)
    coded, _ = with_codes(told, [], [], tmp_path / "people.csv")
    assert coded.name == coded.cases[0].patient
    assert coded.description == "…, lung, 12 lesions; …"


def test_words_of_a_saved_figure_and_its_files_name_nobody(somebody, cohort, tmp_path, monkeypatch):
    monkeypatch.setenv("METASEG_HOME", str(tmp_path))
    layout = StudyLayout("planted")
    with_codes(cohort, [], [], layout.key)
    figure, axes = plt.subplots()
    axes.set_yticks([0, 1], ["Huber_Anna_1", "lung"])
    axes.set_title("huber anna 2", loc="left")
    axes.plot([0, 1], label="by hmueller")
    axes.legend()
    axes.annotate("on rt-node17", (0, 0))
    settings = CrossValidate.check(
        {"study": "planted", "models": ["unet"], "n_bootstrap": 100, "seed": 0, "compared_study": ""}
    )
    records = Records(layout, "04_cross_validation", settings, "/data/huber_anna_3/x")
    records.figure(figure, "dice")
    key = read_key(layout.key)
    words = {text.get_text() for text in figure.findobj(Text)}
    assert {key["Huber_Anna_1"], "lung", key["Huber_Anna_2"], "by …", "on …", "Cohort: …"} <= words
    records.table(pd.DataFrame({"case": ["Huber_Anna_1"], "who": "hmueller"}), layout.cross_validation / "x.csv")
    latex = (layout.cross_validation / "x.tex").read_text()
    assert key["Huber_Anna_1"] in latex
    for said in (all_said_in(layout.figures), latex.lower()):
        for name in ("huber", "anna", "hmueller", "rt-node17", str(tmp_path)):
            assert name not in said
    plt.close(figure)


def test_a_key_is_a_table_of_words(cohort, tmp_path):
    with_codes(replace(cohort, cases=[replace(cohort.cases[0], name="007", patient="NA")]), [], [], tmp_path / "k.csv")
    table = pd.read_csv(tmp_path / "k.csv", dtype=str, keep_default_na=False)
    assert {"007", "NA"} <= set(table["name"])
    assert np.all(table["code"] != "")
