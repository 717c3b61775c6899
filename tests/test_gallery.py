"""The gallery: every miss and large false lesion is in it, where it belongs, with what each network did."""

import io
import re
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import ndimage

from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import Volume, read_volume, write_volume
from metaseg_nb.evaluation.lesion_metrics import lesion_metrics
from metaseg_nb.figures.reviewed import CaseImages, StudyTables, false_lesions, read_case_images
from metaseg_nb.figures.style import use_style
from metaseg_nb.files import write_table
from metaseg_nb.layout import StudyLayout
from metaseg_nb.report.gallery import (
    CASE_FIELD_MM,
    MOST_BYTES,
    MOST_ENTRIES,
    MOST_PANELS,
    anchor,
    draw_entry,
    draw_gallery,
    draw_networks,
    find_false_lesions,
    gallery_entries,
    picture_file,
    read_gallery,
    save_picture,
    view_file,
)
from metaseg_nb.report.pages import slice_view

MODELS = ["unet", "unetr"]


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ('a<b>c:d"e|f?g*', "a_b_c_d_e_f_g__"),
        ("scan 1.. .", "scan 1__"),
        ("con", "_con_"),
        ("NUL.2021", "_NUL.2021_"),
        ("Lpt1", "_Lpt1_"),
    ],
)
def test_files_have_names_that_windows_can_hold_and_that_are_their_own(name, start):
    assert re.fullmatch(re.escape(start) + r"[0-9a-f]{8}\.webp", picture_file(name))
    assert re.fullmatch(re.escape(start) + r"[0-9a-f]{8}_unet\.html", view_file(name, "unet"))
    assert len({picture_file(each).lower() for each in ("a?b", "a*b", "a_b", "A:b")}) == 4


@pytest.mark.parametrize("name", ["Müller Hans, 50 %", "c1_lesion1", "console", "NULL", "a.b", "com", "COM10"])
def test_files_of_other_names_are_called_like_them(name):
    assert picture_file(name) == f"{name}.webp"


def test_agreement_by_hand():
    reference, prediction = np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool)
    images = CaseImages("c0", None, reference, {"unet": prediction})
    assert images.agreement("unet").tolist() == [1, 2, 3, 0]


def test_a_false_lesion_touches_no_dilated_reference_lesion_largest_first():
    reference, prediction = np.zeros((2, 20, 20, 20), bool)
    reference[2:5, 2:5, 2:5] = True
    prediction[5, 4, 4] = True  # beside the reference: within its dilation
    prediction[8, 8, 8] = True
    prediction[12:14, 12:14, 12:14] = True
    found = false_lesions(reference, prediction, (1.0, 1.0, 2.0))
    assert found["volume_mm3"].tolist() == [16.0, 2.0]
    assert found.loc[1, ["x", "y", "z"]].tolist() == [8, 8, 8]


@pytest.mark.parametrize("seed", range(10))
def test_false_lesions_are_those_that_the_metrics_count(seed):
    rng = np.random.default_rng(seed)
    reference, prediction = rng.random((2, 18, 18, 18)) > 0.985
    summary, _ = lesion_metrics(reference, prediction, (1.0, 1.0, 1.0))
    assert len(false_lesions(reference, prediction, (1.0, 1.0, 1.0))) == summary["n_false"]


def tables():
    """Two networks on three cases: what notebooks 01 and 04 would have left."""
    dice = {"unet": (0.9, 0.5, 0.1), "unetr": (0.2, 0.4, 0.3)}
    metrics = pd.DataFrame(
        [
            {"model": m, "case": f"c{i}", "patient": f"c{i}", "primary": "lung", "dice": d}
            for m in MODELS
            for i, d in enumerate(dice[m])
        ]
    )
    places = [("c0", 1, 4.0, 30.0, 2), ("c0", 2, 15.0, 900.0, 28), ("c1", 1, 22.0, 3000.0, 3)]
    detected = {"unet": (False, True, True), "unetr": (True, False, False)}
    classes = {4.0: "<5 mm", 15.0: "10-20 mm", 22.0: ">20 mm"}
    lesions = pd.DataFrame(
        [
            {"model": m, "case": case, "patient": case, "primary": "lung", "lesion": number, "diameter_mm": diameter}
            | {"volume_mm3": volume, "x": 5.0, "y": 6.0, "z": float(z), "detected": hit, "dice": 0.8 * hit}
            | {"diameter_class": classes[diameter]}
            for m in MODELS
            for (case, number, diameter, volume, z), hit in zip(places, detected[m], strict=True)
        ]
    )
    positions = pd.DataFrame(
        [
            {"case": case, "x": 5.0, "y": 6.0, "z": z, "third": "inferior" if z < 10 else "superior", "depth_mm": 5.0}
            for case, _, _, _, z in places
        ]
    )
    false = pd.DataFrame(
        [
            {"model": "unet", "case": "c2", "primary": "lung", "lesion": n, "diameter_mm": d, "volume_mm3": 10 * d}
            | {"x": 1.0, "y": 2.0, "z": 3.0}
            for n, d in ((1, 12.0), (2, 9.9), (3, 10.0), (4, 30.0))
        ]
    )
    return metrics, lesions, positions, false


