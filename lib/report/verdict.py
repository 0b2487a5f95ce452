"""Verdict of a study: paired differences over seeds and their 95 % confidence interval.

Two groups of runs are compared seed by seed: runs of one seed share their labeled videos and their
first weights, so that much of the difference between seeds cancels. The mean difference has a 95 %
interval of Student's t over the seeds, and `judge` turns the differences into one word.

A summary is the table of `tables.summarize`: a row per run and split, top1 in percent.
"""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from lib.config import PROJECT_ROOT

HOLDS, UNDECIDED, CONTRADICTED = "holds", "not decided", "contradicted"
CLAIMS = PROJECT_ROOT / "params" / "claims.csv"  # columns study, better, worse, split, margin
EXPECTED = PROJECT_ROOT / "params" / "expected.csv"  # columns study, group, split, low, high


class Pair(NamedTuple):
    """A question: is the group `better` ahead of the group `worse` on a split, by a margin?"""

    better: str
    worse: str
    split: str
    margin: float = 0.0  # points; below 0, `better` may be behind by less than that


COLUMNS = [*Pair._fields, "seeds", "agree", "difference", "low", "high", "verdict"]


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of paired differences; NaN for fewer than two."""
    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        return np.nan, np.nan
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return values.mean() - half, values.mean() + half


def accuracy_interval(top1: float, videos: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a top-1 that was measured on some videos, in percent."""
    right = round(top1 * videos / 100)
    low, high = stats.binomtest(right, videos).proportion_ci(0.95, method="wilson")
    return 100 * low, 100 * high


def judge(differences: Sequence[float]) -> str:
    """Return the verdict of paired differences, better minus worse, on "better is ahead".

    *holds*: at least two seeds, each with a difference above 0, and the interval of the mean lies
    above 0. *contradicted*: the interval lies below 0, or at least three seeds, all with a
    difference below 0. Everything else, in particular one seed, is *not decided*.
    """
    values = np.asarray(differences, dtype=float)
    low, high = interval(values)  # NaN with one seed: no comparison is true
    if (values > 0).all() and low > 0:
        return HOLDS
    if high < 0 or (len(values) >= 3 and (values < 0).all()):
        return CONTRADICTED
    return UNDECIDED


def paired_differences(summary: pd.DataFrame, pair: Pair) -> pd.Series:
    """Return seed -> top-1 of `better` minus that of `worse`, in points, for the shared seeds."""
    top1 = summary[summary["split"] == pair.split].pivot_table("top1", "seed", "group")
    top1 = top1.reindex(columns=[pair.better, pair.worse])
    return (top1[pair.better] - top1[pair.worse]).dropna()


def compare_groups(summary: pd.DataFrame, pairs: Iterable[Pair]) -> pd.DataFrame:
    """Return one row per question, columns `COLUMNS`: differences in points, agreeing seeds."""
    rows = []
    for pair in pairs:
        values = paired_differences(summary, pair).to_numpy()
        mean = values.mean() if len(values) else np.nan
        verdict, agree = judge(values - pair.margin), int((values > pair.margin).sum())
        rows.append((*pair, len(values), agree, mean, *interval(values), verdict))
    numbers = ["difference", "low", "high"]
    table = pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(numbers, float))
    table[numbers] = table[numbers].round(3) + 0.0  # not -0.0
    return table


def gains_over_baseline(summary: pd.DataFrame, questions: Sequence[Pair]) -> pd.DataFrame:
    """Compare every group on every split with the worse group of the first question.

    Empty unless a question has a margin above 0. Groups that no question expects to be better come
    first, the others in the order of the questions, which keep their margins.
    """
    if not any(pair.margin > 0 for pair in questions):
        return compare_groups(summary, [])
    baseline, asked = questions[0].worse, dict.fromkeys(pair.better for pair in questions)
    groups = dict.fromkeys([*summary["group"][~summary["group"].isin(asked)], *asked])
    margins = {pair[:3]: pair.margin for pair in questions}
    cells = itertools.product(
        (g for g in groups if g != baseline), [baseline], summary["split"].unique()
    )
    return compare_groups(summary, [Pair(*cell, margins.get(cell, 0.0)) for cell in cells])


def overall(verdicts: Iterable[str]) -> str:
    """Return the verdict of all questions: one contradicts all, and all must hold."""
    words = set(verdicts)
    if CONTRADICTED in words:
        return CONTRADICTED
    return HOLDS if words == {HOLDS} else UNDECIDED


def of_study(path: Path, study: str) -> pd.DataFrame:
    """Return the rows of a study in `claims.csv` or `expected.csv`; none without the file."""
    if not path.is_file():
        return pd.DataFrame(columns=["study", *Pair._fields, "group", "low", "high"])
    table = pd.read_csv(path, comment="#")
    return table[table["study"] == study]


def plan_comparisons(
    summary: pd.DataFrame, study: str, baseline: str = ""
) -> tuple[list[Pair], dict[str, str]]:
    """Return the questions of a study, and group -> the baseline that it is compared with.

    The questions are the claims in `params/claims.csv` about the study and at least one of its
    groups, else whether each group is better than its baseline. Without a baseline as of
    `find_baselines`, the only group that claims name as worse is the baseline of all. A group
    `baseline` replaces claims and baselines. Own videos have no question without it as long as
    there is one seed, which decides nothing; their page recommends a run.
    """
    if _has_no_question(summary, baseline):
        return [], {}
    baselines, groups = find_baselines(summary, baseline), set(summary["group"])
    rows = of_study(CLAIMS, study)[list(Pair._fields)].itertuples(index=False)
    claims = [] if baseline else [Pair(*row) for row in rows]
    claimed = [pair for pair in claims if groups & {pair.better, pair.worse}]
    worse = {pair.worse for pair in claimed} & groups
    if not baselines and len(worse) == 1:
        baselines = find_baselines(summary, worse.pop())
    return claimed or baseline_pairs(summary, baselines), baselines


def _has_no_question(summary: pd.DataFrame, baseline: str) -> bool:
    return not baseline and summary["seed"].nunique() == 1 and is_own(summary)


def is_own(summary: pd.DataFrame) -> bool:
    """Return True if all runs of a summary are of the user's own videos."""
    return set(summary["dataset"]) == {"folder"}


def find_baselines(summary: pd.DataFrame, name: str = "") -> dict[str, str]:
    """Return group -> its baseline: the supervised group of weak views, equal labels and network.

    Groups without a baseline are left out. The group `name`, if not empty, is the baseline of all.
    """
    groups = summary.drop_duplicates("group")
    names = groups["group"].tolist()
    if name and name not in names:
        raise ValueError(f"baseline: {name!r} is none of the groups {', '.join(names)}")
    if name:
        return {group: name for group in names if group != name}
    is_plain = (groups["objective"] == "supervised") & (groups["view"] == "weak")
    alike = ["labels", "model"]
    plain = groups[is_plain].drop_duplicates(alike)
    fitting = groups[~is_plain].merge(plain, on=alike, suffixes=("", "_of_baseline"))
    return dict(zip(fitting["group"], fitting["group_of_baseline"], strict=True))


def baseline_pairs(summary: pd.DataFrame, baselines: dict[str, str]) -> list[Pair]:
    """Return the questions "is each group better than its baseline?", on each split."""
    splits = summary["split"].unique()
    return [Pair(*both, name) for both in baselines.items() for name in splits]
