"""DICOM in and out: exports of planning systems as cohorts, predictions as structure sets."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "importing": ["dicom_cohort", "import_cohort", "with_roi_names"],
        "margin_tables": ["covered_lead", "covered_shares", "margin_table"],
        "margins": ["SECOND_READER", "study_coverage"],
        "organs": ["organ_distances"],
        "round_trip": ["round_trip"],
    },
)
