"""DICOM in and out: exports of planning systems as cohorts, predictions as structure sets."""

from metaseg_nb import exported

__getattr__, __dir__, __all__ = exported(
    __name__,
    importing="dicom_cohort import_cohort with_roi_names",
    margins="SECOND_READER covered_lead covered_shares margin_table study_coverage",
    organs="organ_distances",
    round_trip="round_trip",
)
