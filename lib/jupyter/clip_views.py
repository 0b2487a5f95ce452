"""All views of one clip and its partner, and what was drawn for them: what notebook 2 looks at.

Clips are sampled as in `lib.data.clip_dataset`: for (seed, position, video) the views are those
of a loader with these settings.
"""

from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from lib.augment.scene import SCENE_AUGMENTATIONS
from lib.augment.views import WeakParams, WeakTransform
from lib.config import ExploreSettings
from lib.data.clip_dataset import ClipPipeline, make_generator
from lib.data.dataset import VideoDataset, VideoRecord
from lib.data.frame_tables import open_person_boxes
from lib.data.video_reader import read_frames
from lib.jupyter.tiles import Tile, shrink
from lib.plots.augmentations import describe, temporal_title, with_boxes
from lib.plots.clips import mix_clips
from lib.plots.style import ORIGINAL, SCENE, STRONG, TEMPORAL, WEAK, shorten

SHOWN_SIDE = 256  # pixels; more are not shown of an original frame
FRAMES_MB = 400  # memory for decoded frames
KEPT_RESULTS = 6  # of each kind: those of a few settings
NO_BOXES = "no person boxes: notebook 1 makes them (person_boxes)"


@dataclass(frozen=True, eq=False)
class WeakView:
    """A clip up to its weak view; equal to itself alone, so that what is made of it can be kept.

    Attributes:
        record: The video.
        indices: Its frames in the clip, T of them.
        params: The crop, in pixels of the decoded frame, and the flip.
        boxes: For each frame an array (n, 4); None where the data set has none.
        frames: Decoded frames, shape (T, H, W, 3), uint8.
        weak: Shape (T, 3, S, S), uint8.
        mask: Shape (T, 1, S, S), uint8; None where the data set has no boxes.
    """

    record: VideoRecord
    indices: tuple[int, ...]
    params: WeakParams
    boxes: list[np.ndarray] | None
    frames: np.ndarray
    weak: Tensor
    mask: Tensor | None


@dataclass(frozen=True)
class ExplorerView:
    """What one setting of all knobs shows.

    Attributes:
        tiles: The views, for `lib.jupyter.tiles.compose` in four columns.
        facts: What was drawn: name and value in words.
        warnings: What is missing or unusual, in sentences.
        label_weight: Share of the own label in the mixed target, in [0, 1]; None without mixing.
    """

    tiles: list[Tile]
    facts: list[tuple[str, str]]
    warnings: list[str]
    label_weight: float | None


class DecodedVideos:
    """Frames that were decoded, kept until newer ones need their memory.

    A video is decoded whole if it takes less than half of the memory, so that other frames of it
    need no second decoding.

    Args:
        megabytes: Memory for them.
    """

    def __init__(self, megabytes: float):
        self._bytes = megabytes * 1e6
        self._videos: OrderedDict[str, dict[int, np.ndarray]] = OrderedDict()

    def read(self, record: VideoRecord, indices: np.ndarray) -> np.ndarray:
        """Return frames (T, H, W, 3), uint8, at 0-based `indices`."""
        key = str(record.path)
        frames = self._videos.setdefault(key, {})
        self._videos.move_to_end(key)
        missing = np.array(sorted(set(indices.tolist()) - frames.keys()), dtype=np.int64)
        if len(missing):
            size = record.num_frames * record.height * record.width * 3
            wanted = np.arange(record.num_frames) if 2 * size <= self._bytes else missing
            decoded = read_frames(record, wanted)
            frames |= dict(zip(wanted.tolist(), decoded, strict=True))
        while len(self._videos) > 1 and self._used() > self._bytes:
            self._videos.popitem(last=False)
        return np.stack([frames[int(index)] for index in indices])

    def _used(self) -> int:
        return sum(frame.nbytes for video in self._videos.values() for frame in video.values())


