"""HTML of the notebooks: escaped names, templates, error boxes, and what needs a live page."""

import html
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from urllib.parse import quote

import ipywidgets as widgets
from IPython import get_ipython
from IPython.display import display
from jinja2 import Environment, StrictUndefined, Template

FADED = "color:var(--jp-ui-font-color2,#666)"
ERROR_BOX = (
    '<div role="alert" style="border-left:4px solid #D55E00;padding-left:8px;max-height:24em;'
    'overflow:auto;overflow-wrap:anywhere;white-space:pre-wrap;font-family:monospace">'
    "{{ error }}</div>"
)
# Characters with a meaning in Markdown and MathJax; as character references they have none.
_MARKUP = str.maketrans({character: f"&#{ord(character)};" for character in "`*[]\\|~$\n\r"})


def escape(text: object) -> str:
    """Return text for HTML (attributes in quotes too) and for Markdown outside of code spans.

    Names of classes, videos, runs, studies and splits, and messages that contain them, may be
    anything that a file system allows. A line break in them starts no new paragraph of Markdown.
    """
    return html.escape(str(text)).translate(_MARKUP)


def escape_url(path: object) -> str:
    """Return a relative path for a link in HTML or Markdown."""
    return quote(str(path), safe="/")


@lru_cache
def _template(source: str) -> Template:
    return Environment(autoescape=True, undefined=StrictUndefined).from_string(source)


def render(template: str, **values: object) -> str:
    """Fill in a jinja2 template; every value is escaped."""
    return _template(template).render(values)


def error_html(error: object) -> str:
    """Return an error message as a box."""
    return render(ERROR_BOX, error=str(error))


def is_interactive() -> bool:
    """Return true if a person runs the present cell; false in papermill, nbconvert and scripts.

    A front end allows the kernel to ask for input; batch execution does not.
    """
    kernel = getattr(get_ipython(), "kernel", None)
    if kernel is None:
        return False
    return bool(kernel.get_parent().get("content", {}).get("allow_stdin", False))


def show(widget: widgets.Widget) -> None:
    """Display a widget in an interactive session, and elsewhere a line in its place."""
    if is_interactive():
        display(widget)
    else:
        print("(JupyterLab shows an interactive view of the figures above here)")


def wrapping() -> widgets.Layout:
    """Return the layout of widgets side by side that wrap where there is no room."""
    return widgets.Layout(display="flex", flex_flow="row wrap", grid_gap="2px 8px")


@contextmanager
def unobserved(widget: widgets.Widget, handler: Callable) -> Iterator[None]:
    """Set options or value of a widget without calling the handler of its value."""
    widget.unobserve(handler, names="value")
    try:
        yield
    finally:
        widget.observe(handler, names="value")