@pytest.fixture
def entries():
    return gallery_entries(*tables(), MODELS, 10.0)


def shown(entries, page, group):
    return entries.loc[(entries["page"] == page) & (entries["group"] == group), "picture"].tolist()


def test_each_page_holds_what_it_says_worst_first(entries):
    assert shown(entries, "cases", "unet") == ["c2", "c1", "c0"]
    assert shown(entries, "cases", "unetr") == ["c0", "c2", "c1"]
    assert entries.loc[entries["page"] == "cases", "why"].tolist() == ["worst", "typical", "best"] * 2
    assert shown(entries, "missed", "unet") == ["c0_lesion1"]
    assert shown(entries, "missed", "unetr") == ["c1_lesion1", "c0_lesion2"]
    assert shown(entries, "false", "unet") == ["c2_false_unet_4", "c2_false_unet_1", "c2_false_unet_3"]
    assert shown(entries, "false", "unetr") == []
    assert shown(entries, "small", "") == ["c0_lesion1"]
    assert shown(entries, "lower", "") == ["c1_lesion1", "c0_lesion1"]
    lower = entries[entries["page"] == "lower"]
    assert lower["why"].tolist() == ["found by 1 of 2 networks"] * 2


def test_no_two_entries_of_a_page_stand_at_one_place(entries):
    assert not entries.assign(at=[anchor(row) for row in entries.to_dict("records")]).duplicated(["page", "at"]).any()


EIGHT = ["unet", "attention_unet", "segresnet", "unetr", "swin_unetr", "dynunet", "segresnet_ds", "unet_roi"]


def of_a_poor_study(n_models, n_patients=300):
    """Tables of networks that miss two lesions of every patient and make five large ones up."""
    models, rng = EIGHT[:n_models], np.random.default_rng(0)
    names = [f"patient{i:03}" for i in range(n_patients)]
    metrics = pd.DataFrame(
        [{"model": m, "case": c, "patient": c, "primary": "lung", "dice": rng.random()} for m in models for c in names]
    )
    place = {"primary": "lung", "x": 5.0, "y": 6.0, "z": 7.0}
    sizes = rng.uniform(2, 4.9, (n_patients, 2))
    lesions = pd.DataFrame(
        [
            {"model": m, "case": c, "patient": c, "lesion": n + 1, "diameter_mm": sizes[i, n], "volume_mm3": 20.0}
            | {"detected": False, "dice": 0.0, "diameter_class": "<5 mm", **place}
            for m in models for i, c in enumerate(names) for n in range(2)
        ]
    )  # fmt: skip
    positions = pd.DataFrame([{"case": c, "third": "inferior", "depth_mm": 5.0, **place} for c in names])
    false = pd.DataFrame(
        [
            {"model": m, "case": c, "lesion": n, "diameter_mm": rng.uniform(10, 40), "volume_mm3": 900.0, **place}
            for m in models for c in names for n in range(5)
        ]
    )  # fmt: skip
    return gallery_entries(metrics, lesions, positions, false, models, 10.0), false


@pytest.mark.parametrize(("n_models", "entries_shown"), [(1, 20), (4, 20), (8, 5)])
def test_a_poor_study_shows_the_worst_of_each_network_and_says_how_many_of_how_many(n_models, entries_shown):
    entries, false = of_a_poor_study(n_models)
    groups = entries.groupby(["page", "group"]).size()
    assert (groups.drop("cases") == groups.drop("cases").max()).all(), "no network is shown more of than another"
    assert groups["false"].unique().tolist() == [entries_shown]
    assert entries_shown <= MOST_ENTRIES
    assert entries["picture"].nunique() * (n_models + 1) <= MOST_PANELS
    shown = entries[(entries["page"] == "false") & (entries["group"] == "unet")]
    largest = false[false["model"] == "unet"]["diameter_mm"].nlargest(entries_shown)
    assert shown["diameter_mm"].tolist() == largest.tolist()
    of = entries.groupby(["page", "group"])["of"].first()
    assert of["false", "unet"] == 1500
    assert of["cases", "unet"] == 3
    assert of["small", ""] == 600


