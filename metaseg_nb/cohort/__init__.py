"""Cohorts: cases, where they come from, what is wrong with them, folds (notebook 01)."""

from metaseg_nb import exported

__getattr__, __dir__, __all__ = exported(
    __name__,
    audit="audit",
    cases="LesionRule",
    datalist="read_study_cohort read_written require_same_settings write_datalist",
    examination="as_it_came cases_table changed_since examine_all lesions_table",
    folds="assign_folds budget_table keep_folds split",
    lesions="diameter_class find_lesions",
    problems="CohortError problem_summary problem_table require_no_errors settled",
    pseudonyms="begin_with_codes case_codes decoded with_codes",
    sources="lists_of read_cohort",
)
