"""One look at each case: right facts, and every fault reported with its case, whatever else is wrong."""

import gzip
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from metaseg_nb.cohort.cases import Case, LesionRule
from metaseg_nb.cohort.examination import cases_table, examine, examine_all, lesions_table
from metaseg_nb.cohort.head import find_head, map_of_lesions
from metaseg_nb.cohort.problems import CohortError, problem_summary, problem_table, settled
from metaseg_nb.cohort.volumes import read_lesions

RULE = LesionRule((1,))


def rewrite(path, change, dtype=np.float32):
    """Change a file's array in place and keep its grid."""
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.ascontiguousarray(change(image.get_fdata())).astype(dtype), image.affine), path)


def reheader(path, change):
    """Change a file's affine, sform and qform alike, and keep its array."""
    image = nib.load(path)
    affine = change(image.affine.copy())
    nib.save(nib.Nifti1Image(image.get_fdata().astype(np.float32), affine), path)


@pytest.fixture
def good_case(write_case):
    """A case without fault: two lesions, of 60 and of 2 voxels."""

    def write(name, seed=0, **grid):
        case = write_case(name, seed=seed, **grid)
        if case.label is not None:
            lesions = read_lesions(case, RULE).array
            lesions[15, 15, 13] = True
            label = nib.load(case.label)
            native = nib.as_closest_canonical(label)
            back = nib.orientations.ornt_transform(nib.io_orientation(native.affine), nib.io_orientation(label.affine))
            array = nib.orientations.apply_orientation(lesions.astype(np.uint8), back)
            nib.save(nib.Nifti1Image(np.ascontiguousarray(array), label.affine), case.label)
        return case

    return write


def missing(case):
    case.image.unlink()


def missing_label(case):
    case.label.unlink()


def truncated(case):
    case.image.write_bytes(case.image.read_bytes()[:-3000])


def not_gzip(case):
    case.image.write_bytes(gzip.decompress(case.image.read_bytes()))


def zero_bytes(case):
    case.label.write_bytes(b"")


def four_dimensional(case):
    rewrite(case.image, lambda array: np.stack([array, array], axis=-1))


def giant(case):
    raw = bytearray(gzip.decompress(case.image.read_bytes()))
    raw[40:48] = np.array([3, 30000, 30000, 30000], "<i2").tobytes()
    case.image.write_bytes(gzip.compress(bytes(raw)))


def flipped_bit(case):
    raw = bytearray(gzip.compress(gzip.decompress(case.label.read_bytes()), compresslevel=0))
    raw[len(raw) // 2] ^= 1
    case.label.write_bytes(raw)


def complex_values(case):
    rewrite(case.image, lambda array: array * (3 + 4j), np.complex64)


def picture(case):
    colours = np.zeros(nib.load(case.label).shape, [(name, "u1") for name in "RGB"])
    nib.save(nib.Nifti1Image(colours, nib.load(case.label).affine), case.label)


def no_codes(case):
    for path in (case.image, case.label):
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None), path)


def not_a_number(case):
    rewrite(case.image, lambda array: np.where(array == array.max(), np.nan, array))


def infinite(case):
    rewrite(case.image, lambda array: np.where(array == array.max(), np.inf, array))


def constant(case):
    rewrite(case.image, lambda array: np.full(array.shape, 42))


def of_zeros(case):
    rewrite(case.image, np.zeros_like)


def negative(case):
    rewrite(case.image, lambda array: array - 3)


def empty_mask(case):
    rewrite(case.label, np.zeros_like, np.uint8)


def white_mask(case):
    rewrite(case.label, lambda array: 255 * array, np.uint8)


def brats_mask(case):
    rewrite(case.label, lambda array: array * np.where(np.indices(array.shape)[2] < 8, 2, 4), np.uint8)


def grey_mask(case):
    rewrite(case.label, lambda array: 0.7 * array)


