"""HTML of the notebooks: escaped names, templates, error boxes, and display of widgets."""

import base64
import html
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

import ipywidgets as widgets
import pandas as pd
import torch.nn.functional as F
from IPython import get_ipython
from IPython.display import display
from jinja2 import Environment, StrictUndefined, Template
from pandas.io.formats.style import Styler
from PIL import Image
from torch import Tensor

FADED = "color:var(--jp-ui-font-color2,#666)"
ERROR_BOX = (
    '<div role="alert" style="border-left:4px solid #D55E00;padding-left:8px;max-height:24em;'
    'overflow:auto;overflow-wrap:anywhere;white-space:pre-wrap;font-family:monospace">'
    "{{ error }}</div>"
)
# JupyterLab runs no shortcut on a focused element with this attribute.
OWN_KEYS = """<style onload="this.closest('.widget-vbox').addEventListener('focusin',
event => event.target.dataset.lmSuppressShortcuts = 'true')"></style>"""
# Characters with a meaning in Markdown and MathJax; as character references they have none.
_MARKUP = str.maketrans({character: f"&#{ord(character)};" for character in "`*[]\\|~$\n\r"})


def escape(text: object) -> str:
    """Return text for HTML (attributes in quotes too) and for Markdown outside of code spans.

    Names of classes, videos, runs, studies and splits may be anything that a file system allows.
    """
    return html.escape(str(text)).translate(_MARKUP)


@lru_cache
def _template(source: str) -> Template:
    return Environment(autoescape=True, undefined=StrictUndefined).from_string(source)


def render(template: str, **values: object) -> str:
    """Fill in a jinja2 template; every value is escaped."""
    return _template(template).render(values)


def left_aligned(table: pd.DataFrame) -> Styler:
    """Return a table of texts for a notebook: left-aligned columns, no index."""
    styles = [{"selector": "th, td", "props": "text-align: left"}]
    return table.style.hide(axis="index").format(escape="html").set_table_styles(styles)


def error_html(error: object) -> str:
    """Return an error message as a box."""
    return render(ERROR_BOX, error=str(error))


def is_interactive() -> bool:
    """Return True if a person runs the present cell, False in papermill, nbconvert and scripts.

    A front end allows the kernel to ask for input; batch execution does not.
    """
    kernel = getattr(get_ipython(), "kernel", None)
    return kernel is not None and bool(
        kernel.get_parent().get("content", {}).get("allow_stdin", False)
    )


def show(widget: widgets.Widget) -> None:
    """Display a widget in an interactive session, otherwise a line of text."""
    if is_interactive():
        display(widget)
    else:
        print("(JupyterLab shows an interactive view of the figures above here)")


def own_keys() -> widgets.HTML:
    """Return an invisible widget that gives the lists of its `VBox` their arrow keys.

    JupyterLab would otherwise move to another cell.
    """
    return widgets.HTML(OWN_KEYS, layout=widgets.Layout(display="none"))


def wrapping() -> widgets.Layout:
    """Return the layout of widgets side by side that wrap in a narrow window."""
    return widgets.Layout(display="flex", flex_flow="row wrap", grid_gap="2px 8px")


@contextmanager
def unobserved(widget: widgets.Widget, handler: Callable) -> Iterator[None]:
    """Set options or value of a widget without calling the handler of its value."""
    widget.unobserve(handler, names="value")
    try:
        yield
    finally:
        widget.observe(handler, names="value")


MIN_SIDE, MAX_SIDE = 180, 224  # pixels of a tile; smaller clips are enlarged, larger ones shrunk
FRAMES_PER_S = 6

