"""The report: one folder that needs no network, with code behind a click, and with nothing private in it."""

import base64
import errno
import io
import re
import shutil
import socket
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import matplotlib.pyplot as plt
import nbformat
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from nilearn.plotting import view_img
from PIL import Image
from scipy import ndimage

from metaseg_nb.__main__ import main
from metaseg_nb.annotation.by_hand import Beginning, open_reading
from metaseg_nb.annotation.readings import read_readings
from metaseg_nb.checksums import checksum, write_record
from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.datalist import write_datalist
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import read_volume
from metaseg_nb.figures.style import save_figure, show_table, use_style
from metaseg_nb.files import MACHINE, escaped, write_table
from metaseg_nb.layout import NOTEBOOKS, PROJECT, StudyLayout
from metaseg_nb.report.build import CHAPTERS, EXTRA, write_page, write_report
from metaseg_nb.report.gallery import GALLERY_COLUMNS, MOST_BYTES, PAGES, gallery_files, picture_file, view_file
from metaseg_nb.report.pages import policy, with_light_pictures, with_policy

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WIDGET = "application/vnd.jupyter.widget-view+json"
SECRET, USER, HOST = "/home/someone/secret/place", "hmueller", "rt-node17"


def executed(title, result):
    """An executed notebook, with all that must not be in a report."""
    secrets = f"made in {SECRET}/x.csv by {USER} on {HOST}, read ../patients/huber/a.nii.gz"
    notebook = new_notebook(
        cells=[
            new_markdown_cell(f"# {title}\nWhat this is: $x^2$, see [MONAI](https://monai.io).\n## A part\nText"),
            new_code_cell(f"cohort = '{SECRET}'", execution_count=1, metadata={"tags": ["parameters"]}),
            new_code_cell(
                "train()",
                execution_count=2,
                outputs=[
                    new_output("stream", name="stderr", text=f"UserWarning: {SECRET}/site-packages/x.py"),
                    new_output("stream", name="stdout", text=f"stdout is kept, {secrets}"),
                    new_output("display_data", {WIDGET: {"model_id": "abc"}, "text/plain": "HBox(children=widget)"}),
                    new_output("display_data", {"image/png": PNG, "text/plain": "<Figure size>"}),
                    new_output(
                        "execute_result", {"text/html": f"<table><tr><td>table cell {secrets}</td></tr></table>"}
                    ),
                ],
            ),
        ]
    )
    outputs = [new_output("execute_result", {"text/markdown": f"{result} {secrets}"})] if result else []
    notebook.cells.append(new_code_cell("Markdown(...)", execution_count=3, outputs=outputs))
    parameters = {"study": "paper", "cohort": SECRET, "learning_rate": 0.003}
    notebook.metadata["papermill"] = {
        "input_path": f"{SECRET}/in.ipynb",
        "parameters": parameters,
        "start_time": "2026-11-25T07:41:17.5+00:00",
        "duration": 12.3,
    }
    state = {"state": {"abc": {"volume": "voxels of a patient"}}, "version_major": 2, "version_minor": 0}
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": state}
    return notebook


def gallery(layout, cases):
    """An entry on each page, two of which share a picture."""
    first, second = (case.name for case in cases)
    common, picture = {"primary": cases[0].primary, "x": 1.0, "y": 2.0, "z": 3.0}, f"{second}_lesion1"
    lesion = common | {"case": second, "picture": picture, "lesion": 1, "volume_mm3": 120.0, "diameter_mm": 7.25}
    rows = [
        common | {"page": "cases", "group": "unet", "picture": first, "case": first, "why": "worst", "dice": 0.25},
        lesion | {"page": "missed", "group": "unet", "why": "missed", "of": 84},
        lesion | {"page": "lower", "group": "", "why": "found by 0 of 1 networks"},
    ]
    layout.gallery.mkdir(parents=True, exist_ok=True)
    for name in (first, picture):
        Image.new("RGB", (4, 4)).save(layout.gallery / picture_file(name))
    volume = nib.Nifti1Image(np.random.default_rng(0).random((9, 9, 9)), np.eye(4))
    view = view_img(volume, bg_img=None, threshold=None).get_standalone()
    (layout.gallery / view_file(first, "unet")).write_text(view, encoding="utf-8")
    entries = pd.DataFrame(rows, columns=GALLERY_COLUMNS)
    write_table(layout.gallery_table, entries)
    metrics = checksum(layout.cross_validation / "metrics.csv")
    write_record(layout.gallery_record, {"metrics": metrics}, gallery_files(layout, entries))


