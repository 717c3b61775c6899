"""Partial annotations and annotation budgets (notebook 06), and masks drawn by hand (notebook 08)."""

from metaseg_nb import exported

__getattr__, __dir__, __all__ = exported(
    __name__,
    comparison="budget_answers budget_curves budget_gains power_laws",
    partial="grown_regions",
    proposals="Waiting assistance_of cases_to_annotate proposing_network",
    readings="PUBLISHED_SAVING read_progress read_readings reader_agreement saved_by_proposals with_minutes",
    results="measured_minutes read_budget",
    taken_masks="with_masks_by_hand",
    training_set="annotated_training_set",
)
