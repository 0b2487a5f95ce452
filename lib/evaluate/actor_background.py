"""What the network says of what moves in a deciding clip, and of the rest of the picture.

What moves is found against the frames around the clip, without a detector: nothing is downloaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from lib.augment.views import EvalTransform
from lib.config import ClipSettings
from lib.data.dataset import VideoRecord
from lib.data.video_reader import iterate_frames
from lib.evaluate.invariance import PARTS, crop_mask
from lib.evaluate.predict import Classifier, Prediction, clip_of, deciding_clips
from lib.plots.clip_regions import part_shares, part_views
from lib.prepare.boxes.motion import moving_boxes

FRAMES_AROUND = 24  # that say what stands still, from one clip before to one after
MAX_COVERED = 0.9  # of the picture; where more of it moves, no background is left


@dataclass(frozen=True)
class DecidingClip:
    """The clip that speaks most for a class.

    Attributes:
        label: The class.
        views: `whole clip`, and where something moves its other parts: (T, 3, H, W), uint8.
        shares: What is said of each view, probabilities (K,).
        note: Why there are no other parts; empty where there are, or where none were asked for.
    """

    label: int
    views: dict[str, Tensor]
    shares: dict[str, np.ndarray]
    note: str = ""


def decided_by(
    classifier: Classifier, prediction: Prediction, with_parts: bool = True
) -> list[DecidingClip]:
    """Return the deciding clips, that of the video's own class first.

    Raises:
        ValueError: If the video cannot be read any more.
    """
    fill = classifier.normalize.mean.round().cpu()
    found = []
    for label, position in deciding_clips(prediction).items():
        start, note = int(prediction.starts[position]), ""
        clip = clip_of(classifier, prediction.record, np.array([start]))[0]
        views, shares = {PARTS[0]: clip}, {PARTS[0]: prediction.clips[position]}
        if with_parts:
            mask = moving_mask(classifier.settings, prediction.record, start)
            note = why_no_parts(mask)
            if not note:
                views = part_views(clip, mask, fill)
                alone = {part: views[part] for part in PARTS[1:]}
                how = (classifier.model, classifier.normalize, alone, classifier.temperature)
                shares |= part_shares(*how)
        found.append(DecidingClip(label, views, shares, note))
    return found


def moving_mask(settings: ClipSettings, record: VideoRecord, start: int) -> Tensor:
    """Return 1 where the boxes of a clip's moving region are, (T, 1, crop, crop), uint8.

    Args:
        settings: How clips are made.
        record: The video.
        start: First frame of the clip.
    """
    span = settings.clip_len * settings.frame_interval
    clip = (start + np.arange(settings.clip_len) * settings.frame_interval) % record.num_frames
    first, last = max(0, start - span), min(record.num_frames, start + 2 * span) - 1
    around = np.linspace(first, last, FRAMES_AROUND).round().astype(int)
    wanted = np.union1d(around, clip)
    boxes = moving_boxes(iterate_frames(record, wanted))
    own = [boxes[position][:, :4] for position in np.searchsorted(wanted, clip)]
    transform = EvalTransform(settings.short_side, settings.test_crop_size, 1)
    return crop_mask(own, record.height, record.width, transform)


def why_no_parts(mask: Tensor) -> str:
    """Return why a clip with this mask has no actor or no background; empty where it has both."""
    covered = float(mask.amax(dim=0).float().mean())
    if covered == 0:
        return "nothing moves in this clip"
    return "nearly all of the picture moves (the camera?)" if covered > MAX_COVERED else ""


def part_columns(decided: Sequence[DecidingClip], classes: tuple[str, ...]) -> dict[str, object]:
    """Return what is said of the parts of the first clip, as columns; empty where it has none."""
    first, row = decided[0], {}
    for part in PARTS[1:]:
        share = first.shares.get(part)
        name = part.replace(" ", "_")
        row[name] = "" if share is None else classes[int(share.argmax())]
        row[f"{name}_confidence"] = np.nan if share is None else float(share.max())
    return row | {"parts_note": first.note}
