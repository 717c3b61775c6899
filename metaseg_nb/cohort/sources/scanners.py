"""A site in plain words, from what a header says about its scanner."""

from contextlib import suppress

from metaseg_nb.cohort.sources.spelling import means_unknown

# Makers as headers call them, in capitals, by the first word; the rest keep theirs.
MAKERS = {"GE": "GE", "GENERAL": "GE", "UIH": "United Imaging", "UNITED": "United Imaging"}
MAKERS |= {"TOSHIBA_MEC": "Toshiba", "CANON_MEC": "Canon"}
# Field strengths of clinical scanners in tesla: headers give the magnet's own, such as 1.494.
TESLA = (0.35, 0.55, 1.0, 1.2, 1.5, 3.0, 5.0, 7.0)
TESLA_TOLERANCE = 0.12
# Some headers give gauss.
GAUSS_FROM, GAUSS_PER_TESLA = 1000, 10_000


def site_of(maker: str, field_strength: str) -> str:
    """Name a site by its scanner's maker and field strength, such as ``Siemens 1.5 T``.

    Parameters
    ----------
    maker, field_strength : str
        The DICOM elements Manufacturer and MagneticFieldStrength (tesla, in old headers gauss); "" where there is none.

    Returns
    -------
    str
        "" if one of them is missing or was anonymised, or no clinical scanner has that strength.
    """
    tesla = 0.0
    with suppress(ValueError):
        tesla = float(field_strength)
    tesla = tesla / GAUSS_PER_TESLA if tesla >= GAUSS_FROM else tesla
    nearest = min(TESLA, key=lambda usual: abs(usual - tesla))
    first = (maker.replace(",", " ").split() or [""])[0]
    unknown = not first or means_unknown(maker) or maker.lower().startswith("anonym")
    if unknown or not abs(nearest - tesla) <= TESLA_TOLERANCE * nearest:
        return ""
    return f"{MAKERS.get(first.upper(), first.capitalize())} {nearest:g} T"
