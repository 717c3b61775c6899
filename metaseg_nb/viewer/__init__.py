"""Viewers, the review (notebook 05) and the drawing of masks (08) in JupyterLab."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={"annotate_app": ["AnnotateApp"], "review_app": ["ReviewApp"], "viewers": ["show_case"]},
)
