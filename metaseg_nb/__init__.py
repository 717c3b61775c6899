"""Helper package of the brain metastasis segmentation workbook; the notebooks tell the story."""

import lazy_loader


def exported(package: str, rooms: str = "", **names: str) -> tuple:
    """What makes names of modules, and rooms, names of a package; each is loaded when it is asked for.

    ``names`` are those of each module, and ``rooms`` the package's own, with blanks between them.
    """
    return lazy_loader.attach(package, rooms.split(), {module: of.split() for module, of in names.items()})


__getattr__, __dir__, __all__ = exported(
    __name__,
    "annotation cohort demo_cohort evaluation figures follow_up inference preprocessing radiotherapy report settings "
    "training viewer",
    checksums="write_record",
    files="escaped read_table write_table write_text",
    layout="PROJECT StudyLayout",
    machine="describe device device_name provenance",
    parameters="model_title",
)
