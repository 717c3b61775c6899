"""From a network to masks on the image's own grid (notebook 03)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "choosing": ["PRIOR", "choose_decisions"],
        "likeness": ["learn_likeness", "unlikeness"],
        "decision": ["decision_of", "predict_case", "selection_dice"],
    },
)
