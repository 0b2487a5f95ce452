"""Whether somebody looks on, and what they are shown then."""

import ipywidgets as widgets
from IPython import get_ipython
from IPython.display import display


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
