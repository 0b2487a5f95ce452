"""Videos to label next, in JupyterLab: a key for each class, and a map of all videos."""

import io
from collections.abc import Callable
from importlib.util import find_spec
from itertools import zip_longest

import ipywidgets as widgets
import numpy as np
from IPython.display import HTML, display
from matplotlib import colormaps
from matplotlib.colors import to_hex
from PIL import Image
from torch import Tensor

from lib.config import project_path
from lib.evaluate.choose_videos import WAYS, VideoPool, pool_of_folder, pool_of_run, unit_vectors
from lib.jupyter.browser import read_clip
from lib.jupyter.html import (
    FADED,
    FRAMES_PER_S,
    Tile,
    data_url,
    error_html,
    render,
    show,
    tiles_html,
    wrapping,
)
from lib.plots.style import BLUE, GRAY, shorten
from lib.runs.run_dir import RunDir

MAX_CLIPS = 100  # of a map
CARD_SIDE = 112  # pixels of its clips
# Digits press the button whose text begins with them; JupyterLab would change the cell.
KEYS = """<style onload="const box = this.closest('.widget-vbox'); box.tabIndex = 0;
box.dataset.lmSuppressShortcuts = 'true';
box.addEventListener('keydown', event => {
  if (event.target.matches('input')) return;
  const buttons = [...box.querySelectorAll('button')];
  buttons.find(button => button.textContent.startsWith(event.key + ' '))?.click();
});"></style>"""
HEAD = """\
<b>{{ name }}</b>, {{ number }} of {{ count }}{% if label %}; labeled: <b>{{ label }}</b>{% endif %}
<div style="{{ faded }}">{{ labeled }} of {{ videos }} videos are labeled</div>"""
MAP = """\
<style>
.map {position: relative; max-width: 720px; aspect-ratio: 4 / 3; margin: 4px 24px 28px;
  border: 1px solid #999; background: #fff; color: #000; font: 13px sans-serif}
.map .x {position: absolute; top: 101%; width: 100%; text-align: center}
.map .y {position: absolute; right: 101%; height: 100%; text-align: center;
  writing-mode: vertical-rl; transform: rotate(180deg)}
.map .video {position: absolute; width: 9px; height: 9px; margin: -4px; border-radius: 50%;
  box-sizing: border-box; border: 2px solid var(--color)}
.map .labeled {background: var(--color)}
.map .next {width: 17px; height: 17px; margin: -8px; border: 2px solid #000; background: #fff;
  font-size: 10px; text-align: center; line-height: 13px; z-index: 1}
.map .card {display: none; position: absolute; top: 14px; right: 0; width: 120px; padding: 4px;
  background: #fff; border: 1px solid #666; overflow-wrap: anywhere; text-align: left;
  line-height: 1.25; font-size: 12px}
.map .left .card {right: auto; left: 0}
.map .low .card {top: auto; bottom: 14px}
.map .video:hover, .map .video:focus {z-index: 2}
.map .video:hover .card, .map .video:focus .card {display: block}
.map .card img {width: 100%; display: block}
.legend span {display: inline-block; margin-right: 12px}
.legend i {display: inline-block; width: 9px; height: 9px; border-radius: 50%; margin-right: 3px}
</style>
<p>Each point is a video: filled if it is labeled, numbered if it is chosen to be labeled next. Near
points look alike to the network. Point at one to see its name and, of some, the clip.</p>
<div class="map" role="figure" aria-label="map of {{ points | length }} videos">
<div class="x">{{ axes[0] }}</div><div class="y">{{ axes[1] }}</div>
{% for p in points -%}
<div tabindex="0" class="video {{ p.kind }}{% if p.x < 50 %} left{% endif %}
{%- if p.y > 50 %} low{% endif %}"
style="left: {{ p.x }}%; top: {{ p.y }}%; --color: {{ p.color }}">{{ p.number }}<div class="card">
{% if p.clip %}<img alt="clip" src="{{ p.clip }}">{% endif %}{{ p.text }}</div></div>
{% endfor %}</div>
<p class="legend">{% for name, color in colors.items() %}<span><i style="background: {{ color }}">
</i>{{ name }}</span>{% endfor %}</p>
"""


def map_html(pool: VideoPool, order: list[int]) -> str:
    """Return HTML of all videos in two dimensions, with the clips of about `MAX_CLIPS` of them.

    `order` are the positions of the videos to label next, which all have their clips.
    """
    places, axes = _project(unit_vectors(pool.features))
    names = sorted({*pool.labels} - {""})
    palette = colormaps["tab10" if len(names) <= 10 else "turbo"].resampled(max(10, len(names)))
    colors = {name: to_hex(palette(k)) for k, name in enumerate(names)} | {"": GRAY}
    with_clip = {*order, *np.linspace(0, len(places) - 1, MAX_CLIPS).astype(int)}
    points = [
        _point(pool, order, position, place, colors[label], position in with_clip)
        for position, (place, label) in enumerate(zip(places, pool.labels, strict=True))
    ]
    legend = {name or "unlabeled": color for name, color in colors.items()}
    return render(MAP, points=points, axes=axes, colors=legend)


