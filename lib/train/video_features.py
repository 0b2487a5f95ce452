"""Features of videos by the network that a run starts from; those of published weights are kept.

A file `features/<fingerprint>.safetensors` in the prepared folder holds the features of the videos
that runs needed until now. Its fingerprint is of the network and its weights, the clips, their
normalization and the videos, so that runs with other labels read what the first one computed.
"""

import hashlib
import warnings
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import nn

from lib.config import TrainSettings
from lib.data.dataset import VideoDataset
from lib.fileio import reading, write_atomic
from lib.registry import OWN_NAME
from lib.runs.distributed import DistContext
from lib.train.run_data import Normalize
from lib.train.scoring import VideoViews, score_videos, val_protocol

VIDEO_COLUMNS = ["name", "frames", "fingerprint"]


class VideoFeatures:
    """Features of the center clip of videos, computed once.

    The network of the settings must keep its weights. A clip is computed alone, so that its
    features do not depend on the other videos or on the number of processes.
    """

    def __init__(
        self, settings: TrainSettings, backbone: nn.Module, normalize: Normalize, world: DistContext
    ):
        self.settings, self.backbone, self.normalize = settings, backbone, normalize
        self.world = world
        self.protocol = val_protocol(settings)
        is_own = OWN_NAME.fullmatch(settings.model) is not None  # its code may change
        self.is_kept = bool(settings.pretrained or settings.weights) and not is_own
        self.stored: dict[Path, dict[str, np.ndarray]] = {}  # of the data sets

    def __call__(self, dataset: VideoDataset, rows: np.ndarray) -> np.ndarray:
        """Return the features (N, D), float32, of index rows (N,)."""
        is_first = self.world.rank == 0
        if dataset.folder not in self.stored:
            stored = self.world.broadcast(is_first and self._read(dataset))
            self.stored[dataset.folder] = stored
        stored = self.stored[dataset.folder]
        missing = np.setdiff1d(rows, stored["rows"])
        if len(missing):
            views = VideoViews(dataset, missing, self.protocol)
            options = {"batch_clips": 1, "num_workers": self.settings.num_workers}
            features = score_videos(self.backbone, self.normalize, views, self.world, **options)
            known = stored["features"].reshape(-1, features.shape[1])
            stored["rows"] = np.concatenate([stored["rows"], missing])
            stored["features"] = np.concatenate([known, features])
            if self.is_kept and is_first:
                self._write(dataset)
        order = np.argsort(stored["rows"])
        return stored["features"][order[np.searchsorted(stored["rows"], rows, sorter=order)]]

    def _path(self, dataset: VideoDataset) -> Path:
        videos = dataset.index[VIDEO_COLUMNS].to_csv()
        digest = hashlib.sha256(f"{self._digest}{videos}".encode()).hexdigest()
        return dataset.folder / "features" / f"{digest[:16]}.safetensors"

    @cached_property
    def _digest(self) -> str:
        """Digest of everything but the videos that decides the features."""
        digest = hashlib.sha256(str(self.backbone).encode())
        for name, value in self.backbone.state_dict().items():
            digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        s, device = self.settings, self.world.device.type
        values = [self.normalize.mean.tolist(), self.normalize.std.tolist(), self.protocol]
        values += [s.model, s.temporal_std_pooling, device, torch.__version__]
        digest.update(repr(values).encode())
        return digest.hexdigest()

    def _read(self, dataset: VideoDataset) -> dict[str, np.ndarray]:
        if self.is_kept and (path := self._path(dataset)).is_file():
            with reading(path, "delete that file, its features are computed again"):
                return load_file(path)
        return {"rows": np.zeros(0, np.int64), "features": np.zeros((0, 1), np.float32)}

    def _write(self, dataset: VideoDataset) -> None:
        stored = self.stored[dataset.folder]
        try:
            write_atomic(self._path(dataset), lambda path: save_file(stored, path))
        except OSError as error:  # a prepared folder may be read-only
            warnings.warn(f"features are not kept: {error}", stacklevel=2)
