"""What the report says in words; every name in it is escaped."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from lib.jupyter.html import escape, escape_url
from lib.plots.style import GRAY, GREEN, VERMILLION
from lib.report.verdict import CONTRADICTED, HOLDS, Pair, outside_of, overall
from lib.runs.environment import numerics_summary
from lib.runs.run_dir import RunDir

MAX_NAMED, MAX_OUTSIDE = 3, 6  # runs in a sentence; results outside of a range
VERDICT_COLORS = {HOLDS: GREEN, CONTRADICTED: VERMILLION}


def join_words(words: Sequence[str]) -> str:
    """Return `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def name_some(names: Sequence[str]) -> str:
    """Return escaped names, the first few of many."""
    named = [escape(name) for name in names[:MAX_NAMED]]
    more = len(names) - len(named)
    return join_words([*named, f"{more} more"] if more else named)


# --- The verdict ----------------------------------------------------------------------------------


def question(pairs: Sequence[Pair]) -> str:
    """Return the questions in a sentence, as HTML."""
    lists: dict[tuple[str, str], list[str]] = {}
    for pair in pairs:
        lists.setdefault((pair.better, pair.worse), []).append(escape(pair.split_name))
    parts = [
        f"is <b>{escape(better)}</b> better than <b>{escape(worse)}</b> on {join_words(names)}"
        for (better, worse), names in lists.items()
    ]
    text = "; ".join(parts)
    return text[:1].upper() + text[1:] + "?"


def comparison_sentence(row: Mapping[str, object]) -> str:
    """Return a row of `verdict.compare_groups` in words, as HTML."""
    what = f"{escape(row['better'])} against {escape(row['worse'])} on {escape(row['list'])}"
    seeds, verdict = row["seeds"], f"<b>{row['verdict']}</b>"
    if not seeds:
        return f"{what}: {verdict}; no seed was run and tested in both"
    points = f"{_signed(row['difference'])} points"
    if seeds == 1:
        return f"{what}: {points}, {verdict}; one run of each decides nothing"
    interval = f"95 % interval {_signed(row['low'])} to {_signed(row['high'])}"
    return f"{what}: {points} ({interval}), better in {row['agree']} of {seeds} seeds: {verdict}"


def _signed(value: float) -> str:
    return f"{round(value, 1) + 0.0:+.1f}".replace("-", "−")  # not -0.0


def verdict_html(table: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    """Return the top of the page: what was asked, the word, and the numbers.

    Args:
        table: From `verdict.compare_groups`, a row a question; maybe none.
        notes: Sentences below it, as HTML; empty ones are left out.
    """
    if table.empty:
        word, asked, lines = "nothing to compare", NO_BASELINE, []
    else:
        word = overall(table["verdict"])
        asked = question([Pair(*row) for row in table[["better", "worse", "list"]].to_numpy()])
        lines = [comparison_sentence(row) for row in table.to_dict("records")]
    if len(table) and table["seeds"].max() < 2:
        notes = [ONE_SEED, *notes]
    items = "".join(f"<li>{line}</li>" for line in lines)
    color = VERDICT_COLORS.get(word, GRAY)
    return (
        f'<div class="verdict" style="border-left:6px solid {color};padding:2px 16px">'
        f"<p>Asked: {asked}</p>"
        f'<p style="font-size:150%">Verdict: <b>{word}</b></p>'
        f"<ul>{items}</ul>"
        f"{''.join(f'<p>{note}</p>' for note in notes if note)}</div>"
    )


NO_BASELINE = (
    "nothing, since no group of runs stands beside a supervised baseline (weak views, the same "
    "network, as many labels); the parameter <code>baseline</code> of notebook 5 names another"
)
ONE_SEED = (
    "One run decides nothing: another seed may turn it around. Run more of them, for example with "
    "<code>--set seed=0,1,2</code>."
)


def range_sentence(summary: pd.DataFrame, expected: pd.DataFrame) -> str:
    """Return whether the runs lie in the range that README gives, as HTML; empty without a range.

    Args:
        summary: Columns group, seed, list, top1 (percent).
        expected: Columns group, list, low, high (percent); from `params/expected.csv`.
    """
    outside, known = outside_of(summary, expected)
    if not known:
        return ""
    if outside.empty:
        return f"This machine lies in README's range: all {known} results of single runs do."
    rows = [
        f"{escape(row['group'])}, seed {escape(row['seed'])}, on {escape(row['list'])}: "
        f"{row['top1']:.1f} % ({row['low']:.1f} to {row['high']:.1f})"
        for row in outside.head(MAX_OUTSIDE).to_dict("records")
    ]
    more = "; …" * (len(outside) > MAX_OUTSIDE)
    return (
        f"This machine does not lie in README's range: {len(outside)} of {known} results of single "
        f"runs are outside ({'; '.join(rows)}{more})."
    )


# --- Machines and files ---------------------------------------------------------------------------


def machine_sentence(runs: Sequence[RunDir]) -> str:
    """Return in what the machines of the runs differ, as HTML; empty if they compute alike."""
    parts = _differences({run.name: numerics_summary(run.environment()) for run in runs})
    if not parts:
        return ""
    return (
        "These runs were not all computed alike, so that part of a difference may be rounding: "
        f"{'; '.join(parts)}."
    )


def _differences(words: Mapping[str, Mapping[str, str]]) -> list[str]:
    parts = []
    for field in dict.fromkeys(field for values in words.values() for field in values):
        runs: dict[str, list[str]] = {}
        for name, values in words.items():
            runs.setdefault(values.get(field, "unknown"), []).append(name)
        if len(runs) > 1:
            is_long = any(len(value) > 200 for value in runs)
            shown = [
                f"{escape('' if is_long else value)} ({name_some(n)})" for value, n in runs.items()
            ]
            parts.append(f"<b>{field}</b> {join_words([text.strip() for text in shown])}")
    return parts


def left_out_html(problems: Mapping[str, str]) -> str:
    """Return which runs could not be read, and why, as HTML; empty for none."""
    if not problems:
        return ""
    rows = "".join(f"<li><b>{escape(n)}</b>: {escape(why)}</li>" for n, why in problems.items())
    return f"Left out of this page: <ul>{rows}</ul>"


def run_links(runs: Sequence[RunDir]) -> str:
    """Return links to the runs' folders, relative to the study, as HTML."""
    links = (f'<a href="{escape_url(run.name)}/">{escape(run.name)}</a>' for run in runs)
    return " · ".join(links)


def curves_title(run: RunDir) -> str:
    """Return what the curves of one run stand below, as HTML."""
    return f"The curves of <b>{escape(run.name)}</b> in detail:"


def page_head(title: str, study: Path, runs: Sequence[RunDir]) -> str:
    """Return title and origin of the page, in Markdown."""
    commits = list(dict.fromkeys(str(run.environment().get("commit") or "unknown") for run in runs))
    return (
        f"# {escape(title)}\n\n{len(runs)} runs in {escape(study.name)}, "
        f"commit {join_words([escape(commit) for commit in commits])}"
    )


# --- Invariance -----------------------------------------------------------------------------------


def invariance_html(agreement: pd.DataFrame, pairs: Iterable[Pair]) -> str:
    """Return where a group keeps its class less often than its baseline, as a list in HTML.

    Args:
        agreement: A row a group, a column a family: how often the class stays, percent.
        pairs: Groups, and the groups that they are compared with.
    """
    compared = dict.fromkeys((pair.better, pair.worse) for pair in pairs)
    compared = [both for both in compared if {*both} <= set(agreement.index)]
    sentences = [
        f"<b>{escape(group)}</b> is <b>less</b> invariant to {escape(family)} augmentation than "
        f"{escape(baseline)}: its class stays for {value:.1f} % of the clips, "
        f"{before - value:.1f} points fewer."
        for group, baseline in compared
        for family, value in agreement.loc[group].items()
        if value < (before := agreement.loc[baseline, family])
    ]
    if compared and not sentences:
        sentences = ["No group is less invariant than its baseline to any family."]
    return f"<ul>{''.join(f'<li>{sentence}</li>' for sentence in sentences)}</ul>"