GRID = """\
<style>
@property --frame {syntax: "<number>"; inherits: true; initial-value: 0}
@keyframes film {from {--frame: 0} to {--frame: var(--count)}}
.clips {display: grid; grid-auto-flow: dense; gap: 8px 6px; align-items: end; line-height: 1.25;
  font-size: 13px; animation: film var(--seconds) steps(var(--count)) infinite}
.clips-box:has(> .control input:checked) .clips {animation-play-state: paused}
.clips-box.still .clips {animation: none; --frame: var(--at)}
.clips .head {display: flex; justify-content: space-between; gap: 4px; padding-bottom: 1px;
  overflow-wrap: anywhere; white-space: pre-line}
.clips .square {display: flex; aspect-ratio: 1; background: #e8e8e8; color: #000;
  align-items: center; justify-content: center; overflow: hidden; cursor: zoom-in}
.clips .large {grid-column: 1 / -1; width: min(100%, 66vh)}
.clips .large .square {cursor: zoom-out}
.clips .note {padding: 8px; text-align: center; overflow-wrap: anywhere}
.clips .film {overflow: hidden}
.clips .film img, .clips .numbers span {display: block;
  transform: translateY(calc(var(--frame) / var(--count) * -100%))}
.clips .film img {width: 100%; max-width: none; margin: 0}
.clips .pixels {image-rendering: pixelated}
.clips .numbers {height: 1.25em; overflow: hidden; opacity: .65; text-align: right;
  white-space: pre; flex: none}
.clips-box .control {display: flex; gap: 6px; align-items: center; margin-top: 4px}
@media print, (prefers-reduced-motion: reduce) {
  .clips {animation: none; --frame: var(--still)}}
@media print {.clips-box .control {display: none}}
</style>
<div class="clips-box" role="group" aria-label="{{ description }}">
<div class="clips" style="--count: {{ count }}; --still: {{ still }}; --seconds: {{ seconds }}s;
  max-width: {{ width }}px; grid-template-columns: repeat({{ columns }}, minmax(0, 1fr))">
{%- for tile in tiles %}
<div><div class="head" style="border-bottom: 4px solid {{ tile.color }}">
<span>{{ tile.title }}</span>
{%- if tile.numbers %}<div class="numbers"><span>{{ tile.numbers | join("\n") }}</span></div>
{%- endif %}</div>
{%- if tile.clip is string %}<div class="square"><div class="note">{{ tile.clip }}</div></div>
{%- else %}{% set source, width, aspect, scaling = film_strip(tile.clip) %}<div class="square">
<div class="film" style="width: {{ width }}%; aspect-ratio: {{ aspect }}">
<img class="{{ scaling }}" alt="{{ tile.title }}" src="{{ source }}"></div></div>
{%- endif %}</div>
{%- endfor %}
</div>
<div class="control"><label><input type="checkbox"> pause</label>
<button title="previous frame">‹</button>
<input type="range" min="0" max="{{ count - 1 }}" value="0" aria-label="frame"
  data-lm-suppress-shortcuts="true">
<button title="next frame">›</button> <output></output></div>
<style onload="{{ script }}"></style></div>
"""
# A widget draws its HTML again after each change: the frame and the enlarged tile are kept in it.
GRID_SCRIPT = """
const box = this.parentElement, keep = (this.closest('.widget-html') ?? box).dataset;
const clips = box.querySelector('.clips'), tiles = [...clips.children];
const [pause, slider] = box.querySelectorAll('input'), count = Number(slider.max) + 1;
const show = frame => {
  slider.value = keep.frame = (frame + count) % count;
  box.querySelector('output').value = `frame ${Number(slider.value) + 1} of ${count}`;
  clips.style.setProperty('--at', slider.value);
  box.classList.add('still');
  pause.checked = true;
};
const loop = () => {
  box.classList.remove('still');
  delete keep.frame;
  box.querySelector('output').value = '';
};
const present = () => Math.floor(getComputedStyle(clips).getPropertyValue('--frame'));
const enlarge = tile => {
  keep.tile = tile;
  tiles.forEach((element, k) => element.classList.toggle('large', String(k) === tile));
};
pause.onchange = () => pause.checked ? show(present()) : loop();
slider.oninput = () => show(Number(slider.value));
box.querySelectorAll('button').forEach((button, k) => {
  button.onclick = () => show(present() + 2 * k - 1);
});
tiles.forEach((tile, k) => {
  tile.querySelector('.square').onclick = () => {
    enlarge(keep.tile === String(k) ? '' : String(k));
  };
});
if (keep.frame) show(Number(keep.frame));
if (keep.tile) enlarge(keep.tile);
"""