def study_of_two_folds(folder, names=("c0", "c1"), primary="lung", cohort=("Zürich & <friends>", "made by hand")):
    """A study of one network in two folds; one of its notebooks did not run to its end. Returns its file."""
    study = folder / "paper.yaml"
    study.write_text("study: paper\nmodels: [unet]\n")
    layout = StudyLayout("paper")
    case = Case(names[0], (folder / "c0.nii.gz",), folder / "m0.nii.gz", patient="p0", primary=primary, fold=0)
    other = Case(**{**vars(case), "name": names[1], "images": (folder / "c1.nii.gz",), "fold": 1})
    write_datalist(layout.dataset, Cohort(*cohort, [case, other]))
    numbers = {"dice_mean": 0.7, "dice_sd": 0.1, "dice_low": 0.6, "dice_high": 0.8, "dice_median": 0.7, "hd95_mm": 9.0}
    numbers |= {"lesion_dice": 0.5, "lesion_sensitivity": 0.5, "false_per_patient": 1.0}
    numbers |= {"patients": 2, "failures": 0}
    board = pd.DataFrame([{"model": "unet", **numbers}, {"model": "intensity_threshold", **numbers, "dice_mean": 0.2}])
    write_table(layout.leaderboard, board)
    scores = pd.DataFrame([{"model": "unet", "case": it.name, "fold": it.fold, "dice": 0.7} for it in (case, other)])
    tables = {name: layout.cross_validation / f"{name}.csv" for name in ("metrics", "lesions")}
    for path in tables.values():
        write_table(path, scores)
    write_record(layout.comparison, {"commit": "abc1234", "device": "CPU"}, [layout.leaderboard, *tables.values()])
    for name in ("04_dice", "04_sensitivity"):
        save_figure(plt.figure(figsize=(1, 1)), layout, name)
    for fold in (0, 1):
        facts = {"train_seconds": 90.0, "last_epoch": 32, "best_epoch": 8 + fold, "selection_dice": 0.5}
        facts |= {"parameters": 1234567, "provenance": {"commit": "def5678"}}
        of_fold = scores["fold"] == fold
        facts["cases"] = {
            "training": [],
            "selection": scores.loc[~of_fold, "case"].tolist(),
            "test": scores.loc[of_fold, "case"].tolist(),
        }
        run = layout.run("unet", fold)
        write_table(run.metrics_table, scores[of_fold].drop(columns="model"))
        write_record(run.metrics, facts, [run.metrics_table])
    pages = {layout.run("unet", fold).notebook("03_train"): f"**fold {fold}: Dice 0.7**" for fold in (0, 1)}
    pages |= {layout.notebook(name): f"**Result of {name}**" for name in (*CHAPTERS, *EXTRA)}
    pages[layout.notebook("02_preprocess_n4")] = None
    for path, result in pages.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(executed(f"Title of {path.stem}", result), path)
    gallery(layout, [case, other])
    count_readings(layout)
    return study


