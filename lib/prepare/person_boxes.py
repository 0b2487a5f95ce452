"""Person boxes of every frame: by YOLOX, the moving region of a still camera, or from a table.

The detector sees every N-th frame; boxes between two detections are interpolated. The moving
region needs no network: everything that differs from the median frame is moving. It suits people
that are small, drawn or seen from an unusual angle; with a moving camera it is the whole frame.

Source of the detector: Ge et al., YOLOX: Exceeding YOLO Series in 2021, arXiv 2107.08430.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, lru_cache, partial
from itertools import islice
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
from PIL import Image

from lib.augment.views import boxes_to_mask
from lib.data.dataset import VideoDataset, VideoRecord
from lib.data.frame_tables import FrameRows, PersonBoxes
from lib.data.video_reader import iterate_frames
from lib.fileio import reading
from lib.prepare.download import sha256_of
from lib.prepare.parallel import compute_table, num_cores

# --- Moving region --------------------------------------------------------------------------------

BLOCK = 4  # side of the blocks of pixels that are compared, pixels
MIN_DIFFERENCE = 18.0  # of a block's mean from its median over time, in any channel, 0..255
MIN_AREA = 0.003  # smallest moving share of a frame with a box
TAIL = 0.02  # share of the moving blocks outside of the box at each side, against specks
MEDIAN_FRAMES = 48  # frames of the median, at most


def moving_boxes(frames: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Return a box around the region of each RGB frame (H, W, 3) that differs from the median one.

    It is an array (n, 5), float32, n = 0 or 1: x1, y1, x2, y2 in pixels, and a score in [0.5, 1],
    higher if the moving blocks fill more of the box.
    """
    block_means = []
    for frame in frames:
        height, width = frame.shape[:2]
        side = min(BLOCK, height, width)
        rows, columns = height // side, width // side
        whole = frame[: rows * side, : columns * side].reshape(rows, side, columns, side, 3)
        block_means.append(whole.mean(axis=(1, 3), dtype=np.float32))
    blocks = np.stack(block_means)
    sample = np.linspace(0, len(blocks) - 1, min(len(blocks), MEDIAN_FRAMES)).round().astype(int)
    median = np.median(blocks[sample], axis=0)
    moving = np.abs(blocks - median).max(axis=3) > MIN_DIFFERENCE
    scale = np.array([width / moving.shape[2], height / moving.shape[1]] * 2)
    return [_box_around(blocks_of_frame, scale) for blocks_of_frame in moving]


