"""Synthetic patients for the demo and the tests."""

from metaseg_nb import exported

__getattr__, __dir__, __all__ = exported(
    __name__,
    files="make_cohort",
)
