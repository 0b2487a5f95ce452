"""Whether somebody looks on, and what they are shown then."""

import ipywidgets as widgets
from IPython import get_ipython
from IPython.display import display

from lib.show.escape import escape

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
