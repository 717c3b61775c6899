"""Looking at cases: the viewer that works is taken and nothing waits; a person's verdicts outlive the session."""

import gzip
import io
import json
import re
import socket
import tarfile
import time

import ipywidgets
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from ipyniivue import NiiVue
from IPython.display import Image

from metaseg_nb.checksums import write_record
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.figures.reviewed import StudyTables, read_case_images
from metaseg_nb.figures.style import FOUND, PREDICTION, REFERENCE, model_colour
from metaseg_nb.files import read_table, write_table
from metaseg_nb.layout import parameter_names
from metaseg_nb.settings import THRESHOLD_MODEL
from metaseg_nb.viewer import viewers
from metaseg_nb.viewer.niivue import NiiVueViewer, Surface
from metaseg_nb.viewer.review_app import (
    ALL_FOLDS,
    ReviewApp,
    lesion_rows,
    ordered_cases,
    read_verdicts,
    record_verdict,
)
from metaseg_nb.viewer.viewers import layers_of, show_case

MODELS = ["unet", "unetr"]


@pytest.fixture
def images(reviewed_study):
    return read_case_images(reviewed_study, StudyTables.read("tiny").cohort, "c1", MODELS)


@pytest.fixture
def watched(monkeypatch):
    monkeypatch.setattr("metaseg_nb.viewer.viewers.somebody_watches", lambda: True)


@pytest.fixture
def headless(monkeypatch):
    monkeypatch.setattr("metaseg_nb.viewer.viewers.somebody_watches", lambda: False)


# --- which viewer ---


@pytest.mark.parametrize("viewer", ["auto", "niivue", "itkwidgets", "slices"])
def test_headless_every_viewer_is_a_figure_at_once(images, headless, viewer, capsys):
    start = time.monotonic()
    shown = show_case(images, viewer)
    assert time.monotonic() - start < 10
    assert isinstance(shown, Image)
    assert "No browser shows this notebook" in capsys.readouterr().out


def test_with_a_browser_each_viewer_is_its_own(images, watched):
    assert isinstance(show_case(images), NiiVue)
    assert isinstance(show_case(images, "slices"), ipywidgets.Box)


def test_an_unknown_viewer_is_refused_with_those_there_are(images):
    with pytest.raises(ValueError, match="expected auto, niivue, itkwidgets, slices"):
        show_case(images, "paraview")


# --- itkwidgets ---


@pytest.fixture
def extension(tmp_path, monkeypatch):
    """itkwidgets' JupyterLab extension, which asks another machine; and how it was switched."""
    static, switched = tmp_path / "static", []
    static.mkdir()
    (static / "lib.js").write_text('load("https://cdn.jsdelivr.net/npm/vue@2.6.10/dist/vue.min.js")')
    monkeypatch.setattr(viewers, "EXTENSION", static)
    for word in ("enable", "disable"):
        monkeypatch.setattr(
            f"jupyterlab.commands.{word}_extension", lambda name, word=word: switched.append((word, name))
        )
    return static, switched


def npm_package():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for file in ("package/dist/index.html", "package/dist/source.map", "package/README.md"):
            content = b"https://lib.imjoy.io/imjoy-loader.js"
            member = tarfile.TarInfo(file)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_itkwidgets_is_switched_on_when_every_script_points_to_this_machine(extension, monkeypatch, watched):
    static, switched = extension
    assert "`make lab` fetches them where npm's registry answers" in viewers.why_not_itkwidgets()
    monkeypatch.setattr(viewers, "_fetch", lambda package, version, sha512: npm_package())
    for _ in range(2):  # a second time changes nothing
        assert "switched on" in viewers.place_viewer()
        assert (static / "lib.js").read_text() == f'load("{viewers.SERVED}/vue@2.6.10/dist/vue.min.js")'
    page = static / "offline" / "itk-vtk-viewer" / "dist" / "index.html"
    assert page.read_text() == f"{viewers.SERVED}/imjoy-core@latest/dist/imjoy-loader.min.js"
    assert not (page.parent / "source.map").exists()
    assert switched == [("enable", viewers.NAME)] * 2
    assert viewers.why_not_itkwidgets() == "JupyterLab serves its files at the root of its address only"


