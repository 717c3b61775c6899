"""From files to arrays on the study grid (notebook 02)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "brain": ["KEEP"],
        "case_store": ["open_case", "open_cases"],
        "earlier": ["earlier_dates"],
        "prepare": ["prepare_cohort", "refuse_other_settings"],
        "same_head": ["SAME_HEAD"],
        "steps": ["NOT_REGISTERED"],
        "stored_case": ["intensity_curves"],
    },
)