def count_readings(layout):
    """What notebook 08 writes."""
    write_table(table := layout.by_hand / "readings.csv", read_readings(layout).drop(columns="mask"))
    write_record(layout.by_hand_record, {}, [table])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a report that a user with a name made on a machine with a name."""
    made_in = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METASEG_HOME", str(made_in / "home"))
        patch.setattr("getpass.getuser", lambda: USER)
        patch.setattr(socket, "gethostname", lambda: HOST)
        stale = StudyLayout("paper").report / "of_an_earlier_study.html"
        stale.parent.mkdir(parents=True)
        stale.write_text("old")
        return write_report(str(study_of_two_folds(made_in))).parent


@pytest.fixture(scope="module")
def report(folder):
    return {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.html")}


def test_the_report_has_an_index_and_a_page_per_notebook_run_and_part_of_the_gallery(report):
    runs, parts = [f"03_train_unet_fold{fold}" for fold in (0, 1)], [f"gallery_{page}" for page in PAGES]
    assert sorted(report) == sorted(f"{name}.html" for name in (*CHAPTERS, *EXTRA, *runs, *parts, "index"))


LOADS = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "object": "data"}


class Addresses(HTMLParser):
    """Everything a browser would load by itself, where links lead, and where they may lead to."""

    def __init__(self):
        super().__init__()
        self.loaded, self.links, self.code, self.places = [], [], [], set()
        self.inside = None

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.inside = tag if tag in ("script", "style") else None
        self.places.add(attributes.get("id"))
        if tag in LOADS and attributes.get(LOADS[tag]):
            self.loaded.append(attributes[LOADS[tag]])
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])

    def handle_data(self, data):
        if self.inside:
            self.code.append((self.inside, data))

    def handle_endtag(self, tag):
        self.inside = None


def addresses(page):
    parser = Addresses()
    parser.feed(page)
    return parser


def test_no_page_asks_anything_of_a_network(report):
    for name, page in report.items():
        found = addresses(page)
        outside = [address for address in found.loaded if re.match(r"(https?:)?//", address)]
        assert not outside, (name, outside)
        for kind, text in found.code:
            pattern = (
                r"""(@import|url\()\s*["']?\s*(https?:)?//"""
                if kind == "style"
                else r"""(from|import)\s*\(?\s*["'](https?:)?//|\.src\s*=\s*["'](https?:)?//"""
            )
            assert not re.search(pattern, text), (name, re.search(pattern, text))


def test_the_check_above_would_notice():
    page = '<script src="https://cdn/x.js"></script><style>@import url("//fonts/y")</style><img src="data:image/png">'
    found = addresses(page)
    assert found.loaded == ["https://cdn/x.js", "data:image/png"]
    assert found.code == [("style", '@import url("//fonts/y")')]


def test_every_link_and_picture_is_there(report, folder):
    found = {name: addresses(page) for name, page in report.items()}
    for name, page in found.items():
        for link in [link for link in page.links if not link.startswith("https://monai.io")]:
            file, _, place = link.partition("#")
            assert (file or name) in report, (name, link)
            assert not place or unquote(place) in found[file or name].places, (name, link)
        for picture in [address for address in page.loaded if not address.startswith("data:")]:
            assert (folder / picture).is_file(), (name, picture)
    assert {path.name for path in (folder / "gallery").iterdir()} == {"c0.webp", "c1_lesion1.webp", "c0_unet.html"}


def test_no_page_says_whose_machine_it_was_made_on(report):
    for name, page in report.items():
        for private in (
            SECRET,
            "someone",
            "secret",
            "huber",
            USER,
            HOST,
            str(PROJECT),
            str(Path.home()) + "/",
            "/tmp/",
        ):
            assert private not in page, (name, private)


def test_widgets_and_logs_are_left_out_and_the_rest_is_kept(report):
    for name in [name for name in report if name[0] == "0"]:
        page = report[name]
        for gone in ("UserWarning", "HBox(children", "widget-view+json", "widget-state+json", "voxels of a patient"):
            assert gone not in page, (name, gone)
        for kept in ("stdout is kept, made in …/x.csv by … on …", "table cell", PNG, "Title of"):
            assert kept in page, (name, kept)


def test_code_is_behind_a_click(report):
    page = report["01_explore_data.html"]
    behind = re.findall(r'<details class="code"><summary>code</summary>(.*?)</details>', page, re.DOTALL)
    assert len(behind) == 3
    assert "train" in behind[1]
    assert '<details class="code" open' not in page


def test_formulas_are_drawn_by_the_browser_itself(report):
    page = report["01_explore_data.html"]
    assert re.search(r"<math[^>]*>.*<msup>.*x.*2.*</msup>", page)
    assert "$x^2$" not in page


def test_a_page_has_a_table_of_contents_and_says_how_it_was_made(report):
    page = report["03_train_unet_fold1.html"]
    assert '<a href="#A-part">A part</a>' in page
    made = page[page.index('id="made"') :]
    for fact in ("def5678", "1.5 min, 32 epochs", "epoch 9, selection-set Dice 0.50", "2026-11-25 07:41 UTC, 12 s"):
        assert fact in made, fact
    assert re.search(r"<code>learning_rate</code></td><td>0.003</td>", made)


def test_the_result_stands_below_the_title(report):
    page = report["05_qualitative_review.html"]
    box = re.search(r"<blockquote>(.*?)</blockquote>", page, re.DOTALL)
    assert "<strong>Result of 05_qualitative_review</strong>" in box[1]
    assert page.index("Title of 05_qualitative_review<a") < box.start() < page.index("stdout is kept")
    assert (
        "fold 1: Dice 0.7" in re.search(r"<blockquote>(.*?)</blockquote>", report["03_train_unet_fold1.html"], re.S)[1]
    )
    assert "did not run to its end" in report["02_preprocess_n4.html"]


def test_the_index_leads_to_every_page_and_to_the_worst_miss_in_one_click(report):
    page = report["index.html"]
    said = re.search(r'<div class="lead">(.*?)</div>', page, re.DOTALL)[1]
    assert "<strong>Result of 04_cross_validation</strong>" in said, "the index says what 04 found, and nothing else"
    assert "Zürich &amp; &lt;friends&gt;" in page
    assert page.count("data:image/png;base64,") == 2
    assert "commit abc1234" in page
    assert {link.partition("#")[0] for link in addresses(page).links} - {""} == set(report)
    assert '<a href="gallery_missed.html#unet-c1_lesion1">c1</a>, 7 mm' in page
    assert '<a href="gallery_cases.html#unet-c0">c0</a>, Dice 0.25' in page


def test_the_gallery_says_how_many_of_its_kind_are_shown(report):
    assert re.search(r"<h2[^>]*>U-Net \(1 of 84 shown\)</h2>", report["gallery_missed.html"])
    assert re.search(r"<h2[^>]*>All networks \(1\)</h2>", report["gallery_lower.html"])


def test_the_gallery_says_how_large_a_lesion_is(report):
    assert "<b>c1</b> (lung): missed, 7.2 mm, 120 mm³" in re.sub(r"\s+", " ", report["gallery_missed.html"])
    assert "found by 0 of 1 networks" in report["gallery_lower.html"]
    assert "None." in report["gallery_false.html"]


def test_a_notebook_that_was_not_run_is_named_and_an_earlier_report_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("METASEG_HOME", str(tmp_path))
    layout = StudyLayout("demo")
    case = Case("c0", (tmp_path / "c0.nii.gz",), tmp_path / "m0.nii.gz", patient="p0", primary="lung", fold=0)
    write_datalist(layout.dataset, Cohort("demo", "", [case]))
    write_table(layout.leaderboard, pd.DataFrame({"model": ["unet"]}))
    write_record(layout.comparison, {}, [layout.leaderboard])
    layout.report.mkdir(parents=True)
    (layout.report / "index.html").write_text("earlier")
    with pytest.raises(FileNotFoundError, match=r"notebook 01_explore_data has not been run yet: run it"):
        write_report("demo")
    assert (layout.report / "index.html").read_text() == "earlier"


@pytest.mark.parametrize(
    ("table", "notebook"), [("leaderboard", "04_cross_validation"), ("gallery_table", "05_qualitative_review")]
)
def test_a_report_shows_no_table_that_is_not_as_it_was_written(tmp_path, monkeypatch, table, notebook):
    monkeypatch.setenv("METASEG_HOME", str(tmp_path))
    study, file = str(study_of_two_folds(tmp_path)), getattr(StudyLayout("paper"), table)
    file.write_bytes(file.read_bytes().replace(b"c0", b"c1").replace(b"0.7", b"0.9"))
    for found in ("content that has changed since it was written", "no such file"):
        with pytest.raises(CohortError, match=rf"{file.name}: found {found}.*`.* run {notebook} --study paper`"):
            write_report(study)
        file.unlink(missing_ok=True)


def test_a_report_does_not_count_fewer_masks_than_were_finished(tmp_path, monkeypatch):
    monkeypatch.setenv("METASEG_HOME", str(tmp_path))
    study, layout = str(study_of_two_folds(tmp_path)), StudyLayout("paper")
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), image := tmp_path / "new.nii.gz")
    beginning = Beginning("nothing", np.zeros((4, 4, 4), bool))
    reading = open_reading(layout, Case("new", (image,), None, "p", ""), read_volume(image, "new"), "R1", beginning)
    reading.save(~beginning.mask)
    write_report(study)
    reading.close(finished=True)
    with pytest.raises(
        CohortError, match=r"masks finished since they were counted.*`.* run 08_annotate --study paper`"
    ):
        write_report(study)
    count_readings(layout)
    write_report(study)
    layout.by_hand_record.unlink()
    with pytest.raises(CohortError, match=r"no such file.*`.* run 08_annotate --study paper`"):
        write_report(study)


