"""What a notebook wrote for later ones is read as it was written, or the notebook that writes it is named."""

import json

import pytest

from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.datalist import read_study_cohort, read_written, require_same_settings, write_datalist
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.layout import StudyLayout
from metaseg_nb.parameters import resolve
from metaseg_nb.settings import Explore

RUN_01 = "run notebook 01 (`python -m metaseg_nb run 01_explore_data --study tiny`)"


def refused(read, *given):
    with pytest.raises(CohortError) as error:
        read(*given)
    (problem,) = error.value.problems
    return problem


def test_what_is_as_it_was_written_is_read(reviewed_study):
    assert read_written(reviewed_study, reviewed_study.lesions_table)["depth_mm"].tolist() == [5]
    assert [case.name for case in read_study_cohort(reviewed_study).cases] == ["c0", "c1", "c2"]


@pytest.mark.parametrize("change", ["digit", "[]", "", "missing"])
def test_positions_that_changed_since_01_wrote_them_never_reach_classified(reviewed_study, change):
    table = reviewed_study.lesions_table
    if change == "missing":
        table.unlink()
    else:
        table.write_text(table.read_text().replace("7.5", "1.5") if change == "digit" else change)
    problem = refused(read_written, reviewed_study, table)
    found = "no such file" if change == "missing" else "content that has changed since it was written"
    assert (problem.file, problem.found, problem.fix) == (str(table), found, RUN_01)


@pytest.mark.parametrize("change", ["digit", "cut", "zeroed", "null", "[]", "{}", "missing"])
def test_a_damaged_dataset_is_for_01_to_write_anew_and_not_the_users_list(reviewed_study, change):
    path = reviewed_study.dataset
    content = path.read_text()
    if change == "missing":
        path.unlink()
    else:
        changed = {"digit": content.replace('"fold": 1', '"fold": 0'), "cut": content[:100]}
        path.write_text({**changed, "zeroed": "\0" * len(content)}.get(change, change))
    problem = refused(read_study_cohort, reviewed_study)
    assert (problem.file, problem.fix) == (str(path), RUN_01)


def test_a_table_that_the_record_does_not_speak_of_is_refused(reviewed_study):
    reviewed_study.cases_table.write_text("case\nc0\n")
    assert refused(read_written, reviewed_study, reviewed_study.cases_table).fix == RUN_01


def test_the_checksums_stay_beside_what_monai_reads(reviewed_study):
    content = json.loads(reviewed_study.dataset.read_text())
    assert [*content][:3] == ["name", "description", "labels"]
    assert [*content][-2:] == ["files", "sha256"] and [*content["files"]] == ["lesions.csv"]


@pytest.fixture
def explore():
    """Settings of notebook 01 as committed."""
    return Explore.check(resolve("01_explore_data", "demo"))


def test_a_study_that_exists_keeps_its_cohort(tmp_path, explore):
    layout = StudyLayout(explore.study, tmp_path)
    require_same_settings(layout, explore)  # there is none yet
    cohort = Cohort("demo", "", [])
    write_datalist(layout.dataset, cohort, settings=explore.model_copy(update={"cohort": "data/mine", "seed": 0}))
    problem = refused(require_same_settings, layout, explore)
    assert problem.found == "a cohort made with `cohort` 'data/mine', now 'synthetic'; `seed` 0, now 3"
    assert "set `study` to another name" in problem.fix
    write_datalist(layout.dataset, cohort, settings=explore)
    require_same_settings(layout, explore.model_copy(update={"workers": 9, "confirmed": ["a"]}))
    other_regions = explore.model_copy(update={"roi_names": ["*GTV*"]})
    require_same_settings(layout, other_regions)  # a cohort without DICOM has no regions
    layout.imported.mkdir()
    assert "`roi_names`" in refused(require_same_settings, layout, other_regions).found
    layout.imported.rmdir()
    write_datalist(layout.dataset, cohort)
    with pytest.raises(CohortError, match="kept fewer settings"):
        require_same_settings(layout, explore)


def test_a_damaged_cohort_is_made_anew(tmp_path, explore):
    layout = StudyLayout(explore.study, tmp_path)
    layout.dataset.parent.mkdir(parents=True)
    layout.dataset.write_text('{"settings": {"seed"')
    require_same_settings(layout, explore)