def mask_outside(case):
    def move(array):
        moved = np.zeros_like(array)
        moved[1:4, 1:3, 1:3] = 1
        return moved

    rewrite(case.label, move, np.uint8)


def one_lesion_outside(case):
    def add(array):
        array[1:4, 1:3, 1:3] = 1
        return array

    rewrite(case.label, add, np.uint8)


def smaller_mask(case):
    rewrite(case.label, lambda array: array[:-1], np.uint8)


def shifted_mask(case):
    def shift(affine):
        affine[0, 3] += 1.0
        return affine

    reheader(case.label, shift)


def mask_without_header(case):
    def far_away(affine):
        affine[:3, 3] += 200.0
        return affine

    reheader(case.label, far_away)


def two_forms(case):
    image = nib.load(case.image)
    other = image.affine.copy()
    other[2, 3] += 4.0
    image.set_sform(image.affine, code=1)
    image.set_qform(other, code=1)
    nib.save(nib.Nifti1Image(image.get_fdata().astype(np.float32), image.affine, image.header), case.image)


def sheared(case):
    def shear(affine):
        affine[0, 1] += 0.2 * affine[1, 1]
        return affine

    for path in (case.image, case.label):
        image = nib.load(path)
        changed = nib.Nifti1Image(image.get_fdata().astype(np.float32), None)
        changed.set_sform(shear(image.affine.copy()), code=1)
        changed.header.set_zooms(nib.affines.voxel_sizes(changed.affine))
        nib.save(changed, path)


def flipped_label(case):
    label = nib.load(case.label)
    flip = nib.orientations.axcodes2ornt("LPS")
    nib.save(label.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(label.affine), flip)), case.label)


def thick(case):
    for path in (case.image, case.label):
        reheader(path, lambda affine: affine @ np.diag([1, 1, 7, 1]))


def in_metres(case):
    for path in (case.image, case.label):
        reheader(path, lambda affine: affine @ np.diag([0.001, 0.001, 0.001, 1]))


def specks(case):
    def add(array):
        array[12, 6, 6] = array[6, 14, 10] = 1
        return array

    rewrite(case.label, add, np.uint8)


def cut(case):
    def add(array):
        array[10:14, 10:14, -3:] = 1
        return array

    rewrite(case.label, add, np.uint8)


# fault: what makes it, words of each thing that is found with its file and severity
FAULTS = {
    "missing": (missing, [("no such file", "image", "error")]),
    "missing_label": (missing_label, [("no such file", "label", "error")]),
    "truncated": (truncated, [("unreadable", "image", "error")]),
    "not_gzip": (not_gzip, [("a file named .gz that is not gzip", "image", "error")]),
    "zero_bytes": (zero_bytes, [("0 bytes", "label", "error")]),
    "4d": (four_dimensional, [("4D", "image", "error")]),
    "nan": (not_a_number, [("1 NaN or infinite", "image", "error")]),
    "infinite": (infinite, [("1 NaN or infinite", "image", "error")]),
    "constant": (constant, [("the value 42 in every voxel", "image", "error")]),
    "zeros": (of_zeros, [("the value 0 in every voxel", "image", "error")]),
    "negative": (negative, [("negative values", "image", "warning")]),
    "empty": (empty_mask, [("an empty label", "label", "warning")]),
    "values": (white_mask, [("label values 255", "label", "error")]),
    "brats": (brats_mask, [("label values 2, 4", "label", "error")]),
    "grey": (grey_mask, [("label values 0.7", "label", "error")]),
    "outside": (mask_outside, [("1 of 1 lesions outside the brain", "label", "doubt")]),
    "one_outside": (one_lesion_outside, [("1 of 3 lesions outside the brain", "label", "warning")]),
    "smaller": (smaller_mask, [("shape (23, 24, 20)", "label", "error")]),
    "shifted": (shifted_mask, [("up to 1.0 mm away from the image", "label", "error")]),
    "no_header": (
        mask_without_header,
        [("0 % of the lesions in the brain by the headers, 100 % without them: up to 346.4 mm", "label", "error")],
    ),
    "two_forms": (two_forms, [("sform and qform up to 4.0 mm apart", "image", "warning")]),
    "sheared": (sheared, [("axes 11.3° off a right angle", "image", "error")]),
    "flipped": (flipped_label, [("axes LPS; the image has RAS", "label", "note")]),
    "thick": (thick, [("extreme spacing of 1x1x7 mm", "image", "warning")]),
    "metres": (in_metres, [("extreme spacing of 0.001x0.001x0.001 mm", "image", "error")]),
    "specks": (specks, [("2 of 4 lesions with a single voxel", "label", "warning")]),
    "cut": (cut, [("1 of 3 lesions cut by the edge", "label", "warning")]),
    "giant": (giant, [("but a header with shape (30000, 30000, 30000)", "image", "error")]),
    "flipped_bit": (flipped_bit, [("CRC check failed", "label", "error")]),
    "complex": (complex_values, [("complex numbers", "image", "error")]),
    "picture": (picture, [("colours", "label", "error")]),
    "no_codes": (
        no_codes,
        [("sform and qform codes of 0", "image", "warning"), ("sform and qform codes of 0", "label", "warning")],
    ),
}


