"""Any cohort, read as it lies: ``read_cohort(source, base=...)``. Only names, JSON and CSV are read, never an image."""

from metaseg_nb.cohort.sources.reading import lists_of, read_cohort

__all__ = ["lists_of", "read_cohort"]
