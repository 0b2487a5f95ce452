"""Frame indices of training and test clips."""

import numpy as np
import torch


def random_clip_indices(
    num_frames: int, clip_len: int, frame_interval: int, generator: torch.Generator
) -> np.ndarray:
    """Draw the frames of one training clip.

    The start is uniform over the range in which the clip fits; a clip that is longer than the
    video starts at frame 0 and wraps around (modulo the number of frames).

    Args:
        num_frames: Frames in the video, at least 1.
        clip_len: Frames in the clip.
        frame_interval: Distance of two neighboring frames of the clip, in frames.
        generator: Source of the start.

    Returns:
        0-based frame indices, shape (clip_len,), int64.

    Source: Zou et al., section 4.1 (8 frames, every 8th frame).
    """
    num_starts = max(1, num_frames - clip_len * frame_interval + 1)
    start = int(torch.randint(num_starts, (), generator=generator))
    return (start + np.arange(clip_len) * frame_interval) % num_frames


def uniform_clip_indices(
    num_frames: int, clip_len: int, frame_interval: int, num_clips: int
) -> np.ndarray:
    """Return the frames of evenly spaced test clips.

    The range of valid starts is cut into `num_clips` equal parts and each clip starts in the
    middle of its part; in a video shorter than a clip all start at frame 0 and wrap around.

    Args:
        num_frames: Frames in the video, at least 1.
        clip_len: Frames in each clip.
        frame_interval: Distance of two neighboring frames of a clip, in frames.
        num_clips: Number of clips.

    Returns:
        0-based frame indices, shape (num_clips, clip_len), int64.

    Source: Zou et al., section 4.1 (10 clips in testing, 1 in validation).
    """
    num_starts = num_frames - clip_len * frame_interval + 1
    starts = np.zeros(num_clips, dtype=np.int64)
    if num_starts > 0:
        part = num_starts / num_clips
        starts = (np.arange(num_clips) * part + part / 2).astype(np.int64)
    return (starts[:, None] + np.arange(clip_len) * frame_interval) % num_frames