def expected(case, name):
    return sorted((words, str(getattr(case, file)), severity) for words, file, severity in FAULTS[name][1])


def reported(problems, name):
    """What was found, as words of the fault where they are in it."""
    words = [text for text, *_ in FAULTS[name][1]]
    return sorted((next((w for w in words if w in p.found), p.found), p.file, p.severity) for p in problems)


def test_a_good_case_has_no_problem(good_case):
    assert examine(good_case("good"), RULE).problems == []


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_reported_with_case_and_file_and_nothing_else_is(good_case, name):
    case = good_case(name)
    FAULTS[name][0](case)
    problems = examine(case, RULE).problems
    assert {problem.case for problem in problems} == {name}
    assert reported(problems, name) == expected(case, name)
    assert all(problem.expected and problem.fix for problem in problems)


def test_no_fault_hides_another(good_case, tmp_path):
    cases = {"good": good_case("good", seed=0)}
    for seed, name in enumerate(FAULTS, start=1):
        cases[name] = good_case(name, seed=seed, primary="lung" if seed % 2 else "breast")
        FAULTS[name][0](cases[name])
    cases["again"] = good_case("again", seed=0, axes="LPS")
    cases["other_primary"] = replace(good_case("other_primary", seed=99, primary="renal"), patient="patient_specks")
    rewrite(cases["other_primary"].label, lambda array: np.roll(array, 1, axis=0), np.uint8)
    # all masks of this small cohort are one mask: only the first fault that leaves it alone may keep it
    examinations = examine_all(list(cases.values()), RULE, tmp_path / "kept", workers=1)
    problems = {
        name: [p for p in e.problems if "the same mask" not in p.found]
        for name, e in zip(cases, examinations, strict=True)
    }
    assert problems.pop("good") == []
    assert [p.found for p in problems.pop("again")] == ["the same image as case good, voxel by voxel"]
    assert [p.found for p in problems.pop("other_primary")] == ["patient patient_specks with breast and renal"]
    for name, found in problems.items():
        assert reported(found, name) == expected(cases[name], name)


LOST = "give it the image's header"
WAYS = {
    "header lost": ((0, 0, 0), 200.0, "0 % of the lesions in the brain by the headers, 100 % without them", LOST),
    "voxels moved": (
        (-5, -5, -5),
        5.0,
        "100 % of the lesions in the brain by the headers, 3 % without",
        "resample it onto",
    ),
    "one voxel off": (
        (0, 0, 0),
        1.0,
        "100 % of the lesions in the brain by the headers, 100 % without",
        "check the overlay both",
    ),
    "elsewhere": ((-5, -5, -5), -5.0, "0 % of the lesions in the brain by the headers, 3 % without", "another image"),
}


