"""HTML of the report: its texts, and an executed notebook as a self-contained page.

The texts are macros of `report.html.j2`, and every value in them is escaped. A note is empty if
there is nothing to say.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from lib.fileio import write_text
from lib.jupyter.html import escape
from lib.plots.style import GRAY, GREEN, VERMILLION
from lib.report.verdict import CONTRADICTED, HOLDS, Pair, overall
from lib.runs.environment import numerics_summary
from lib.runs.run_dir import RunDir

VERDICT_COLORS = {HOLDS: GREEN, CONTRADICTED: VERMILLION}

# Figures as wide as the page, tables that scroll instead of being cut
PAGE_CSS = """
body { margin: 0 auto; max-width: 1860px; padding: 0 20px; }
.jp-RenderedHTMLCommon, .jp-RenderedHTMLCommon table { font-size: 16px; }
.jp-OutputArea-output { overflow-x: auto; }
.jp-OutputArea-output img { max-width: 100%; height: auto; }
.jp-OutputArea-output td, .jp-OutputArea-output th { white-space: normal; }
"""


def _signed(value: float) -> str:
    return f"{round(value, 1) + 0.0:+.1f}".replace("-", "−")  # not -0.0


ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=lambda value: value if isinstance(value, Markup) else Markup(escape(value)),
)
ENVIRONMENT.filters["signed"] = _signed
TEXTS: Any = ENVIRONMENT.get_template("report.html.j2").module


def page_head(title: str, study: Path, runs: Sequence[RunDir]) -> str:
    """Return title and origin of the page, in Markdown."""
    commits = dict.fromkeys(str(run.environment().get("commit") or "unknown") for run in runs)
    return TEXTS.head(title, study.name, len(runs), list(commits))


def verdict_html(table: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    """Return the questions, the verdict and the numbers of `verdict.compare_groups`, and notes."""
    word = overall(table["verdict"]) if len(table) else "nothing to compare"
    questions = table.groupby(["better", "worse"], sort=False)["split"].agg(list).to_dict()
    color, notes = VERDICT_COLORS.get(word, GRAY), [Markup(note) for note in notes]
    return TEXTS.verdict(word, color, questions, table.to_dict("records"), notes)


def range_note(summary: pd.DataFrame, expected: pd.DataFrame) -> str:
    """Describe whether the runs are in the range of README, `params/expected.csv`, as HTML."""
    both = summary.merge(expected, on=["group", "split"])
    outside = both[~both["top1"].between(both["low"], both["high"])]
    return TEXTS.range(outside.to_dict("records"), len(both)) if len(both) else ""


def machine_note(runs: Sequence[RunDir]) -> str:
    """Describe the differences between the machines of runs, as HTML."""
    summaries = [numerics_summary(run.environment()) for run in runs]
    values = pd.DataFrame(summaries, index=[run.name for run in runs]).fillna("unknown")
    differences = {
        field: {value: list(names) for value, names in column.index.groupby(column).items()}
        for field, column in values.items()
        if column.nunique() > 1
    }
    return TEXTS.machines(differences) if differences else ""


def left_out_note(problems: Mapping[str, str]) -> str:
    """Return the runs that could not be read and their problems, as HTML."""
    return TEXTS.left_out(problems) if problems else ""


def run_links(runs: Sequence[RunDir]) -> str:
    """Return links to the runs' folders, relative to the study, as HTML."""
    return TEXTS.links([run.name for run in runs])


def invariance_html(agreement: pd.DataFrame, pairs: Iterable[Pair]) -> str:
    """Return the losses of invariance of groups against those they are compared with, as HTML.

    `agreement` has the share of unchanged classes in percent, a row per group, a column per family.
    """
    compared = dict.fromkeys((pair.better, pair.worse) for pair in pairs)
    compared = [both for both in compared if {*both} <= set(agreement.index)]
    losses = [
        {"group": group, "baseline": baseline, "family": family, "value": value, "before": before}
        for group, baseline in compared
        for family, value in agreement.loc[group].items()
        if value < (before := agreement.loc[baseline, family])
    ]
    return TEXTS.invariance(bool(compared), losses)


def export_html(notebook: Path, page: Path) -> Path:
    """Write an executed notebook as one self-contained page without code.

    Cells tagged `notebook-only` are left out, and so are sections that show nothing.
    """
    import nbformat
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(exclude_input=True, embed_images=True)
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    exporter.mathjax_url = exporter.require_js_url = exporter.jquery_url = ""
    exporter.mermaid_js_url = exporter.jupyter_widgets_base_url = ""
    content = nbformat.read(notebook, as_version=4)
    content.cells = shown_cells(content.cells)
    body, _ = exporter.from_notebook_node(content)
    head = f"<title>{escape(page.parent.name)}</title><style>{PAGE_CSS}</style></head>"
    body = body.replace("<title>Notebook</title>", "", 1).replace("</head>", head, 1)
    return write_text(page, body)


def shown_cells(cells: Sequence[Any]) -> list[Any]:
    """Return the cells of a page: a section (`## `) whose code cells show nothing is left out."""
    sections: list[list[Any]] = [[]]
    for cell in cells:
        if "notebook-only" in cell.metadata.get("tags", []):
            continue
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            sections.append([])
        sections[-1].append(cell)
    shown = []
    for section in sections:
        outputs = [cell.outputs for cell in section if cell.cell_type == "code"]
        shown += section if any(outputs) or not outputs else []
    return shown