def test_where_npm_does_not_answer_itkwidgets_is_switched_off_and_says_why(
    extension, monkeypatch, watched, images, capsys
):
    def nobody(address, timeout):
        raise socket.gaierror("nobody answers")

    monkeypatch.setattr(viewers.urllib.request, "urlopen", nobody)
    assert re.search(r"switched off: .*npmjs.* does not answer \(nobody answers\)", viewers.place_viewer())
    assert extension[1] == [("disable", viewers.NAME)]
    assert isinstance(show_case(images, "itkwidgets"), NiiVue)
    assert "itkwidgets is not used: the files of its viewer are not on this machine" in capsys.readouterr().out


def test_a_package_with_another_checksum_is_refused(monkeypatch):
    monkeypatch.setattr(viewers.urllib.request, "urlopen", lambda address, timeout: io.BytesIO(b"content"))
    with pytest.raises(ValueError, match=r"vue 2\.6\.10: found sha512 .*expected other"):
        viewers._fetch("vue", "2.6.10", "other")


# --- what viewers hold ---


def test_niivue_holds_the_image_and_every_layer_on_its_grid_and_jumps(images):
    viewer = NiiVueViewer()
    layers = layers_of(images)
    assert list(layers) == ["reference", "U-Net", "UNETR", "agreement: U-Net"]
    viewer.show(images, layers, (6, 7, 8))
    volumes = viewer.widget.volumes
    assert [volume.name for volume in volumes] == ["image.nii", *(f"{name}.nii.gz" for name in layers)]
    assert [volume.opacity > 0 for volume in volumes] == [True, True, True, True, False]
    shown, (low, high) = np.asarray(nib.Nifti1Image.from_bytes(volumes[0].data).dataobj), images.greys
    assert np.allclose(shown / volumes[0].cal_max, (images.image.array - low) / (high - low), atol=2e-4)
    reference = nib.Nifti1Image.from_bytes(gzip.decompress(volumes[1].data))
    assert np.array_equal(np.asarray(reference.dataobj) > 0, images.reference)
    assert np.allclose(reference.affine, images.image.affine)
    assert viewer.widget.scene.crosshair_pos == pytest.approx([6.5 / 24, 7.5 / 24, 8.5 / 20])
    viewer.set_visible("agreement: U-Net", True)
    viewer.set_visible("reference", False)
    assert [volume.opacity > 0 for volume in volumes] == [True, False, True, True, True]


def test_niivue_sends_no_image_back_and_past_cases_are_given_free(images):
    """Each would stay in the memory of the kernel and of the browser."""
    assert len(re.findall('"img"', str(NiiVue._esm))) - len(re.findall('"img"', str(Surface._esm))) == 1
    built_again = r"\.volumes=\w,\w\.updateGLVolume\(\)"
    assert re.search(built_again, str(NiiVue._esm))
    assert not re.search(built_again, str(Surface._esm)), "it takes a second where there is no graphics card"
    viewer, shown = NiiVueViewer(), []
    for _ in range(3):
        viewer.show(images, {}, (6, 7, 8))
        shown += viewer.widget.volumes
    assert [volume.comm is None for volume in shown] == [True, False, False], "the browser may still load the last one"
    viewer.send(images)
    assert viewer._sent[1].img is not None, "or it would not count as loaded"
    sent = viewer._sent[1]
    viewer.show(images, {}, (6, 7, 8))
    assert viewer.widget.volumes == [sent]


def test_a_colour_means_one_thing_and_a_network_has_the_colour_of_all_figures(images):
    layers = layers_of(images)
    assert [layers[name].colours[name] for name in ("U-Net", "UNETR")] == [model_colour("unet"), model_colour("unetr")]
    assert list(layers["agreement: U-Net"].colours) == ["found", "missed", "false"]
    networks = [model_colour(model) for model in [*parameter_names("model"), THRESHOLD_MODEL]]
    assert len({*networks, REFERENCE, PREDICTION, FOUND}) == len(networks) + 3
    assert set(np.unique(layers["agreement: U-Net"].array)) == {0, 1}, "the prediction is the label"