@pytest.mark.parametrize(("voxels", "millimetres", "shares", "fix"), WAYS.values(), ids=WAYS)
def test_of_two_ways_to_one_grid_the_one_that_keeps_the_lesions_is_named(good_case, voxels, millimetres, shares, fix):
    """62 voxels of lesion in a head of 24 x 24 x 20 mm; those of the second lie in it wherever they are moved."""
    case = good_case("a")
    label = nib.load(case.label)
    affine = label.affine.copy()
    affine[:3, 3] += millimetres
    nib.save(nib.Nifti1Image(np.roll(label.get_fdata(), voxels, (0, 1, 2)).astype(np.uint8), affine), case.label)
    (problem,) = examine(case, RULE).problems
    assert (problem.file, problem.severity) == (str(case.label), "error")
    assert problem.found.startswith(shares)
    assert problem.fix.startswith(fix) or fix in problem.fix
    assert "resample" not in problem.fix or "header" in problem.fix


def test_a_label_of_another_shape_can_only_be_resampled(good_case):
    case = good_case("a")
    label = nib.load(case.label)
    affine = label.affine.copy()
    affine[:3, 3] += 4
    nib.save(nib.Nifti1Image(np.asarray(label.dataobj)[4:20, 4:20, 4:16], affine), case.label)
    (problem,) = examine(case, RULE).problems
    assert problem.found.startswith("100 % of the lesions in the brain by the headers, 0 % without them")
    assert problem.fix.startswith("resample it onto the image")


def test_faults_of_one_case_do_not_hide_each_other(good_case):
    case = good_case("both")
    negative(case)
    not_a_number(case)
    two_forms(case)
    brats_mask(case)
    cut(case)
    specks(case)
    shifted_mask(case)
    found = [problem.found for problem in examine(case, RULE).problems]
    for words in (
        "negative",
        "1 NaN",
        "sform",
        "values 2, 4",
        "2 of 3 lesions with a single",
        "cut by",
        "1.0 mm away from the image",
    ):
        assert any(words in text for text in found), words
    assert len(found) == 7


def test_the_label_of_an_unreadable_image_is_looked_at_too(good_case):
    case = good_case("both")
    truncated(case)
    white_mask(case)
    examination = examine(case, LesionRule((255,)))
    assert ["unreadable" in p.found for p in examination.problems] == [True]
    assert len(examination.lesions) == 2
    assert examination.facts["n_lesions"] == 2
    assert examination.grey_slice is None


def test_further_sequences_are_checked_like_the_first(good_case):
    first, second, third = (good_case(name, seed=i) for i, name in enumerate(("t1c", "t2", "flair")))
    case = replace(first, images=(first.image, second.image, third.image))
    assert examine(case, RULE).problems == []
    assert examine(case, RULE).facts["sequences"] == 3
    not_a_number(second)
    smaller_mask(replace(third, label=third.image))
    found = {(p.found[:5], p.file) for p in examine(case, RULE).problems}
    assert found == {("1 NaN", str(second.image)), ("shape", str(third.image))}


def test_each_sequence_is_checked_for_slices_that_are_missing(write_nifti):
    """Of a head of 112 x 136 x 132 mm: of 4 slices the brain is not seen, of 3 nothing can be made."""
    places = np.indices((60, 72, 70)) - np.reshape((30, 36, 35), (3, 1, 1, 1))
    inside = np.linalg.norm(places / np.reshape((28, 34, 33), (3, 1, 1, 1)), axis=0) < 1
    head = np.where(inside, 100 + np.random.default_rng(0).normal(0, 5, inside.shape), 0).astype(np.float32)
    shown = {"t1c.nii.gz": slice(None), "flair.nii.gz": slice(30, 34), "t2.nii.gz": slice(30, 33)}
    files = [write_nifti(name, head[:, :, slices], (2.0, 2.0, 2.0)) for name, slices in shown.items()]
    problems = examine(Case("a", tuple(files), None, "p", "lung"), RULE).problems
    found = {(it.severity, it.file, it.found[:8]) for it in problems if it.severity != "note"}
    thin = {("warning", str(file), "a head o") for file in files[1:]}
    assert found == thin | {("error", str(files[2]), "shape (6")}