class Tile(NamedTuple):
    """One clip, (T, 3, H, W) or a mask (T, 1, H, W) of 0 and 1, uint8, with the title above it."""

    title: str
    color: str  # CSS color of the bar below the title
    clip: Tensor | str  # or a text in place of a clip
    numbers: Sequence[int] = ()  # shown above each frame at the right, length T; empty for none


def tiles_html(tiles: Sequence[Tile], description: str, columns: int = 4) -> str:
    """Return HTML that loops clips side by side, or the first tile's text if there is no clip.

    All clips have the same number of frames. The description is for screen readers.
    """
    clips = [tile.clip for tile in tiles if isinstance(tile.clip, Tensor)]
    if not clips:
        text = tiles[0].clip if tiles else "there is no such video"
        return render("<p>{{ text }}</p>", text=text)
    count, columns = len(clips[0]), min(columns, len(tiles))
    side = max(MIN_SIDE, min(MAX_SIDE, max(clips[0].shape[-2:])))
    return render(
        GRID,
        tiles=tiles,
        description=description,
        columns=columns,
        width=columns * (side + 6) - 6,
        count=count,
        still=count // 2,
        seconds=f"{count / FRAMES_PER_S:.3f}",
        film_strip=film_strip,
        script=GRID_SCRIPT,
    )


def films_html(
    clips: Mapping[str, Tensor],
    description: str,
    columns: int = 4,
    color: str = "gray",
    numbers: Sequence[int] = (),
) -> str:
    """Return HTML that loops clips (T, 3, H, W) or masks (T, 1, H, W), uint8, by title.

    `numbers` are shown above the frames of every clip, length T.
    """
    tiles = [Tile(title, color, clip, numbers) for title, clip in clips.items()]
    return tiles_html(tiles, description, columns)


def film_strip(clip: Tensor) -> tuple[str, float, float, str]:
    """Encode the frames of a clip below each other; frames larger than `MAX_SIDE` are scaled down.

    Small frames and masks are PNG, so that their enlarged pixels are exact; others are JPEG.

    Args:
        clip: (T, 3, H, W) or a mask (T, 1, H, W) of 0 and 1, uint8.

    Returns:
        Data URL; width within a square tile, percent; width / height of a frame; CSS class,
        `pixels` for enlarged frames or `smooth`.
    """
    longer, is_mask = max(clip.shape[-2:]), clip.shape[1] == 1
    if longer > MAX_SIDE:
        size = [max(1, round(length * MAX_SIDE / longer)) for length in clip.shape[-2:]]
        clip = F.interpolate(clip, size, mode="bilinear", align_corners=False, antialias=True)
    height, width = clip.shape[-2:]
    frames = clip.permute(0, 2, 3, 1).reshape(len(clip) * height, width, -1).numpy()
    picture = Image.fromarray(frames[..., 0] * 255 if is_mask else frames)
    is_small, buffer = longer < MIN_SIDE, io.BytesIO()
    kind = "png" if is_mask or is_small else "jpeg"
    picture.save(buffer, kind, **{"png": {"compress_level": 1}, "jpeg": {"quality": 88}}[kind])
    share = round(100 * min(1.0, width / height), 2)
    return data_url(kind, buffer), share, width / height, "pixels" if is_small else "smooth"


def data_url(kind: str, buffer: io.BytesIO) -> str:
    """Return the URL of an encoded picture of a kind, such as "png", that holds the picture."""
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
