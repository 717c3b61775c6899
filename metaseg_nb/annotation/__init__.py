"""Partial annotations and annotation budgets (notebook 06)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["answers"],
    submod_attrs={
        "costs": ["Costs"],
        "curves": ["budget_curves", "law_table", "power_laws"],
        "gains": ["budget_gains"],
        "results": ["read_budget"],
        "training_set": ["annotated_training_set"],
    },
)
