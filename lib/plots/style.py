"""Colors and fonts of all figures; a quantity has the same color in all of them.

The palette of Okabe and Ito suits color-blind readers. The background is white on dark pages too.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import cycle

import matplotlib.pyplot as plt

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK, YELLOW = "#E69F00", "#56B4E9", "#000000", "#F0E442"
GRAY = "#6E6E6E"
COLORS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK, YELLOW)  # of series

LABELED, UNLABELED, ACCURACY = BLUE, PURPLE, GREEN
BOX = ORANGE  # person boxes and their statistics
RIGHT, WRONG = ACCURACY, VERMILLION  # predictions, and what is gained or lost
VERDICT_COLORS = {"holds": RIGHT, "contradicted": WRONG, "not decided": GRAY}

ORIGINAL, WEAK, STRONG, TEMPORAL, SCENE = GRAY, BLUE, VERMILLION, PURPLE, GREEN  # views of a clip
FAMILY_COLORS = {"photometric": ORANGE, "geometric": SKY, "temporal": TEMPORAL, "scene": SCENE}

# Runs and groups of runs; no other quantity of the report has one of these colors.
GROUP_COLORS = (ORANGE, SKY, BLACK, "#882255", "#999933", "#332288", "#DDCC77", "#AA4499")

REPORT_WIDTH = 12.5  # inches, of a figure as wide as the report
STYLE = {
    "text.parse_math": False,  # a class may be called $x$
    "figure.facecolor": "white",
    "font.size": 10,
    "axes.titlesize": 11,
    "figure.titlesize": 11,
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
    """Set the style; unlike `plt.rc_context`, keep the settings of a backend loaded meanwhile."""
    before = {name: plt.rcParams[name] for name in STYLE}
    plt.rcParams.update(STYLE)
    try:
        yield
    finally:
        plt.rcParams.update(before)


styled = _style()  # decorator


def group_colors(names: Iterable[str]) -> dict[str, str]:
    """Return a color for each group of runs; they repeat after eight groups."""
    return dict(zip(names, cycle(GROUP_COLORS), strict=False))


def shorten(text: str, length: int) -> str:
    """Replace the middle of a text longer than `length` characters by `…`."""
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return f"{text[: length - 1 - tail]}…{text[len(text) - tail :]}"
