"""What pages that are handed on must not say: where files lie, on which machine and by whom they were made."""

import getpass
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath

from metaseg_nb.layout import PROJECT, home

# A path from the root of a file system or of a drive, or up from here; the path of a web address follows a letter,
# what follows <study> on a page lies below it.
PART = r"[\w.+@%~=-]+"
PATH = re.compile(
    rf"(?<![\w/:<.*~-])(?<!&gt;)(?:file://)?~?(?:/{PART}){{2,}}/?"  # /data/patients/x.nii
    rf"|(?<!\w)[A-Za-z]:\\[^\s\"'<>|]+"  # C:\patients\x.nii
    rf"|(?:\.\./)+(?:{PART}/)*(?:{PART})?"  # ../patients/x.nii
)
# A shorter name may be a word of the text, and these are everybody's.
SHORTEST_NAME = 4
EVERYBODYS = {"root", "user", "users", "admin", "jovyan", "home", "localhost", "ubuntu", "debian", "main"}
HIDDEN = "…"


def private_free(codes: Mapping[str, str]) -> Callable[[str], str]:
    """Make what takes paths, the names of this user and machine, and the keys of ``codes`` out of a text.

    Paths below the project or below `home` stay, from there on; of others the name of the file. A key
    of ``codes`` (name of a case or patient) is replaced by its code wherever it stands as a word or
    as part of a file name, unless it is shorter than four characters, or a number shorter than six.
    """
    roots = sorted({f"{PROJECT}/", f"{home()}/"}, key=len, reverse=True)
    names = [getpass.getuser(), socket.gethostname(), socket.getfqdn()]
    hidden = dict.fromkeys(filter(_is_somebodys, names), HIDDEN)
    replaced = hidden | {name: code for name, code in codes.items() if _is_telling(name)}
    pattern = _any_of(replaced)

    def clean(text: str) -> str:
        for root in roots:
            text = text.replace(root, "")
        text = PATH.sub(_file_name, text)
        return pattern.sub(lambda found: replaced[found[0]], text) if replaced else text

    return clean


def _file_name(found: re.Match) -> str:
    name = PurePath(found[0].replace("\\", "/")).name
    return f"{HIDDEN}/{name}" if "." in name.strip(".") else HIDDEN


def _is_somebodys(name: str) -> bool:
    return len(name) >= SHORTEST_NAME and name.lower() not in EVERYBODYS


def _is_telling(name: str) -> bool:
    return len(name) >= (6 if name.isdigit() else SHORTEST_NAME)


def _any_of(names: Iterable[str]) -> re.Pattern:
    """Any of some names, longest first, not inside a longer word."""
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile(rf"(?<![^\W_])(?:{'|'.join(map(re.escape, longest_first))})(?![^\W_])")
