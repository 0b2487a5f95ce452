"""Choosing one of many videos, in JupyterLab."""

import random
from collections.abc import Callable, Sequence

import ipywidgets as widgets
import numpy as np

MAX_LISTED = 200  # videos in a picker; more are found by searching


class VideoPicker:
    """Search, choose or draw one of the videos of a list.

    Args:
        label: What the video is.
        on_change: Called without arguments when another video was chosen.

    Attributes:
        widget: What is shown.
        row: Index row of the chosen video.
    """

    def __init__(self, label: str, on_change: Callable[[], None]):
        self._names, self._rows = np.array([], dtype=object), np.array([], dtype=np.int64)
        self.row = 0
        self._on_change, self._is_filling = on_change, False
        wide = widgets.Layout(width="98%")
        self.search = widgets.Text(placeholder="search", layout=wide)
        self.choice = widgets.Select(rows=5, layout=wide)
        self.draw = widgets.Button(description="random", icon="random", tooltip=f"draw a {label}")
        self.count = widgets.HTML()
        self.search.observe(lambda _: self._filter(), names="value")
        self.choice.observe(self._chosen, names="value")
        self.draw.on_click(lambda _: self.choose(random.Random().choice(self._rows.tolist())))
        title = widgets.HTML(f"<b>{label}</b>")
        head = widgets.HBox([title, self.count], layout=wide)
        self.widget = widgets.VBox(
            [head, self.search, self.choice, self.draw], layout=widgets.Layout(width="156px")
        )

    def fill(self, names: Sequence[str], rows: Sequence[int], row: int) -> None:
        """Offer videos, given by name and index row, and choose one; calls nothing."""
        self._names, self._rows = np.asarray(names, dtype=object), np.asarray(rows)
        self.row = int(row)
        self._is_filling = True
        self.search.value = ""
        self._is_filling = False
        self._filter()

    def choose(self, row: int) -> None:
        """Choose the video of an index row."""
        self.row = int(row)
        self._filter()
        self._on_change()

    def _filter(self) -> None:
        if self._is_filling:
            return
        found = self._found()
        own = [pair for pair in found if pair[1] == self.row]
        listed = found[:MAX_LISTED] + [pair for pair in own if pair not in found[:MAX_LISTED]]
        is_all = len(found) <= MAX_LISTED
        shown = f"{len(found):,}" if is_all else f"1–{MAX_LISTED}"
        self.count.value = f"&nbsp;{shown} of {len(self._rows) if is_all else len(found):,}"
        self._is_filling = True
        self.choice.options = listed
        self.choice.value = self.row if own else None
        self._is_filling = False

    def _found(self) -> list[tuple[str, int]]:
        """Return the videos whose names hold all words of the search."""
        words = self.search.value.lower().split()
        videos = zip(self._names, map(int, self._rows), strict=True)
        return [(name, row) for name, row in videos if all(word in name.lower() for word in words)]

    def _chosen(self, change: dict) -> None:
        if not self._is_filling and change["new"] is not None:
            self.row = int(change["new"])
            self._on_change()
