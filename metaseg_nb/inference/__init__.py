"""From a network to masks on the image's own grid (notebook 03)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "decision": ["PRIOR", "decision_of"],
        "ensemble": ["learn_likeness", "unlikeness"],
        "sliding_window": ["after_other_masks", "choose_decisions", "predict_case", "selection_dice"],
    },
)