def test_sliders_draw_another_picture_for_another_place_and_hide_what_is_not_shown_at_first(images, watched):
    picture, sliders = show_case(images, "slices", (6, 7, 8)).children
    planes = {slider.description: slider for slider in sliders.children}
    assert {name: slider.value for name, slider in planes.items()} == {"sagittal": 6, "coronal": 7, "axial": 8}
    assert {name: slider.max for name, slider in planes.items()} == {"sagittal": 23, "coronal": 23, "axial": 19}
    pictures = [picture.value]
    for name in planes:
        planes[name].value = 15
        pictures.append(picture.value)
    assert len(set(pictures)) == len(pictures)


# --- lists ---


def test_cases_are_ordered_by_dice_misses_and_false_lesions():
    metrics = pd.DataFrame(
        {
            "model": ["unet"] * 3 + ["unetr"],
            "case": ["a", "b", "c", "a"],
            "fold": [0, 1, 1, 0],
            "dice": [0.5, 0.9, 0.1, 0.0],
            "n_missed": [0, 2, 1, 9],
            "n_false": [3, 3, 4, 9],
        }
    )

    def order(by, fold=ALL_FOLDS):
        return ordered_cases(metrics, "unet", fold, by)["case"].tolist()

    assert order("Dice, worst first") == ["c", "a", "b"]
    assert order("missed lesions") == ["b", "c", "a"]
    assert order("false lesions") == ["c", "a", "b"]
    assert order("name") == ["a", "b", "c"]
    assert order("Dice, worst first", 1) == ["c", "b"]


def test_lesion_rows_say_what_each_network_found_and_made_up(images):
    rows = lesion_rows(images, StudyTables.read("tiny").lesions)
    assert rows["what"].tolist() == ["lesion 1", "false, UNETR"], "the other lesion is 1.5 mm³, and ignored"
    assert rows.loc[0, "found"] == "U-Net 1.00, UNETR missed"
    assert rows.loc[1, ["x", "y", "z"]].tolist() == [17.0, 4.5, 4.5]
    assert rows["volume_mm3"].tolist() == pytest.approx([60 * 1.5, 112 * 1.5])


# --- verdicts ---


def test_a_verdict_replaces_the_one_before_and_words_stay_as_they_are(tmp_path):
    path = tmp_path / "verdicts.csv"
    assert read_verdicts(path).empty
    record_verdict(path, "c1", "acceptable", 'a "note", with commas\nand ü', "unet")
    record_verdict(path, "NA", "", "007", "unet unetr")
    record_verdict(path, "c1", "unusable", "changed my mind", "unet")
    kept = read_verdicts(path).set_index("case")
    assert kept.loc["c1", ["verdict", "note"]].tolist() == ["unusable", "changed my mind"]
    assert kept.loc["NA", "note"] == "007"
    assert len(kept) == 2


# --- the app ---


@pytest.fixture
def app(reviewed_study):
    return ReviewApp("tiny")


def sent(app):
    """Data of all volumes that the browser gets."""
    return [volume.data for volume in app.viewer.widget.volumes]


def test_the_app_opens_the_worst_case_and_steps_through_all(app):
    app.sorted_by.value = "unetr"
    names = [name for _, name in app.case.options]
    assert app.case.value == names[0]
    first = sent(app)
    app.next.click()
    assert app.case.value == names[1]
    assert sent(app) != first
    app.previous.click()
    app.previous.click()
    assert app.case.value == names[-1], "around the corner"


def test_a_row_of_the_lesions_jumps_the_viewer(app):
    app.case.value = "c1"
    app.lesions.value = 1
    assert app.viewer.widget.scene.crosshair_pos == pytest.approx([17.5 / 24, 5 / 24, 5 / 20])


def test_networks_folds_and_layers_can_be_chosen(app):
    app.fold.value = 2
    assert [name for _, name in app.case.options] == ["c2"]
    app.networks.value = ("unetr",)
    volumes = app.viewer.widget.volumes
    assert [volume.name for volume in volumes[1:]] == ["reference.nii.gz", "UNETR.nii.gz", "agreement: UNETR.nii.gz"]
    assert [volume.opacity > 0 for volume in volumes] == [True, True, True, False]
    app.overlays.children[0].value = False
    assert [volume.opacity > 0 for volume in volumes] == [True, False, True, False]


