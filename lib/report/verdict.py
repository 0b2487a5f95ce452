"""What a study says about what was asked: differences over the same seeds, and one word.

Two groups of runs are compared seed by seed: runs of one seed share their labelled videos and their
first weights, so that much of what makes seeds differ cancels. The mean difference
has a 95 % interval of Student's t over the seeds, and `judge` turns both into one word.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

HOLDS, UNDECIDED, CONTRADICTED = "holds", "not decided", "contradicted"
# 97.5 % quantiles of Student's t for 1, 2, … degrees of freedom
T_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
NORMAL_QUANTILE = 1.959964
COLUMNS = [
    "better", "worse", "list", "seeds", "agree", "difference", "low", "high", "verdict",
]  # fmt: skip


class Pair(NamedTuple):
    """A question: is the group `better` ahead of the group `worse` on a list?"""

    better: str
    worse: str
    split_name: str


# --- Statistics -----------------------------------------------------------------------------------


def t_quantile(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t.

    Source: Abramowitz and Stegun, table 26.10; beyond it the expansion 26.7.5.
    """
    if freedom <= len(T_QUANTILES):
        return T_QUANTILES[freedom - 1]
    z = NORMAL_QUANTILE
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of paired differences; NaN for fewer than two."""
    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        return np.nan, np.nan
    half = t_quantile(len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return values.mean() - half, values.mean() + half


def judge(differences: Sequence[float]) -> str:
    """Return what paired differences, better minus worse, say about "better is ahead".

    *holds*: at least two seeds, every one of them agrees (its difference is above 0), and the
    interval of the mean lies above 0. *contradicted*: the interval lies below 0, or at least three
    seeds all say the opposite. Everything else, one seed above all, is *not decided*.
    """
    values = np.asarray(differences, dtype=float)
    low, high = interval(values)  # NaN with one seed: no comparison is true
    if (values > 0).all() and low > 0:
        return HOLDS
    if high < 0 or (len(values) >= 3 and (values < 0).all()):
        return CONTRADICTED
    return UNDECIDED


def paired_differences(summary: pd.DataFrame, pair: Pair) -> pd.Series:
    """Return seed -> top-1 of `better` minus that of `worse`, in points, for the shared seeds.

    Args:
        summary: Columns group, seed, list, top1 (percent); one row a run and list.
        pair: What is compared.
    """
    part = summary[summary["list"] == pair.split_name]
    top1 = part.groupby(["group", "seed"])["top1"].mean()
    groups = top1.index.get_level_values("group")
    if not {pair.better, pair.worse} <= set(groups):
        return pd.Series(dtype=float)
    return (top1[pair.better] - top1[pair.worse]).dropna()


def compare_groups(summary: pd.DataFrame, pairs: Iterable[Pair]) -> pd.DataFrame:
    """Return one row a question, columns `COLUMNS`: differences in points, seeds that agree.

    Args:
        summary: As for `paired_differences`.
        pairs: The questions.
    """
    rows = []
    for pair in pairs:
        values = paired_differences(summary, pair).to_numpy()
        mean = values.mean() if len(values) else np.nan
        broadcast = int((values > 0).sum())
        rows.append((*pair, len(values), broadcast, mean, *interval(values), judge(values)))
    table = pd.DataFrame(rows, columns=COLUMNS).round({"difference": 3, "low": 3, "high": 3})
    numbers = ["difference", "low", "high"]
    table[numbers] = table[numbers].astype(float) + 0.0  # not -0.0
    return table


def overall(verdicts: Iterable[str]) -> str:
    """Return the word for all questions: one contradicts all, and all must hold."""
    words = set(verdicts)
    if CONTRADICTED in words:
        return CONTRADICTED
    return HOLDS if words == {HOLDS} else UNDECIDED


# --- What is asked --------------------------------------------------------------------------------


def find_baselines(summary: pd.DataFrame, name: str = "") -> dict[str, str]:
    """Return group -> the baseline that it is compared with.

    A baseline is a supervised group whose labelled clips have weak views only. A group is compared
    with the one that has as many labels and the same network; groups without such a one are left
    out.

    Args:
        summary: Columns group, objective, view, labels, model.
        name: The baseline of all groups instead; empty to look for them.

    Raises:
        ValueError: If there is no such group.
    """
    groups = summary.drop_duplicates("group")
    names = groups["group"].tolist()
    if name:
        if name not in names:
            raise ValueError(f"baseline: {name!r} is none of the groups {', '.join(names)}")
        return {group: name for group in names if group != name}
    is_plain = (groups["objective"] == "supervised") & (groups["view"] == "weak")
    alike = ["labels", "model"]
    plain = groups[is_plain].drop_duplicates(alike)
    fitting = groups[~is_plain].merge(plain, on=alike, suffixes=("", "_of_baseline"))
    return dict(zip(fitting["group"], fitting["group_of_baseline"], strict=True))


def baseline_pairs(summary: pd.DataFrame, baselines: dict[str, str]) -> list[Pair]:
    """Return the questions "is each group better than its baseline?", list by list."""
    lists = dict.fromkeys(summary["list"])
    return [Pair(*both, name) for both in baselines.items() for name in lists]


def claimed_pairs(claims: pd.DataFrame, summary: pd.DataFrame) -> list[Pair]:
    """Return what a study claims; a claim about groups of which none is there is left out.

    Args:
        claims: Columns better, worse, list; the rows of the study.
        summary: Columns group, list.
    """
    pairs = [Pair(*row) for row in claims[["better", "worse", "list"]].itertuples(index=False)]
    groups = set(summary["group"])
    return [pair for pair in pairs if groups & {pair.better, pair.worse}]


def outside_of(summary: pd.DataFrame, expected: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Return the runs whose top-1 lies outside of the range expected, and how many have one.

    Args:
        summary: Columns run, group, list, top1 (percent).
        expected: Columns group, list, low, high (percent, both included).
    """
    both = summary.merge(expected, on=["group", "list"])
    return both[~both["top1"].between(both["low"], both["high"])], len(both)