def test_on_a_full_disk_the_earlier_report_stays_and_one_line_says_why(small_disk, monkeypatch, capsys):
    disk, resize = small_disk
    monkeypatch.setenv("METASEG_HOME", str(disk))
    study, report = str(study_of_two_folds(disk)), StudyLayout("paper").report
    write_report(study)
    before = {path: path.read_bytes() for path in report.rglob("*") if path.is_file()}
    left = report.with_name(f".999999999@{MACHINE}_paper")  # of a process that was killed
    left.mkdir()
    resize(shutil.disk_usage(disk).used + 300_000)
    assert main(["report", "--study", study]) == 1
    said = capsys.readouterr().err
    assert re.fullmatch(r"error: .*no disk space is left to write this file.*\n", said)
    assert {path: path.read_bytes() for path in report.rglob("*") if path.is_file()} == before
    assert list(report.parent.iterdir()) == [report]
    resize("64m")
    assert main(["report", "--study", study]) == 0
    assert {path for path in report.rglob("*") if path.is_file()} == set(before)
    assert list(report.parent.iterdir()) == [report]


def test_a_home_that_cannot_be_written_to_is_one_line_with_advice(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("METASEG_HOME", str(tmp_path))

    def refused(study):
        raise OSError(errno.EROFS, "Read-only file system", str(StudyLayout("demo").report))

    monkeypatch.setattr("metaseg_nb.report.build.write_report", refused)
    assert main(["report", "--study", "demo"]) == 1
    words = capsys.readouterr().err
    assert words.endswith(
        f"The folder {tmp_path} is not writable: set METASEG_HOME to a folder that you can write to\n"
    )
    assert words.count("\n") == 1


def test_the_page_of_a_notebook_that_stopped_says_why_and_not_where(tmp_path, monkeypatch):
    monkeypatch.setenv("METASEG_HOME", str(tmp_path))
    layout, notebook = StudyLayout("demo"), executed("Title", None)
    trace = [f"File {SECRET}/module.py, line 3", "CohortError: mask of c0 is empty"]
    notebook.cells[-1].outputs = [new_output("error", ename="CohortError", evalue="mask", traceback=trace)]
    layout.notebook("01_explore_data").parent.mkdir(parents=True)
    nbformat.write(notebook, layout.notebook("01_explore_data"))
    page = write_page("demo", "01_explore_data").read_text()
    assert "This notebook stopped before its end." in page
    assert "mask of c0 is empty" in page
    assert SECRET not in page


def test_large_pictures_of_a_page_become_lighter_and_look_alike():
    smooth = np.add.outer(np.arange(300), np.arange(300)) % 256 + np.random.default_rng(0).integers(0, 9, (300, 300))
    buffer = io.BytesIO()
    Image.fromarray(smooth.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    large = base64.b64encode(buffer.getvalue()).decode()
    page = f'<img src="data:image/png;base64,{large}"><img src="data:image/png;base64,{PNG}">'
    light = with_light_pictures(page)
    assert len(light) < len(page) / 2
    assert PNG in light
    (data,) = re.findall(r"data:image/webp;base64,([^\"]+)", light)
    seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("L")).astype(int)
    assert np.abs(seen - smooth.clip(0, 255)).mean() < 8


def png(picture):
    """A picture as notebooks keep it: PNG in base64."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def brains(width, height):
    """A montage with as much noise as any that a notebook draws."""
    rng = np.random.default_rng(0)
    grey = 100 + 20 * ndimage.gaussian_filter(rng.normal(0, 5, (height, width)), 2) + rng.normal(0, 5, (height, width))
    return png(Image.fromarray(grey.clip(0, 255).astype(np.uint8)))


def chart():
    """A dot for each of 300 patients, by each of eight networks, as a notebook shows it."""
    rng, buffer = np.random.default_rng(0), io.BytesIO()
    with plt.rc_context():
        use_style()
        figure, axes = plt.subplots(figsize=(11, 4))
        for row in range(8):
            axes.scatter(rng.random(300), rng.normal(row, 0.1, 300), alpha=0.5)
        figure.savefig(buffer, format="png", dpi="figure")
        plt.close(figure)
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.slow
def test_the_report_of_300_patients_and_eight_networks_can_be_mailed(tmp_path, monkeypatch):
    """Its pages, each with pictures as many and as large as its notebook draws; test_gallery weighs the gallery."""
    monkeypatch.setenv("METASEG_HOME", str(tmp_path))
    plt.switch_backend("Agg")
    drawn = {
        "03_train": [brains(1100, 700), brains(840, 460), chart()],
        "01_explore_data": [brains(1100, 4100), *[chart()] * 8],
        "02_preprocess_n4": [brains(1100, 1100), brains(1100, 700), *[chart()] * 5],
        "04_cross_validation": [chart()] * 15,
        "05_qualitative_review": [brains(2200, 2800), chart(), *[brains(1890, 700)] * 6],
        "07_radiotherapy": [brains(1100, 430), *[chart()] * 5],
        "08_annotate": [brains(1100, 430), chart()],
    }
    path, sizes = StudyLayout("demo").notebook("01_explore_data"), {}
    path.parent.mkdir(parents=True)
    for name, pictures in drawn.items():
        notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
        notebook.cells[-1].outputs = [new_output("display_data", {"image/png": picture}) for picture in pictures]
        nbformat.write(notebook, path)
        sizes[name] = write_page("demo", path.stem).stat().st_size
    pages = sum(sizes.values()) + sizes["03_train"] * (8 * 5 - 1)
    assert pages + MOST_BYTES < 25e6, sizes


RUNS = '<img src=x onerror="document.title=`RAN`">'
HOSTILE = [
    f'{RUNS} 100% #1?a={{b,c}}&amp; "ü"',
    "W" * 140,
    "<" + "script>document.title='RAN'<" + "/script>",
    "[a](javascript:document.title='RAN') `b` *c* _d_ ~~e~~ |",
    "$\\frac$ \\(x\\) {{ 7 * 7 }} {% x %} $$y$$",
    "http://evil.example/x <!-- ]]>",
    "x\u202egpj.exe\0",
]


def hostile_notebook(title):
    """A notebook whose outputs hold hostile names, escaped, in a table, and as they are."""
    table = show_table(pd.DataFrame({"case": HOSTILE, RUNS: [[name] for name in HOSTILE], "n": 1.0})).to_html()
    said = [f"**{escaped(name)}** is a name" for name in HOSTILE] + [f"{name} is a name" for name in HOSTILE]
    outputs = [new_output("display_data", {"text/markdown": text}) for text in said]
    outputs += [
        new_output("display_data", {"text/html": table}),
        new_output("stream", name="stdout", text="\n".join(HOSTILE)),
    ]
    outputs.append(new_output("error", ename="CohortError", evalue="x", traceback=["\n".join(HOSTILE)]))
    parameters = {"study": "paper", "exclude": HOSTILE}
    cells = [new_markdown_cell(f"# {title}\n## A part"), new_code_cell(repr(HOSTILE), outputs=outputs)]
    return new_notebook(cells=cells, metadata={"papermill": {"parameters": parameters}})


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The folder of a report of a study, all of whose names come from somebody who means harm."""
    made_in = tmp_path_factory.mktemp("a %23 b")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METASEG_HOME", str(made_in / "home"))
        study = study_of_two_folds(made_in, HOSTILE[:2], RUNS, (RUNS, HOSTILE[2]))
        nbformat.write(hostile_notebook("Title"), StudyLayout("paper").notebook("01_explore_data"))
        return write_report(str(study)).parent


class Elements(HTMLParser):
    """Kinds of elements of a page, names of their attributes, and the words between them."""

    def __init__(self, page):
        super().__init__()
        self.kinds, self.attributes, self.words = set(), set(), ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.kinds.add(tag)
        self.attributes |= {name for name, _ in attributes}

    def handle_data(self, data):
        self.words += data


def test_hostile_names_are_words_on_every_page(hostile):
    for path in hostile.glob("*.html"):
        found = Elements(path.read_text(encoding="utf-8"))
        assert not found.kinds & {"script", "form", "object", "embed", "base"}, path.name
        assert not [name for name in found.attributes if name.startswith("on")], path.name
        assert RUNS in found.words, path.name  # the cohort's name, at least
        for character in "\u202e\0":
            assert character not in found.words
    words = Elements((hostile / "01_explore_data.html").read_text(encoding="utf-8")).words
    for name in HOSTILE[:-1]:
        assert words.count(f"{name} is a name") >= 1, name
        assert words.count(name) >= 5, name  # also in both columns of the table, on stdout, in the error
    assert "RAN" not in "".join(re.findall(r'href="([^"]*)"', (hostile / "01_explore_data.html").read_text()))


def test_pages_forbid_scripts_and_slice_views_all_but_their_own(hostile):
    policies = {
        path: re.search(r'Content-Security-Policy" content="([^"]*)"', path.read_text(encoding="utf-8"))[1]
        for path in hostile.rglob("*.html")
    }
    for path, said in policies.items():
        assert said.startswith("default-src 'none'; script-src 'none'; ") == (path.parent == hostile), path
        assert "unsafe" not in said.replace("style-src 'unsafe-inline'", "")
    (view,) = (hostile / "gallery").glob("*.html")
    assert policies[view].count("'sha256-") == 3


def test_names_are_quoted_in_links(hostile):
    page = addresses((hostile / "gallery_cases.html").read_text(encoding="utf-8"))
    pictures = [address for address in page.loaded if address.startswith("gallery/")]
    assert len(pictures) == 2
    for address in pictures:
        assert not set(unquote(address)) & set('<>:"|?*'), "Windows cannot hold it"
        assert re.fullmatch(r"[\w./%~-]+", address)
        assert (hostile / unquote(address)).is_file()
    links = addresses((hostile / "index.html").read_text(encoding="utf-8")).links
    (worst,) = [link for link in links if link.startswith("gallery_cases.html#")]
    assert worst.partition("#")[2] in page.places


@pytest.mark.slow
def test_in_a_browser_hostile_names_run_nothing_lead_nowhere_and_fit_the_page(hostile, chromium):
    for width in (1200, 420):
        page, complaints, asked = chromium.new_page(viewport={"width": width, "height": 900}), [], []
        page.on("console", lambda message, said=complaints: said.append(message.text))
        page.on("pageerror", lambda error, said=complaints: said.append(str(error)))
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        for path in sorted(hostile.glob("*.html")):
            page.goto(path.as_uri())
            page.evaluate("document.querySelectorAll('details').forEach(it => it.open = true); window.scrollTo(0, 1e6)")
            page.wait_for_timeout(200)
            assert page.title().endswith(f" · {RUNS}"), path.name
            assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0, (path.name, width)
            assert page.evaluate("[...document.images].filter(it => it.complete && !it.naturalWidth).length") == 0
            for view in page.frames[1:]:
                view.wait_for_function(DRAWN)
        page.goto((hostile / "index.html").as_uri())
        page.get_by_role("link", name=HOSTILE[0], exact=True).click()
        assert page.locator("figure:target img").is_visible()
        assert complaints == []
        assert [url for url in asked if not url.startswith((hostile.as_uri(), "data:", "blob:"))] == []
        page.close()


def test_a_policy_names_a_script_as_a_browser_reads_it():
    assert policy("a()") != policy("b()")
    assert with_policy("<head></head><script>a()\r\n</script>").count(policy("a()\n")) == 1


def test_an_empty_description_is_no_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("METASEG_HOME", str(tmp_path / "home"))
    for description, words in ((" . ", ""), ("By hand.", " By hand.")):
        page = write_report(str(study_of_two_folds(tmp_path, cohort=("c", description)))).read_text(encoding="utf-8")
        assert f"1 patients.{words}</li>" in re.sub(r" +", " ", page)


# The script of a slice view has drawn.
DRAWN = """() => [...document.querySelectorAll('canvas')].some(
    it => it.getContext('2d').getImageData(0, 0, it.width, it.height).data.some(value => value))"""


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser_no_page_asks_outside_or_complains_and_every_picture_is_there(folder, report, chromium, scheme):
    context = chromium.new_context(color_scheme=scheme)
    for name in report:
        page, asked, complaints = context.new_page(), [], []
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        page.on("console", lambda message, said=complaints: said.append((message.type, message.text)))
        page.on("pageerror", lambda error, said=complaints: said.append(("error", str(error))))
        page.goto((folder / name).as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(it => it.open = true); window.scrollTo(0, 1e6)")
        page.wait_for_timeout(300)
        for view in page.frames[1:]:
            view.wait_for_function(DRAWN)
        assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == [], name
        assert [said for said in complaints if said[0] in ("error", "warning")] == [], name
        broken = "[...document.images].filter(it => it.complete && !it.naturalWidth).map(it => it.src)"
        assert page.evaluate(broken) == [], name
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 24, 28)"
        assert dark == (scheme == "dark"), name
        page.close()
    context.close()


@pytest.mark.slow
def test_in_a_browser_the_worst_miss_is_one_click_away_and_code_opens(folder, chromium):
    page = chromium.new_page()
    page.goto((folder / "index.html").as_uri())
    page.get_by_role("link", name="c1", exact=True).click()
    assert page.url.endswith("gallery_missed.html#unet-c1_lesion1")
    assert page.locator("figure:target img").is_visible()
    page.goto((folder / "01_explore_data.html").as_uri())
    code = page.locator("details.code .highlight").nth(1)
    assert not code.is_visible()
    page.locator("details.code summary").nth(1).click()
    assert code.is_visible()
    page.close()
