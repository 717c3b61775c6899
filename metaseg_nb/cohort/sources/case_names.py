"""Names of cases, which become names of folders and files: what cannot be one is refused here."""

from collections.abc import Iterable

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.problems import Problem
from metaseg_nb.cohort.sources.strict import tidy, unwritable

# File systems end at 255; endings and what programs put in front of a name need room too.
LONGEST_BYTES = 150
USABLE = f"a name of a case: at most {LONGEST_BYTES} bytes, without / and \\ and control characters, no dot in front"
SHOWN_CHARACTERS = 60


def unusable(name: str) -> bool:
    """Tell whether a name cannot name a folder; blanks, quotes, ``%``, ``#`` and letters of all scripts can."""
    if not name or name.startswith(".") or any(separator in name for separator in "/\\") or unwritable(name):
        return True
    return len(name.encode()) > LONGEST_BYTES


def shown(name: str) -> str:
    """Return a name that messages can hold: cut, and with what cannot be printed spelled out."""
    text = "".join(ascii(character)[1:-1] if unwritable(character) else character for character in name)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def well_named(cases: Iterable[Case], fix: str) -> tuple[list[Case], list[Problem]]:
    """Leave out cases whose names cannot be used, or are those of an earlier case.

    Names that differ in capitals or in the way accents are stored are one name on many file systems.

    Parameters
    ----------
    cases : iterable of Case
    fix : str
        How another name is given.

    Returns
    -------
    cases : list of Case
        Each with a name of its own; names and patients are in one spelling (`tidy`).
    problems : list of Problem
        A case that is left out, each.
    """
    kept: dict[str, Case] = {}
    problems = []
    for case in cases:
        if unusable(case.name):
            problems.append(Problem(shown(case.name), str(case.image), f"the name {shown(case.name)!r}", USABLE, fix))
            continue
        first = kept.setdefault(tidy(case.name.casefold()), case)
        if first is not case:
            found = f"the name of {first.image} too" + (f", as {first.name}" if first.name != case.name else "")
            problems.append(Problem(case.name, str(case.image), found, "a name of its own for each case", fix))
    return list(kept.values()), problems
