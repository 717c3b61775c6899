"""Viewers, the review (notebook 05) and the drawing of masks (08) in JupyterLab."""

from metaseg_nb import exported

__getattr__, __dir__, __all__ = exported(
    __name__,
    annotate_app="AnnotateApp",
    review_app="ReviewApp",
    viewers="show_case",
)
