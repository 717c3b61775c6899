"""Partial annotations and annotation budgets (notebook 06)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "answers": ["budget_answers"],
        "costs": ["cost_table"],
        "curves": ["budget_curves", "power_laws"],
        "gains": ["budget_gains"],
        "results": ["read_budget"],
        "training_set": ["annotated_training_set"],
    },
)
