"""The HTML report and the gallery."""

from metaseg_nb import exported

__getattr__, __dir__, __all__ = exported(
    __name__,
    gallery="PAGES draw_entry draw_gallery find_false_lesions gallery_entries",
)
