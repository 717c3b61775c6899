"""Viewers and the review in JupyterLab (notebook 05)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={"review_app": ["ReviewApp"], "viewers": ["show_case"]},
)
