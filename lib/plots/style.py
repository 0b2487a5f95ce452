"""Colours and type of all figures: one colour for one thing, wherever it is shown.

The colours are Okabe and Ito's, which colour-blind eyes tell apart. Figures are drawn on white, so
that they read alike on a light page, on a dark one and on paper; their type can be read at half
size.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib.pyplot as plt

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK, YELLOW = "#E69F00", "#56B4E9", "#000000", "#F0E442"
GRAY = "#6E6E6E"
COLORS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK, YELLOW)  # for things without a name

LABELED, UNLABELED, ACCURACY, RATE = BLUE, VERMILLION, GREEN, PURPLE
BOX = ORANGE  # person boxes, and what is measured of them

# Views of a clip. What is not fed to a network is grey.
ORIGINAL, WEAK, STRONG, TEMPORAL, SCENE = GRAY, BLUE, VERMILLION, PURPLE, GREEN
# The invariances that the strong views stand for
FAMILY_COLORS = {
    "photometric": ORANGE,
    "geometric": SKY,
    "temporal": TEMPORAL,
    "scene": SCENE,
}

REPORT_WIDTH = 12.5  # of a figure that stands alone on a line of the report, inches

STYLE = {
    "text.parse_math": False,  # a class may be called $x$
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "font.size": 10,
    "axes.titlesize": 11,
    "figure.titlesize": 11,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "axes.prop_cycle": plt.cycler(color=COLORS),
}


@contextmanager
def _style() -> Iterator[None]:
    """Set the style; unlike `plt.rc_context` it leaves the notebook's own settings alone."""
    before = {name: plt.rcParams[name] for name in STYLE}
    plt.rcParams.update(STYLE)
    try:
        yield
    finally:
        plt.rcParams.update(before)


styled = _style()  # a decorator for functions that draw a figure


def shorten(text: str, length: int) -> str:
    """Return a text of at most `length` characters: the middle of a longer one becomes `…`."""
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return f"{text[: length - 1 - tail]}…{text[len(text) - tail :]}"
