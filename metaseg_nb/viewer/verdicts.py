"""A person's verdict on each case, with a note, kept in a CSV."""

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from metaseg_nb.files import read_text_table, write_table
from metaseg_nb.machine import alone

VERDICTS = ("acceptable", "small corrections", "large corrections", "unusable")
COLUMNS = ["case", "verdict", "note", "networks", "time"]


def read_verdicts(path: Path) -> pd.DataFrame:
    """Read the verdicts of a study, a row a case; empty where there are none yet."""
    return read_text_table(path) if path.is_file() else pd.DataFrame(columns=COLUMNS)


def record_verdict(path: Path, case: str, verdict: str, note: str, networks: str) -> None:
    """Write the verdict on a case (one of `VERDICTS`, or "" for a note alone) in place of an earlier one.

    ``networks`` are those that were looked at.
    """
    with alone(path.with_name(f".{path.name}.lock")):
        others = read_verdicts(path)
        time = datetime.now(UTC).isoformat(timespec="seconds")
        row = pd.DataFrame([[case, verdict, note, networks, time]], columns=COLUMNS)
        write_table(path, pd.concat([others[others["case"] != case], row], ignore_index=True).sort_values("case"))
