"""HTML of the notebooks: escaped names, templates, error boxes, and display of widgets."""

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
# JupyterLab runs no shortcut on a focused element with this attribute.
OWN_KEYS = """<style onload="this.closest('.widget-vbox').addEventListener('focusin',
event => event.target.dataset.lmSuppressShortcuts = 'true')"></style>"""
# Characters with a meaning in Markdown and MathJax; as character references they have none.
_MARKUP = str.maketrans({character: f"&#{ord(character)};" for character in "`*[]\\|~$\n\r"})


def escape(text: object) -> str:
    """Return text for HTML (attributes in quotes too) and for Markdown outside of code spans.

    Names of classes, videos, runs, studies and splits may be anything that a file system allows.
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
    """Return True if a person runs the present cell, False in papermill, nbconvert and scripts.

    A front end allows the kernel to ask for input; batch execution does not.
    """
    kernel = getattr(get_ipython(), "kernel", None)
    return kernel is not None and bool(
        kernel.get_parent().get("content", {}).get("allow_stdin", False)
    )


def show(widget: widgets.Widget) -> None:
    """Display a widget in an interactive session, otherwise a line of text."""
    if is_interactive():
        display(widget)
    else:
        print("(JupyterLab shows an interactive view of the figures above here)")


def own_keys() -> widgets.HTML:
    """Return an invisible widget that gives the lists of its `VBox` their arrow keys.

    JupyterLab would otherwise move to another cell.
    """
    return widgets.HTML(OWN_KEYS, layout=widgets.Layout(display="none"))


def wrapping() -> widgets.Layout:
    """Return the layout of widgets side by side that wrap in a narrow window."""
    return widgets.Layout(display="flex", flex_flow="row wrap", grid_gap="2px 8px")


@contextmanager
def unobserved(widget: widgets.Widget, handler: Callable) -> Iterator[None]:
    """Set options or value of a widget without calling the handler of its value."""
    widget.unobserve(handler, names="value")
    try:
        yield
    finally:
        widget.observe(handler, names="value")
