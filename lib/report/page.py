"""HTML of the report: its texts, and an executed notebook as a self-contained page.

The texts are macros of `report.html.j2`, and every value in them is escaped. A note is empty if
there is nothing to say.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from lib.config import PROJECT_ROOT, short_path
from lib.evaluate.run_results import best_in_validation, read_cross_validation
from lib.fileio import write_text
from lib.jupyter.html import escape, is_interactive, render
from lib.plots.style import GRAY, VERDICT_COLORS
from lib.report.verdict import (
    Pair,
    accuracy_interval,
    compare_groups,
    is_own,
    overall,
)
from lib.runs.run_dir import RunDir, format_runs

DEMO = "outputs/demo"
FIGURE = '<img alt="{{ alt }}" src="data:image/png;base64,{{ data }}">'
SCRIPTS = ("mathjax", "require_js", "jquery", "mermaid_js", "jupyter_widgets_base")
OFFLINE = {f"{name}_url": "" for name in SCRIPTS}  # options of nbconvert's exporter
# Short lines of text, figures as wide as the page, tables that scroll instead of being cut
PAGE_CSS = """
body { margin: 0 auto; max-width: 1400px; padding: 0 20px; }
.jp-RenderedHTMLCommon, .jp-RenderedHTMLCommon table { font-size: 16px; }
.jp-RenderedHTMLCommon p, .jp-RenderedHTMLCommon li { max-width: 75em; }
.jp-OutputArea-output { overflow-x: auto; }
.jp-OutputArea-output img { max-width: 100%; height: auto; }
.jp-OutputArea-output td, .jp-OutputArea-output th { white-space: normal; }
"""


def _signed(value: float) -> str:
    digits = 1 if abs(value) >= 0.05 else 2  # of a value near 0 the sign counts
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−")  # not -0.0


ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=lambda value: value if isinstance(value, Markup) else Markup(escape(value)),
)
ENVIRONMENT.filters["signed"] = _signed
TEXTS: Any = ENVIRONMENT.get_template("report.html.j2").module


def page_head(
    title: str, summary: pd.DataFrame, questions: Sequence[Pair], runs: Sequence[RunDir]
) -> str:
    """Return the claim or the recommendation in one sentence, and the origin of the page, as HTML.

    A study of one's own videos (data set `folder`), or without a question whose groups are both
    tested, has a recommendation: the run that `lib.predict` takes.
    """
    compared, splits = _first_question(summary, [] if is_own(summary) else questions)
    origin = f"{title} · {format_runs(len(runs))} · {date.today():%-d %B %Y}"
    machines = list(dict.fromkeys(summary["machine"]))
    commits = dict.fromkeys(str(run.environment().get("commit") or "unknown") for run in runs)
    best = _best(summary, runs)
    return TEXTS.head(compared, splits, best, origin, machines, list(commits))


def _best(summary: pd.DataFrame, runs: Sequence[RunDir]) -> dict[str, Any]:
    """Return the row of the best run in validation, its folder, its interval, and groups in it.

    Empty if no run is tested on its validation split.
    """
    run = best_in_validation(runs)
    if run is None:
        return {}
    in_validation = summary[summary["split"] == run.settings().val_split]
    row = in_validation[in_validation["run"] == run.name].iloc[0]
    low, high = accuracy_interval(row["top1"], int(row["videos"]))
    others = in_validation[in_validation["group"] != row["group"]]
    means = others.groupby("group", sort=False)["top1"].mean()
    near = means[means >= low].to_dict()
    facts = {"folder": short_path(run.folder), "ends": (low, high), "near": near}
    if cross := read_cross_validation(run):
        top1, videos = cross
        facts["cross"] = {"top1": top1, "videos": videos, "ends": accuracy_interval(top1, videos)}
    return row.to_dict() | facts


def _first_question(
    summary: pd.DataFrame, questions: Iterable[Pair]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return `_facts` of the groups of the first question that is tested, and its splits."""
    groups = set(summary["group"])
    tested = [pair for pair in questions if {pair.better, pair.worse} <= groups]
    splits = [pair.split for pair in tested if pair[:2] == tested[0][:2]]
    return [_facts(summary, group, splits) for pair in tested[:1] for group in pair[:2]], splits


