"""What a clinician knows at each date, and images do not show: steroids, clinical status, non-target lesions."""

from difflib import get_close_matches
from pathlib import Path

import pandas as pd

from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.cohort.sources.spelling import read_csv

# Columns of the table, and the words in them; an empty cell is not known.
WORDS = {
    "steroids": ("none", "decreased", "stable", "increased"),
    "clinical": ("improved", "stable", "worse"),
    "non_target_progression": ("no", "yes"),
}
# A column this like one of them is meant as one (`difflib`): steroid, clinical_status.
ALMOST = 0.65


def read_clinical(path: Path, cohort: Cohort) -> pd.DataFrame:
    """Read a CSV with a row per ``case`` and any of the columns of `WORDS`.

    Raises
    ------
    CohortError
        With all that is wrong: no such file, no row, no column ``case`` or none of `WORDS`, a column twice or with a
        name that is almost one of them, a case twice or of no patient of the cohort, another word.
    """
    table, problems = read_csv(path)
    given = [column for column in WORDS if column in table]
    names = ("case", *WORDS)
    almost = [column for column in table if column not in names and get_close_matches(column, names, cutoff=ALMOST)]
    if "case" not in table or not given or almost or not table.columns.is_unique:
        expected = f"a column case, and any of {', '.join(WORDS)}, each once and written so"
        raise CohortError.one("-", path, f"columns {', '.join(table)}", expected, "rename, add or remove columns")
    if table.empty and not problems:
        raise CohortError.one("-", path, "no row below the header", "a row for each case", "add the rows")
    known = {case.name for case in cohort.all_cases}
    for line, row in table.iterrows():
        if row["case"] not in known:
            found = Problem(f"line {line}", str(path), f"case {row['case']}", "a case of the cohort", "correct the row")
            problems.append(found)
        for column in given:
            if row[column].lower() not in ("", *WORDS[column]):
                expected = f"in {column}: {', '.join(WORDS[column])}, or nothing"
                problems.append(Problem(row["case"], str(path), f"{row[column]!r}", expected, "correct the cell"))
    for name in table.loc[table["case"].duplicated(), "case"]:
        problems.append(Problem(name, str(path), "two rows", "one row for each case", "remove one"))
    if problems:
        raise CohortError(problems)
    return table[["case", *given]].apply(lambda column: column if column.name == "case" else column.str.lower())