def _box_around(moving: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the box (n, 5) of the moving blocks (H', W'), bool, scaled to pixels."""
    y, x = np.nonzero(moving)
    if len(x) < max(1, MIN_AREA * moving.size):
        return np.zeros((0, 5), dtype=np.float32)
    x1, x2 = np.quantile(x, [TAIL, 1 - TAIL])
    y1, y2 = np.quantile(y, [TAIL, 1 - TAIL])
    box = np.array([np.floor(x1), np.floor(y1), np.ceil(x2) + 1, np.ceil(y2) + 1])
    filled = len(x) / np.prod(box[2:] - box[:2])
    return np.array([[*(box * scale), 0.5 + 0.5 * min(1.0, filled)]], dtype=np.float32)


# --- Detector -------------------------------------------------------------------------------------

# 3.7 MB, Apache-2.0; the same folder has larger ones (yolox_tiny, yolox_s, ...).
YOLOX_NANO_URL = (
    "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0/yolox_nano.onnx"
)
YOLOX_NANO_SHA256 = "c789161ed43c8269fcd4e67c67eeeb4e80c622da2eb296a20bc6007bd18a0b7d"

PERSON = 0  # class index in COCO
STRIDES = (8, 16, 32)
PADDING_VALUE = 114
NMS_IOU = 0.45  # of two boxes that overlap more, the one with the lower score is removed
MIN_SCORE = 0.1  # lowest score (objectness × class) of a box, in [0, 1]
BATCH = 8  # frames in one call of the network, if the file allows more than one


class YoloxDetector:
    """Person detector in ONNX Runtime; a copy in another process opens its own session.

    Input: frames (B, 3, S, S) of BGR values 0–255, scaled to fit and padded with gray on the right
    and at the bottom (letterbox). Output: (B, N, 85), for every cell of three grids (strides 8, 16
    and 32) the box center and size relative to the cell, the objectness and 80 class scores (COCO).

    Args:
        weights: A YOLOX network for COCO as an ONNX file.
        num_threads: Threads of the network on a CPU.
    """

    def __init__(self, weights: Path, num_threads: int = 1):
        self.weights, self.num_threads = weights, num_threads

    def __getstate__(self) -> dict:
        """Leave out the session."""
        return {key: value for key, value in self.__dict__.items() if key != "session"}

    @cached_property
    def session(self) -> onnxruntime.InferenceSession:
        """The network, on a GPU if ONNX Runtime supports one."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        available = onnxruntime.get_available_providers()
        providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in available]
        try:
            session = onnxruntime.InferenceSession(self.weights, options, providers)
        except Exception as error:  # ONNX Runtime's errors have no common base
            reason = str(error).splitlines()[0]
            raise ValueError(f"{self.weights}: not an ONNX network ({reason[:160]})") from error
        shape, output_shape = session.get_inputs()[0].shape, session.get_outputs()[0].shape
        if len(shape) != 4 or shape[1] != 3 or output_shape[-1] != 85:
            raise ValueError(
                f"{self.weights}: not a YOLOX network for COCO: input {shape} and output "
                f"{output_shape}, expected (batch, 3, side, side) and (batch, cells, 85)"
            )
        return session

    def detect(self, frames: Iterable[np.ndarray]) -> list[np.ndarray]:
        """Detect the people in RGB frames (H, W, 3), uint8, of one size, read batch by batch.

        Returns for each frame an array (n, 5), float32: x1, y1, x2, y2 in pixels of the frame,
        score; highest score first.
        """
        network_input = self.session.get_inputs()[0]
        batch_size, _, *sides = network_input.shape
        is_fixed = isinstance(batch_size, int)
        batch_size = batch_size if is_fixed else BATCH
        boxes, remaining = [], iter(frames)
        while batch := list(islice(remaining, batch_size)):
            images = [letterbox(frame, tuple(sides)) for frame in batch]
            if is_fixed:
                images += images[-1:] * (batch_size - len(batch))
            (outputs,) = self.session.run(None, {network_input.name: np.stack(images)})
            for output, frame in zip(outputs, batch, strict=False):
                boxes.append(self._decode(output, tuple(sides), frame.shape[:2]))
        return boxes

    def _decode(
        self, raw: np.ndarray, sides: tuple[int, int], frame_size: tuple[int, int]
    ) -> np.ndarray:
        """Convert the network's output for one frame, (N, 85), to boxes (n, 5)."""
        import torch  # in the worker processes, because both take seconds
        from torchvision.ops import nms

        height, width = frame_size
        scale = min(sides[0] / height, sides[1] / width)
        scores = raw[:, 4] * raw[:, 5 + PERSON]
        rows = np.flatnonzero(scores > MIN_SCORE)
        grid, stride = grid_cells(sides)
        center = (raw[rows, :2] + grid[rows]) * stride[rows, None]
        half = np.exp(raw[rows, 2:4]) * stride[rows, None] / 2
        boxes = np.hstack([center - half, center + half]) / scale
        boxes = boxes.clip(0, [width, height, width, height])
        scores = scores[rows].astype(boxes.dtype)
        kept = nms(torch.from_numpy(boxes), torch.from_numpy(scores), NMS_IOU).numpy()
        return np.hstack([boxes[kept], scores[kept, None]]).astype(np.float32)


def letterbox(frame: np.ndarray, sides: tuple[int, int]) -> np.ndarray:
    """Scale an RGB frame (H, W, 3), uint8, to fit `sides`; return BGR (3, *sides), float32."""
    height, width = frame.shape[:2]
    scale = min(sides[0] / height, sides[1] / width)
    size = (max(1, int(width * scale)), max(1, int(height * scale)))
    image = Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR)
    out = np.full((3, *sides), PADDING_VALUE, dtype=np.float32)
    out[:, : size[1], : size[0]] = np.asarray(image)[:, :, ::-1].transpose(2, 0, 1)
    return out


