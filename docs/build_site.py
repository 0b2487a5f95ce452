"""Static site of the project: README, executed notebooks, the demo's report, guides, public names.

    python -m docs.build_site            # after `make demo`; `make docs` does both

Writes docs/_site/index.html and what it links to. The notebooks run on the embedded data set.
"""

import argparse
import inspect
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import nbformat
import papermill
from latex2mathml.converter import convert
from markupsafe import Markup, escape
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

import lib
from lib.config import PROJECT_ROOT, Settings
from lib.report.page import OFFLINE

SITE = PROJECT_ROOT / "docs" / "_site"
DEMO = PROJECT_ROOT / "outputs" / "demo"
# Parameters other than the defaults: results of the demo.
PARAMETERS = {
    "4_evaluate": {"run_dir": "outputs/demo/semi_seed0"},
    "5_report": {"study_dir": "outputs/demo", "title": "Demo"},
    "6_predict": {"run_dir": "outputs/demo/semi_seed0"},
}
WIDGET = "application/vnd.jupyter.widget-view+json"  # such as a progress bar: needs a kernel
SETUP_TAG = "setup"  # of the cell that installs the project where only the notebook is
GUIDES = ("docs/*.md", "params/README.md", "benchmarks/README.md", "[A-Z]*.md")

TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True
)
TEMPLATES.filters["code"] = lambda text: Markup(
    re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
)


class MathRenderer(IPythonRenderer):
    """Markdown as HTML, with equations as MathML: browsers show it without script or network."""

    def block_math(self, body: str) -> str:
        """Return a displayed equation."""
        return convert(body, display="block")

    def inline_math(self, body: str) -> str:
        """Return an equation in a line of text."""
        return convert(body)


class Link(NamedTuple):
    """A page of the site, relative to its root, and its title in the navigation."""

    path: str
    title: str


