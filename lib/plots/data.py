"""Tables and figures of a prepared data set."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from lib.plots.style import BLUE, BOX, GRAY, VERMILLION, BarPanel, bar_panels, shorten, styled

MAX_NAMED_CLASSES = 60  # more names are illegible


def left_aligned(table: pd.DataFrame) -> Styler:
    """Return a table of texts for a notebook: left-aligned columns, no index."""
    styles = [{"selector": "th, td", "props": "text-align: left"}]
    return table.style.hide(axis="index").format(escape="html").set_table_styles(styles)


def plot_class_counts(counts: pd.DataFrame) -> Figure:
    """Show the number of videos of each class (rows) in each split (columns, at most 8)."""
    split, (fewest, most) = counts.columns[0], counts.iloc[:, 0].agg(["min", "max"])
    title = f"A class has {fewest} to {most} videos in {split}"
    if fewest == most:
        title = f"Every class has {most} videos in {split}"
    panel = BarPanel(counts, "class", "videos", title)
    figure = bar_panels([panel], (float(np.clip(0.28 * len(counts), 7, 16)), 3.2))
    if len(counts) <= MAX_NAMED_CLASSES:
        names = [shorten(name, 24) for name in counts.index]
        figure.axes[0].set_xticks(range(len(counts)), names, rotation=60, ha="right")
    else:
        figure.axes[0].set_xticks([])
    return figure


@styled
def plot_clip_lengths(frames: pd.Series, clips: Mapping[str, tuple[int, int]]) -> Figure:
    """Show the lengths of the videos and of training clips.

    Args:
        frames: Number of frames of each video.
        clips: Name of a clip -> its number of frames and their interval, in frames; the title is
            about the first.
    """
    spans = {name: count * interval for name, (count, interval) in clips.items()}
    figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
    low, high = min(frames.min(), *spans.values()) - 0.5, max(frames.max(), *spans.values()) + 0.5
    axes.hist(frames, bins=np.linspace(low, high, 41), color=BLUE)
    for (name, span), color in zip(spans.items(), (VERMILLION, GRAY), strict=False):
        axes.axvline(span, color=color, label="{}: {} × {}".format(name, *clips[name]))
    name, span = next(iter(spans.items()))
    title = f"{(frames < span).sum()} of {len(frames)} videos are shorter than a clip of {name}"
    axes.set(xlabel="length of the video (frames)", ylabel="videos", title=title)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


@styled
def plot_box_statistics(statistics: pd.DataFrame) -> Figure:
    """Show the coverage of the videos by person boxes, from a table of `box_statistics`."""
    share, fractions = statistics["frames_with_person"], np.linspace(0, 1, 21)
    every, none, several = (share == 1).sum(), (share == 0).sum(), statistics["several"].sum()
    area = f"{statistics['box_area'].median():.0%} of the frame in the median video"
    boxed = f"in every frame of {every} videos, in none of {none}"
    panels = {
        "frames_with_person": ("fraction of the frames with a box", fractions, boxed),
        "boxes_per_frame": ("boxes in a frame (mean)", 20, f"more than one in {several} videos"),
        "box_area": ("fraction of the frame inside boxes (mean)", fractions, area),
    }
    figure, grid = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
    for axes, (column, (label, bins, title)) in zip(grid, panels.items(), strict=True):
        median = statistics[column].median()
        axes.hist(statistics[column], bins=bins, color=BOX)
        axes.axvline(median, color="black", lw=1, label=f"median {median:.2f}")
        axes.set(xlabel=label, ylabel="videos", title=title)
        axes.legend()
    count, vanishing = len(statistics), statistics["vanishes"].sum()
    figure.suptitle(f"Boxes of {count} videos; in {vanishing} a box vanishes for some frames")
    return figure
