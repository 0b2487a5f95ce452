"""Person detection in single frames by a YOLOX network in ONNX Runtime.

Input: frames (B, 3, S, S) of BGR values 0–255, scaled to fit and padded with gray on the right and
at the bottom (letterbox). Output: (B, N, 85), for every cell of three grids (strides 8, 16 and 32)
the box center and size relative to the cell, the objectness and 80 class scores (COCO).

Source: Ge et al., YOLOX: Exceeding YOLO Series in 2021, arXiv 2107.08430.
"""

from collections.abc import Iterable
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

# 3.7 MB, Apache-2.0; the same folder has larger ones (yolox_tiny, yolox_s, ...).
YOLOX_NANO_URL = (
    "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0/yolox_nano.onnx"
)
YOLOX_NANO_SHA256 = "c789161ed43c8269fcd4e67c67eeeb4e80c622da2eb296a20bc6007bd18a0b7d"

PERSON = 0  # class index in COCO
STRIDES = (8, 16, 32)
PADDING_VALUE = 114
NMS_IOU = 0.45  # of two boxes that overlap more, the one with the lower score is removed
MIN_SCORE = 0.1


class YoloxDetector:
    """Person detector; a copy in another process opens its own session.

    Args:
        weights: A YOLOX network for COCO as an ONNX file.
        min_score: Lowest score (objectness × class) of a box, in [0, 1].
        batch: Frames in one call of the network, if the file allows more than one.
        num_threads: Threads of the network on a CPU.
    """

    def __init__(
        self, weights: Path, min_score: float = MIN_SCORE, batch: int = 1, num_threads: int = 1
    ):
        self.weights, self.min_score = weights, min_score
        self.batch, self.num_threads = batch, num_threads

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

        Returns:
            For each frame an array (n, 5), float32: x1, y1, x2, y2 in pixels of the frame, score;
            highest score first.
        """
        network_input = self.session.get_inputs()[0]
        batch_size, _, *sides = network_input.shape
        is_fixed = isinstance(batch_size, int)
        batch_size = batch_size if is_fixed else self.batch
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
        rows = np.flatnonzero(scores > self.min_score)
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
