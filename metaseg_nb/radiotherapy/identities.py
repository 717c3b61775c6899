"""Who is who in an export: one patient has one Patient ID, and what leaves it names nobody."""

from collections.abc import Callable, Iterable, Mapping

import pandas as pd

from metaseg_nb.cohort.problems import Problem, shortened
from metaseg_nb.cohort.pseudonyms import with_parts
from metaseg_nb.privacy import cleaned_of

# IDs that share a name and a date of birth: more than these share what stands for any name.
ONE_PERSON = 3


def identity_problems(headers: pd.DataFrame, codes: Mapping[str, str]) -> list[tuple[str, Problem]]:
    """What speaks against one ID for each patient, as (Patient ID, problem).

    A study or image under several IDs is an error, and so are files without ID. Several IDs that may mean one person
    are a doubt: they differ in spelling only, or share name and date of birth. One ID with several
    dates of birth is a doubt too.

    Parameters
    ----------
    headers : DataFrame
        See `read_headers`.
    codes : mapping of str to str
        Code of each patient by ID.
    """
    if headers.empty:
        return []
    problems = []

    def tell(ids: Iterable[str], found: str, fix: str, severity: str = "error") -> None:
        expected = "one Patient ID for each patient, and one patient for each ID"
        problems.extend((name, Problem("-", "-", found, expected, fix, severity)) for name in sorted(ids))

    if (nameless := headers["patient"] == "").any():
        found = f"{headers.loc[nameless, 'file'].nunique()} files without Patient ID"
        tell([""], found, "export them with an ID or a pseudonym for each patient")
    named = headers[~nameless]
    same = _shared(named, named["study"]) | _shared(named, named["uid"])
    for ids in same:
        found = f"images or studies of one UID under {len(ids)} Patient IDs: {_codes(ids, codes)}"
        tell(ids, found, "export it once if this is one patient; with UIDs of its own for each if these are several")
    plain = named["patient"].str.lower().str.replace(r"[\W_]", "", regex=True).str.lstrip("0")
    persons = named[(named["person"] != "") & (named["born"] != "")]
    alike = _shared(persons, persons["person"].str.lower() + " " + persons["born"])
    for ids in (_shared(named, plain) | {ids for ids in alike if len(ids) <= ONE_PERSON}) - same:
        found = f"Patient IDs that may mean one person (spelling, or name and date of birth): {_codes(ids, codes)}"
        fix = "export one person under one ID; if they are several persons, name these cases in `confirmed`"
        tell(ids, found, fix, "doubt")
    births = persons.groupby("patient")["born"].nunique()
    for patient, n in births[births > 1].items():
        found = f"{n} dates of birth under one Patient ID: {codes[str(patient)]}"
        fix = "export each person under an ID of its own; if it is one person, name these cases in `confirmed`"
        tell([str(patient)], found, fix, "doubt")
    return problems


def _codes(ids: Iterable[str], codes: Mapping[str, str]) -> str:
    return shortened(sorted(codes[name] for name in ids))


def _shared(headers: pd.DataFrame, values: pd.Series) -> set[frozenset[str]]:
    """IDs that share a value."""
    pairs = pd.DataFrame({"value": values, "patient": headers["patient"]}).drop_duplicates()
    several = pairs[pairs.duplicated("value", keep=False)]
    return {frozenset(ids) for _, ids in several.groupby("value")["patient"]}


def without_names(headers: pd.DataFrame, codes: Mapping[str, str]) -> Callable[[str], str]:
    """Make the function that puts codes for IDs and names of patients, which descriptions and file names may hold."""
    named = dict(codes)
    for person, patient in zip(headers.get("person", []), headers.get("patient", []), strict=True):
        named.setdefault(person, codes[patient])
    return cleaned_of(with_parts({name: code for name, code in named.items() if name}, []), [], {})
