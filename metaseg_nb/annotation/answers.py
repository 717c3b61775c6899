"""The questions of an annotation budget, each answered in a sentence (Markdown) made from its tables."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from metaseg_nb.annotation.curves import FITTED
from metaseg_nb.annotation.gains import BETTER, UNTOLD, WORSE
from metaseg_nb.evaluation.claims import ALL
from metaseg_nb.evaluation.comparison import MIN_PATIENTS
from metaseg_nb.parameters import model_title


@dataclass(frozen=True)
class Answer:
    """A question, what is said to it, and on what numbers; ``said`` is empty where a study does not ask it."""

    asked: str
    said: str = ""
    numbers: str = "not asked: this study has no such arm beside one without it"

    def __str__(self) -> str:
        return f"**{self.asked} {self.said}** {self.numbers}." if self.said else f"**{self.asked}** {self.numbers}."


def answers(gains: pd.DataFrame, laws: pd.DataFrame) -> list[Answer]:
    """All of them; ``gains`` from `budget_gains.gains`, ``laws`` from `law_table`."""
    return [
        how_many(gains),
        Answer("What would twice the annotations bring?", *twice_as_many(laws, "dice")),
        which_kind(gains),
        does_it_help(gains, "pretraining", "Does pretraining on all images help?"),
        does_it_help(gains, "self_training", "Does self-training help?"),
        _together(gains, "ranking", "Which patient next?", RANKING),
        _together(gains, "roi", "Are patches around boxes enough?", ROI),
    ]


def in_full(given: Sequence[Answer]) -> str:
    """All answers with their numbers, as a list."""
    return "\n".join(f"- {answer}" for answer in given)


def in_short(given: Sequence[Answer]) -> str:
    """What is said to the questions that the study asks, as a list."""
    return "\n".join(f"- {answer.asked} **{answer.said}**" for answer in given if answer.said)


RANKING = {
    BETTER: "A ranking beats choosing evenly",
    WORSE: "A ranking is worse than choosing evenly",
    UNTOLD: "Whether a ranking beats choosing evenly cannot be told",
}
ROI = {
    BETTER: "Yes, training on them only gains Dice",
    WORSE: "No, training on them only costs Dice",
    UNTOLD: "Whether training on them only costs Dice cannot be told",
}


def how_many(gains: pd.DataFrame) -> Answer:
    """What the last step to more patients brought, the networks together."""
    step = {
        BETTER: "More than {against}: {title} are better",
        WORSE: "{title} are worse than {against}",
        UNTOLD: "Whether {title} are better than {against} cannot be told",
    }
    return _together(gains, "patients", "How many patients are enough?", step)


def twice_as_many(laws: pd.DataFrame, measure: str) -> tuple[str, str]:
    """What a power law expects of twice the annotations: in short, and network by network."""
    rows = laws[laws["measure"] == measure]
    expected = "; ".join(map(_expected, rows.itertuples()))
    if rows["refusal"].all():
        return "No prediction", f"({expected})"
    sure = rows[rows["doubling_low"] > 0]
    networks = "every network" if len(sure) == len(rows) else _listed(sure["model"].map(model_title)) or "no network"
    n = rows["n"].iloc[0]
    number = f"{2 * rows['most_patients'].iloc[0]:.0f} patients instead of {rows['most_patients'].iloc[0]:.0f}"
    return f"More for {networks}, if power laws hold", f"({FITTED[measure]}, {number}: {expected}; n = {n} patients)"


def _expected(law: tuple) -> str:
    if law.refusal:
        return f"{model_title(law.model)}: {law.refusal}"
    return f"{model_title(law.model)} {law.doubling:+.2f} {_bounds(law.doubling_low, law.doubling_high)}"


def which_kind(gains: pd.DataFrame) -> Answer:
    """Which kinds of annotation are worth their minutes, the networks together."""
    rows, asked = _of(gains, "kind").sort_values("difference", ascending=False), "Which kind of annotation?"
    if rows.empty:
        return Answer(asked)
    words = {BETTER: "worth more than full outlines:", WORSE: "worth less:", UNTOLD: "cannot be told:"}
    numbers = "; ".join(f"{row['title']} {_numbers(row)}, {_hours(row)}" for _, row in rows.iterrows())
    return Answer(asked, f"At equal minutes {_grouped(rows, rows['title'], words)}", f"(Dice: {numbers}; {_n(rows)})")


def does_it_help(gains: pd.DataFrame, question: str, asked: str) -> Answer:
    """Whether an arm gains over the same annotations without it, and for which network."""
    rows = gains[(gains["question"] == question) & (gains["model"] != ALL)]
    if rows.empty:
        return Answer(asked)
    words = {BETTER: "helps", WORSE: "harms", UNTOLD: "cannot be told for"}
    several, said, numbers = len(set(rows["title"])) > 1, [], []
    for title, of_arm in rows.groupby("title", sort=False):
        found = _grouped(of_arm, of_arm["model"].map(model_title), words)
        said.append(f"{title}: {found}" if several else f"{found[0].upper()}{found[1:]}")
        each = "; ".join(f"{model_title(row['model'])} {_numbers(row)}" for _, row in of_arm.iterrows())
        numbers.append(f"({title} − {of_arm['against'].iloc[0]}: {each}; {_n(of_arm)})")
    return Answer(asked, "; ".join(said), " ".join(numbers))


def _together(gains: pd.DataFrame, question: str, asked: str, words: dict[str, str]) -> Answer:
    """Answer of the networks together."""
    rows = _of(gains, question)
    if rows.empty:
        return Answer(asked)
    said = [words[row["verdict"]].format(**row) for _, row in rows.iterrows()]
    numbers = [f"({row['title']} − {row['against']}: Dice {_numbers(row)}; {_n(rows)})" for _, row in rows.iterrows()]
    return Answer(asked, "; ".join(dict.fromkeys(said)), " ".join(numbers))


def _of(gains: pd.DataFrame, question: str) -> pd.DataFrame:
    """Rows of a question, the networks together."""
    return gains[(gains["question"] == question) & (gains["model"] == ALL)]


def _grouped(rows: pd.DataFrame, names: pd.Series, words: dict[str, str]) -> str:
    """Names by verdict."""
    found = {verdict: names[rows["verdict"] == verdict] for verdict in words}
    return "; ".join(f"{words[verdict]} {_listed(some)}" for verdict, some in found.items() if len(some))


def _numbers(row: pd.Series) -> str:
    return f"{row['difference']:+.2f} {_bounds(row['low'], row['high'])}"


def _n(rows: pd.DataFrame) -> str:
    n = rows["patients"].iloc[0]
    return f"n = {n} patients" + (f", fewer than {MIN_PATIENTS}" if n < MIN_PATIENTS else "")


def _bounds(low: float, high: float) -> str:
    return f"[{low:+.2f}, {high:+.2f}]" if np.isfinite([low, high]).all() else "[no interval]"


def _hours(row: pd.Series) -> str:
    equal = "equal" in row["against"]
    return f"{row['minutes'] / 60:.1f} h" + ("" if equal else f", against {row['against']}")


def _listed(names: Iterable[str]) -> str:
    """Names in a sentence; empty if there are none."""
    *most, last = [*names] or [""]
    return f"{', '.join(most)} and {last}" if most else last