def problems_of(cases, tmp_path):
    examinations = examine_all(cases, RULE, tmp_path / "kept", workers=1)
    return [[(p.severity, p.found) for p in e.problems] for e in examinations]


# Seeds of two images under one mask.
MASKED_ALIKE = {"a": 0, "b": 20}


def test_a_mask_under_two_images_of_a_patient_is_noticed(good_case, tmp_path):
    cases = [replace(good_case(name, seed=seed), patient="one") for name, seed in MASKED_ALIKE.items()]
    assert problems_of(cases, tmp_path) == [[], [("warning", "the same mask as case a, for another image")]]


def test_a_mask_of_two_patients_is_a_doubt_until_both_cases_are_confirmed(good_case, tmp_path):
    cases = [good_case(name, seed=seed) for name, seed in MASKED_ALIKE.items()]
    assert problems_of(cases, tmp_path) == [
        [("doubt", "the same mask as case b, of another patient")],
        [("doubt", "the same mask as case a, of another patient")],
    ]
    problems = [p for e in examine_all(cases, RULE, tmp_path / "kept", workers=1) for p in e.problems]
    assert [p.severity for p in settled(problems, ["a"])] == ["note", "doubt"]
    assert [p.severity for p in settled(problems, ["a", "b"])] == ["note", "note"]


def test_empty_masks_are_no_masks_of_two_patients(good_case, tmp_path):
    cases = [good_case(name, seed=seed) for seed, name in enumerate("ab")]
    for case in cases:
        empty_mask(case)
    assert problems_of(cases, tmp_path) == [[("warning", "an empty label")]] * 2


@pytest.mark.parametrize("patient", ["patient_a", "patient_b"])
def test_one_image_rescaled_is_one_image(good_case, tmp_path, patient):
    """As in two public collections, of which one is z-scored."""
    cases = [good_case("a", seed=0), replace(good_case("b", seed=1), patient=patient, label=None)]
    rewrite(cases[1].image, lambda _: nib.load(cases[0].image).get_fdata())
    rewrite(cases[1].image, lambda array: (array - array.mean()) / array.std())
    errors = [problem for problem in problems_of(cases, tmp_path)[1] if problem[0] == "error"]
    assert errors == [("error", "the same image as case a, voxel by voxel")]


def test_more_lesion_than_usual_is_doubted_and_a_study_stops_for_it(write_case):
    """2464 voxels of 0.512 cm³ are a brain of 1262 cm³, 293 are one lesion of 150.02 cm³ and 292 of 149.5."""
    case = write_case("big", spacing_mm=(8.0, 8.0, 8.0), shape=(20, 20, 16))
    ball = nib.load(case.image).get_fdata() > 50
    assert ball.sum() == 2464
    inside = np.cumsum(ball.ravel()).reshape(ball.shape) * ball
    for voxels, severity in ((2464, "doubt"), (1231, "doubt"), (293, "doubt"), (292, None)):
        rewrite(case.label, lambda array, n=voxels: (inside > 0) & (inside <= n), np.uint8)
        found = [p for p in examine(case, RULE).problems if "not of the brain" in p.expected]
        assert [p.severity for p in found] == ([severity] if severity else []), voxels


def test_many_lesions_that_fill_the_brain_are_doubted(write_case):
    case = write_case("many", spacing_mm=(8.0, 8.0, 8.0), shape=(20, 20, 16))
    ball = nib.load(case.image).get_fdata() > 50
    x, _, z = np.indices(ball.shape)
    rewrite(case.label, lambda array: ball & (x % 4 < 3) & (z % 4 < 2), np.uint8)
    examination = examine(case, RULE)
    assert examination.lesions["volume_mm3"].max() < 150_000
    (found,) = (p for p in examination.problems if "not of the brain" in p.expected)
    assert (found.severity, found.found[:50]) == ("doubt", "473 cm³ of lesion, 38 % of a brain of 1262 cm³; th")


