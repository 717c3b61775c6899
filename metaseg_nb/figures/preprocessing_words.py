"""What notebook 02 found, in sentences made from its table and records."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from metaseg_nb.cohort.problems import shortened
from metaseg_nb.markdown import escaped
from metaseg_nb.preprocessing.correction_record import CorrectionRecord

# Rules of label cleaning: the column that counts what each met, and its words.
CLEANING = {
    "lesion_values": "different lesion values merged to one",
    "other_voxels": "voxels of other values set to background",
    "grey_voxels": "grey voxels decided by the threshold",
    "filled_voxels": "voxels of closed cavities filled",
    "specks": "lesions under the least volume removed",
    "outside_lesions": "lesions outside the head",
}


def describe_fields(rows: pd.DataFrame) -> str:
    """How strong the fields are that were divided out."""
    ranges = rows["field_range"]
    worst = rows.loc[ranges.idxmax(), "case"]
    left_out = rows.loc[rows["uncorrected"] > 0, "case"]
    text = (
        f"The field divided out varies {ranges.median():.2f}-fold within a head (median over {len(rows)} cases, "
        f"99th over 1st percentile), at most {ranges.max():.2f}-fold, in {escaped(worst)}."
    )
    if len(left_out):
        text += f" No field was divided out in {len(left_out)} cases: {escaped(shortened(left_out))}."
    return text


def describe_intensities(records: Sequence[CorrectionRecord]) -> str:
    """How far cases lie apart before and after: standard deviation of their medians over their own spread."""
    before = _apart([(record.raw, record.raw_edges) for record in records])
    after = _apart([(record.prepared, record.prepared_edges) for record in records])
    return (
        f"Between cases the median intensity scatters by {before:.2f} of a head's own interquartile range as read, "
        f"and by {after:.2f} as networks see it."
    )


def cleaning_table(rows: pd.DataFrame, outside_head: str) -> pd.DataFrame:
    """Sum up what each rule of label cleaning met.

    Returns
    -------
    DataFrame
        ``rule``, ``cases`` (in how many), ``total``, ``most in`` (the case with most; empty without any).
    """
    words = CLEANING | {"outside_lesions": f"{CLEANING['outside_lesions']} ({outside_head})"}
    labelled = rows.dropna(subset="lesion_volume_mm3")
    met = labelled[list(words)].astype(int)
    met["lesion_values"] = (met["lesion_values"] - 1).clip(lower=0)  # a single value has nothing to be merged with
    most = [labelled.loc[met[column].idxmax(), "case"] if met[column].any() else "" for column in words]
    columns = {"rule": list(words.values()), "cases": (met > 0).sum().tolist(), "total": met.sum().tolist()}
    return pd.DataFrame(columns | {"most in": most})


def volume_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Lesions and their volume in mm³ as drawn, cleaned and on the study grid; the largest relative change first."""
    labelled = rows.dropna(subset="lesion_volume_mm3")
    columns = {
        "case": "case",
        "lesions": "lesions",
        "stored_lesions": "on grid",
        "lost_lesions": "lost",
        "lesion_volume_mm3": "drawn, mm³",
        "cleaned_volume_mm3": "cleaned, mm³",
        "stored_volume_mm3": "on grid, mm³",
    }
    table = labelled[list(columns)].rename(columns=columns)
    table["change, %"] = 100 * (table["on grid, mm³"] / table["cleaned, mm³"].replace(0, np.nan) - 1)
    table = table.sort_values("change, %", key=abs, ascending=False, ignore_index=True)
    return table.assign(**{"change, %": table["change, %"].round() + 0.0})  # no -0


def describe_lesions(rows: pd.DataFrame) -> str:
    """Whether lesions or volume got lost on the way to the study grid."""
    labelled = rows.dropna(subset="lesion_volume_mm3")
    if labelled.empty:
        return "No case has a label."
    drawn, cleaned, stored = (labelled[f"{name}_volume_mm3"].sum() for name in ("lesion", "cleaned", "stored"))
    if not cleaned:
        return f"The masks of {len(labelled)} cases are empty."
    lost = f"{labelled['lost_lesions'].sum():.0f} of {labelled['lesions'].sum():.0f} lesions were lost"
    changes = [round(100 * (after / before - 1), 1) + 0.0 for before, after in ((drawn, cleaned), (cleaned, stored))]
    return f"{lost}; cleaning changed the total volume by {changes[0]:+.1f} %, the study grid by {changes[1]:+.1f} %."


def describe_cost(rows: pd.DataFrame) -> str:
    """Time and disk per case."""
    made = rows["made_in_s"]
    cost = f"A case took {made.median():.1f} s (median; longest {made.max():.1f} s)"
    now = rows["seconds"].gt(0).sum()
    return f"{cost} and {rows['disk_mb'].median():.1f} MB; {now} were made now, {len(rows) - now} were there already."


def _apart(histograms: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    quartiles = np.array([np.interp((0.25, 0.5, 0.75), np.cumsum(n) / n.sum(), e[1:]) for n, e in histograms])
    return float(quartiles[:, 1].std() / (quartiles[:, 2] - quartiles[:, 0]).mean())
