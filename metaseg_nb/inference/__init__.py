"""From a network to masks on the image's own grid (notebook 03)."""

from metaseg_nb import exported

__getattr__, __dir__, __all__ = exported(
    __name__,
    decision="PRIOR decision_of",
    ensemble="learn_likeness unlikeness",
    sliding_window="after_other_masks choose_decisions predict_case selection_dice",
)
