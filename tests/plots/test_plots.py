"""Figures of runs: titles say the finding, axes are named, and odd runs still give a figure."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch

from lib.plots import style
from lib.plots.clips import clip_rows
from lib.plots.comparison import plot_accuracy, plot_matrix
from lib.plots.evaluation import MAX_NAMES, plot_confusions, plot_invariance
from lib.plots.training import plot_learning_curves, plot_validation_curves

matplotlib.use("Agg")
LONG = "an action with a very long name that goes on and on"


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


def assert_no_text_overlaps(figure):
    """Tick labels of one axis and titles must not lie on each other."""
    figure.canvas.draw()
    for axes in figure.axes:
        titles = [axes.title] if axes.get_title() else []
        groups = [[t for t in axes.get_yticklabels() if t.get_text()], titles]
        if not any(t.get_rotation() for t in axes.get_xticklabels()):
            groups.append([t for t in axes.get_xticklabels() if t.get_text()])
        for texts in groups:
            boxes = [text.get_window_extent() for text in texts]
            for k, box in enumerate(boxes):
                assert not any(box.overlaps(other) for other in boxes[k + 1 :])


def run_log(**columns) -> pd.DataFrame:
    return pd.DataFrame({"epoch": [1, 2], "seconds": [30.0, 60.0]} | columns)


def test_rows_of_frames_keep_their_shape_and_their_place():
    wide = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1).expand(10, 3, 20, 40)
    clips = {"two\nlines": wide, "mask": torch.ones(10, 1, 30, 30, dtype=torch.uint8)}
    figure = clip_rows(clips, "title", frames=4)
    (axes,) = figure.axes
    assert_no_text_overlaps(figure)
    assert [t.get_text() for t in axes.get_yticklabels()] == list(clips)
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0", "3", "6", "9"]
    assert [int(image.get_array()[0, 0, 0]) for image in axes.images[:4]] == [0, 3, 6, 9]
    boxes = [image.get_window_extent() for image in axes.images]
    for box, (height, width) in zip(boxes, [(20, 40)] * 4 + [(30, 30)] * 4, strict=True):
        assert box.height / box.width == pytest.approx(height / width, rel=0.1)  # less a gap
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[k + 1 :])


def test_learning_curves_say_what_was_reached():
    log = run_log(
        **{"loss/total": [2.0, 1.5], "loss/labeled": [2.0, 1.5], "eval/top1_video": [None, 62.5]}
    )
    losses, pseudo, accuracy = plot_learning_curves(log).axes
    assert losses.get_title() == "loss 1.500"
    assert accuracy.get_title() == "validation top-1 62.5 %"
    assert pseudo.get_title() == "Pseudo-labels: nothing logged"
    assert losses.lines[0].get_color() == style.LABELED
    assert "(nats)" in losses.get_ylabel() and "(%)" in accuracy.get_ylabel()


def test_a_single_validation_is_a_dot():
    log = run_log(**{"loss/total": [2.0, 1.5], "eval/top1_video": [None, 62.5]})
    line = plot_learning_curves(log).axes[2].lines[0]
    assert line.get_marker() == "o" and line.get_ydata().tolist() == [62.5]
    assert plot_validation_curves({"a": [log]}, {"a": "k"}).axes[0].lines[0].get_marker() == "o"
    log["eval/top1_video"] = [60.0, 62.5]
    assert plot_learning_curves(log).axes[2].lines[0].get_linestyle() == "-"


def test_runs_that_were_not_validated_are_said_to_be():
    log = run_log(**{"loss/total": [2.0, 1.5]})
    assert "nothing logged" in plot_learning_curves(log).axes[2].get_title()
    (axes,) = plot_validation_curves({"a": [log]}, {"a": "k"}).axes
    assert "No run" in axes.get_title()
    log = log.assign(**{"eval/top1_video": [10.0, 30.0]})
    logs = {"a": [log, log], "b": [run_log()], "c": [log]}
    (axes,) = plot_validation_curves(logs, style.group_colors("abc")).axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["a", "c"] and len(axes.lines) == 3


def test_names_with_dollars_are_no_formulas():
    rows = [("$\\frac$", "val", 60), ("$\\frac$", "val", 70), ("b", "val", 10), ("b", "val", 20)]
    summary = pd.DataFrame(rows, columns=["group", "split", "top1"])
    figure = plot_accuracy(summary, style.group_colors(summary["group"].unique()))
    assert_no_text_overlaps(figure)  # draws it
    assert "$\\frac$" in [text.get_text() for text in figure.axes[0].get_yticklabels()]


def test_many_runs_are_bars_below_each_other():
    rows = [(f"{LONG}_{number}", split, number) for number in range(16) for split in ("val", "new")]
    summary = pd.DataFrame(rows, columns=["group", "split", "top1"])
    colors = style.group_colors(summary["group"].unique())
    figure = plot_accuracy(summary, colors)
    assert figure.get_size_inches()[0] == style.REPORT_WIDTH
    assert [axes.get_title() for axes in figure.axes] == ["val", "new"]
    for axes in figure.axes:
        assert [bar.get_width() for bar in axes.patches] == list(range(16))
        bar_colors = [matplotlib.colors.to_hex(bar.get_facecolor()).upper() for bar in axes.patches]
        assert bar_colors == [color.upper() for color in colors.values()]
    assert_no_text_overlaps(figure)


def test_matrix_shows_means_and_gains_and_frames_what_is_asked():
    means = pd.DataFrame({"val": [90.0, 80.0], "light": [65.0, 50.0]}, index=["photo", "none"])
    row = {"better": "photo", "worse": "none", "seeds": 5, "low": 8.0, "high": 12.0}
    comparisons = pd.DataFrame(
        [
            row | {"split": "val", "difference": 10.0, "margin": 0.0},
            row | {"split": "light", "difference": 15.0, "margin": 10.0, "low": 11.5, "high": 18.5},
        ]
    )
    figure = plot_matrix(means, comparisons)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["none", "photo"]
    assert [text.get_text() for text in axes.texts] == [
        "80.0", "50.0", "90.0\n+10.0 (+8.0 to +12.0)", "65.0\n+15.0 (+11.5 to +18.5)",
    ]  # fmt: skip
    assert axes.images[0].get_array().tolist() == [[0, 0], [10, 15]]
    assert [frame.get_xy() for frame in axes.patches] == [(0.5, 0.5)]
    assert_no_text_overlaps(figure)


@pytest.mark.parametrize("count", [1, 6, 400])
def test_classes_are_named_where_they_can_be_read(count):
    classes = [f"{LONG} {number}" for number in range(count)]
    matrix = np.eye(count, dtype=int) * 4
    matrix[0, -1] += 4
    figure = plot_confusions({"val": matrix}, classes, "title")
    assert len(figure.axes[0].texts) == (0 if count > MAX_NAMES else np.count_nonzero(matrix))
    assert max(len(t.get_text()) for t in figure.axes[0].get_yticklabels()) <= 24
    assert_no_text_overlaps(figure)


@pytest.mark.parametrize("classes, rows", [(4, 1), (20, 3)])
def test_matrices_are_not_wider_than_a_page(classes, rows):
    matrices = {name: np.eye(classes, dtype=int) for name in ("val", "new", "old")}
    figure = plot_confusions(matrices, [f"{LONG} {k}" for k in range(classes)], "title")
    width, height = figure.get_size_inches()
    assert width <= style.REPORT_WIDTH + 1 and height > rows * 3
    assert len(figure.axes) == 3 + 1  # and the colours
    assert len({axes.get_subplotspec().rowspan.start for axes in figure.axes[:3]}) == rows
    assert_no_text_overlaps(figure)


def test_families_have_their_colours_everywhere():
    families = pd.DataFrame(
        {"family": ["temporal", "scene"], "agreement": [90.0, 40.0], "kl": [0.1, 1.0]}
    )
    accuracy = pd.DataFrame({"input": ["whole clip", "actor only"], "top1": [80.0, 60.0]})
    agreement, change, _ = plot_invariance(families, accuracy).axes
    assert agreement.get_title() == "Least stable: scene"
    for axes in (agreement, change):
        colors = [matplotlib.colors.to_hex(bar.get_facecolor()).upper() for bar in axes.patches]
        assert colors == [style.TEMPORAL, style.SCENE]


def test_style_does_not_leave_traces():
    before = dict(matplotlib.rcParams)
    plot_learning_curves(run_log(**{"loss/total": [2.0, 1.5]}))
    changed = {name for name, value in matplotlib.rcParams.items() if before[name] != value}
    assert changed <= {"backend", "interactive"}


def test_shortened_text_keeps_both_ends():
    assert style.shorten("short", 5) == "short"
    text = style.shorten("the beginning and the end", 9)
    assert len(text) == 9 and text.startswith("the ") and text.endswith("end")
