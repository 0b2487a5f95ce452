"""Data of a run: its videos, its streams of clips, and the tensors of a step."""

import hashlib
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lib.config import TrainSettings, project_path
from lib.data.clip_dataset import ClipBatch, ClipDataset, Stream, ViewSpec
from lib.data.dataset import VideoDataset, draw_labeled_rows, open_prepared
from lib.data.frame_tables import read_soft_targets
from lib.train.objectives import ClipTensors

# First number of a seed key after the run's seed: what the random numbers are for.
LABELED, UNLABELED, ORDER, MIXING, DROPOUT = range(5)
FINGERPRINT_COLUMNS = ["name", "label", "frames", "fingerprint"]  # of a video, wherever it is


@dataclass(frozen=True)
class RunData:
    """Videos of a run; rows are of the index of a data set."""

    labeled: VideoDataset  # with the labels of the labeled split
    labeled_rows: np.ndarray
    val_rows: np.ndarray  # for validation, of the same data set
    unlabeled: VideoDataset | None  # None if no unlabeled videos are used
    unlabeled_rows: np.ndarray | None
    epoch_rows: np.ndarray  # whose pass is an epoch: the unlabeled ones if they are trained on

    @property
    def other_rows(self) -> np.ndarray:
        """Rows of the unlabeled videos that are not labeled as well."""
        if self.unlabeled is None:
            return self.labeled_rows[:0]
        labeled = self.labeled_rows if self.unlabeled.folder == self.labeled.folder else []
        return self.unlabeled_rows[~np.isin(self.unlabeled_rows, labeled)]

    @property
    def counts(self) -> tuple[int, int, int]:
        """Numbers of labeled, of other (unlabeled) and of validation videos."""
        return len(self.labeled_rows), len(self.other_rows), len(self.val_rows)

    @cached_property
    def digest(self) -> str:
        """Digest of the videos and labels, independent of their location."""
        parts = [(self.labeled, self.labeled_rows), (self.labeled, self.val_rows)]
        if self.unlabeled is not None:
            parts.append((self.unlabeled, self.unlabeled_rows))
        tables = [data.index.iloc[rows][FINGERPRINT_COLUMNS].to_csv() for data, rows in parts]
        return hashlib.sha256("".join(tables).encode()).hexdigest()[:16]


def load_data(settings: TrainSettings) -> RunData:
    """Open the data sets and splits of a run and check that they fit together.

    ValueError if a data set is not prepared (gives the command), a split is missing, training and
    validation overlap, or two test splits have one name.
    """
    names = [Path(name).name.removesuffix(".txt") for name in settings.test_splits]
    if len(set(names)) < len(names):
        raise ValueError(
            f"test_splits: {settings.test_splits} have one name twice and would share a file of "
            "scores; rename one"
        )
    dataset = open_prepared(*settings.labeled_source)
    split_rows, split_labels = dataset.read_labels(settings.labeled_split)
    labeled = dataset.relabeled(split_rows, split_labels)
    labels = labeled.index["label"].to_numpy()
    labeled_rows = draw_labeled_rows(
        labels, split_rows, settings.labeled_fraction, settings.labeled_seed
    )
    if not len(labeled_rows):
        raise ValueError(f"labeled_split: {settings.labeled_split!r} has no video with a label")
    val_rows = dataset.read_labeled_split(settings.val_split)
    _check_disjoint(dataset, split_rows, settings.labeled_split, val_rows, settings.val_split)
    _warn_of_missing_classes(labeled, labeled_rows, settings.labeled_split)
    unlabeled = unlabeled_rows = None
    if settings.reads_unlabeled:
        unlabeled = dataset
        if settings.unlabeled_source != settings.labeled_source:
            unlabeled = open_prepared(*settings.unlabeled_source)
        if settings.self_training_rounds and unlabeled.classes != dataset.classes:
            raise ValueError(
                "self_training_rounds: unlabeled_dataset has other classes; set it to 0"
            )
        unlabeled_rows = unlabeled.read_split(settings.unlabeled_split)
        if unlabeled.folder == dataset.folder:
            _check_disjoint(
                dataset, unlabeled_rows, settings.unlabeled_split, val_rows, settings.val_split
            )
    epoch_rows = unlabeled_rows if settings.is_semi_supervised else labeled_rows
    return RunData(labeled, labeled_rows, val_rows, unlabeled, unlabeled_rows, epoch_rows)


