"""Interactive views for JupyterLab; each stands below a static figure that tells the same."""

import io

import ipywidgets as widgets
from PIL import Image

from lib.augment.transforms import expand_operations
from lib.clips import ClipBatch, ClipDataset, Views, make_generator
from lib.config import LookSettings
from lib.data.annotations import VideoDataset
from lib.show.augmentations import describe, has_actors, strong_transform, to_image
from lib.show.clips import batch_rows

SCALE_TO_PX = 640


def augmentation_explorer(dataset: VideoDataset, settings: LookSettings) -> widgets.Widget:
    """Return a widget: choose a video, its partner, a seed and the operations; see all views.

    Args:
        dataset: The prepared data set.
        settings: What the knobs start from; `list_name` is what the videos are chosen from.
    """
    rows = dataset.read_list(settings.list_name)
    names = dataset.index["name"].to_numpy()[rows]
    views = Views(True, False, has_actors(dataset))
    options = [(name, int(row)) for name, row in zip(names, rows, strict=True)]
    video = widgets.Combobox(
        options=list(names), value=names[0], description="video", ensure_option=True
    )
    partner = widgets.Combobox(
        options=list(names), value=names[-1], description="partner", ensure_option=True
    )
    seed = widgets.IntSlider(settings.seed, 0, 50, description="seed")
    num_ops = widgets.IntSlider(settings.randaugment_num_ops, 0, 4, description="operations")
    magnitude = widgets.FloatSlider(
        settings.randaugment_magnitude, min=0, max=30, step=1, description="magnitude"
    )
    operations = widgets.SelectMultiple(
        options=["photometric", "geometric", *expand_operations(["photometric", "geometric"])],
        value=tuple(settings.randaugment_ops),
        description="drawn from",
        rows=5,
    )
    temporal = widgets.Dropdown(
        options=["any", "none", "half", "reverse", "drop"], description="temporal"
    )
    picture = widgets.Image(format="png")
    caption = widgets.HTML()
    by_name = dict(options)

    def show(_: object = None) -> None:
        if video.value not in by_name or partner.value not in by_name:
            caption.value = "choose a video of the list"
            return
        chosen = settings.model_copy(
            update={
                "randaugment_num_ops": num_ops.value,
                "randaugment_magnitude": magnitude.value,
                "randaugment_ops": list(operations.value),
                "temporal_ops": settings.temporal_ops
                if temporal.value == "any"
                else [temporal.value],
            }
        )
        source = ClipDataset(dataset, chosen, views, (seed.value,))
        batch = ClipBatch.collate(
            [source[(k, by_name[name])] for k, name in enumerate((video.value, partner.value))]
        )
        transform = strong_transform(chosen)
        drawn, drawn_temporal = transform.draw(batch.weak[0], make_generator(seed.value, 1))
        strong = transform.randaugment.apply(batch.weak[0], drawn)
        strong = transform.temporal.apply(strong, drawn_temporal)
        shown = batch_rows(batch._replace(strong=strong[None].repeat(2, 1, 1, 1, 1)), chosen)
        picture.value = _png(to_image(shown))
        label = list(shown)[-1].replace("\n", " ")
        words = describe(drawn, drawn_temporal).replace("\n", ", ")
        caption.value = f"rows: {', '.join([*list(shown)[:-1], label])}<br>strong view: {words}"

    knobs = (video, partner, seed, num_ops, magnitude, operations, temporal)
    for knob in knobs:
        knob.observe(show, names="value")
    show()
    return widgets.VBox([widgets.HBox([widgets.VBox(knobs), picture]), caption])


def _png(image: object) -> bytes:
    picture = Image.fromarray(image)
    scale = max(1, round(SCALE_TO_PX / picture.width))
    buffer = io.BytesIO()
    picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST).save(
        buffer, format="png", compress_level=1
    )
    return buffer.getvalue()
