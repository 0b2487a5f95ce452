"""Frame indices of training and test clips.

A video has `num_frames` >= 1 frames, a clip `clip_len`, `frame_interval` frames of the video apart.
Indices are 0-based, int64.
"""

import numpy as np
import torch


def random_clip_indices(
    num_frames: int, clip_len: int, frame_interval: int, generator: torch.Generator
) -> np.ndarray:
    """Draw the frames of one training clip, shape (clip_len,).

    The start is uniform over the range in which the clip fits; a clip that is longer than the
    video starts at frame 0 and wraps around (modulo the number of frames).

    Source: Zou et al., section 4.1 (8 frames, every 8th frame).
    """
    num_starts = max(1, num_frames - clip_len * frame_interval + 1)
    start = int(torch.randint(num_starts, (), generator=generator))
    return (start + np.arange(clip_len) * frame_interval) % num_frames


def uniform_clip_indices(
    num_frames: int, clip_len: int, frame_interval: int, num_clips: int
) -> np.ndarray:
    """Return the frames of evenly spaced test clips, shape (num_clips, clip_len).

    The range of valid starts is cut into `num_clips` equal parts and each clip starts in the
    middle of its part; in a video shorter than a clip all start at frame 0 and wrap around.

    Source: Zou et al., section 4.1 (10 clips in testing, 1 in validation).
    """
    num_starts = num_frames - clip_len * frame_interval + 1
    starts = np.zeros(num_clips, dtype=np.int64)
    if num_starts > 0:
        part = num_starts / num_clips
        starts = (np.arange(num_clips) * part + part / 2).astype(np.int64)
    return (starts[:, None] + np.arange(clip_len) * frame_interval) % num_frames
