"""Lesions over time: registration of dates, identity of lesions, growth, RANO-BM (notebook 09)."""

from metaseg_nb import exported

__getattr__, __dir__, __all__ = exported(
    __name__,
    change="change_errors confusion kappa with_growth",
    identity="UNSEEN",
    patients="REFERENCE_MODEL follow_study several_dates",
    response="FIRST PROGRESSION RESPONSES UNRATED best_responses read_clinical responses",
)