def _point(
    pool: VideoPool, order: list[int], position: int, place: np.ndarray, color: str, has_clip: bool
) -> dict[str, object]:
    """Return the values of a video in the template."""
    label = pool.labels[position]
    is_next = position in order and not label
    clip = read_clip(pool.center_clip, position) if has_clip else ""
    return {
        "x": round(float(3 + 94 * place[0]), 2),
        "y": round(float(3 + 94 * place[1]), 2),
        "kind": "next" if is_next else "labeled" if label else "",
        "number": order.index(position) + 1 if is_next else "",
        "color": color,
        "clip": _animation(clip) if isinstance(clip, Tensor) else "",
        "text": f"{pool.names[position]}: {label or 'unlabeled'}",
    }


def _project(vectors: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return places in [0, 1], (N, 2), and the names of both axes."""
    if find_spec("umap") and len(vectors) > 15:
        from umap import UMAP

        places, axes = UMAP(random_state=0).fit_transform(vectors), ["UMAP, no unit"] * 2
    else:
        from sklearn.decomposition import PCA  # takes a second

        pca = PCA(2, random_state=0)
        places = pca.fit_transform(vectors)
        shares = 100 * pca.explained_variance_ratio_
        axes = [
            f"principal component {k}, {s:.0f} % of the variance" for k, s in enumerate(shares, 1)
        ]
    low, high = places.min(axis=0), places.max(axis=0)
    return (places - low) / np.maximum(high - low, 1e-9), axes


def _animation(clip: Tensor) -> str:
    """Return a clip (T, 3, H, W), uint8, as the data URL of an animation."""
    frames = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in clip]
    for frame in frames:
        frame.thumbnail((CARD_SIDE, CARD_SIDE))
    buffer, first = io.BytesIO(), frames[0]
    options = {"duration": 1000 // FRAMES_PER_S, "loop": 0, "quality": 60}
    first.save(buffer, "webp", save_all=True, append_images=frames[1:], **options)
    return data_url("webp", buffer)


class LabelBrowser:
    """The videos to label next, one at a time, with a button and a key for each class."""

    def __init__(self, pool: VideoPool, order: list[int]):
        self.pool, self.order, self.place = pool, order, 0
        self.head, self.clip, self.message = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.keys = [self._button("", lambda key: self._assign(key.tooltip)) for _ in range(9)]
        self.other = widgets.Combobox(placeholder="another class", continuous_update=False)
        self.other.observe(self._on_other, names="value")
        skip = self._button("0 skip", lambda _: self._show(self.place + 1))
        back = self._button("b back", lambda _: self._show(self.place - 1))
        row = widgets.HBox([*self.keys, self.other, skip, back], layout=wrapping())
        self.widget = widgets.VBox([widgets.HTML(KEYS), self.head, self.clip, row, self.message])
        self._show(0)

    def _button(self, description: str, on_click: Callable) -> widgets.Button:
        button = widgets.Button(description=description, layout={"width": "auto"})
        button.on_click(on_click)
        return button

    def _on_other(self, _: object) -> None:
        if name := self.other.value.strip():
            self.other.value = ""
            self._assign(name)

    def _assign(self, name: str) -> None:
        """Save the class of the shown video and show the next one."""
        try:
            self.pool.assign(self.order[self.place], name)
            self.message.value = ""
            self._show(self.place + 1)
        except (ValueError, OSError) as error:
            self.message.value = error_html(error)

    def _show(self, place: int) -> None:
        pool, self.place = self.pool, min(max(place, 0), len(self.order) - 1)
        position = self.order[self.place]
        self.other.options = classes = pool.sorted_classes(position)
        shown = classes[: len(self.keys)] if len(classes) > len(self.keys) else pool.classes
        for number, (key, name) in enumerate(zip_longest(self.keys, shown), 1):
            key.layout.display = "none" if name is None else ""
            key.description, key.tooltip = f"{number} {shorten(name or '', 24)}", name or ""
        clip = read_clip(pool.center_clip, position)
        self.clip.value = tiles_html([Tile("", BLUE, clip)], "a clip of the video")
        self.head.value = render(
            HEAD,
            name=pool.names[position],
            label=pool.labels[position],
            number=self.place + 1,
            count=len(self.order),
            labeled=sum(label != "" for label in pool.labels),
            videos=len(pool.labels),
            faded=FADED,
        )


def show_labels(source: RunDir | str, way: str = WAYS[0], count: int = 20) -> None:
    """Show the map of the videos of a run, or of a folder, and the browser of those to label next.

    `way` and `count` are as in `choose_videos`. Prints why there is nothing to label.
    """
    try:
        is_run = isinstance(source, RunDir)
        pool = pool_of_run(source) if is_run else pool_of_folder(project_path(source))
        order = pool.choose(way, count)
        print(f"{len(pool.labels)} videos, {sum(map(bool, pool.labels))} of them labeled")
        display(HTML(map_html(pool, order)))
        if order:
            show(LabelBrowser(pool, order).widget)
    except ValueError as error:
        print(error)
