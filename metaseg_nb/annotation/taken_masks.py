"""A cohort with masks that were drawn by hand in a study: who may learn from them, and who is tested by them."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from metaseg_nb.annotation.by_hand import MASK, PROPOSAL
from metaseg_nb.annotation.kept_masks import read_readings
from metaseg_nb.checksums import checksum
from metaseg_nb.cohort.cases import Case, Cohort, LesionRule
from metaseg_nb.cohort.datalist import require_same_masks
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.cohort.volumes import read_mask, read_volume, same_grid, write_volume
from metaseg_nb.layout import StudyLayout

# What readings are counted for: found, expected, what to do, severity.
UNFINISHED = (
    "readings that are not finished",
    "finished readings",
    "nothing, if they are to wait; otherwise finish them in notebook 08",
    "note",
)
ELSEWHERE = (
    "finished readings of other images",
    "readings of images of this cohort",
    "nothing, if these cases were left out; otherwise give this study the cohort of that one",
    "warning",
)
ANEW = (
    "readings that did not begin with the mask that the case has",
    "corrections of the case's own mask",
    "nothing: the cases keep their masks, and these readings are for comparison",
    "note",
)
TWICE = (
    "further readings of a case",
    "one finished reading of a case",
    "nothing: the mask of the reader who began first is used",
    "note",
)
CORRECTED = (
    "masks that were corrected by hand",
    "the masks that the cohort came with",
    "nothing: the corrected masks are used in their place; the table of cases names their readers",
    "note",
)
UNCHANGED = (
    "proposals of networks that were accepted without a change",
    "masks that a person drew or corrected",
    "nothing, if the proposals were right: a network that learns from them learns what networks found already",
    "note",
)
PROPOSED = (
    "a mask that began as a proposal of networks; its patient is tested in a fold",
    "test masks that began without a network",
    "read its scores with care: they may be too good; or name the case in `exclude`",
    "warning",
)


def with_masks_by_hand(cohort: Cohort, layout: StudyLayout, annotations: str) -> tuple[Cohort, list[Problem]]:
    """Take the finished readings of a study into a cohort.

    A case without a mask becomes one with a mask: it is only for training (`Cohort.training_only`), unless its patient
    has cases that are tested; then it is one of these. A case that has a mask gets the corrected one in its place.
    The masks are copied to the study's folder, with the value that its rule counts as lesion.

    Parameters
    ----------
    cohort : Cohort
        As it came, with its rule.
    layout : StudyLayout
        Of the study that takes the masks.
    annotations : str
        The study in which they were drawn; "": none, the cohort stays as it is.

    Returns
    -------
    cohort : Cohort
        `keep_folds` gives it the folds that it has without these masks.
    problems : list of Problem
        Counts of readings that are not used, of corrected masks, and of proposals that stayed as networks made them;
        and a warning for each mask that began as a proposal and tests networks.

    Raises
    ------
    CohortError
        No reading can be used; a mask was changed; or the study has other masks already.
    """
    if not annotations:
        return cohort, []
    drawn = StudyLayout(annotations, layout.base)
    # by the image, not by the name: anonymised studies have codes of their own
    names = {checksum(case.image): case.name for case in cohort.all_cases if case.image.is_file()}
    readings = read_readings(drawn)
    readings["case"] = readings["image_sha256"].map(names)
    has_mask = {case.name for case in cohort.labelled}
    finished, known = readings["finished"].eq(True), readings["case"].notna()
    anew = readings["case"].isin(has_mask) & (readings["begun_with"] != MASK)
    usable = readings[finished & known & ~anew]
    if usable.empty:
        found = f"{len(readings)} masks, none of them finished and of use for this cohort"
        fix = 'finish them in notebook 08, correct `annotations`, or set it to ""'
        raise CohortError.one("-", drawn.by_hand, found, "finished masks of images of this cohort", fix)
    first = usable.drop_duplicates("case")
    taken = first.set_index("case").to_dict("index")

    def by_hand(case: Case) -> Case:
        if (one := taken.get(case.name)) is None:
            return case
        who = {"reader": one["reader"], "minutes": round(one["seconds"] / 60, 2), "begun_with": one["begun_with"]}
        return replace(case, label=layout.masks_by_hand / f"{case.name}.nii.gz", **who)

    new = [replace(by_hand(case), fold=None) for case in cohort.unlabelled if case.name in taken]
    tested = {case.patient for case in cohort.cases}
    changed = replace(
        cohort,
        cases=[*map(by_hand, cohort.cases), *(case for case in new if case.patient in tested)],
        training_only=[*map(by_hand, cohort.training_only), *(case for case in new if case.patient not in tested)],
        unlabelled=[case for case in cohort.unlabelled if case.name not in taken],
    )
    require_same_masks(layout, changed)
    for case in changed.labelled:
        if case.name in taken:
            _keep(taken[case.name]["mask"], case, cohort.rule)
    as_proposed = (first["begun_with"] == PROPOSAL) & first[["voxels_added", "voxels_removed"]].eq(0).all(axis=1)
    counts = {
        UNFINISHED: (~finished).sum(),
        ELSEWHERE: (finished & ~known).sum(),
        ANEW: (finished & anew).sum(),
        TWICE: len(usable) - len(first),
        CORRECTED: first["case"].isin(has_mask).sum(),
        UNCHANGED: as_proposed.sum(),
    }
    problems = [Problem("-", str(drawn.by_hand), f"{n} {found}", *rest) for (found, *rest), n in counts.items() if n]
    proposed = [case for case in changed.cases if case in new and case.begun_with == PROPOSAL]
    return changed, problems + [Problem(case.name, str(case.label), *PROPOSED) for case in proposed]


def _keep(mask: Path, case: Case, rule: LesionRule) -> None:
    """Copy a mask, with the value of a lesion in this study; a copy that is there already keeps its time."""
    assert case.label is not None
    value = int(rule.threshold) + 1 if rule.threshold > 0 else min(rule.values)
    volume = read_mask(mask, case.name)
    volume = replace(volume, array=volume.array.astype(np.min_scalar_type(value)) * value)
    with suppress(CohortError):  # not there, or damaged
        kept = read_volume(case.label, case.name)
        if same_grid(kept, volume) and np.array_equal(kept.array, volume.array):
            return
    write_volume(case.label, volume)
