"""People in single frames, with a YOLOX network in ONNX Runtime.

The network takes frames (B, 3, S, S) as BGR values 0–255, scaled to fit and padded with grey at the
right and below (letterbox), and gives (B, N, 85): for every cell of three grids (strides 8, 16 and
32) the box centre and size relative to the cell, the objectness and 80 class scores (COCO).

Source: Ge et al., YOLOX: Exceeding YOLO Series in 2021, arXiv 2107.08430.
"""

from collections.abc import Iterable
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from lib.config import project_path

# 3.7 MB, Apache-2.0; larger ones (yolox_tiny, yolox_s, ...) lie beside it.
YOLOX_NANO_URL = (
    "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0/yolox_nano.onnx"
)
YOLOX_NANO_SHA256 = "c789161ed43c8269fcd4e67c67eeeb4e80c622da2eb296a20bc6007bd18a0b7d"

PERSON = 0  # class index in COCO
STRIDES = (8, 16, 32)
PADDING_VALUE = 114
NMS_IOU = 0.45  # of two boxes that overlap more, the one with the lower score goes
LOWEST_SCORE = 0.1  # boxes below it are never kept


def detector_path(given: str | None, prepared_dir: Path) -> Path:
    """Return the file of the detector's weights: that given, else where YOLOX-Nano belongs."""
    return project_path(given) if given else prepared_dir / "weights" / Path(YOLOX_NANO_URL).name


class YoloxDetector:
    """Finds people in frames; can be sent to another process, which opens its own session.

    Args:
        weights: The network as an ONNX file.
        min_score: Lowest score (objectness × class) of a box that is kept, in [0, 1].
        batch: Frames in one call of the network, where the file allows more than one.
        num_threads: Threads of the network on a CPU.

    Raises:
        ValueError: If the file is missing or is not a YOLOX network.
    """

    def __init__(
        self, weights: Path, min_score: float = LOWEST_SCORE, batch: int = 1, num_threads: int = 1
    ):
        self.weights, self.min_score = Path(weights), min_score
        self.batch, self.num_threads = batch, num_threads
        if not self.weights.is_file():
            raise ValueError(f"detector_weights: {self.weights}: no such file")

    def __getstate__(self) -> dict:
        """Leave the session behind."""
        return {key: value for key, value in self.__dict__.items() if key != "session"}

    @cached_property
    def session(self) -> onnxruntime.InferenceSession:
        """The network, on a GPU where ONNX Runtime has one."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        there = onnxruntime.get_available_providers()
        providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in there]
        try:
            session = onnxruntime.InferenceSession(self.weights, options, providers)
        except Exception as error:  # ONNX Runtime has its own kinds, without a common base
            reason = str(error).splitlines()[0]
            raise ValueError(f"{self.weights}: not an ONNX network ({reason[:160]})") from error
        given, made = session.get_inputs()[0].shape, session.get_outputs()[0].shape
        if len(given) != 4 or given[1] != 3 or not isinstance(given[2], int) or made[-1] != 85:
            raise ValueError(
                f"{self.weights}: not a YOLOX network for COCO: it takes {given} and gives {made}, "
                "expected (batch, 3, side, side) and (batch, cells, 85)"
            )
        return session

    def detect(self, frames: Iterable[np.ndarray]) -> list[np.ndarray]:
        """Find the people in frames of one size.

        Args:
            frames: RGB, shape (H, W, 3), uint8; no more than a batch is kept.

        Returns:
            For each frame an array (n, 5), float32: x1, y1, x2, y2 in pixels of the frame, score;
            highest score first.
        """
        entry = self.session.get_inputs()[0]
        batch = entry.shape[0] if isinstance(entry.shape[0], int) else self.batch
        sides = (entry.shape[2], entry.shape[3])
        found, rest = [], iter(frames)
        while some := list(islice(rest, batch)):
            images = [letterbox(frame, sides) for frame in some]
            images += images[-1:] * (batch - len(some)) if isinstance(entry.shape[0], int) else []
            (raw,) = self.session.run(None, {entry.name: np.stack(images)})
            height, width = some[0].shape[:2]
            scale = min(sides[0] / height, sides[1] / width)
            found += [self._boxes(one, sides, scale, (height, width)) for one in raw[: len(some)]]
        return found

    def _boxes(
        self, raw: np.ndarray, sides: tuple[int, int], scale: float, frame: tuple[int, int]
    ) -> np.ndarray:
        """Turn the network's output for one frame, (N, 85), into boxes (n, 5)."""
        scores = raw[:, 4] * raw[:, 5 + PERSON]
        rows = np.flatnonzero(scores > self.min_score)
        grid, stride = grid_cells(sides)
        center = (raw[rows, :2] + grid[rows]) * stride[rows, None]
        half = np.exp(raw[rows, 2:4]) * stride[rows, None] / 2
        boxes = np.hstack([center - half, center + half]) / scale
        height, width = frame
        boxes = boxes.clip(0, [width, height, width, height])
        kept = suppress_overlaps(boxes, scores[rows])
        return np.hstack([boxes[kept], scores[rows][kept, None]]).astype(np.float32)


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


def iou_matrix(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the overlaps (area of intersection / of union) of boxes (n, 4) and (m, 4), (n, m)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:4], second[None, :, 2:4])
    both = np.prod((high - low).clip(min=0), axis=2)
    area_first = np.prod(first[:, 2:4] - first[:, :2], axis=1)
    area_second = np.prod(second[:, 2:4] - second[:, :2], axis=1)
    union = area_first[:, None] + area_second[None] - both
    return both / np.maximum(union, 1e-9)


def suppress_overlaps(boxes: np.ndarray, scores: np.ndarray, max_iou: float = NMS_IOU) -> list[int]:
    """Greedy non-maximum suppression; return the kept positions, highest score first.

    Args:
        boxes: Shape (n, 4), x1 y1 x2 y2.
        scores: Shape (n,).
        max_iou: Largest overlap with a better box.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order):
        best = int(order[0])
        kept.append(best)
        overlap = iou_matrix(boxes[best : best + 1], boxes[order[1:]])[0]
        order = order[1:][overlap <= max_iou]
    return kept
