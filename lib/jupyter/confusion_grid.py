"""The confusion matrix as buttons, in JupyterLab."""

from collections.abc import Callable, Sequence

import ipywidgets as widgets
import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from lib.evaluate.run_results import SplitResult
from lib.jupyter.html import FADED, escape
from lib.plots.evaluation import RIGHT, confused_classes, confusion_matrix, recall
from lib.plots.style import shorten

SHOWN = 12  # classes; of more, the most confused ones


class ConfusionGrid:
    """A button for each cell of the matrix, and how many of each class are right.

    Args:
        classes: Names of the classes.
        press: Called with the true and the predicted class of a pressed cell.
    """

    def __init__(self, classes: Sequence[str], press: Callable[[int, int], None]):
        self.classes, self.press = classes, press
        self.widget = widgets.GridBox()
        self._layout = widgets.Layout(width="38px", height="28px", margin="1px", padding="0")
        self._styles = [  # from no video of a class to all of them
            widgets.ButtonStyle(
                button_color=to_hex(colormaps["Blues"](level / 10)),
                text_color="white" if level > 5 else "black",
            )
            for level in range(11)
        ]

    def fill(self, result: SplitResult, label: int | None) -> None:
        """Show the matrix of a result, around one class where there is no room for all."""
        matrix = confusion_matrix(result.scores, result.labels)
        shown = confused_classes(matrix, SHOWN, label)
        head = "".join(_slanted(self.classes[k]) for k in shown)
        children: list[widgets.Widget] = [
            widgets.HTML(f'<div style="{FADED}">true class ↓</div>'),
            widgets.HTML(f'<div style="display:flex;height:74px">{head}</div>'),
            widgets.HTML(f'<div style="{FADED};padding-left:8px">right</div>'),
        ]
        rates = recall(matrix)
        for row in shown:
            buttons = [self._cell_button(matrix, row, k) for k in shown]
            name = escape(shorten(self.classes[row], 18))
            full = escape(self.classes[row])
            children += [
                widgets.HTML(f'<div title="{full}" style="text-align:right">{name}</div>'),
                widgets.HBox(buttons),
                widgets.HTML(_rate_bar(rates[row])),
            ]
        self.widget.children = children
        self.widget.layout = widgets.Layout(
            grid_template_columns=f"minmax(70px, auto) {40 * len(shown) + 4}px 110px",
            align_items="center",
            overflow="auto",
        )

    def _cell_button(self, matrix: np.ndarray, row: int, column: int) -> widgets.Button:
        count, videos = int(matrix[row, column]), int(matrix[row].sum())
        button = widgets.Button(
            description=str(count) if count else "",
            tooltip=f"{count} videos of {self.classes[row]} taken for {self.classes[column]}",
            layout=self._layout,
            style=self._styles[round(10 * count / max(videos, 1))],
        )
        button.on_click(lambda _: self.press(row, column))
        return button


def _slanted(name: str) -> str:
    full, short = escape(name), escape(shorten(name, 12))
    return (
        f'<div title="{full}" style="width:40px;position:relative"><span style="position:absolute;'
        f"bottom:2px;left:14px;transform:rotate(-50deg);transform-origin:left bottom;"
        f'white-space:nowrap;font-size:12px;line-height:1">{short}</span></div>'
    )


def _rate_bar(percent: float) -> str:
    if np.isnan(percent):
        return f'<div style="{FADED};padding-left:8px">no video</div>'
    return (
        '<div style="display:flex;align-items:center;padding-left:8px">'
        f'<div style="width:{0.5 * percent:.0f}px;height:12px;background:{RIGHT};'
        f'margin-right:4px"></div>{percent:.0f} %</div>'
    )
