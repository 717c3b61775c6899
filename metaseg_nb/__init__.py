"""Helper package of the brain metastasis segmentation workbook; the notebooks tell the story."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "annotation",
        "cohort",
        "demo_cohort",
        "evaluation",
        "figures",
        "follow_up",
        "inference",
        "preprocessing",
        "radiotherapy",
        "report",
        "settings",
        "training",
        "viewer",
    ],
    submod_attrs={
        "checksums": ["write_record"],
        "files": ["escaped", "read_table", "write_table", "write_text"],
        "layout": ["PROJECT", "StudyLayout"],
        "machine": ["describe", "device", "device_name", "provenance"],
        "parameters": ["model_title"],
    },
)
