"""A cohort with masks that were drawn by hand in a study: who may learn from them, and who is tested by them."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metaseg_nb.annotation.readings import MASK, PROPOSAL, read_readings
from metaseg_nb.checksums import checksum
from metaseg_nb.cohort.cases import Case, Cohort, LesionRule
from metaseg_nb.cohort.datalist import read_study_cohort, require_same_masks
from metaseg_nb.cohort.problems import CohortError, Problem, broken, refusal
from metaseg_nb.cohort.pseudonyms import called_here
from metaseg_nb.cohort.volumes import read_mask, read_volume, same_grid, write_volume
from metaseg_nb.layout import StudyLayout


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
        Notes, among them masks that are a proposal as networks made it; and warnings of masks that began as a proposal
        and test networks.

    Raises
    ------
    CohortError
        No reading can be used; a mask was changed, or drawn on another image; or the study has other masks already.
    """
    if not annotations:
        return cohort, []
    drawn = StudyLayout(annotations, layout.base)
    readings = _named(read_readings(drawn), cohort, layout, drawn)
    has_mask = {case.name for case in cohort.labelled}
    finished = readings[readings["finished"].eq(True) & readings["case"].notna()]
    usable = finished[~finished["case"].isin(has_mask) | (finished["begun_with"] == MASK)]
    if usable.empty:
        found = f"{len(readings)} masks, none of them finished and of use for this cohort"
        raise refusal("masks by hand", "-", drawn.by_hand, found)
    taken = usable.drop_duplicates("case").set_index("case").to_dict("index")
    _require_same_images(cohort, taken, layout, drawn)

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
    return changed, [*_notes(readings, finished, usable, drawn.by_hand), *_of_cases(cohort, changed, taken)]


def _named(readings: pd.DataFrame, cohort: Cohort, layout: StudyLayout, drawn: StudyLayout) -> pd.DataFrame:
    """Readings with the cases' names in this cohort, missing where there is no such case; ``other`` is the other name.

    Each study that is anonymised, or whose cohort came as DICOM, may have codes of its own.
    """
    names = called_here(layout, [case.name for case in cohort.all_cases], drawn, readings["case"])
    found = [names.get(name) for name in readings["case"]]
    return readings.assign(other=readings["case"], case=pd.Series(found, readings.index, dtype=object))


def _require_same_images(
    cohort: Cohort, taken: Mapping[str, Mapping[str, Any]], layout: StudyLayout, drawn: StudyLayout
) -> None:
    """Refuse a mask that was drawn on another image which has the case's name."""
    theirs = cohort if drawn.root == layout.root else read_study_cohort(drawn)
    images = {case.name: case.image for case in theirs.all_cases}
    wanted = [(case, taken[case.name]) for case in cohort.all_cases if case.name in taken]
    if others := [case for case, one in wanted if not _drawn_on(case, images.get(one["other"]), one["image_sha256"])]:
        raise CohortError(broken("image drawn on", case, case.image, "another image") for case in others)


def _drawn_on(case: Case, image: Path | None, image_sha256: str) -> bool:
    """Tell whether a case has the image that a mask was drawn on; that image must be as it was then."""
    if image is None or checksum(image) != image_sha256:
        return False
    if image.resolve() == case.image.resolve():
        return True
    own, other = (read_volume(path, case.name) for path in (case.image, image))
    return same_grid(own, other) and np.array_equal(own.array, other.array, equal_nan=True)


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


def _notes(readings: pd.DataFrame, finished: pd.DataFrame, usable: pd.DataFrame, folder: Path) -> Iterator[Problem]:
    """Readings that are not used, and why; and whether their cases are called otherwise here."""
    renamed = int((readings["case"].notna() & (readings["case"] != readings["other"])).sum())
    unfinished = int((~readings["finished"].eq(True)).sum())
    for rule, n, what in (
        ("codes of readings", renamed, "readings of cases that have another name or code in this study"),
        ("finished readings", unfinished, "readings that are not finished"),
        ("readings of cohort", len(readings) - unfinished - len(finished), "finished readings of other cases"),
    ):
        if n:
            yield broken(rule, "-", folder, f"{n} {what}")
    for name, of in usable.groupby("case", sort=False):
        if len(of) > 1:
            yield broken("one reading", str(name), folder, f"readings of {' and '.join(of['reader'])}")
    for row in finished.drop(usable.index).itertuples():
        found = f"a reading of {row.reader} that began with {row.begun_with}"
        yield broken("correction", str(row.case), folder, found)


def _of_cases(came: Cohort, changed: Cohort, taken: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """Cases whose masks by hand have consequences that somebody should know."""
    had_mask, tested = ({case.name for case in cases} for cases in (came.labelled, changed.cases))
    by_hand = [case for case in changed.labelled if case.name in taken]
    for case in by_hand:
        one, proposal = taken[case.name], case.begun_with == PROPOSAL
        if case.name in had_mask:
            found = f"a mask that {case.reader} corrected by hand, in {case.minutes:.1f} min"
            yield broken("mask of cohort", case, case.label, found)
        if proposal and not one["voxels_added"] and not one["voxels_removed"]:
            found = f"a proposal of networks that {case.reader} accepted without a change, in {case.minutes:.1f} min"
            yield broken("mask of a person", case, case.label, found)
        if proposal and case.name in tested:
            found = f"a mask of {case.reader} that began as a proposal of networks; its patient is tested in a fold"
            yield broken("test without networks", case, case.label, found)
        elif case.name in tested - had_mask:
            found = f"a mask of {case.reader}; its patient is tested in a fold, and so is this case"
            yield broken("test of others", case, case.label, found)
