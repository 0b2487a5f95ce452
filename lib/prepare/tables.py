"""Writing the tables that `lib.data.frame_tables` reads."""

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from lib.data.frame_tables import PERSON_BOXES_FILE, REMEDY, TEACHER_FILE
from lib.files import reading, write_atomic

OLD_BOXES_FILE = "actors.safetensors"  # of earlier versions, with an offset for each frame
SCALED_TO = "scaled_to"  # in `made_with`: short side of the frames that the boxes were scaled to
NUM_CLASSES = 1000  # of ImageNet
NO_BOXES = np.zeros((0, 5), np.float32)
NO_SCORES = np.zeros((0, NUM_CLASSES), np.float16)


class VideoRows(NamedTuple):
    """Rows of one video.

    Attributes:
        rows: Shape (n, D).
        frames: 0-based frame of each row, sorted, shape (n,), int32.
    """

    rows: np.ndarray
    frames: np.ndarray


def write_table(
    path: Path,
    rows_name: str,
    names: Sequence[str],
    results: Iterable[VideoRows],
    empty: np.ndarray,
    made_with: Mapping | None = None,
    tensors: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write a table, which may be larger than memory.

    Args:
        path: The file.
        rows_name: What its rows are called there.
        names: The videos' names, length V.
        results: Their rows, in the order of `names`.
        empty: No rows, shape (0, D), of the type to write.
        made_with: What made the rows; plain JSON.
        tensors: Further arrays, by name.

    Returns:
        The path of the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    frames, counts = [np.zeros(0, np.int32)], [0]
    with tempfile.TemporaryFile(dir=path.parent) as file:
        for _, result in zip(names, results, strict=True):
            file.write(result.rows.astype(empty.dtype).tobytes())
            frames.append(result.frames.astype(np.int32))
            counts.append(len(result.frames))
        file.flush()
        shape = (sum(counts), empty.shape[1])
        rows = np.memmap(file, empty.dtype, "r", shape=shape) if shape[0] else empty
        arrays = {
            rows_name: rows,
            "frames": np.concatenate(frames),
            "video_offsets": np.cumsum(counts),
            "names": np.frombuffer("\n".join(names).encode(), np.uint8),
            **(tensors or {}),
        }
        metadata = {"made_with": json.dumps(made_with or {})}
        return write_atomic(path, lambda temporary: save_file(arrays, temporary, metadata))


def write_box_rows(
    folder: Path,
    names: Sequence[str],
    num_frames: Sequence[int],
    results: Iterable[VideoRows],
    made_with: Mapping | None = None,
) -> Path:
    """Write the person boxes of a data set, given video by video.

    Args:
        folder: The prepared folder.
        names: The videos' names, length V.
        num_frames: Their numbers of frames, length V.
        results: Their boxes, rows (n, 5), in the order of `names`.
        made_with: What made the boxes; plain JSON.
    """
    counts = {"num_frames": np.array(num_frames, np.int64)}
    path = Path(folder) / PERSON_BOXES_FILE
    return write_table(path, "boxes", names, results, NO_BOXES, made_with, counts)


def write_person_boxes(
    folder: Path,
    names: Sequence[str],
    boxes: Sequence[Sequence[np.ndarray]],
    made_with: Mapping | None = None,
) -> Path:
    """Write the person boxes of a data set, given frame by frame.

    Args:
        folder: The prepared folder.
        names: The videos' names, length V.
        boxes: For each video, for each of its frames, an array (n, 5), n >= 0.
        made_with: What made the boxes; plain JSON.
    """
    results = (
        VideoRows(
            np.concatenate([NO_BOXES, *video]),
            np.repeat(np.arange(len(video)), [len(frame) for frame in video]),
        )
        for video in boxes
    )
    return write_box_rows(folder, names, [len(video) for video in boxes], results, made_with)


def write_scores(
    folder: Path, names: Sequence[str], results: Iterable[VideoRows], made_with: Mapping
) -> Path:
    """Write the ImageNet probabilities of a data set, rows (n, 1000), n >= 1, video by video."""
    path = Path(folder) / TEACHER_FILE
    return write_table(path, "probabilities", names, results, NO_SCORES, made_with)


def read_made_with(path: Path) -> dict | None:
    """Return what made a table; None where there is no such file."""
    if not path.is_file():
        return None
    with reading(path, REMEDY), safe_open(path, framework="numpy") as file:
        return json.loads((file.metadata() or {}).get("made_with", "{}"))


def is_made_with(folder: Path, made_with: Mapping) -> bool:
    """Tell whether the boxes of a prepared folder are of such settings, at any size of frame."""
    found = read_made_with(folder / PERSON_BOXES_FILE)
    return found is not None and {k: v for k, v in found.items() if k != SCALED_TO} == made_with


def take_over_old_boxes(folder: Path) -> None:
    """Turn the person boxes of an earlier version, if there are any, into today's file."""
    old = folder / OLD_BOXES_FILE
    if not old.is_file() or (folder / PERSON_BOXES_FILE).is_file():
        return
    with safe_open(old, framework="numpy") as file:
        boxes, starts, videos, names = map(
            file.get_tensor, ("boxes", "frame_offsets", "video_offsets", "names")
        )
    results = (
        VideoRows(
            boxes[starts[first] : starts[stop]],
            np.repeat(np.arange(stop - first), np.diff(starts[first : stop + 1])),
        )
        for first, stop in zip(videos[:-1], videos[1:], strict=True)
    )
    names = names.tobytes().decode().split("\n")
    write_box_rows(folder, names, np.diff(videos), results, read_made_with(old))
    old.unlink()
