"""Remove what shared pages and figures must not contain: paths, user, machine, and names of patients."""

import getpass
import re
import socket
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from functools import cache
from pathlib import PurePath

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.datalist import read_datalist
from metaseg_nb.cohort.pseudonyms import coding, read_key, with_parts
from metaseg_nb.layout import PROJECT, StudyLayout, home

# A path from the root of a file system or of a drive, or up from here; the path of a web address follows a letter,
# what follows <study> on a page lies below it.
PART = r"[^\s/\"'`<>|:;,()\[\]{}]+"
QUOTE = r"[\"'`]"
PATHS = re.compile(
    rf"(?<={QUOTE})(?:~?/|(?:\.\./)+|[A-Za-z]:\\|\\\\)[^\"'`\n]*[/\\][^\"'`\n]*(?={QUOTE})"  # "/my data/x y.nii"
    rf"|(?<![\w/:<.*~-])(?<!\w>)(?:file://)?~?(?:/{PART}){{2,}}/?"  # /data/patients/x.nii
    rf"|(?:(?<!\w)[A-Za-z]:|(?<![\w\\])\\\\[\w.-]+)\\[^\s\"'<>|]+"  # C:\patients\x.nii, \\server\patients\x.nii
    rf"|(?:\.\./)+(?:{PART}/)*(?:{PART})?"  # ../patients/x.nii
)
# Shorter names may be words of the text: they are replaced in names of files only. These are everybody's.
SHORTEST_NAME, SHORTEST_NUMBER = 3, 6
EVERYBODYS = {"root", "user", "users", "admin", "jovyan", "home", "localhost", "ubuntu", "debian", "main"}
FILE_ENDING = r"(?=[\w.-]*\.(?:nii|json|csv|dcm|nrrd|mha))"
# Characters that no page can show, or that turn the words around them.
INVISIBLE = dict.fromkeys([*range(9), 11, 12, *range(14, 32), *range(127, 160), *range(0x202A, 0x202F)], "\ufffd")
INVISIBLE |= dict.fromkeys(range(0x2066, 0x206A), "\ufffd")
HIDDEN = "…"


def private_free(layout: StudyLayout) -> Callable[[str], str]:
    """Make the function that cleans every text that leaves a study: on pages, in figures, and in their tables.

    It takes out where files lie, and the names of this user and machine. In a study that is
    anonymised, codes stand for names: of cases and patients, and of files and folders that
    belong to one case alone.
    """
    cases = _cases(layout)
    codes = with_parts(read_key(layout.key), cases)
    parents = {folder for case in cases for path in case.files for folder in path.parents[:-2]}
    folders = [str(folder) for folder in parents if not re.fullmatch(PART, folder.name)]
    return cleaned_of(codes, folders, _file_names(cases) if codes else {})


def cleaned_of(codes: Mapping[str, str], folders: Collection[str], files: Mapping[str, str]) -> Callable[[str], str]:
    """Make the function that removes private words from a text.

    Paths below the project or below `home` stay, from there on; of others the name of the file, without
    ``codes`` only.

    Parameters
    ----------
    codes : mapping of str to str
        What stands for each name of a case or patient: wherever it is a word, in any case and composed or not.
        A name under three characters, or a number under six, is replaced in names of files only.
    folders : collection of str
        Paths that are taken out whole: those that `PATHS` does not see the end of, for they hold blanks or commas.
    files : mapping of str to str
        What stands for the names of files and folders, in names of files.
    """
    roots = sorted({f"{PROJECT}/", f"{home()}/"}, key=len, reverse=True)
    names = [*filter(_is_identifying, _users()), socket.gethostname(), _full_name_of_machine()]
    private = [name for name in names if name.lower() not in EVERYBODYS]
    hide = coding(dict.fromkeys(private, HIDDEN))
    rename = coding({**files, **codes}, FILE_ENDING)
    identifying = {name for name in codes if _is_identifying(name)} - set(codes.values())
    encode = coding({name: codes[name] for name in identifying})

    def clean(text: str) -> str:
        text = text.translate(INVISIBLE)
        for root in roots:
            text = text.replace(root, "")
        for folder in sorted(folders, key=len, reverse=True):
            text = text.replace(f"{folder}/", f"/{HIDDEN}/{HIDDEN}/")  # a path without blanks, which goes below
        return hide(encode(rename(PATHS.sub(HIDDEN if codes else _file_name, text))))

    return clean


def _users() -> list[str]:
    try:
        return [getpass.getuser()]
    except (KeyError, OSError):  # a container whose user has no name
        return []


@cache
def _full_name_of_machine() -> str:
    return socket.getfqdn()  # may ask a network, slowly


def _cases(layout: StudyLayout) -> list[Case]:
    try:
        return read_datalist(layout.dataset).all_cases
    except (ValueError, OSError):  # none yet, or one that notebook 01 is about to replace
        return []


def _file_names(cases: Collection[Case]) -> dict[str, str]:
    """Code of each case by the names of files and folders that are its alone."""
    parts = {case.name: {part.split(".")[0] for path in case.files for part in path.parts} for case in cases}
    held = Counter(part for of_case in parts.values() for part in of_case)
    return {part: code for code, of_case in parts.items() for part in of_case if part and held[part] == 1}


def _file_name(found: re.Match) -> str:
    name = PurePath(found[0].replace("\\", "/")).name
    return f"{HIDDEN}/{name}" if "." in name.strip(".") else HIDDEN


def _is_identifying(name: str) -> bool:
    return len(name) >= (SHORTEST_NUMBER if name.isdigit() else SHORTEST_NAME)
