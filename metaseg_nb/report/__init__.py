"""The HTML report and the gallery."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "gallery": ["PAGES", "draw_entry", "draw_gallery", "find_false_lesions", "gallery_entries"],
    },
)
