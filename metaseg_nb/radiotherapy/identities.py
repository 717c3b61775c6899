"""Who is who in an export: one patient has one Patient ID, and what leaves it names nobody."""

from collections.abc import Callable, Mapping

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
    one_id = "one Patient ID for each patient, and one patient for each ID"
    if (nameless := headers["patient"] == "").any():
        found = f"{headers.loc[nameless, 'file'].nunique()} files without Patient ID"
        fix = "export them with an ID or a pseudonym for each patient"
        problems.append(("", Problem("-", "-", found, one_id, fix)))
    named = headers[~nameless]
    same = _shared(named, named["study"]) | _shared(named, named["uid"])
    for ids in same:
        who = shortened(sorted(codes[name] for name in ids))
        fix = "export it once if this is one patient; with UIDs of its own for each if these are several"
        found = f"images or studies of one UID under {len(ids)} Patient IDs: {who}"
        problems += [(name, Problem("-", "-", found, one_id, fix)) for name in sorted(ids)]
    plain = named["patient"].str.lower().str.replace(r"[\W_]", "", regex=True).str.lstrip("0")
    persons = named[(named["person"] != "") & (named["born"] != "")]
    alike = _shared(persons, persons["person"].str.lower() + " " + persons["born"])
    for ids in (_shared(named, plain) | {ids for ids in alike if len(ids) <= ONE_PERSON}) - same:
        who = shortened(sorted(codes[name] for name in ids))
        found = f"Patient IDs that may mean one person (spelling, or name and date of birth): {who}"
        fix = "export one person under one ID; if they are several persons, name these cases in `confirmed`"
        problems += [(name, Problem("-", "-", found, one_id, fix, "doubt")) for name in sorted(ids)]
    for patient, births in persons.groupby("patient")["born"].unique().items():
        if len(births) > 1:
            found = f"{len(births)} dates of birth under one Patient ID: {codes[str(patient)]}"
            fix = "export each person under an ID of its own; if it is one person, name these cases in `confirmed`"
            problems.append((str(patient), Problem("-", "-", found, one_id, fix, "doubt")))
    return problems


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
