"""Synthetic patients for the demo and the tests."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"files": ["make_cohort"]})
