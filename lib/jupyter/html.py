"""Names from outside in HTML and Markdown: shown as they are, never read as markup."""

import html
from urllib.parse import quote

import ipywidgets as widgets
from IPython import get_ipython
from IPython.display import display

# What Markdown and MathJax would read; as character references all of them show it as it is.
_MARKUP = str.maketrans({character: f"&#{ord(character)};" for character in "`*[]\\|~$\n\r"})


def escape(text: object) -> str:
    """Return text for HTML (attributes in quotes too) and for Markdown outside of code spans.

    Names of classes, videos, runs, studies and lists, and messages that hold them, may be anything
    that a file system allows. A line break in them starts no new paragraph of Markdown.
    """
    return html.escape(str(text)).translate(_MARKUP)


def escape_url(path: object) -> str:
    """Return a relative path for a link in HTML or Markdown."""
    return quote(str(path), safe="/")


FADED = "color:var(--jp-ui-font-color2,#666)"


def has_reader() -> bool:
    """Whether a person runs the present cell: false under papermill, nbconvert and in scripts.

    A front end that a person sits at says that the kernel may ask for input; batch execution says
    that it may not.
    """
    shell = get_ipython()
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return False
    return bool(kernel.get_parent().get("content", {}).get("allow_stdin", False))


def show(widget: widgets.Widget) -> None:
    """Display a widget where it can be used, and elsewhere a line that says where that is.

    A page made in batch has no kernel behind it: its figures tell the story.
    """
    if has_reader():
        display(widget)
    else:
        print("(an interactive view of the figures above stands here in JupyterLab)")


def wrapping() -> widgets.Layout:
    """Return the layout of things side by side that go to the next line where there is no room."""
    return widgets.Layout(display="flex", flex_flow="row wrap", grid_gap="2px 8px")


def error_html(error: Exception) -> str:
    """Return an error as a box, its words escaped."""
    return (
        '<div role="alert" style="border-left:4px solid #D55E00;padding-left:8px;'
        f'overflow-wrap:anywhere;white-space:pre-wrap">{escape(str(error))}</div>'
    )
