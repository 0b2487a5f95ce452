"""Tables and figures of a prepared data set; each function makes one and returns it."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from pandas.io.formats.style import Styler

from lib.data.dataset import VideoDataset
from lib.data.frame_tables import open_person_boxes
from lib.data.video_reader import read_frames
from lib.plots.style import BLUE, BOX, COLORS, GRAY, VERMILLION, shorten, styled
from lib.prepare.match_names import class_counts

MAX_NAMED_CLASSES = 60  # more names than that cannot be read
MIN_SCORE = 0.4  # of the person boxes that are shown
COLUMN, GAP = 1.6, 0.08  # width of a frame in a contact sheet and of the gap, inches
ROW_TEXT = 0.42  # height of the texts above and below a row, inches


def left_aligned(table: pd.DataFrame) -> Styler:
    """Return a table of texts for a notebook: without its index, all columns to the left."""
    styles = [{"selector": "th, td", "props": "text-align: left"}]
    return table.style.hide(axis="index").format(escape="html").set_table_styles(styles)


@styled
def plot_class_counts(dataset: VideoDataset, split_names: Sequence[str]) -> Figure:
    """Show how many videos of each class some lists hold.

    Args:
        dataset: The prepared data set.
        split_names: The lists, at most as many as there are colours.
    """
    width = float(np.clip(0.28 * len(dataset.classes), 7, 16))
    figure, axes = plt.subplots(figsize=(width, 3.2))
    positions = np.arange(len(dataset.classes))
    bar = 0.8 / len(split_names)
    for number, (name, color) in enumerate(zip(split_names, COLORS, strict=False)):
        counts = class_counts(dataset, name)
        axes.bar(positions + (number + 0.5) * bar - 0.4, counts, bar, color=color, label=name)
    fewest, most = (class_counts(dataset, split_names[0]).agg(how) for how in ("min", "max"))
    title = f"A class has {fewest} to {most} videos in {split_names[0]}"
    if fewest == most:
        title = f"Every class has {most} videos in {split_names[0]}"
    axes.set(xlabel="class", ylabel="videos", title=title)
    if len(dataset.classes) <= MAX_NAMED_CLASSES:
        names = [shorten(name, 24) for name in dataset.classes]
        axes.set_xticks(positions, names, rotation=60, ha="right")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    figure.tight_layout()
    return figure


@styled
def plot_clip_lengths(dataset: VideoDataset, clips: Mapping[str, tuple[int, int]]) -> Figure:
    """Show how long the videos are, and how long training clips are.

    Args:
        dataset: The prepared data set.
        clips: Whose clip -> its number of frames and the distance of neighbouring ones, in frames;
            the title is about the first.
    """
    frames = dataset.index["frames"].to_numpy()
    spans = {name: count * interval for name, (count, interval) in clips.items()}
    figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
    low, high = min(frames.min(), *spans.values()) - 0.5, max(frames.max(), *spans.values()) + 0.5
    axes.hist(frames, bins=np.linspace(low, high, 41), color=BLUE)
    for (name, span), color in zip(spans.items(), (VERMILLION, GRAY), strict=False):
        label = "{}: {} × {}".format(name, *clips[name])
        axes.axvline(span, color=color, label=label)
    name, span = next(iter(spans.items()))
    axes.set(
        xlabel="length of the video (frames)",
        ylabel="videos",
        title=f"{(frames < span).sum()} of {len(frames)} videos are shorter than a clip of {name}",
    )
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


@styled
def plot_contact_sheet(dataset: VideoDataset, rows: Sequence[int], num_frames: int = 6) -> Figure:
    """Show frames of some videos, with their person boxes where there are any.

    Args:
        dataset: The prepared data set.
        rows: Index rows of the videos.
        num_frames: Frames of each, evenly spaced.
    """
    boxes_of = open_person_boxes(dataset)
    records = [dataset.record(int(row)) for row in rows]
    heights = [COLUMN * record.height / record.width for record in records]
    width, height = (COLUMN + GAP) * num_frames, sum(heights) + ROW_TEXT * len(records)
    figure = plt.figure(figsize=(width, height))
    bottom = height
    for record, tall in zip(records, heights, strict=True):
        bottom -= tall + ROW_TEXT
        indices = np.linspace(0, record.num_frames - 1, num_frames).round().astype(np.int64)
        boxes = boxes_of.lookup(record.row, indices, MIN_SCORE) if boxes_of else [[]] * num_frames
        frames = read_frames(record, indices)
        for column, (frame, index) in enumerate(zip(frames, indices, strict=True)):
            left = column * (COLUMN + GAP) + GAP / 2
            place = (left / width, (bottom + ROW_TEXT / 2) / height, COLUMN / width, tall / height)
            axes = figure.add_axes(place, xticks=[], yticks=[])
            axes.imshow(frame)
            axes.set_xlabel(f"frame {index}", fontsize=8, labelpad=1)
            if column == 0:
                axes.set_title(shorten(record.name, 80), fontsize=9, loc="left", pad=3)
            for x1, y1, x2, y2 in boxes[column]:
                axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, lw=1.5, ec=BOX))
    return figure


@styled
def plot_box_statistics(statistics: pd.DataFrame) -> Figure:
    """Show how much of the videos the person boxes cover.

    Args:
        statistics: One row a video, as `lib.prepare.boxes.detect.box_statistics` returns it.
    """
    figure, grid = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
    panels = (
        ("frames_with_person", "share of the frames with a box", np.linspace(0, 1, 21)),
        ("boxes_per_frame", "boxes in a frame (mean)", 20),
        ("box_area", "share of the frame inside boxes (mean)", np.linspace(0, 1, 21)),
    )
    for axes, (column, label, bins) in zip(grid, panels, strict=True):
        values = statistics[column]
        axes.hist(values, bins=bins, color=BOX)
        axes.axvline(values.median(), color="black", lw=1, label=f"median {values.median():.2f}")
        axes.set(xlabel=label, ylabel="videos")
        axes.legend()
    share, count = statistics["frames_with_person"], len(statistics)
    every, none = (share == 1).sum(), (share == 0).sum()
    grid[0].set_title(f"in every frame of {every} videos, in none of {none}")
    grid[1].set_title(f"more than one in {statistics['several'].sum()} videos")
    grid[2].set_title(f"{statistics['box_area'].median():.0%} of the frame in the median video")
    vanishing = statistics["vanishes"].sum()
    figure.suptitle(f"Boxes of {count} videos; in {vanishing} a box vanishes for some frames")
    return figure


def pick_rows(dataset: VideoDataset, split_name: str, count: int, seed: int) -> np.ndarray:
    """Return index rows of a list's videos, of as many different classes as possible, (count,)."""
    rows = dataset.read_split(split_name)
    rows = np.random.default_rng(seed).permutation(rows)
    labels = dataset.index["label"].iloc[rows]
    rank = labels.groupby(labels.to_numpy()).cumcount()  # how many of its class stand before it
    return rows[np.argsort(rank.to_numpy(), kind="stable")[:count]]
