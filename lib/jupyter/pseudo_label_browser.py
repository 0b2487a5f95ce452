"""Review of the pseudo-labels of a run in JupyterLab: accept, correct or skip them."""

from collections.abc import Callable
from functools import lru_cache

import ipywidgets as widgets
import pandas as pd

from lib.evaluate.invariance import CenterClips
from lib.evaluate.pseudo_labels import SKIPPED, TABLE, PseudoLabels, training_command
from lib.jupyter.browser import CACHED_CLIPS, read_clip
from lib.jupyter.html import (
    FADED,
    Tile,
    error_html,
    escape,
    own_keys,
    show,
    tiles_html,
    unobserved,
    wrapping,
)
from lib.plots.style import BLUE, shorten
from lib.runs.run_dir import RunDir


class PseudoLabelBrowser:
    """A list of the pseudo-labels with buttons to decide about each, and to write the split."""

    def __init__(self, run: RunDir):
        self.run, self.labels = run, PseudoLabels(run)
        dataset = self.labels.data.labeled
        self.clips = lru_cache(CACHED_CLIPS)(CenterClips(dataset, run.settings()))
        self.rows = pd.Index(dataset.index["name"]).get_indexer(self.labels.table["name"]).tolist()
        self._build(dataset.classes)
        self._list_videos(0)

    def _build(self, classes: tuple[str, ...]) -> None:
        self.count, self.clip, self.message = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.videos = widgets.Select(rows=16, layout=widgets.Layout(width="98%"))
        self.videos.observe(self._on_video, names="value")
        self.other = widgets.Dropdown(options=[(shorten(name, 40), name) for name in classes])
        self.split_name = widgets.Text(value="checked", description="split name")
        self.other.layout.width, self.split_name.layout.width = "150px", "260px"
        self.accept = self._button("accept", "check", lambda: self._decide(self._shown["label"]))
        self.skip = self._button("skip", "step-forward", lambda: self._decide(SKIPPED))
        take = "take this class"
        self.correct = self._button(take, "pencil", lambda: self._decide(self.other.value))
        self.write = self._button("write the split", "save", self._write)
        self.percent = widgets.BoundedIntText(95, min=1, max=100, layout={"width": "60px"})
        self.accept_all = self._button("accept all from", "check", self._accept_all)
        self.accept_all.layout.width = "150px"
        buttons = [self.accept, self.skip, widgets.HBox([self.other, self.correct])]
        right = [self.clip, widgets.HBox(buttons, layout=wrapping())]
        left = [own_keys(), self.count, self.videos]
        left = widgets.VBox(left, layout=widgets.Layout(flex="1 1 380px"))
        right = widgets.VBox(right, layout=widgets.Layout(flex="1 1 460px"))
        top = widgets.HBox([left, right], layout=wrapping())
        many = [self.accept_all, self.percent, widgets.Label("% confidence")]
        below = widgets.HBox([*many, self.split_name, self.write], layout=wrapping())
        self.widget = widgets.VBox([top, below, self.message])

    def _button(self, description: str, icon: str, act: Callable[[], None]) -> widgets.Button:
        button = widgets.Button(description=description, icon=icon, layout={"width": "130px"})

        def on_click(_: widgets.Button) -> None:
            try:
                act()
            except (ValueError, OSError) as error:
                self.message.value = error_html(error)

        button.on_click(on_click)
        return button

    @property
    def _shown(self) -> pd.Series:
        """The row of the shown video."""
        return self.labels.table.iloc[self.videos.value]

    def _list_videos(self, start: int) -> None:
        """Rewrite list and counts; show the first undecided video from a position on."""
        decisions, count = self.labels.table["decision"], len(self.labels.table)
        order = [*range(start, count), *range(start)]
        decided = int((decisions != "").sum())
        skipped = int((decisions == SKIPPED).sum())
        accepted = int((decisions == self.labels.table["label"]).sum())
        with unobserved(self.videos, self._on_video):
            self.videos.options = [(self._line(row), k) for k, row in self.labels.table.iterrows()]
            self.videos.value = next((k for k in order if not decisions[k]), order[0])
        self._on_video()
        self.count.value = (  # last: it tells a test that the buttons are ready
            f"<b>{decided}</b> of {count} videos: {accepted} accepted, "
            f"{decided - accepted - skipped} corrected, {skipped} skipped"
        )

    def _line(self, row: pd.Series) -> str:
        decision, label = row["decision"], shorten(row["label"], 24)
        marks = {"": "·", SKIPPED: "skipped:", row["label"]: "✓"}
        mark = marks.get(decision, f"{shorten(decision, 24)} ←")
        return f"{mark} {label} {100 * row['confidence']:.0f} %, {shorten(row['name'], 40)}"

    def _on_video(self, _: object = None) -> None:
        row = self._shown
        confidence = f"{100 * row['confidence']:.0f} %"
        clip = read_clip(self.clips, self.rows[self.videos.value])
        tile = Tile(f"{shorten(row['label'], 20)} {confidence}", BLUE, clip)
        self.other.value = row["second"]
        self.clip.value = (
            f"<b>{escape(row['label'])}</b> with confidence {confidence}, "
            f"{100 * row['agreement']:.0f} % of the views agree; second: {escape(row['second'])}"
            f"{tiles_html([tile], 'a clip of the video')}"
            f'<div style="{FADED};overflow-wrap:anywhere">{escape(row["name"])}</div>'
        )

    def _decide(self, label: str) -> None:
        """Save a decision and show the next undecided video."""
        self.labels.decide(self._shown["name"], label)
        self._list_videos((self.videos.value + 1) % len(self.labels.table))

    def _accept_all(self) -> None:
        self.labels.accept_from(self.percent.value / 100)
        self._list_videos(0)

    def _write(self) -> None:
        path = self.labels.write_split(self.split_name.value)
        self.message.value = (
            f"written: {escape(path)}; to train with it:<pre style='white-space:pre-wrap'>"
            f"{escape(training_command(self.run, self.split_name.value))}</pre>"
        )


def show_pseudo_labels(run: RunDir) -> None:
    """Show the browser of a run's pseudo-labels, or print why there is none."""
    try:
        browser = PseudoLabelBrowser(run)
        decided = (browser.labels.table["decision"] != "").sum()
        print(f"{TABLE}: {len(browser.labels.table)} videos, {decided} decided")
        show(browser.widget)
    except ValueError as error:
        print(error)