def build(site: Path, notebooks: Sequence[Path], report: Path | None) -> None:
    """Write the site; it is replaced only when every page is built."""
    guides = {path: _page_of(path) for pattern in GUIDES for path in _tracked(pattern)}
    nav = {
        "Notebooks": [Link(f"notebooks/{path.stem}.html", path.stem) for path in notebooks],
        "Guides": [
            Link(page, _title(path)) for path, page in guides.items() if path.stem != "README"
        ],
        "Reference": [Link("api.html", "API")],
    }
    new = site.with_name(site.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(PROJECT_ROOT / "docs" / "images", new / "docs" / "images")
    shutil.copy(PROJECT_ROOT / "CITATION.cff", new)
    if report is not None:
        nav["Reference"].append(Link("report.html", "Demo report"))
        text = _without_links(report.read_text(encoding="utf-8"))
        _write(new / "report.html", _with_navigation(text, "report.html", nav))
    for path, page in guides.items():
        body = _markdown_html(_site_links(path.read_text(encoding="utf-8"), path.parent))
        _write(new / page, _in_frame(page, _title(path), body, nav))
    body = TEMPLATES.get_template("api.html.j2").render(modules=list(_public_names()))
    _write(new / "api.html", _in_frame("api.html", "Public names", body, nav))
    for path in notebooks:
        page = f"notebooks/{path.stem}.html"
        _write(new / page, _notebook_page(path, page, nav))
    shutil.rmtree(site, ignore_errors=True)
    new.rename(site)


def execute(notebook: Path, folder: Path) -> Path:
    """Execute a notebook on the embedded data set; return the executed copy."""
    print(f"executing {notebook.name}", flush=True)
    executed, parameters = folder / notebook.name, PARAMETERS.get(notebook.stem, {})
    papermill.execute_notebook(
        notebook,
        executed,
        parameters,
        cwd=notebook.parent,
        progress_bar=False,
        kernel_name="python3",
    )
    return executed


def _markdown_html(text: str) -> str:
    return MarkdownWithMath(MathRenderer(escape=False)).render(text)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _tracked(pattern: str) -> list[Path]:
    return sorted(PROJECT_ROOT.glob(pattern))


def _page_of(path: Path) -> str:
    """Return the page of a Markdown file, relative to the site; README is the first page."""
    page = path.relative_to(PROJECT_ROOT).with_suffix(".html").as_posix()
    return "index.html" if page == "README.html" else page


def _title(path: Path) -> str:
    return path.read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("# ")


def _site_links(text: str, folder: Path) -> str:
    """Point links between Markdown files and to notebooks to their pages."""

    def replace(match: re.Match) -> str:
        target, anchor = match["path"], match["anchor"] or ""
        file = (folder / target).resolve()
        if file.suffix == ".ipynb":
            return f"]({target.removesuffix('.ipynb')}.html{anchor})"
        if file.suffix == ".md" and file.is_file():
            page = Path(os.path.relpath(PROJECT_ROOT / _page_of(file), folder)).as_posix()
            return f"]({page}{anchor})"
        return match[0]

    return re.sub(r"\]\((?P<path>[\w./-]+)(?P<anchor>#[\w-]+)?\)", replace, text)


def _without_links(page: str) -> str:
    """Remove the links of a report to its run folders, which the site does not have."""
    return re.sub(r'<p class="run-links">.*?</p>', "", page, flags=re.DOTALL)


def _navigation(page: str, nav: Mapping[str, Sequence[Link]]) -> str:
    up = "../" * page.count("/")
    return TEMPLATES.get_template("navigation.html.j2").render(nav=nav, up=up, page=page)


def _with_navigation(text: str, page: str, nav: Mapping[str, Sequence[Link]]) -> str:
    """Return a page with the navigation at the beginning of its body."""
    return re.sub(r"(<body[^>]*>)", lambda body: body[1] + _navigation(page, nav), text, count=1)


def _in_frame(page: str, title: str, body: str, nav: Mapping[str, Sequence[Link]]) -> str:
    return TEMPLATES.get_template("page.html.j2").render(
        title=title, body=body, navigation=_navigation(page, nav)
    )


def _notebook_page(executed: Path, page: str, nav: Mapping[str, Sequence[Link]]) -> str:
    """Return an executed notebook with the navigation above it."""
    content = nbformat.read(executed, as_version=4)
    content.metadata.pop("widgets", None)  # their state, which only a kernel can show
    content.cells = [
        cell for cell in content.cells if SETUP_TAG not in cell.metadata.get("tags", [])
    ]
    for cell in content.cells:
        if cell.cell_type == "markdown":
            cell.source = _site_links(cell.source, PROJECT_ROOT / "notebooks")
        else:
            cell.outputs = [o for o in cell.outputs if WIDGET not in o.get("data", {})]
    exporter = HTMLExporter(embed_images=True, filters={"markdown2html": _markdown_html}, **OFFLINE)
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    text, _ = exporter.from_notebook_node(content)
    text = text.replace("<title>Notebook</title>", f"<title>{executed.stem}</title>", 1)
    return _with_navigation(text, page, nav)


def _public_names() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the modules of `lib.PUBLIC` and the descriptions of their names."""
    for module, names in lib.PUBLIC.items():
        yield module, [_describe(name, getattr(lib, name)) for name in names]


def _describe(name: str, value: Any) -> dict[str, Any]:
    """Describe a name: its signature, docstring, and its methods or the fields of settings."""
    described = {"name": name, "signature": "", "doc": inspect.getdoc(value) or "", "members": []}
    if isinstance(value, dict):
        return described | {"doc": "Table of " + ", ".join(value)}
    if not inspect.isclass(value):
        return described | {"signature": _signature(value)}
    if issubclass(value, Settings):
        fields = value.model_fields.items()
        members = [(key, f" = {field.default!r}", field.description) for key, field in fields]
        return described | {"members": members}
    methods = [(key, getattr(value, key)) for key in vars(value) if not key.startswith("_")]
    members = [
        (key, _signature(method), inspect.getdoc(method).split("\n")[0])
        for key, method in methods
        if inspect.isroutine(method) and inspect.getdoc(method)
    ]
    return described | {"signature": _signature(value), "members": members}


def _signature(value: Any) -> str:
    """Return the parameters of a function or class with their defaults, without types."""
    parameters = inspect.signature(value).parameters.values()
    shown = [str(p.replace(annotation=p.empty)) for p in parameters if p.name != "self"]
    return f"({', '.join(shown)})"


def main() -> None:
    """Execute the notebooks and build the site."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--executed", type=Path, help="folder of executed notebooks; none is run")
    arguments = parser.parse_args()
    report = DEMO / "report.html"
    if not report.is_file():
        parser.error(f"{report}: missing; run `make demo` first")
    notebooks = sorted((PROJECT_ROOT / "notebooks").glob("*.ipynb"))
    folder = arguments.executed or PROJECT_ROOT / "outputs" / "site"
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.executed is None:
        notebooks = [execute(path, folder) for path in notebooks]
    else:
        notebooks = [folder / path.name for path in notebooks]
    build(SITE, notebooks, report)


if __name__ == "__main__":
    main()
