"""One look at each case: right facts, and every fault reported with its case, whatever else is wrong."""

import nibabel as nib
import numpy as np
import pytest

from metaseg_nb.cohort.cases import LesionRule
from metaseg_nb.cohort.examination import examine, examine_all
from metaseg_nb.cohort.labels import read_lesions
from metaseg_nb.cohort.problems import CohortError, problem_table


def rewrite(path, change, dtype=np.float32):
    """Change a file's array in place and keep its grid."""
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.ascontiguousarray(change(image.get_fdata())).astype(dtype), image.affine), path)


def missing(case):
    case.image.unlink()


def missing_label(case):
    case.label.unlink()


def truncated(case):
    case.image.write_bytes(case.image.read_bytes()[:-3000])


def four_dimensional(case):
    rewrite(case.image, lambda array: np.stack([array, array], axis=-1))


def not_a_number(case):
    rewrite(case.image, lambda array: np.where(array == array.max(), np.nan, array))


def constant(case):
    rewrite(case.image, lambda array: np.full(array.shape, 42))


def white_mask(case):
    rewrite(case.label, lambda array: 255 * array, np.uint8)


def empty_mask(case):
    rewrite(case.label, np.zeros_like, np.uint8)


def shifted_mask(case):
    image = nib.load(case.label)
    affine = image.affine.copy()
    affine[0, 3] += 1.0
    nib.save(nib.Nifti1Image(image.get_fdata().astype(np.uint8), affine), case.label)


def smaller_mask(case):
    rewrite(case.label, lambda array: array[:-1], np.uint8)


# fault: what makes it, words of what is found, the file that is named
FAULTS = {
    "missing": (missing, "no such file", "image"),
    "missing_label": (missing_label, "no such file", "label"),
    "truncated": (truncated, "unreadable", "image"),
    "4d": (four_dimensional, "4D", "image"),
    "nan": (not_a_number, "NaN", "image"),
    "constant": (constant, "the value 42 everywhere", "image"),
    "values": (white_mask, "label values 255", "label"),
    "shifted": (shifted_mask, "origin (-11.0, 7.0, 30.0)", "label"),
    "smaller": (smaller_mask, "shape (23, 24, 20)", "label"),
    "empty": (empty_mask, "an empty label", "label"),
}


@pytest.fixture
def faulty(write_case):
    """A good case, one with each fault, and the good one's image again under another name."""
    cases = {"good": write_case("good", seed=0)}
    for seed, (name, (fault, *_)) in enumerate(FAULTS.items(), start=1):
        cases[name] = write_case(name, seed=seed)
        fault(cases[name])
    cases["again"] = write_case("again", seed=0, axes="LPS")
    return cases


def test_a_good_case_has_no_problem(write_case):
    assert examine(write_case("good"), LesionRule((1,))).problems == []


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_reported_with_case_and_file(write_case, name):
    fault, found, file = FAULTS[name]
    case = write_case(name)
    fault(case)
    problems = examine(case, LesionRule((1,))).problems
    assert len(problems) == 1
    assert (problems[0].case, problems[0].file) == (name, str(getattr(case, file)))
    assert found in problems[0].found
    assert problems[0].severity == ("warning" if name == "empty" else "error")


def test_no_fault_hides_another(faulty):
    examinations = examine_all(list(faulty.values()), LesionRule((1,)), workers=1)
    found = {name: [p.found for p in e.problems] for name, e in zip(faulty, examinations, strict=True)}
    assert found.pop("good") == []
    assert found.pop("again") == ["the same voxels as case good"]
    for name, (_, words, _) in FAULTS.items():
        assert [words in text for text in found[name]] == [True]


def test_faults_of_one_case_do_not_hide_each_other(write_case):
    case = write_case("both")
    constant(case)
    white_mask(case)
    shifted_mask(case)
    found = [problem.found for problem in examine(case, LesionRule((1,))).problems]
    assert len(found) == 3
    for words in ("the value 42 everywhere", "label values 255", "origin (-11.0"):
        assert any(words in text for text in found)


def test_the_label_of_an_unreadable_image_is_looked_at_too(write_case):
    case = write_case("both")
    not_a_number(case)
    smaller_mask(case)
    examination = examine(case, LesionRule((1,)))
    assert ["NaN" in p.found or "shape (23, " in p.found for p in examination.problems] == [True, True]
    assert len(examination.lesions) == 2
    assert examination.facts == {}