def test_the_gallery_of_many_patients_and_networks_can_be_mailed():
    """Eight networks on an image as noisy as any, fine voxels: pictures and slice views are small enough."""
    plt.switch_backend("Agg")
    use_style()
    rng, shape, models = np.random.default_rng(0), (200, 240, 180), EIGHT
    smooth = ndimage.gaussian_filter(rng.normal(0, 1, shape), 2)
    ball = sum(((index - n / 2) / (n / 2.2)) ** 2 for index, n in zip(np.indices(shape), shape, strict=True)) < 1
    array = np.where(ball, 300 + 200 * smooth / smooth.std() + rng.normal(0, 15, shape), 0).astype(np.float32)
    mask = np.zeros(shape, bool)
    mask[100:112, 115:128, 88:96] = True
    image = Volume(array, np.diag([0.9, 0.9, 0.9, 1.0]), np.array([[0, 1], [1, 1], [2, 1]]))
    images = CaseImages("c", image, mask, {m: np.roll(mask, i, 0) for i, m in enumerate(models)})
    buffer = io.BytesIO()
    figure = draw_networks(images, images.place, dict.fromkeys(models, "Dice 0.50"), CASE_FIELD_MM)
    save_picture(figure, buffer)
    plt.close(figure)
    views = len(slice_view(images, models[0], images.place, 60.0)) * 3 * len(models)
    pictures = len(buffer.getvalue()) * (MOST_PANELS // (len(models) + 1))
    assert pictures + views < MOST_BYTES


def test_without_a_mistake_there_is_nothing_but_cases():
    metrics, lesions, positions, false = tables()
    perfect = gallery_entries(metrics, lesions.assign(detected=True).iloc[1:3], positions, false[:0], ["unet"], 10.0)
    assert set(perfect["page"]) <= {"cases", "lower"}


@pytest.fixture
def study(write_case, tmp_path, monkeypatch):
    """Two cases: one network predicts the label, the other a cube elsewhere."""
    monkeypatch.setenv("METASEG_HOME", str(tmp_path / "home"))
    layout = StudyLayout("tiny")
    written = [write_case(f"c{i}", seed=i, axes=("RAS", "LPI")[i], spacing_mm=(1, 1, 1.5)) for i in range(2)]
    cases = [Case(**{**vars(case), "fold": i}) for i, case in enumerate(written)]
    for case in cases:
        label = read_volume(case.label, case.name, np.uint8)
        elsewhere = np.zeros_like(label.array)
        elsewhere[17:21, 3:7, 3:7] = 1
        for model, array in (("unet", label.array), ("unetr", elsewhere)):
            mask = layout.run(model, case.fold).predictions / f"{case.name}.nii.gz"
            write_volume(mask, Volume(array, label.affine, label.native_orientation))
    metrics = pd.DataFrame({"model": MODELS, "case": "c1", "dice": [1.0, 0.0]})
    lesions = pd.DataFrame(
        {"model": MODELS, "case": "c1", "lesion": 1, "detected": [True, False], "dice": [0.914, 0.0]}
    )
    write_table(layout.cross_validation / "metrics.csv", metrics)
    write_table(layout.cross_validation / "lesions.csv", lesions)
    return StudyTables(layout, Cohort("tiny", "", cases), pd.DataFrame(), metrics, lesions, MODELS, {})


def read_images(study, case, models=MODELS):
    return read_case_images(study.layout, study.cohort, case, models)


def test_false_lesions_of_a_study_name_network_and_case(study):
    found = find_false_lesions(study, MODELS, 1)
    assert found[["model", "case"]].to_numpy().tolist() == [["unetr", "c0"], ["unetr", "c1"]]
    assert found["volume_mm3"].tolist() == pytest.approx([96.0, 96.0])
    assert found[["x", "y", "z"]].to_numpy().tolist() == [[18.5, 4.5, 4.5]] * 2


def entry_of(lesion, page="missed"):
    facts = {"page": page, "group": "unetr", "picture": f"c1_lesion{lesion}", "case": "c1", "why": "missed"}
    return pd.Series(facts | {"lesion": lesion, "x": 7.0, "y": 7.5, "z": 8.0, "volume_mm3": 90.0, "diameter_mm": 9.0})


def test_a_picture_says_what_each_network_made_of_the_lesion(study):
    plt.switch_backend("Agg")
    figure = draw_entry(study, read_images(study, "c1"), entry_of(1))
    titles = [axes.get_title() for axes in figure.axes[:3]]
    assert titles == ["whole slice", "U-Net\nDice 0.91", "UNETR\nmissed"]
    assert len(figure.axes) == 9
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["reference", "prediction"]
    plt.close(figure)


@pytest.mark.parametrize("models", [["unet"], MODELS])
def test_no_label_of_a_picture_is_cut_off(study, models):
    figure = draw_networks(read_images(study, "c1", models), (8, 8, 8), dict.fromkeys(models, "title"), 20.0)
    figure.draw_without_rendering()
    boxes = [axes.yaxis.label.get_window_extent() for axes in figure.axes if axes.get_ylabel()]
    assert len(boxes) == 3
    assert all(box.x0 >= 0 and box.y0 >= 0 for box in boxes)
    plt.close(figure)


def test_the_place_of_a_case_is_its_largest_lesion_or_else_its_prediction(study):
    images = read_images(study, "c0")
    assert images.reference[images.place]
    nothing = type(images)(images.name, images.image, images.reference & False, images.predictions)
    assert nothing.predictions["unet"][nothing.place]


def test_the_gallery_is_drawn_anew_each_picture_once(study):
    layout = study.layout
    layout.gallery.mkdir(parents=True)
    (layout.gallery / "of_an_earlier_run.webp").write_bytes(b"")
    first = pd.Series({"page": "cases", "group": "unet", "picture": "c1", "case": "c1", "why": "best", "dice": 1.0})
    again = entry_of(1, "lower")
    again["group"] = ""
    entries = pd.DataFrame([first, entry_of(1), again])
    draw_gallery(study, entries, MODELS, 20.0, 1)
    pictures = ["c1.webp", "c1_lesion1.webp", "c1_unet.html"]
    assert sorted(path.name for path in layout.gallery.iterdir()) == [*pictures, "entries.csv"]
    with Image.open(layout.gallery / "c1_lesion1.webp") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    red, blue = pixels[..., 0], pixels[..., 2]
    assert (blue - red > 60).sum() > 20, "the reference is outlined in blue"
    assert (red - blue > 60).sum() > 20, "a prediction is outlined in orange"


def test_a_gallery_is_kept_until_something_that_it_shows_changes(study, capsys):
    entries = pd.DataFrame([entry_of(1)]).assign(of=1)
    picture = study.layout.gallery / "c1_lesion1.webp"

    def drawn(models=MODELS):
        before = picture.stat().st_mtime_ns if picture.is_file() else None
        draw_gallery(study, entries, models, 20.0, 1)
        assert ("is kept" in capsys.readouterr().out) == (picture.stat().st_mtime_ns == before)
        return picture.stat().st_mtime_ns != before

    assert [drawn(), drawn()] == [True, False]
    mask = study.layout.run("unetr", 1).predictions / "c1.nii.gz"
    mask.write_bytes((study.layout.run("unet", 1).predictions / "c1.nii.gz").read_bytes())
    assert [drawn(), drawn()] == [True, False]
    assert [drawn(["unet"]), drawn(["unet"])] == [True, False]
    write_table(study.layout.cross_validation / "lesions.csv", study.lesions.assign(dice=0.5))
    assert [drawn(["unet"]), drawn(["unet"])] == [True, False]
    picture.write_bytes(b"damaged")
    assert [drawn(["unet"]), drawn(["unet"])] == [True, False]


def test_a_picture_that_changed_or_is_older_than_the_comparison_is_named(study):
    entries = pd.DataFrame([entry_of(1)]).assign(of=1)
    draw_gallery(study, entries, MODELS, 20.0, 1)
    assert len(read_gallery(study.layout)) == 1
    write_table(study.layout.cross_validation / "metrics.csv", study.metrics.assign(dice=0.5))
    with pytest.raises(
        CohortError, match=r"pictures of other results than those of notebook 04.*run notebook 05 again"
    ):
        read_gallery(study.layout)
    picture = study.layout.gallery / "c1_lesion1.webp"
    picture.write_bytes(picture.read_bytes()[:-1])
    with pytest.raises(
        CohortError, match=r"c1_lesion1\.webp: found content that has changed since it was written.*notebook 05"
    ):
        read_gallery(study.layout)


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_slice_view_of_a_case_without_lesion_and_prediction_shows_the_image(study):
    images = read_images(study, "c0", ["unet"])
    nothing = images.reference & False
    empty = replace(images, reference=nothing, predictions={"unet": nothing})
    page = slice_view(empty, "unet", empty.place, 20.0)
    assert 'id="spriteImg"' in page