@pytest.mark.parametrize(
    ("name", "severity"),
    [
        ("brainmask", "doubt"), ("sub-01_desc-brain_mask", "doubt"), ("p1_bet_mask", "doubt"), ("t1c_bet", "doubt"),
        ("HD-BET", "doubt"), ("skull_mask", "doubt"), ("head-mask", "doubt"), ("skullstrip_mask", "doubt"),
        ("mask", None), ("brain_mets_mask", None), ("brain_tumor_seg", None), ("alphabet", None), ("label", None),
    ],
)  # fmt: skip
def test_a_file_named_as_a_brain_mask_is_doubted(write_case, name, severity):
    case = write_case("a")
    case = replace(case, label=case.label.rename(case.label.with_name(f"{name}.nii.gz")))
    found = [(p.severity, p.found) for p in examine(case, RULE).problems if "named" in p.found]
    assert found == ([(severity, f"a file named {name}.nii.gz")] if severity else [])


def test_problems_are_summed_up_by_kind(good_case, tmp_path):
    cases = [good_case(name, seed=i) for i, name in enumerate("abcd")]
    for case in cases[:3]:
        missing(case)
    negative(cases[3])
    examinations = examine_all(cases, RULE, tmp_path / "kept", workers=1)
    problems = [p for e in examinations for p in e.problems if "mask" not in p.found]
    summary = problem_summary(problems)
    assert summary[["severity", "cases"]].to_numpy().tolist() == [["error", 3], ["warning", 1]]
    assert summary.loc[0, "which"] == "a, b, c"
    assert problem_table(problems)["severity"].tolist() == ["error"] * 3 + ["warning"]


def test_values_decide_what_is_lesion(good_case):
    case = good_case("mixed")
    before = read_lesions(case, RULE).array
    white_mask(case)
    assert examine(case, LesionRule((255,))).problems == []
    mask = read_lesions(case, LesionRule((255,)))
    assert mask.array.dtype == bool
    np.testing.assert_array_equal(mask.array, before)
    with pytest.raises(CohortError, match=r"label values 255 \(.* voxels\); expected only the declared values 0, 1, 2"):
        read_lesions(case, LesionRule((1, 2)))
    np.testing.assert_array_equal(read_lesions(case, LesionRule(threshold=127.5)).array, before)


def test_other_values_are_declared_and_not_lesion(good_case):
    case = good_case("brats")
    brats_mask(case)
    both, one = (read_lesions(case, rule).array for rule in (LesionRule((2, 4)), LesionRule((4,), (2,))))
    assert (both.sum(), one.sum()) == (62, 3 * 4 * 3 + 2)
    assert examine(case, LesionRule((4,), (2,))).problems == []


def test_values_a_rounding_error_away_are_the_declared_ones(good_case):
    case = good_case("fuzzy")
    before = read_lesions(case, RULE).array
    rewrite(case.label, lambda array: array * 0.9999)
    assert examine(case, RULE).problems == []
    np.testing.assert_array_equal(read_lesions(case, RULE).array, before)


def test_an_image_with_another_voxel_is_the_same_image_and_one_with_other_noise_is_not(good_case, tmp_path):
    cases = [good_case("a", seed=0), *(replace(good_case(name, seed=1), label=None) for name in "bc")]
    rewrite(cases[1].image, lambda _: nib.load(cases[0].image).get_fdata())
    rewrite(cases[1].image, lambda array: array + (np.arange(array.size) == 77).reshape(array.shape))
    found = problems_of(cases, tmp_path)
    assert found == [[], [("error", "the same image as case a, voxel by voxel")], []]