def test_verdict_and_note_are_kept_per_case_and_survive_a_restart(app, reviewed_study):
    app.case.value = "c1"
    app.verdict.value = "small corrections"
    app.note.value = "edge of the ring"
    app.case.value = "c2"
    assert (app.verdict.value, app.note.value) == (None, "")
    app.verdict.value = "unusable"
    again = ReviewApp("tiny")
    again.case.value = "c1"
    assert (again.verdict.value, again.note.value) == ("small corrections", "edge of the ring")
    assert again.saved.value == "2 of 3 cases judged"
    assert [words.startswith("✓") for words, name in again.case.options if name != "c0"] == [True, True]
    assert set(read_verdicts(reviewed_study.verdicts_table)["case"]) == {"c1", "c2"}


def test_a_verdict_that_cannot_be_saved_says_so(app, monkeypatch):
    def refused(*arguments):
        raise PermissionError(13, "Permission denied", "verdicts.csv")

    monkeypatch.setattr("metaseg_nb.viewer.review_app.record_verdict", refused)
    app.verdict.value = "unusable"
    assert app.saved.value.startswith("<b>Not saved:</b> [Errno 13] Permission denied")


def test_looking_writes_nothing(app, reviewed_study):
    app.next.click()
    app.lesions.value = 0
    app.sorted_by.value = "unetr"
    assert not reviewed_study.verdicts_table.exists()


def test_a_study_without_a_leaderboard_is_named(reviewed_study):
    with pytest.raises(CohortError, match=r"leaderboard\.csv: found no such file; .* run 04_cross_validation"):
        StudyTables.read("other")


@pytest.mark.parametrize("name", ["leaderboard", "metrics", "lesions"])
@pytest.mark.parametrize("content", [b"[]", b"", b'"model"\n"unetr"\n', None])
def test_a_table_that_changed_since_04_wrote_it_is_named_with_the_notebook(reviewed_study, name, content):
    table = reviewed_study.cross_validation / f"{name}.csv"
    table.unlink() if content is None else table.write_bytes(content)
    with pytest.raises(
        CohortError, match=rf"{name}\.csv: found .*`python -m metaseg_nb run 04_cross_validation"
    ) as error:
        StudyTables.read("tiny")
    assert len(error.value.problems) == 1


def test_a_name_is_words_in_the_review_too(reviewed_study):
    hostile, layout = "<img src=x onerror=alert(1)>", reviewed_study
    for table in (layout.cross_validation / "metrics.csv", layout.cross_validation / "lesions.csv"):
        rows = read_table(table)
        write_table(table, rows.assign(case=rows["case"].replace("c1", hostile)))
    write_record(layout.comparison, {}, layout.cross_validation.glob("*.csv"))
    written = json.loads(layout.dataset.read_text().replace('"c1"', json.dumps(hostile)))
    write_record(layout.dataset, {key: value for key, value in written.items() if key not in ("files", "sha256")})
    for model in MODELS:
        run = layout.run(model, 1)
        mask = (run.predictions / "c1.nii.gz").rename(run.predictions / f"{hostile}.nii.gz")
        write_record(run.metrics, {}, [mask, run.metrics_table])
    app = ReviewApp("tiny")
    app.case.value = hostile
    assert app.title.value == "<b>&lt;img src=x onerror=alert(1)&gt;</b>"


def test_a_prediction_that_changed_since_its_run_finished_is_named_before_anyone_looks(reviewed_study):
    mask = reviewed_study.run("unetr", 1).predictions / "c1.nii.gz"
    mask.write_bytes(mask.read_bytes()[:-1])
    with pytest.raises(CohortError, match=r"unetr, fold 1, file predictions/c1\.nii\.gz.*run 03 for fold 1 again"):
        StudyTables.read("tiny")


def test_networks_that_were_scored_again_since_04_are_named(reviewed_study):
    run = reviewed_study.run("unetr", 1)
    write_table(run.metrics_table, read_table(run.metrics_table).assign(dice=0.123))
    write_record(run.metrics, {}, [run.metrics_table])
    with pytest.raises(CohortError, match=r"unetr, fold 1.*found other scores than in 04.*run notebook 04") as error:
        StudyTables.read("tiny")
    assert len(error.value.problems) == 1
