"""Lesions over time: registration of dates, identity of lesions, growth, RANO-BM (notebook 09)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "change": ["change_errors", "confusion", "kappa", "with_growth"],
        "identity": ["UNSEEN"],
        "patients": ["REFERENCE", "follow_study", "several_dates"],
        "response": ["FIRST", "PROGRESSION", "RESPONSES", "UNKNOWN", "best_responses", "read_clinical", "responses"],
    },
)