def test_facts_of_a_case_are_those_of_its_file(write_case):
    case = write_case("thick", axes="LPS", spacing_mm=(1.0, 1.5, 2.0), primary="lung")
    examination = examine(case, RULE)
    facts = examination.facts
    assert (facts["shape"], facts["spacing_mm"], facts["axes"]) == ("24x24x20", "1x1.5x2", "LPS")
    assert (facts["finest_mm"], facts["coarsest_mm"]) == (1.0, 2.0)
    values = nib.load(case.image).get_fdata()
    assert (facts["intensity_min"], facts["intensity_max"]) == (values.min(), values.max())
    assert 100 < facts["intensity_p1"] < facts["intensity_median"] < facts["intensity_p99"] < 110
    # a box of 3 x 4 x 5 voxels, so of 3 x 6 x 10 mm, and one voxel
    assert facts["n_lesions"] == 2
    assert facts["lesion_volume_mm3"] == pytest.approx(3 * 6 * 10 + 3)
    assert facts["largest_diameter_mm"] == pytest.approx(np.sqrt(3**2 + 6**2 + 10**2))
    lesions = examination.lesions.sort_values("volume_mm3")
    assert lesions["voxels"].tolist() == [1, 60]
    assert lesions["diameter_mm"].tolist() == pytest.approx([np.sqrt(1 + 1.5**2 + 2**2), np.sqrt(145)])
    assert lesions[["x", "y", "z"]].to_numpy().tolist() == [[15, 15, 12], [7, 7.5, 8]]


def test_the_tables_have_a_row_per_case_and_per_lesion_with_whose_they_are(good_case, tmp_path):
    cases = [good_case("a", seed=0, primary="lung"), good_case("b", seed=1, primary="renal")]
    missing(cases[1])
    examinations = examine_all(cases, RULE, tmp_path / "kept", workers=1)
    table = cases_table(cases, examinations)
    assert table[["case", "patient", "primary", "labelled"]].to_numpy().tolist() == [
        ["a", "patient_a", "lung", True],
        ["b", "patient_b", "renal", True],
    ]
    assert table["n_lesions"].tolist() == [2, 2]
    assert table["head_cm3"].isna().tolist() == [False, True]
    lesions = lesions_table(cases, examinations)
    assert lesions[["case", "primary"]].to_numpy().tolist() == [["a", "lung"]] * 2 + [["b", "renal"]] * 2
    assert lesions["depth_mm"].isna().tolist() == [False, False, True, True]


def test_voxels_that_touch_by_a_corner_are_one_lesion(write_case):
    case = write_case("corner")

    def two_by_corner(array):
        mask = np.zeros_like(array)
        mask[8, 8, 8] = mask[9, 9, 9] = 1
        return mask

    rewrite(case.label, two_by_corner, np.uint8)
    assert examine(case, RULE).facts["n_lesions"] == 1


def test_an_unlabelled_case_has_facts_and_no_lesions(write_case):
    examination = examine(write_case("new", labelled=False), RULE)
    assert examination.problems == []
    assert len(examination.lesions) == 0
    assert "n_lesions" not in examination.facts


def test_an_empty_label_counts_as_no_lesion(write_case):
    case = write_case("none")
    empty_mask(case)
    facts = examine(case, RULE).facts
    assert (facts["n_lesions"], facts["lesion_volume_mm3"], facts["largest_diameter_mm"]) == (0, 0, 0)


@pytest.mark.parametrize("slices", [56, 57, 59, 61])
def test_a_lesion_map_of_a_part_of_a_head_needs_no_whole_number_of_coarse_voxels(slices):
    """A scan of a part of the head, whose size is no multiple of the coarse grid's step."""
    image = np.zeros((90, 100, slices), np.float32)
    image[10:80, 10:90, :] = 100 + np.random.default_rng(0).normal(0, 5, (70, 80, slices))
    mask = np.zeros(image.shape, bool)
    mask[40:44, 40:44, -3:] = True
    assert map_of_lesions(mask, find_head(image, (1.0, 1.0, 1.0))).any()
