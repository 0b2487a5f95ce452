"""From the settings of a run to its parts: data, streams, objective, network, protocols."""

import hashlib
import warnings
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lib.augment.scene import SCENE_AUGMENTATIONS
from lib.augment.views import EvalTransform
from lib.config import TrainSettings, project_path
from lib.data.clip_dataset import ClipBatch, ClipDataset, ViewSpec
from lib.data.dataset import VideoDataset, draw_labeled_rows, open_prepared
from lib.data.soft_targets import read_soft_targets
from lib.models.networks import build_model, input_spec
from lib.runs.device import to_channels_last
from lib.train.objectives import OBJECTIVES, ClipTensors, Objective, SupervisedObjective
from lib.train.scoring import EvalProtocol

LABELED, UNLABELED, ORDER, MIXING, DROPOUT = range(5)  # what a seed key is for
IDENTITY = ["name", "label", "frames", "fingerprint"]  # of a video, whatever its folder


@dataclass(frozen=True)
class Data:
    """What a run learns from.

    Attributes:
        labeled: Data set of the labels, with those of the labelled list.
        labeled_rows: Its labelled videos.
        val_rows: Its validation videos.
        unlabeled: Data set of the unlabelled videos; None if none are used.
        unlabeled_rows: Its videos.
    """

    labeled: VideoDataset
    labeled_rows: np.ndarray
    val_rows: np.ndarray
    unlabeled: VideoDataset | None
    unlabeled_rows: np.ndarray | None

    def epoch_rows(self, settings: TrainSettings) -> np.ndarray:
        """Return the list whose pass is an epoch: the unlabelled one if it is trained on."""
        return self.unlabeled_rows if settings.is_semi_supervised else self.labeled_rows

    @property
    def other_rows(self) -> np.ndarray:
        """The unlabelled videos that are not labelled as well."""
        if self.unlabeled is None:
            return self.labeled_rows[:0]
        known = self.labeled_rows if self.unlabeled.folder == self.labeled.folder else []
        return self.unlabeled_rows[~np.isin(self.unlabeled_rows, known)]

    @cached_property
    def digest(self) -> str:
        """What tells these videos and labels from others, wherever they lie."""
        parts = [(self.labeled, self.labeled_rows), (self.labeled, self.val_rows)]
        parts += [(self.unlabeled, self.unlabeled_rows)] * (self.unlabeled is not None)
        tables = [part.index.iloc[rows][IDENTITY].to_csv() for part, rows in parts]
        return hashlib.sha256("".join(tables).encode()).hexdigest()[:16]


def load_data(settings: TrainSettings) -> Data:
    """Open the data sets and lists of a run and check that they fit together.

    Raises:
        ValueError: If a data set is not prepared (gives the command), a list is missing, training
            and validation overlap, or two test lists have one name.
    """
    names = [Path(name).name.removesuffix(".txt") for name in settings.test_splits]
    if len(set(names)) < len(names):
        raise ValueError(
            f"test_splits: {settings.test_splits} have one name twice and would share a file of "
            "scores; rename one"
        )
    dataset = open_prepared(settings.dataset, settings.videos_dir, settings.prepared_dir)
    listed, labels = dataset.read_labels(settings.labeled_split)  # may differ from the index
    labeled = dataset.relabeled(listed, labels)
    labels = labeled.index["label"].to_numpy()
    draw = settings.labeled_fraction, settings.labeled_seed
    labeled_rows = draw_labeled_rows(labels, listed, *draw)
    val_rows = dataset.read_split(settings.val_split)
    _check_disjoint(dataset, listed, settings.labeled_split, val_rows, settings.val_split)
    _warn_of_missing_classes(labeled, labeled_rows, settings.labeled_split)
    unlabeled = unlabeled_rows = None
    if settings.reads_unlabeled:
        unlabeled = dataset
        if settings.unlabeled_dataset is not None:
            unlabeled = open_prepared(
                settings.unlabeled_dataset, settings.unlabeled_videos_dir, settings.prepared_dir
            )
        if settings.self_training_rounds and unlabeled.classes != dataset.classes:
            raise ValueError(
                "self_training_rounds: unlabeled_dataset has other classes; set it to 0"
            )
        unlabeled_rows = unlabeled.read_split(settings.unlabeled_split)
        if unlabeled.folder == dataset.folder:
            _check_disjoint(
                dataset, unlabeled_rows, settings.unlabeled_split, val_rows, settings.val_split
            )
    return Data(labeled, labeled_rows, val_rows, unlabeled, unlabeled_rows)


def _check_disjoint(
    dataset: VideoDataset, train: np.ndarray, train_list: str, val: np.ndarray, val_split: str
) -> None:
    both = np.intersect1d(train, val)
    if len(both):
        raise ValueError(
            f"lists {train_list!r} and {val_split!r} of {dataset.folder} share {len(both)} videos, "
            f"the first: {dataset.index['name'].iloc[both[0]]}; training would see the answers"
        )


def _warn_of_missing_classes(dataset: VideoDataset, rows: np.ndarray, split_name: str) -> None:
    present = set(dataset.index["label"].to_numpy()[rows].tolist())
    if missing := [name for k, name in enumerate(dataset.classes) if k not in present]:
        warnings.warn(
            f"list {split_name!r} of {dataset.folder} has no labelled video of {missing}; "
            "the network cannot learn them",
            stacklevel=3,
        )


