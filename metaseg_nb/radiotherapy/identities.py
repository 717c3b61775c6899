"""Who is who in an export: one patient has one Patient ID, and what leaves it names nobody."""

from collections.abc import Callable, Iterable, Mapping

import pandas as pd

from metaseg_nb.cohort.problems import Problem, shortened
from metaseg_nb.cohort.pseudonyms import with_parts
from metaseg_nb.privacy import cleaned_of

# IDs that share a name and a date of birth: more than these share what stands for any name.
ONE_PERSON = 3
RULE = (
    "one Patient ID for each patient, and one patient for each ID",
    "export each person under one ID, with UIDs of its own; if a doubt is no mistake, name these cases in `confirmed`",
)


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
    named = headers[headers["patient"] != ""]
    persons = named[(named["person"] != "") & (named["born"] != "")]
    plain = named["patient"].str.lower().str.replace(r"[\W_]", "", regex=True).str.lstrip("0")
    same = _shared(named, named["study"]) | _shared(named, named["uid"])
    alike = _shared(persons, persons["person"].str.lower() + " " + persons["born"])
    alike = {ids for ids in alike if len(ids) <= ONE_PERSON} | _shared(named, plain)
    births = persons.groupby("patient")["born"].nunique()
    nameless = headers.loc[headers["patient"] == "", "file"].nunique()
    doubt = "Patient IDs that may mean one person (spelling, or name and date of birth)"
    found = [([""], f"{nameless} files without Patient ID", "error")] if nameless else []
    found += [(ids, f"images or studies of one UID under Patient IDs {_codes(ids, codes)}", "error") for ids in same]
    found += [(ids, f"{doubt}: {_codes(ids, codes)}", "doubt") for ids in alike - same]
    several = births[births > 1].items()
    found += [([of], f"{n} dates of birth under one Patient ID: {codes[of]}", "doubt") for of, n in several]
    return [(of, Problem("-", "-", words, *RULE, severity)) for ids, words, severity in found for of in sorted(ids)]


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
