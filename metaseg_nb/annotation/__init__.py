"""Partial annotations and annotation budgets (notebook 06)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "comparison": ["budget_answers", "budget_curves", "budget_gains", "power_laws"],
        "results": ["cost_table", "measured_minutes", "read_budget"],
        "taken_masks": ["with_masks_by_hand"],
        "training_set": ["annotated_training_set"],
    },
)