def test_one_missing_file_is_one_problem(write_case):
    case = write_case("gone")
    missing(case)
    missing_label(case)
    problems = examine(case, LesionRule((1,))).problems
    assert sorted(problem.file for problem in problems) == [str(case.image), str(case.label)]


def test_errors_come_before_warnings_in_the_table(faulty):
    examinations = examine_all(list(faulty.values()), LesionRule((1,)), workers=1)
    table = problem_table(problem for e in examinations for problem in e.problems)
    assert table["severity"].tolist() == ["error"] * 10 + ["warning"]
    assert list(table.loc[table["severity"] == "error", "case"]) == sorted(set(FAULTS) - {"empty"} | {"again"})


def test_declared_lesion_values_make_a_mask(write_case):
    case = write_case("white")
    before = read_lesions(case, LesionRule((1,))).array
    white_mask(case)
    assert examine(case, LesionRule((255,))).problems == []
    mask = read_lesions(case, LesionRule((255,)))
    assert mask.array.dtype == bool
    np.testing.assert_array_equal(mask.array, before)
    with pytest.raises(CohortError, match=r"label values 255; expected only 0, 1, 2, as"):
        read_lesions(case, LesionRule((1, 2)))


def test_images_that_differ_in_one_voxel_are_two_images(write_case):
    cases = [write_case("a", seed=0), write_case("b", seed=1)]
    rewrite(cases[1].image, lambda _: nib.load(cases[0].image).get_fdata())
    rewrite(cases[1].image, lambda array: array + (np.arange(array.size) == 77).reshape(array.shape))
    assert [e.problems for e in examine_all(cases, LesionRule((1,)), workers=1)] == [[], []]


def test_facts_of_a_case_are_those_of_its_file(write_case):
    case = write_case("thick", axes="LPS", spacing_mm=(1.0, 1.5, 2.0), primary="lung")
    examination = examine(case, LesionRule((1,)))
    facts = dict(examination.facts)
    assert (facts["case"], facts["patient"], facts["primary"]) == ("thick", "patient_thick", "lung")
    assert (facts["shape"], facts["spacing_mm"], facts["axes"]) == ("24x24x20", "1x1.5x2", "LPS")
    values = nib.load(case.image).get_fdata()
    assert (facts["intensity_min"], facts["intensity_max"]) == (values.min(), values.max())
    # a box of 3 x 4 x 5 voxels, so of 3 x 6 x 10 mm, and one voxel
    assert facts["n_lesions"] == 2
    assert facts["lesion_volume_mm3"] == pytest.approx(3 * 6 * 10 + 3)
    assert facts["largest_diameter_mm"] == pytest.approx(np.sqrt(3**2 + 6**2 + 10**2))
    lesions = examination.lesions.sort_values("volume_mm3")
    assert lesions["voxels"].tolist() == [1, 60]
    assert lesions["diameter_mm"].tolist() == pytest.approx([np.sqrt(1 + 1.5**2 + 2**2), np.sqrt(145)])
    assert lesions[["x", "y", "z"]].to_numpy().tolist() == [[15, 15, 12], [7, 7.5, 8]]
    assert set(lesions["case"]) == {"thick"}


def test_voxels_that_touch_by_a_corner_are_one_lesion(write_case):
    case = write_case("corner")

    def two_by_corner(array):
        mask = np.zeros_like(array)
        mask[3, 3, 3] = mask[4, 4, 4] = 1
        return mask

    rewrite(case.label, two_by_corner, np.uint8)
    assert examine(case, LesionRule((1,))).facts["n_lesions"] == 1


def test_an_unlabelled_case_has_facts_and_no_lesions(write_case):
    examination = examine(write_case("new", labelled=False), LesionRule((1,)))
    assert examination.problems == []
    assert len(examination.lesions) == 0
    assert "n_lesions" not in examination.facts


def test_an_empty_label_counts_as_no_lesion(write_case):
    case = write_case("none")
    empty_mask(case)
    facts = examine(case, LesionRule((1,))).facts
    assert (facts["n_lesions"], facts["lesion_volume_mm3"], facts["largest_diameter_mm"]) == (0, 0, 0)
