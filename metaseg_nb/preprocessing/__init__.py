"""From files to arrays on the study grid (notebook 02)."""

from metaseg_nb import exported

__getattr__, __dir__, __all__ = exported(
    __name__,
    case_store="open_case open_cases",
    registration="SAME_HEAD earlier_dates",
    prepare="prepare_cohort refuse_other_settings",
    steps="NOT_REGISTERED missing_scans",
    stored_case="intensity_curves",
)