def make_objective(settings: TrainSettings) -> Objective:
    """Return the objective that the settings name; fields named as a setting have its value."""
    scene = SCENE_AUGMENTATIONS[settings.scene_augmentation]
    labeled = SupervisedObjective(settings.labeled_view, settings.labeled_scene_p, scene)
    kind = OBJECTIVES[settings.objective]
    if kind is SupervisedObjective:
        return labeled
    names = {field.name for field in fields(kind)} & TrainSettings.model_fields.keys()
    given = {name: getattr(settings, name) for name in names}
    return kind(labeled=labeled, scene_p=settings.unlabeled_scene_p, scene=scene, **given)


def make_clip_datasets(
    settings: TrainSettings, data: Data
) -> tuple[ClipDataset, ClipDataset | None]:
    """Return the sources of the labelled and of the unlabelled clips."""
    uses_masks = settings.scene_needs_person_mask
    scene_p = settings.labeled_scene_p
    strong = settings.labeled_view == "strong"
    needs_weak, needs_person_mask = not strong or scene_p > 0, uses_masks and scene_p > 0
    views = ViewSpec(needs_weak, strong, needs_person_mask)
    labeled = ClipDataset(data.labeled, settings, views, (settings.seed, LABELED))
    if not settings.is_semi_supervised:
        return labeled, None
    views = ViewSpec(
        weak=True,
        strong=True,
        person_mask=uses_masks and settings.unlabeled_scene_p > 0,
        teacher=settings.distillation_weight > 0,
    )
    has_labels = data.unlabeled.classes == data.labeled.classes
    key = (settings.seed, UNLABELED)
    return labeled, ClipDataset(data.unlabeled, settings, views, key, has_labels)


def load_soft_targets(settings: TrainSettings, data: Data) -> Tensor | None:
    """Return the class probabilities of the unlabelled videos, shape (V, K), if there are any.

    Raises:
        ValueError: If their file cannot be used.
    """
    if settings.soft_targets is None or not settings.is_semi_supervised:
        return None
    path = project_path(settings.soft_targets)
    return torch.from_numpy(read_soft_targets(path, data.unlabeled, data.unlabeled_rows))


class Normalize(nn.Module):
    """uint8 clips (B, T, 3, H, W) -> float clips (B, 3, T, H, W), mean 0, on their device.

    Args:
        mean: Per channel, in 0..255.
        std: Per channel, in 0..255.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, clips: Tensor) -> Tensor:
        """Return the normalised clips."""
        clips = clips.transpose(1, 2).contiguous()  # while they are small
        return clips.float().sub_(self.mean[..., None]).div_(self.std[..., None])


def run_normalize(settings: TrainSettings) -> Normalize:
    """Return the normalisation of the run's network."""
    spec = input_spec(settings.model, settings.pretrained)
    return Normalize(spec.mean, spec.std)


def to_device(
    batch: ClipBatch, normalize: Normalize, num_classes: int, soft: Tensor | None = None
) -> ClipTensors:
    """Move a batch to the device of `normalize`, make there what was left to it, and normalise.

    Args:
        batch: The batch.
        normalize: The normalisation.
        num_classes: K.
        soft: Class probabilities of all videos of the index, shape (V, K), on the CPU.
    """
    device = normalize.mean.device
    soft = None if soft is None else soft[batch.row].to(device)
    batch = batch.to(device)
    weak, strong = (x if x is None else normalize(x) for x in (batch.weak, batch.strong))
    mask = batch.person_mask
    if mask is not None:
        mask = mask.transpose(1, 2).float()
    label = batch.label.unsqueeze(1)  # −1, not known, gives zeros
    targets = (label == torch.arange(num_classes, device=device)).float()
    return ClipTensors(weak, strong, mask, targets, batch.teacher, soft, batch.row)


def build_run_model(settings: TrainSettings, num_classes: int) -> nn.Module:
    """Return the network of a run, as it is before the first step."""
    model = build_model(
        settings.model,
        num_classes,
        pretrained=settings.pretrained,
        weights=None if settings.weights is None else project_path(settings.weights),
        dropout=settings.dropout,
        teacher_classes=1000 if settings.distillation_weight else 0,
        tsm_fraction=settings.tsm_fraction,
        temporal_std_pooling=settings.temporal_std_pooling,
    )
    model.freeze(settings.freeze_fraction, settings.freeze_batch_norm)
    if settings.channels_last:
        to_channels_last(model)
    return model


def val_protocol(settings: TrainSettings) -> EvalProtocol:
    """Return the protocol of validation: one centre clip, one centre crop."""
    crops = EvalTransform(settings.short_side, settings.crop_size, num_crops=1)
    return EvalProtocol(1, settings.clip_len, settings.frame_interval, crops)


def test_protocol(settings: TrainSettings) -> EvalProtocol:
    """Return the protocol of the final test (`test_*`)."""
    s = settings
    crops = EvalTransform(s.short_side, s.test_crop_size, s.test_num_crops)
    return EvalProtocol(s.test_num_clips, s.clip_len, s.frame_interval, crops, s.test_average)
