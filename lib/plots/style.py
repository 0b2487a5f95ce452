"""Colors and type of all figures: one color for one thing in all of them.

The palette is Okabe and Ito's, made for color-blind readers. Figures have a white background, so
that they look alike on light and dark pages and on paper; their type is legible at half size.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib.pyplot as plt

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK, YELLOW = "#E69F00", "#56B4E9", "#000000", "#F0E442"
GRAY = "#6E6E6E"
COLORS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK, YELLOW)  # of series

LABELED, UNLABELED, ACCURACY, RATE = BLUE, VERMILLION, GREEN, PURPLE
BOX = ORANGE  # person boxes and their statistics
RIGHT, WRONG = ACCURACY, VERMILLION  # predictions

# Views of a clip; gray for what no network sees
ORIGINAL, WEAK, STRONG, TEMPORAL, SCENE = GRAY, BLUE, VERMILLION, PURPLE, GREEN
# Families of augmentations
FAMILY_COLORS = {
    "photometric": ORANGE,
    "geometric": SKY,
    "temporal": TEMPORAL,
    "scene": SCENE,
}

REPORT_WIDTH = 12.5  # inches, of a figure alone on a line of the report

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
    """Set the style; unlike `plt.rc_context` it keeps other settings that the notebook makes."""
    before = {name: plt.rcParams[name] for name in STYLE}
    plt.rcParams.update(STYLE)
    try:
        yield
    finally:
        plt.rcParams.update(before)


styled = _style()  # decorator of functions that draw a figure


def shorten(text: str, length: int) -> str:
    """Replace the middle of a text by `…` if it has more than `length` characters."""
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return f"{text[: length - 1 - tail]}…{text[len(text) - tail :]}"
