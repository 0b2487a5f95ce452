"""An executed notebook as a page to read offline."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib.fileio import write_text
from lib.jupyter.html import escape

# Figures as wide as the page, tables that scroll by themselves instead of being cut
PAGE_CSS = """
body { margin: 0 auto; max-width: 1860px; padding: 0 20px; }
.jp-RenderedHTMLCommon, .jp-RenderedHTMLCommon table { font-size: 16px; }
.jp-OutputArea-output { overflow-x: auto; }
.jp-OutputArea-output img { max-width: 100%; height: auto; }
.jp-OutputArea-output td, .jp-OutputArea-output th { white-space: normal; }
"""


def export_html(notebook: Path, page: Path) -> Path:
    """Write an executed notebook as one self-contained page without code.

    Cells tagged `notebook-only` are for those who execute the notebook: they are left out, and so
    are sections that show nothing.
    """
    import nbformat
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(exclude_input=True, embed_images=True, exclude_input_prompt=True)
    exporter.exclude_output_prompt = True
    exporter.mathjax_url = exporter.require_js_url = exporter.jquery_url = ""
    exporter.mermaid_js_url = exporter.jupyter_widgets_base_url = ""
    content = nbformat.read(notebook, as_version=4)
    content.cells = shown_cells(content.cells)
    body, _ = exporter.from_notebook_node(content)
    head = f"<title>{escape(page.parent.name)}</title><style>{PAGE_CSS}</style></head>"
    body = body.replace("<title>Notebook</title>", "", 1).replace("</head>", head, 1)
    return write_text(page, body)


def shown_cells(cells: Sequence[Any]) -> list[Any]:
    """Return the cells of a page: a section whose code cells have no output is left out.

    Args:
        cells: Of a notebook; a section begins with a Markdown cell that begins with `## `.
    """
    sections: list[list[Any]] = [[]]
    for cell in cells:
        if "notebook-only" in cell.metadata.get("tags", []):
            continue
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            sections.append([])
        sections[-1].append(cell)
    return [cell for section in sections if _shows_something(section) for cell in section]


def _shows_something(section: Sequence[Any]) -> bool:
    codes = [cell for cell in section if cell.cell_type == "code"]
    return not codes or any(cell.outputs for cell in codes)