class ClipExplorer:
    """Makes the views of clips of one data set; what did not change is not made again.

    Args:
        dataset: The prepared data set.
    """

    def __init__(self, dataset: VideoDataset):
        self.dataset = dataset
        self.boxes = open_person_boxes(dataset)
        self.videos = DecodedVideos(FRAMES_MB)
        keep = lru_cache(KEPT_RESULTS)
        self._weak_view, self._mixed = keep(self._make_weak_view), keep(self._make_mixed)
        self._original = keep(_make_original)

    def look(self, settings: ExploreSettings, row: int, partner_row: int) -> ExplorerView:
        """Return all views of a clip.

        Args:
            settings: All knobs; of them the seed draws everything.
            row: Index row of the video.
            partner_row: Index row of the video whose background is taken.
        """
        recipe, drawn, views = ClipPipeline(settings), [], []
        for position, number in enumerate((row, partner_row)):
            generator = make_generator(settings.seed, position)
            clip = recipe.draw(self.dataset.record(number), generator)
            indices = tuple(clip.frame_indices.tolist())
            how = (recipe.weak, clip.weak, settings.person_min_score)
            views.append(self._weak_view(number, indices, *how))
            drawn.append(clip)
        own, partner = views
        strong, temporal = drawn[0].strong, drawn[0].strong.temporal
        order = recipe.strong.temporal.apply(torch.arange(len(own.weak)), temporal).tolist()
        strong_view = recipe.strong.apply(own.weak, strong)
        mixed, weight, note = self._mix(settings, own, partner, strong_view)
        shown = [own.indices[k] for k in order]
        temporal_only = recipe.strong.temporal.apply(own.weak, temporal)
        title = f"only temporal: {temporal_title(temporal)}"
        tiles = [
            Tile("original", ORIGINAL, self._original(own), own.indices),
            Tile("weak view", WEAK, own.weak, own.indices),
            Tile("strong view", STRONG, strong_view, shown),
            Tile(title, TEMPORAL, temporal_only, shown),
            Tile("person mask", ORIGINAL, NO_BOXES if own.mask is None else own.mask),
            Tile(
                scene_title(settings.scene_augmentation, weight),
                SCENE,
                mixed,
                own.indices if note is None else (),
            ),
            Tile("partner, weak view", WEAK, partner.weak, partner.indices),
            Tile("partner, original", ORIGINAL, self._original(partner), partner.indices),
        ]
        drawn_in_words = [
            ("strong view", describe(strong).replace("\n", ", ")),
            ("order of the frames", " ".join(map(str, order))),
        ]
        facts = self._facts(settings, own, partner, drawn_in_words, weight)
        return ExplorerView(tiles, facts, self._warnings(settings, own, partner, note), weight)

    def _make_weak_view(
        self,
        row: int,
        indices: tuple[int, ...],
        transform: WeakTransform,
        params: WeakParams,
        min_score: float,
    ) -> WeakView:
        record, wanted = self.dataset.record(row), np.array(indices)
        frames = self.videos.read(record, wanted)
        boxes = mask = None
        if self.boxes is not None:
            boxes = self.boxes.lookup(row, wanted, min_score)
            mask = transform.mask(boxes, params)
        weak = transform.apply(frames, params)
        return WeakView(record, indices, params, boxes, frames, weak, mask)

    def _mix(
        self, settings: ExploreSettings, own: WeakView, partner: WeakView, strong: Tensor
    ) -> tuple[Tensor | str, float | None, str | None]:
        """Return the clip after the scene augmentation, its label weight, and why it is as it is.

        The weight is None where nothing was mixed.
        """
        scene = settings.scene_augmentation
        if SCENE_AUGMENTATIONS[scene].needs_person_mask:
            if own.mask is None:
                needs = f"{scene_title(scene, None)} needs person boxes; notebook 1 makes them"
                return NO_BOXES, None, needs
            covered = float(own.mask.float().mean())
            if covered in (0.0, 1.0):
                why = "nobody is in the mask" if covered == 0 else "the mask covers the whole clip"
                why = f"{why}: {scene_title(scene, None)} leaves the clip its strong view"
                return strong, None, why
        return *self._mixed(scene, settings.seed, own, partner), None

    def _make_mixed(
        self, scene: str, seed: int, own: WeakView, partner: WeakView
    ) -> tuple[Tensor, float]:
        masks = None if own.mask is None else torch.stack([own.mask, partner.mask])
        weak = torch.stack([own.weak, partner.weak])
        clips, mixed = mix_clips(weak, weak, masks, scene, make_generator(seed, 0, 0))
        return clips[0], float(mixed.label_weight[0])

    def _facts(
        self,
        settings: ExploreSettings,
        own: WeakView,
        partner: WeakView,
        drawn: list[tuple[str, str]],
        weight: float | None,
    ) -> list[tuple[str, str]]:
        facts = [
            ("video", own.record.name),
            ("partner", partner.record.name),
            ("frames", " ".join(map(str, own.indices))),
            ("weak view", describe_weak(own)),
            *drawn,
        ]
        if own.mask is not None:
            share = float(own.mask.float().mean())
            facts.append(("person mask covers", f"r = {share:.3f} of the clip"))
        classes = self.dataset.classes
        names = [shorten(classes[sample.record.label], 60) for sample in (own, partner)]
        if weight is not None and names[0] != names[1]:
            label = f"{weight:.2f} · {names[0]} + {1 - weight:.2f} · {names[1]}"
        else:
            label = f"1.00 · {names[0]}"
        facts.append((f"label after {settings.scene_augmentation}", label))
        return facts

    def _warnings(
        self, settings: ExploreSettings, own: WeakView, partner: WeakView, note: str | None
    ) -> list[str]:
        warnings = []
        span = (settings.clip_len - 1) * settings.frame_interval + 1
        for name, sample in (("video", own), ("partner", partner)):
            count = sample.record.num_frames
            if count == 1:
                warnings.append(f"The {name} has one frame: nothing moves in its clip.")
            elif count < span:
                warnings.append(
                    f"The {name} has {count} frames and the clip spans {span}: it wraps around, "
                    "and some frames come twice. A smaller frame_interval avoids that."
                )
        if own.record.row == partner.record.row:
            warnings.append("The video is its own partner: choose another to see a new background.")
        if note is not None:
            warnings.append(f"{note[0].upper()}{note[1:]}.")
        return warnings


def _make_original(sample: WeakView) -> Tensor:
    """Return the decoded frames with the boxes drawn in."""
    return shrink(with_boxes(sample.frames, sample.boxes), SHOWN_SIDE)


def describe_weak(sample: WeakView) -> str:
    """Return the drawn crop and flip in words."""
    left, top, right, bottom, is_flipped = sample.params
    record = sample.record
    return (
        f"crop {right - left} × {bottom - top} at ({left}, {top}) of {record.width} × "
        f"{record.height} pixels, {'flipped' if is_flipped else 'not flipped'}"
    )


def scene_title(scene: str, weight: float | None) -> str:
    """Return the title of a mixed clip, with the weight of its own label."""
    name = SCENE_AUGMENTATIONS[scene].title
    return name if weight is None else f"{name}, own {100 * weight:.0f} %"