@lru_cache
def grid_cells(sides: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the cells' positions (N, 2) as x, y, in cells, and their strides (N,), pixels."""
    cells, strides = [], []
    for stride in STRIDES:
        y, x = np.mgrid[0 : sides[0] // stride, 0 : sides[1] // stride]
        cells.append(np.stack([x.ravel(), y.ravel()], axis=1))
        strides.append(np.full(x.size, stride))
    return np.concatenate(cells), np.concatenate(strides)


# --- All frames -----------------------------------------------------------------------------------

MAX_VIDEOS = 2000  # of which statistics are computed
GRID = 64  # side of the mask on which the covered area is measured
# Boxes of neighboring key frames with a lower generalized IoU are of different people: 1 for equal
# boxes, 0 for boxes that touch, -1/3 for two boxes of one size with a gap of one width.
MIN_GIOU = -0.4

Detect = Callable[[Iterable[np.ndarray]], list[np.ndarray]]


def boxes_of_video(record: VideoRecord, detect: Detect, stride: int) -> FrameRows:
    """Apply `detect` to every `stride`-th frame of a video; return the boxes of all frames.

    `detect` maps frames (H, W, 3), uint8, to an array (n, 5) each: x1, y1, x2, y2 in pixels, score.
    """
    keys = key_frames(record.num_frames, stride)
    return interpolate_boxes(keys, detect(iterate_frames(record, keys)))


def yolox_made_with(weights: Path, stride: int) -> dict:
    """Return the provenance of a detector's boxes, as plain JSON."""
    digest = sha256_of(weights)
    return {"method": "yolox", "weights_sha256": digest, "stride": stride, "min_score": MIN_SCORE}


def motion_made_with(stride: int) -> dict:
    """Return the provenance of the boxes of moving regions, as plain JSON."""
    return {"method": "motion", "stride": stride}


def detect_persons(
    dataset: VideoDataset, weights: Path, stride: int = 4, num_processes: int = 0
) -> Path:
    """Detect the people in every `stride`-th frame of all videos; return the path of the boxes.

    A call after an interrupted one with the same settings continues. The other arguments are those
    of `YoloxDetector` and `compute_table`. ValueError if the weights cannot be used, or a video
    cannot be read; names the file.
    """
    processes = num_processes or num_cores()
    detector = YoloxDetector(weights, num_threads=max(1, num_cores() // processes))
    _ = detector.session  # so that a wrong file is reported here, once
    work = partial(boxes_of_video, detect=detector.detect, stride=stride)
    made_with = yolox_made_with(weights, stride)
    return compute_table(dataset, PersonBoxes, work, made_with, "detecting people", processes)


def detect_motion(dataset: VideoDataset, stride: int = 2, num_processes: int = 0) -> Path:
    """Box the moving region in every `stride`-th frame of all videos, as `detect_persons`."""
    work = partial(boxes_of_video, detect=moving_boxes, stride=stride)
    made_with = motion_made_with(stride)
    return compute_table(dataset, PersonBoxes, work, made_with, "detecting motion", num_processes)


def import_boxes(dataset: VideoDataset, path: Path) -> Path:
    """Import the boxes of any detector from a CSV table; return the path of the boxes.

    Columns name (of the index), frame (from 0), x1, y1, x2, y2 (pixels of the video's frame) and
    score, 1 if that is missing. Frames without a row have no box. ValueError if the table cannot be
    used; rows of other videos and frames are left out, and their number is printed.
    """
    numbers = ["x1", "y1", "x2", "y2", "score"]
    with reading(path, "give a CSV table with the columns name, frame, x1, y1, x2, y2, score"):
        table = pd.read_csv(path, dtype={"name": str})
        table = table.assign(score=table.get("score", 1.0))[["name", "frame", *numbers]]
        if not np.isfinite(table[["frame", *numbers]].to_numpy(np.float64)).all():
            raise ValueError("a number is missing or infinite")
    videos = dataset.index[["name", "frames", "width", "height"]]
    table = table.merge(videos, "left", "name").sort_values("frame", kind="stable")
    is_known = table["frame"].between(0, table["frames"], inclusive="left")
    if not is_known.all():
        print(f"{path}: {(~is_known).sum()} of {len(table)} rows are of other videos or frames")
    table = table[is_known]
    is_outside = (table["x2"] > 1.05 * table["width"] + 2) | (
        table["y2"] > 1.05 * table["height"] + 2
    )
    if table.empty or is_outside.any():
        problem = f"no row is of a frame of the data set, such as frame 0 of {videos['name'][0]!r}"
        if len(table):
            name = table["name"][is_outside].iloc[0]
            problem = f"boxes of {name} lie outside of its frames; scale them to the frames' size"
        raise ValueError(f"{path}: {problem}")
    by_name = dict(iter(table.groupby("name")))
    rows = (by_name.get(name, table.iloc[:0]) for name in videos["name"])
    results = (FrameRows(r[numbers].to_numpy(), r["frame"].to_numpy()) for r in rows)
    names, num_frames = videos["name"].tolist(), videos["frames"].tolist()
    return PersonBoxes.write(dataset.folder, names, num_frames, results, import_made_with(path))


def import_made_with(path: Path) -> dict:
    """Return the provenance of imported boxes, as plain JSON."""
    return {"method": "import", "file_sha256": sha256_of(path)}


# --- Between key frames ---------------------------------------------------------------------------


def key_frames(num_frames: int, stride: int) -> np.ndarray:
    """Return every `stride`-th frame and the last one, int64."""
    return np.unique(np.r_[np.arange(0, num_frames, stride), num_frames - 1])


def interpolate_boxes(keys: np.ndarray, boxes: Sequence[np.ndarray]) -> FrameRows:
    """Interpolate boxes (n, 5) of each key frame, x1, y1, x2, y2, score, to all frames.

    The boxes of two neighboring key frames are matched, best overlap first. Matched boxes are
    interpolated linearly; a box without a match is repeated up to half of the distance. The keys
    (K,) ascend from 0 to the last frame.
    """
    frames, rows = [np.full(len(boxes[0]), keys[0])], [boxes[0]]
    for start, stop, first, second in zip(keys[:-1], keys[1:], boxes[:-1], boxes[1:], strict=True):
        pairs = match_boxes(first, second)
        unmatched_first = np.delete(first, pairs[:, 0], axis=0)
        unmatched_second = np.delete(second, pairs[:, 1], axis=0)
        for frame in range(start + 1, stop):
            share = (frame - start) / (stop - start)
            between = (1 - share) * first[pairs[:, 0]] + share * second[pairs[:, 1]]
            unmatched = unmatched_first if share < 0.5 else unmatched_second
            rows += [between, unmatched]
            frames.append(np.full(len(between) + len(unmatched), frame))
        rows.append(second)
        frames.append(np.full(len(second), stop))
    return FrameRows(
        np.concatenate([np.zeros((0, 5)), *rows]).astype(np.float32),
        np.concatenate(frames).astype(np.int32),
    )


def match_boxes(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Match the boxes of two frames greedily, best first; return positions (pairs, 2), int64.

    The measure is the generalized IoU (Rezatofighi et al., CVPR 2019), which also matches a person
    who has left the old box.
    """
    import torch  # in the worker processes, because both take seconds
    from torchvision.ops import generalized_box_iou

    corners = (torch.from_numpy(boxes[:, :4]) for boxes in (first, second))
    closeness = generalized_box_iou(*corners).nan_to_num(nan=-1).numpy()  # NaN: without area
    pairs = []
    while closeness.size and closeness.max() > MIN_GIOU:
        i, j = np.unravel_index(closeness.argmax(), closeness.shape)
        pairs.append((i, j))
        closeness[i], closeness[:, j] = -1, -1
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


# --- Statistics -----------------------------------------------------------------------------------


def box_statistics(dataset: VideoDataset, min_score: float = 0.4) -> pd.DataFrame:
    """Return a table of the boxes of each video, one row per video; at most `MAX_VIDEOS` are drawn.

    Only boxes that score above `min_score` are counted. Columns: name, class, frames_with_person
    (share of the frames with a box), boxes_per_frame (mean), box_area (mean share of a frame that
    its boxes cover, overlaps counted once, over the frames with a box; 0 without any), score (mean;
    NaN without boxes), vanishes (frames without a box lie between frames with one), several (a
    frame has more than one).
    """
    person_boxes = PersonBoxes(dataset)
    rows = np.arange(len(dataset.index))
    if len(rows) > MAX_VIDEOS:
        rows = np.sort(np.random.default_rng(0).choice(rows, MAX_VIDEOS, replace=False))
    table = []
    for record in map(dataset.record, rows.tolist()):
        scored = person_boxes.lookup_scored(record.row, np.arange(record.num_frames))
        boxes = [frame[frame[:, 4] > min_score] for frame in scored]
        counts = np.array([len(frame) for frame in boxes])
        scale = GRID / np.array([record.width, record.height] * 2)
        scaled = [frame[:, :4] * scale for frame in boxes if len(frame)]
        covered = boxes_to_mask(scaled, GRID, GRID).numpy()
        table.append(
            {
                "name": record.name,
                "class": dataset.index["class"].iloc[record.row],
                "frames_with_person": (counts > 0).mean(),
                "boxes_per_frame": counts.mean(),
                "box_area": float(covered.mean()) if scaled else 0.0,
                "score": np.concatenate(boxes)[:, 4].mean() if scaled else np.nan,
                "vanishes": bool((np.diff(np.flatnonzero(counts)) > 1).any()),
                "several": bool(counts.max() > 1),
            }
        )
    return pd.DataFrame(table)
