"""The site of docs/build_site.py, built from a notebook that was executed by hand."""

import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import lib
from docs.build_site import WIDGET, build
from lib.config import PROJECT_ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    shown = new_output("display_data", {"text/html": '<div class="clips">a clip</div>'})
    bar = new_output("display_data", {WIDGET: {"model_id": "1"}, "text/plain": "testing: 0%"})
    cells = [
        new_markdown_cell("# 1 · Title\n\n$$q = \\frac{a}{b}$$\n\nand $\\hat q$, `$HOME`"),
        new_markdown_cell("[how-to](../docs/faq.md), [next](4_evaluate.ipynb)"),
        new_code_cell("set_up()", metadata={"tags": ["setup"]}),
        new_code_cell("display(clip)", outputs=[shown, bar]),
    ]
    names = [path.stem for path in sorted((PROJECT_ROOT / "notebooks").glob("*.ipynb"))]
    for name in names:
        state = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
        notebook = new_notebook(cells=cells, metadata={"widgets": state})
        nbformat.write(notebook, folder / f"{name}.ipynb")
    report = folder / "report.html"
    links = '<p class="run-links">Runs:\n<a href="semi_seed0/">semi_seed0</a></p>'
    report.write_text(f'<body><a href="#result">Result</a>{links}</body>')
    build(folder / "_site", sorted(folder.glob("*.ipynb")), report)
    return folder / "_site"


def test_every_link_of_a_page_leads_to_a_file(site):
    missing = []
    for page in site.rglob("*.html"):
        text = re.sub(r"<(script|style).*?</\1>", "", page.read_text(), flags=re.DOTALL)
        targets = re.findall(r'(?:href|src)="(?!https?:|data:|#)([^"#]+)', text)
        missing += [
            (page.name, target) for target in targets if not (page.parent / target).exists()
        ]
    assert missing == []


def test_a_notebook_keeps_its_outputs_and_loses_its_setup_cell(site):
    for page in (site / "notebooks").iterdir():
        text = page.read_text()
        assert '<div class="clips">a clip</div>' in text and "set_up" not in text
        assert "testing: 0%" not in text
        assert 'href="../index.html"' in text


def test_no_page_loads_a_script(site):
    for page in site.rglob("*.html"):
        assert re.findall(r'<script[^>]+src="[^"]|html-manager', page.read_text()) == []


def test_equations_are_mathml(site):
    text = (site / "notebooks" / "3_train.html").read_text()
    assert "\\frac" not in text and "$$q" not in text
    assert text.count('<math display="block"') == 1 and text.count('<math display="inline"') == 1
    assert "<mfrac>" in text and "<code>$HOME</code>" in text


def test_the_report_has_the_navigation_and_no_links_to_runs(site):
    text = (site / "report.html").read_text()
    assert 'href="notebooks/5_report.html"' in text and "semi_seed0" not in text
    assert text.endswith('<a href="#result">Result</a></body>')


def test_all_public_names_are_described(site):
    text = (site / "api.html").read_text()
    assert all(f'<h2 id="{name}">' in text for names in lib.PUBLIC.values() for name in names)
    assert "<code>clip_len = 8</code>: Frames in a clip." in text