def _facts(summary: pd.DataFrame, group: str, splits: Sequence[str]) -> dict[str, Any]:
    """Return the amounts that the runs of a group learned from, and mean top-1 on splits."""
    rows = summary[summary["group"] == group]
    top1 = rows.groupby("split")["top1"].mean().reindex(splits).tolist()
    facts = {name: " or ".join(map(str, rows[name].unique())) for name in ("labels", "steps")}
    facts |= {"unlabeled": int(rows["unlabeled"].max()), "seeds": rows["seed"].nunique()}
    return facts | {"group": group, "top1": top1}


def verdict_html(
    summary: pd.DataFrame, questions: Sequence[Pair], notes: Sequence[str] = ()
) -> str:
    """Return the questions about a summary, the verdict, its numbers, and notes, as HTML.

    Own videos without a question have no verdict: `page_head` recommends a run.
    """
    table = compare_groups(summary, questions)
    word = overall(table["verdict"]) if len(table) else "nothing to compare"
    asked = table.groupby(["better", "worse"], sort=False)["split"].agg(list).to_dict()
    color, notes = VERDICT_COLORS.get(word, GRAY), [Markup(note) for note in notes]
    is_demo_there = (PROJECT_ROOT / DEMO / "summary.csv").is_file()
    remedy = TEXTS.remedy(list(dict.fromkeys(summary["group"])), is_demo_there and DEMO)
    remedy = "" if is_own(summary) else remedy
    return TEXTS.verdict(word, color, asked, table.to_dict("records"), notes, remedy)


def range_note(summary: pd.DataFrame, expected: pd.DataFrame) -> str:
    """Describe whether the runs are in the range of README, `params/expected.csv`, as HTML."""
    both = summary.merge(expected, on=["group", "split"])
    outside = both[~both["top1"].between(both["low"], both["high"])]
    return TEXTS.range(outside.to_dict("records"), len(both)) if len(both) else ""


def left_out_note(problems: Mapping[str, str]) -> str:
    """Return the runs that could not be read and their problems, as HTML."""
    return TEXTS.left_out(problems) if problems else ""


def run_links(runs: Sequence[RunDir]) -> str:
    """Return links to the runs, as HTML.

    On the page of a study they lead to the folders; in JupyterLab, which opens no folder from a
    link, to the settings.
    """
    if not is_interactive():
        return TEXTS.links({run.name: f"{run.name}/" for run in runs})
    start = PROJECT_ROOT / "notebooks"
    return TEXTS.links({run.name: os.path.relpath(run.params_path, start) for run in runs})


def export_html(notebook: Path, page: Path) -> Path:
    """Write an executed notebook as one self-contained page without code.

    Cells tagged `notebook-only` are left out, and so are sections that show nothing.
    """
    import nbformat
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(exclude_input=True, embed_images=True, **OFFLINE)
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    content = nbformat.read(notebook, as_version=4)
    content.cells = shown_cells(content.cells)
    for cell in content.cells:
        alt = cell.metadata.get("alt", "")  # description of its figures for screen readers
        for output in cell.get("outputs", []):
            if picture := output.get("data", {}).pop("image/png", None):
                output.data["text/html"] = render(FIGURE, alt=alt, data=picture)
    body, _ = exporter.from_notebook_node(content)
    head = f"<title>{escape(page.parent.name)}</title><style>{PAGE_CSS}</style></head>"
    body = body.replace("<title>Notebook</title>", "", 1).replace("</head>", head, 1)
    return write_text(page, body)


def shown_cells(cells: Sequence[Any]) -> list[Any]:
    """Return the cells of a page, each text only with the output below it.

    Left out are printed lines, which are for the notebook, texts above code cells that show
    nothing, and sections (`## `) that show nothing.
    """
    shown: list[Any] = []
    texts: list[Any] = []  # since the last code cell
    heading = ""  # that is not shown yet
    for cell in cells:
        if "notebook-only" in cell.metadata.get("tags", []):
            continue
        if cell.cell_type == "markdown":
            texts.append(cell)
            heading = next(iter(re.findall(r"^## .*", cell.source)), heading)
            continue
        cell.outputs = [output for output in cell.outputs if output.output_type != "stream"]
        if cell.outputs:
            if texts and not texts[0].source.startswith(heading):
                texts[0].source = f"{heading}\n\n{texts[0].source}"
            shown += [*texts, cell]
            heading = ""
        texts = []
    return shown
