"""The case store: what was put in is there, in two parts that count when they are whole and made the same way."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from metaseg_nb.checksums import checksum
from metaseg_nb.cohort.cases import LesionRule
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import Volume, write_volume
from metaseg_nb.preprocessing import case_store
from metaseg_nb.preprocessing.case_store import (
    drop_label,
    is_stored,
    open_case,
    open_cases,
    part_identity,
    store_image,
    store_label,
)
from metaseg_nb.preprocessing.grid import Grid
from metaseg_nb.preprocessing.registration import Registration
from metaseg_nb.preprocessing.steps import PreparedImage
from metaseg_nb.preprocessing.stored_case import record_correction

GRID, NATIVE = Grid((1.0, 1.0, 1.0), (6, 5, 4), (0.5, 1.0, -2.0)), Grid((0.8, 0.8, 6.5), (32, 30, 8))
IMAGE_WAY = {"spacing_mm": 1.0, "intensity_scaling": "percentiles", "sequences": 2}
LABEL_WAY = {"fill_holes": False}
IMAGE_FILES, LABEL_FILES = [[1000, 1], [1001, 2]], ["label's checksum"]
IMAGE_IDENTITY = part_identity(IMAGE_WAY, IMAGE_FILES)
LABEL_IDENTITY = part_identity(LABEL_WAY, LABEL_FILES, IMAGE_IDENTITY)
AFFINE, LPS = np.diag([0.8, 0.8, 6.5, 1.0]), nib.orientations.axcodes2ornt("LPS")


@pytest.fixture
def arrays():
    """Two sequences, a head, and a label of two lesions."""
    image = np.random.default_rng(0).uniform(size=(2, *GRID.shape)).astype(np.float32)
    head, label = np.zeros(GRID.shape, bool), np.zeros(GRID.shape, bool)
    head[1:, :, 1:3] = True
    label[1:3, 1, 1] = label[5, 4, 3] = True
    return image, head, label


@pytest.fixture
def prepared(arrays):
    """An image that was not corrected."""
    array = np.random.default_rng(1).uniform(1, 2, NATIVE.shape).astype(np.float32)
    volume = Volume(array, AFFINE, LPS)
    return PreparedImage(*arrays[:2], GRID, volume, [record_correction(volume, array, array, array > 1.5)])


@pytest.fixture
def put(tmp_path, arrays, prepared):
    """Store both parts of a case; keywords change their settings."""

    def put(name="c", image_way=IMAGE_WAY, label_way=LABEL_WAY, labelled_by=None):
        store_image(tmp_path, name, prepared, image_way, IMAGE_FILES)
        sources = LABEL_FILES if labelled_by is None else [checksum(labelled_by)]
        store_label(tmp_path, name, arrays[2], {"recipe": label_way, "sources": sources, "slices": [2, 1]})
        return open_case(tmp_path, name)

    return put


def whole(folder, label_files=LABEL_FILES):
    label = part_identity(LABEL_WAY, label_files, IMAGE_IDENTITY)
    return [is_stored(folder, "c", part, identity) for part, identity in (("image", IMAGE_IDENTITY), ("label", label))]


def test_what_is_stored_is_there_again_and_is_not_loaded(put, arrays, prepared):
    image, head, label = arrays
    stored = put()
    assert (stored.name, stored.native, stored.grid, stored.channels) == ("c", NATIVE, GRID, 2)
    assert stored.recipe == IMAGE_WAY | LABEL_WAY
    assert (stored.image_facts["sources"], stored.label_facts["sources"]) == (IMAGE_FILES, LABEL_FILES)
    for array, expected, dtype in (
        (stored.image, image.astype(np.float16), np.float16),
        (stored.head_voxels, np.argwhere(head), np.int32),
        (stored.label, label, np.uint8),
        (stored.lesion_voxels, np.argwhere(label), np.int32),
        (stored.lesion_boxes, [[[1, 3], [1, 2], [1, 2]], [[5, 6], [4, 5], [3, 4]]], np.int32),
    ):
        assert isinstance(array, np.memmap)
        assert array.dtype == dtype
        np.testing.assert_array_equal(array, expected)
    for name, value in asdict(prepared.corrections[0]).items():
        np.testing.assert_array_equal(getattr(stored.correction, name), value)


def test_where_a_sequence_was_found_is_stored_as_it_is(tmp_path, prepared):
    matrix = np.array([[0.0, -1.0, 0.0, 3.25], [1.0, 0.0, 0.0, -4.5], [0.0, 0.0, 1.0, 6.125], [0.0, 0.0, 0.0, 1.0]])
    found = Registration(matrix, moved_mm=8.5, degrees=90.0, apart_mm=2.5, agreeing=0.75)
    store_image(tmp_path, "c", replace(prepared, registrations=[None, found]), IMAGE_WAY, IMAGE_FILES)
    expected = {"matrix": matrix.tolist(), "moved_mm": 8.5, "degrees": 90.0, "apart_mm": 2.5, "agreeing": 0.75}
    assert open_case(tmp_path, "c").image_facts["registrations"] == [None, expected]


def test_a_mask_on_the_native_grid_is_written_as_the_case_s_own_files_are(put, tmp_path):
    mask = np.zeros(NATIVE.shape, np.uint8)
    mask[1, 2, 3] = 1
    write_volume(tmp_path / "mask.nii.gz", put().on_native(mask))
    file = nib.load(tmp_path / "mask.nii.gz")
    assert nib.aff2axcodes(file.affine) == ("L", "P", "S")
    place = nib.affines.apply_affine(file.affine, np.argwhere(np.asarray(file.dataobj))[0])
    np.testing.assert_allclose(place, (0.8, 1.6, 19.5), atol=1e-5)


def test_of_a_large_head_some_voxels_are_kept_the_same_each_time(put, arrays, monkeypatch):
    monkeypatch.setattr(case_store, "HEAD_VOXELS", 30)
    first, again = (np.array(put().head_voxels) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len(np.unique(first, axis=0)) == 30
    assert arrays[1][tuple(first.T)].all()


def test_a_case_counts_when_it_is_whole_and_made_the_same_way(tmp_path, put):
    assert whole(tmp_path) == [False, False]
    put()
    assert whole(tmp_path) == [True, True]
    assert not is_stored(tmp_path, "c", "image", part_identity({**IMAGE_WAY, "spacing_mm": 2.0}, IMAGE_FILES))
    assert not is_stored(tmp_path, "c", "image", part_identity(IMAGE_WAY, [[1000, 1], [1001, 3]]))
    (tmp_path / "c/image.json").unlink()
    with pytest.raises(CohortError, match="run notebook 02"):
        open_case(tmp_path, "c")


def test_a_label_counts_on_the_image_that_it_was_made_for(tmp_path, put):
    put(image_way={**IMAGE_WAY, "spacing_mm": 2.0})
    assert whole(tmp_path) == [False, False]


def test_a_new_image_takes_the_old_label_away(tmp_path, put, prepared):
    put()
    store_image(tmp_path, "c", prepared, IMAGE_WAY, IMAGE_FILES)
    assert whole(tmp_path) == [True, False]
    assert not open_case(tmp_path, "c").has_label


def test_a_label_can_be_dropped(tmp_path, put):
    put()
    drop_label(tmp_path, "c")
    drop_label(tmp_path, "never_there")
    assert not open_case(tmp_path, "c").has_label
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == [
        "correction.npz", "head_voxels.npy", "image.json", "image.npy", "reach.npy",
    ]  # fmt: skip


@pytest.mark.parametrize("writes", range(5))
def test_a_case_whose_replacement_was_interrupted_does_not_count(tmp_path, put, monkeypatch, writes):
    """The disk is full before the second, the third ... array of the new case."""
    put()
    save, done = np.save, []

    def full_disk(*arguments):
        if len(done) == writes:
            raise OSError("no space left on device")
        done.append(save(*arguments))

    monkeypatch.setattr(np, "save", full_disk)
    with pytest.raises(OSError, match="no space"):
        put()
    monkeypatch.undo()
    # the image has three arrays, the label too
    assert whole(tmp_path) == [writes >= 3, False]
    put()
    assert whole(tmp_path) == [True, True]
    assert not list((tmp_path / "c").glob(".*")), "an unfinished file was left"


def test_every_case_that_is_missing_or_made_otherwise_is_named(tmp_path, put, write_case):
    cases = [write_case(name) for name in "abcde"]
    put("a", labelled_by=cases[0].label)
    put("c", image_way={**IMAGE_WAY, "spacing_mm": 2.0}, labelled_by=cases[2].label)
    put("e")
    drop_label(tmp_path, "e")
    with pytest.raises(CohortError) as error:
        open_cases(tmp_path, cases)
    assert [problem.case for problem in error.value.problems] == ["b", "d", "e", "c"]
    assert "spacing_mm 2.0, not 1.0" in str(error.value)
    (opened,) = open_cases(tmp_path, [replace(cases[0], patient="someone")])
    assert (opened.name, opened.patient) == ("a", "someone")


def test_a_case_without_label_goes_with_labelled_ones(tmp_path, put, write_case):
    cases = [write_case("a"), write_case("new", labelled=False)]
    put("a", labelled_by=cases[0].label)
    put("new")
    drop_label(tmp_path, "new")
    assert [stored.has_label for stored in open_cases(tmp_path, cases)] == [True, False]


# Damage


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zeroed(path):
    path.write_bytes(path.read_bytes()[:-8] + bytes(8))


def flipped(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGE = [Path.unlink, cut, zeroed, flipped]
PARTS = {"image": ["image.npy", "head_voxels.npy", "reach.npy", "correction.npz"]}
PARTS |= {"label": ["label.npy", "lesion_voxels.npy", "lesion_boxes.npy"]}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("array", [array for part in PARTS.values() for array in part])
def test_a_part_with_a_damaged_array_does_not_count_and_is_named(tmp_path, put, write_case, array, damage):
    case = write_case("c")
    put(labelled_by=case.label)
    label_files = [checksum(case.label)]
    (tmp_path / "c/image.npy").write_bytes((tmp_path / "c/image.npy").read_bytes())  # the same again is no damage
    assert whole(tmp_path, label_files) == [True, True]
    damage(tmp_path / "c" / array)
    assert whole(tmp_path, label_files) == [array not in PARTS["image"], array not in PARTS["label"]]
    with pytest.raises(CohortError) as error:
        open_cases(tmp_path, [case])
    (problem,) = error.value.problems
    assert (problem.case, problem.file) == ("c", str(tmp_path / "c" / array))
    assert "run notebook 02 again" in problem.fix


@pytest.mark.parametrize("damage", [cut, flipped, lambda path: path.write_text("[]")])
@pytest.mark.parametrize("part", PARTS)
def test_a_damaged_record_is_no_case_without_label(tmp_path, put, part, damage):
    put()
    damage(tmp_path / f"c/{part}.json")
    assert not is_stored(tmp_path, "c", part, {"image": IMAGE_IDENTITY, "label": LABEL_IDENTITY}[part])
    with pytest.raises(CohortError, match=rf"case c, file .*{part}\.json.*run notebook 02 again"):
        open_case(tmp_path, "c")


def test_one_changed_digit_of_a_record_is_noticed(tmp_path, put):
    put()
    record = tmp_path / "c/image.json"
    record.write_text(record.read_text().replace("6.5", "6.6"))
    with pytest.raises(CohortError, match="content that has changed since it was written"):
        open_case(tmp_path, "c")


def test_a_store_without_checksums_is_made_again_and_named(tmp_path, put):
    put()
    record = tmp_path / "c/image.json"
    before = {key: value for key, value in json.loads(record.read_text()).items() if key not in ("files", "sha256")}
    record.write_text(json.dumps(before))
    assert whole(tmp_path) == [False, True]
    with pytest.raises(CohortError, match=r"content that has changed.*run notebook 02 again"):
        open_case(tmp_path, "c")


def test_a_label_that_changed_since_it_was_prepared_is_named(tmp_path, put, write_case):
    case = write_case("c")
    put(labelled_by=case.label)
    os.utime(case.label, (1, 1))  # copied, or touched: the same label
    assert open_cases(tmp_path, [case])
    flipped(case.label)
    with pytest.raises(CohortError, match=r"a label changed after notebook 02 read it.*run notebook 02 again"):
        open_cases(tmp_path, [case])


def test_all_that_is_damaged_is_named_at_once(tmp_path, put, write_case):
    cases = [write_case(name) for name in "ab"]
    for case in cases:
        put(case.name, labelled_by=case.label)
    (tmp_path / "a/label.npy").unlink()
    zeroed(tmp_path / "a/image.npy")
    cut(tmp_path / "b/image.json")
    with pytest.raises(CohortError) as error:
        open_cases(tmp_path, cases)
    files = [str(Path(problem.file).relative_to(tmp_path)) for problem in error.value.problems]
    assert files == ["a/image.npy", "a/label.npy", "b/image.json"]


def test_a_label_made_by_another_rule_of_what_is_lesion_is_named(tmp_path, put, write_case):
    case, made = write_case("a"), LesionRule((1, 3), (2,))
    put("a", label_way={"lesions": made.as_json()}, labelled_by=case.label)
    assert open_cases(tmp_path, [case], made)
    with pytest.raises(
        CohortError, match=r"case a.*\[1, 3\].*not.*\[1\].*the cohort's lesion rule.*run notebook 02 again"
    ):
        open_cases(tmp_path, [case], LesionRule())
