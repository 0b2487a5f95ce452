"""Figures of notebook 2: draws of the sampler, strength of the operations, quality of the masks."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lib.augment.randaugment import RANDAUGMENT_OPS
from lib.plots.style import (
    BLUE,
    FAMILY_COLORS,
    GRAY,
    ORANGE,
    REPORT_WIDTH,
    WRONG,
    BarPanel,
    bar_panels,
    styled,
)

PROBLEM_COLORS = {"": BLUE, "off the actor": WRONG, "empty": ORANGE, "full": GRAY}


def operation_colors(names: pd.Series) -> list[str]:
    """Return the color of the family of each operation."""
    families = {name: "photometric" for name in RANDAUGMENT_OPS}
    families |= {name: "geometric" for name, op in RANDAUGMENT_OPS.items() if op.is_geometric}
    return [FAMILY_COLORS[families.get(name, "temporal")] for name in names]


def plot_draws(draws: pd.DataFrame) -> Figure:
    """Show how often each operation was drawn; lines are expectation ± 2 standard deviations.

    `draws` has the columns kind, operation, drawn, expected, as `count_draws` returns.
    """
    tables = [table for _, table in draws.groupby("kind", sort=False)]
    panels = [
        BarPanel(
            table.set_index("operation")[["drawn"]],
            "operation",
            "draws",
            f"{table['kind'].iloc[0]}: {table['drawn'].sum():,} draws",
            [operation_colors(table["operation"])],
        )
        for table in tables
    ]
    figure = bar_panels(panels, (REPORT_WIDTH, 3.8))
    for axes, table in zip(figure.axes, tables, strict=True):
        expected, total = table["expected"], table["drawn"].sum()
        error = 2 * (expected * (1 - expected / total)) ** 0.5
        axes.errorbar(range(len(table)), expected, error, fmt="_", color="black", capsize=3)
        axes.tick_params(axis="x", rotation=60)
    return figure


def plot_changes(changes: pd.DataFrame) -> Figure:
    """Show the mean change by each operation; columns as `operation_changes` returns."""
    title = f"{changes['operation'].iloc[-1]} changes this clip most"
    colors, table = operation_colors(changes["operation"]), changes.set_index("operation")
    value = "mean of |strong − weak| (gray levels, of 255)"
    panel = BarPanel(table[["change"]], "operation", value, title, [colors], text="{:.0f}".format)
    return bar_panels([panel], (7, 4.2), is_horizontal=True)


@styled
def plot_masks(masks: pd.DataFrame) -> Figure:
    """Show for each clip the area of its mask and the motion in it, from a `mask_table`."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.plot([0, 1], [0, 1], color=GRAY, linewidth=1)
    for problem, color in PROBLEM_COLORS.items():
        some = masks[masks["problem"] == problem]
        label = f"{problem or 'on the actor'}: {len(some)}"
        axes.plot(some["area"], some["motion"], "o", color=color, label=label, alpha=0.7)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set(xlabel="r, share of the clip in the mask", ylabel="share of its motion in the mask")
    axes.set_title(f"{(masks['problem'] != '').sum()} of {len(masks)} masks need a look")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