def _check_disjoint(
    dataset: VideoDataset, train: np.ndarray, train_split: str, val: np.ndarray, val_split: str
) -> None:
    shared = np.intersect1d(train, val)
    if len(shared):
        raise ValueError(
            f"splits {train_split!r} and {val_split!r} of {dataset.folder} share {len(shared)} "
            f"videos, the first is {dataset.index['name'].iloc[shared[0]]}: validation would "
            "measure training videos; choose disjoint splits"
        )


def _warn_of_missing_classes(dataset: VideoDataset, rows: np.ndarray, split_name: str) -> None:
    present = set(dataset.index["label"].to_numpy()[rows].tolist())
    if missing := [name for k, name in enumerate(dataset.classes) if k not in present]:
        warnings.warn(
            f"split {split_name!r} of {dataset.folder} has no labeled video of {missing}; "
            "the network cannot learn them",
            stacklevel=3,
        )


def load_soft_targets(settings: TrainSettings, data: RunData) -> Tensor | None:
    """Return class probabilities (V, K) of another model for all videos of the unlabeled index.

    None without `soft_targets`; ValueError if their file cannot be used.
    """
    if settings.soft_targets is None or not settings.is_semi_supervised:
        return None
    path = project_path(settings.soft_targets)
    return torch.from_numpy(read_soft_targets(path, data.unlabeled, data.unlabeled_rows))


def make_streams(settings: TrainSettings, data: RunData) -> tuple[Stream, Stream | None]:
    """Return the stream of labeled clips and that of unlabeled clips, None if there are none.

    ValueError if person boxes or ImageNet scores that the run needs are missing.
    """
    is_strong, scene_p = settings.labeled_view == "strong", settings.labeled_scene_p
    views = ViewSpec(
        weak=not is_strong or scene_p > 0,
        strong=is_strong,
        person_mask=settings.scene_needs_person_mask and scene_p > 0,
    )
    clips = ClipDataset(data.labeled, settings, views, (settings.seed, LABELED))
    order_key = (settings.seed, ORDER, LABELED)
    labeled = Stream(clips, data.labeled_rows, settings.labeled_batch, order_key)
    if not settings.is_semi_supervised:
        return labeled, None
    views = ViewSpec(
        weak=True,
        strong=True,
        person_mask=settings.scene_needs_person_mask and settings.unlabeled_scene_p > 0,
        teacher=settings.distillation_weight > 0,
    )
    is_known = data.unlabeled.index["label"].to_numpy()[data.other_rows] >= 0
    has_labels = data.unlabeled.classes == data.labeled.classes and (
        is_known.any() or not len(is_known)
    )  # else the accuracy of pseudo-labels would be that of the labeled videos
    clips = ClipDataset(data.unlabeled, settings, views, (settings.seed, UNLABELED), has_labels)
    order_key = (settings.seed, ORDER, UNLABELED)
    return labeled, Stream(clips, data.unlabeled_rows, settings.unlabeled_batch, order_key)


class Normalize(nn.Module):
    """Normalization: uint8 clips (B, T, 3, H, W) -> float clips (B, 3, T, H, W) with mean 0.

    `mean` and `std` (deviation) are of the channels, in 0..255.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, clips: Tensor) -> Tensor:
        """Return the normalized clips."""
        clips = clips.transpose(1, 2).contiguous()  # while they are small
        return clips.float().sub_(self.mean[..., None]).div_(self.std[..., None])


def to_device(
    batch: ClipBatch, normalize: Normalize, num_classes: int, soft_targets: Tensor | None = None
) -> ClipTensors:
    """Move a batch to the device of `normalize` and normalize it.

    `soft_targets` are class probabilities of all videos of the index, shape (V, K), on the CPU.
    """
    device = normalize.mean.device
    soft_targets = None if soft_targets is None else soft_targets[batch.row].to(device)
    batch = batch.to(device)
    weak, strong = (x if x is None else normalize(x) for x in (batch.weak, batch.strong))
    mask = batch.person_mask
    if mask is not None:
        mask = mask.transpose(1, 2).float()
    label = batch.label.unsqueeze(1)  # −1, an unknown class, gives zeros
    targets = (label == torch.arange(num_classes, device=device)).float()
    return ClipTensors(weak, strong, mask, targets, batch.teacher, soft_targets, batch.row)
