"""Lesions over time: registration of dates, identity of lesions, growth, RANO-BM (notebook 09)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "agreement": ["change_errors", "confusion", "kappa"],
        "clinical": ["read_clinical"],
        "growth": ["with_growth"],
        "patients": ["REFERENCE", "follow_study", "several_dates"],
        "response": ["FIRST", "PROGRESSION", "RESPONSES", "UNKNOWN", "best_responses", "responses"],
    },
)
