"""Typed settings, one model per notebook; here what they share, and those of a run.

The parameters cell of a notebook and the files in `params/` name the fields of these models. A name
that no field has, a wrong type or an impossible value is an error that names the field, before any
work starts. Augmentations and objectives are named by the tables that hold them.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lib import tables

PROJECT_ROOT = Path(__file__).resolve().parent.parent

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]


def project_path(path: str | Path) -> Path:
    """Return `path` as an absolute path; a relative one is relative to the project's root."""
    return (PROJECT_ROOT / Path(path).expanduser()).resolve()


class Settings(BaseModel):
    """What all settings share: frozen, strict types, no unknown names."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def as_yaml(self) -> str:
        """Return the settings as flat YAML in the order of the fields."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False)


class DataSettings(Settings):
    """Which prepared data set, and where it is.

    Attributes:
        dataset: Name in the catalog; `folder` for your own videos.
        data_root: Folder of the original videos; None where the catalog knows.
        data_dir: Folder of the prepared data sets.
    """

    dataset: str = "synthetic"
    data_root: str | None = None
    data_dir: str = "data"


class ClipSettings(DataSettings):
    """How a clip and its views are made (Zou et al., section 4.1).

    Attributes:
        clip_len: Frames in a clip.
        frame_interval: Distance of neighbouring frames, in frames.
        short_side: Short side that a frame is scaled to before it is cropped, pixels.
        crop_size: Side of the network's input, pixels.
        crop_area_min: Smallest area of the random crop, share of the frame.
        randaugment_num_ops: Operations drawn for a strong view (n).
        randaugment_magnitude: Their magnitude m, of 30.
        randaugment_ops: Drawn from `photometric`, `geometric` or operations by name; may be empty.
        temporal_ops: What the temporal operation is drawn from (`lib.augment.temporal`).
        scene_augmentation: What is done to a batch for invariance to the scene.
        person_min_score: Person boxes must score above this.
        cache_mb: Largest decoded copy of a data set, used by all processes, megabytes; 0: none.
    """

    clip_len: Count = 8
    frame_interval: Count = 8
    short_side: Count = 256
    crop_size: Count = 224
    crop_area_min: Annotated[float, Field(gt=0, le=1)] = 0.08
    randaugment_num_ops: Natural = 2
    randaugment_magnitude: Annotated[float, Field(ge=0, le=30)] = 10
    randaugment_ops: tables.OperationNames = ["photometric", "geometric"]
    temporal_ops: tables.TemporalNames = ["none", "half", "reverse", "drop"]
    scene_augmentation: tables.SceneName = "actor_cutmix"
    person_min_score: Probability = 0.4
    cache_mb: Natural = 0

    @model_validator(mode="after")
    def _check_crop(self) -> Self:
        if self.crop_size > self.short_side:
            raise ValueError(
                f"crop_size {self.crop_size} is larger than short_side {self.short_side}; "
                "a centre crop would leave the frame"
            )
        return self

    @model_validator(mode="after")
    def _check_temporal_ops(self) -> Self:
        known = tables.temporal_ops()
        uneven = [name for name in self.temporal_ops if known[name].needs_even]
        if self.clip_len % 2 and uneven:
            raise ValueError(
                f"clip_len {self.clip_len} is odd, and {', '.join(map(repr, uneven))} takes even "
                "clips only; make it even, or leave that out of temporal_ops"
            )
        return self

    @property
    def scene_needs_person_mask(self) -> bool:
        """Whether the scene augmentation needs person boxes."""
        return tables.scene_augmentations()[self.scene_augmentation].needs_person_mask


class TrainSettings(ClipSettings):
    """Settings of notebook 3: one run.

    Attributes:
        run_dir: Folder of the run.
        seed: Seed of the initial weights and of everything drawn in training.
        labeled_list: List that labelled videos are drawn from.
        labeled_fraction: Share of each of its classes that is labelled.
        labeled_seed: Seed of that draw.
        unlabeled_dataset: Data set of the unlabelled clips; None for the labelled one.
        unlabeled_data_root: Its `data_root`.
        unlabeled_list: Its list.
        val_list: List for validation.
        objective: `probe`, `supervised`, or how unlabelled clips are used (`lib.learn.objectives`).
        labeled_view: View of the labelled clips that is learned from.
        labeled_scene_p: Probability of the scene augmentation on a labelled batch.
        unlabeled_scene_p: The same for an unlabelled batch.
        confidence_threshold: Pseudo-labels below it do not count.
        temperature: Sharpening of UDA's soft pseudo-labels.
        threshold_momentum: Of the moving averages of FreeMatch and SoftMatch.
        unlabeled_weight: Weight of the unlabelled loss.
        unlabeled_rampup_epochs: Epochs in which that weight grows linearly from 0.
        distillation_weight: Weight of the ImageNet distillation loss; 0 for none.
        soft_targets: Table of class probabilities by another model (`lib.data.soft_targets`).
        soft_target_weight: Their weight in the pseudo-labels.
        ema_decay: Decay of an average of the network, which is then tested; 0 for none.
        average_labels: Let it give the pseudo-labels.
        weak_gradients: Let weak, labelled and strong clips share one pass; false saves time, and is
            another method, for batch norm then sees the weak clips apart, twice a step.
        model: Network, by name.
        pretrained: Start from the network's published weights (Kinetics, or ImageNet).
        weights: Start from this file: an image network's, or one of the reference or MMAction2.
        temporal_shift: Share of an image network's channels that move by one frame (TSM: 0.25).
        frame_deviation: Let its features be mean and deviation over the frames, not the mean alone.
        frozen_share: Share of the backbone's layers, the first ones, that are not trained.
        frozen_norm: Keep the statistics of all batch norms as the weights came with them.
        head: How the head starts: `new`, or as the logistic regression of a `probe`.
        probe_l2: L2 of that regression's weights.
        probe_rounds: Rounds in which it also learns from its own answers on the unlabelled list,
            more of them in each; 0 for the labels alone.
        dropout: Dropout before the last layer.
        epochs: Passes over the unlabelled list (supervised: over the labelled list).
        restarts: Epochs after which the learning rate begins anew: how a run is trained longer.
        labeled_batch: Labelled clips in a step, over all processes.
        unlabeled_batch: Unlabelled clips in a step, over all processes.
        micro_batch: Clips of a stream in one pass, then gradients are accumulated; 0 for no bound.
        checkpoint_blocks: Compute each residual block again going backward, which saves memory.
        lr: Peak learning rate at this global batch.
        warmup_epochs: Epochs of linear warm-up.
        momentum: SGD momentum.
        weight_decay: SGD weight decay.
        grad_clip: Largest L2 norm of the gradient.
        val_interval: Epochs between validations (and checkpoints).
        unreadable: At a video that cannot be read: `stop`, or in training `skip` to the next
            (`data/replaced`); a probe, and every test, needs all of its videos.
        checkpoint_minutes: Also save after so many minutes, within an epoch too; 0 for only then.
        test_lists: Lists that notebook 4 evaluates on.
        test_num_clips: Its clips per video, evenly spaced.
        test_num_crops: Its crops per clip: 1 (centre) or 3 (along the longer side).
        test_crop_size: Side of these crops, pixels.
        test_fusion: What is averaged over the views of a video.
        device: `auto` takes GPUs if there are any.
        precision: Arithmetic of the network on a GPU.
        tf32: Let `fp32` convolutions of GPUs since Ampere round to TF32, as PyTorch does.
        cudnn_benchmark: Let a GPU try which convolution is fastest for each size of input.
        channels_last: Keep channels last in memory, as the small networks always do.
        num_processes: Training processes; 0 for one per GPU, or one on a CPU.
        num_workers: Loader processes per training process and stream; 0 loads in place.
        augment_on: Where strong views are made, with equal pixels: `cpu` (the loader) or `device`.
        tensorboard: Also write the log as TensorBoard events, into `tensorboard/` of the run.
    """

    run_dir: str = "outputs/quickstart/semi"
    seed: Natural = 0

    labeled_list: str = "train"
    labeled_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    labeled_seed: Natural = 0
    unlabeled_dataset: str | None = None
    unlabeled_data_root: str | None = None
    unlabeled_list: str = "train"
    val_list: str = "val"

    objective: tables.ObjectiveName = "fixmatch"
    labeled_view: Literal["weak", "strong"] = "weak"
    labeled_scene_p: Probability = 0.0
    unlabeled_scene_p: Probability = 0.5
    confidence_threshold: Annotated[float, Field(gt=0, le=1)] = 0.95
    temperature: Positive = 0.4
    threshold_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.999
    unlabeled_weight: NonNegative = 1.0
    unlabeled_rampup_epochs: NonNegative = 0.0
    distillation_weight: NonNegative = 0.0
    soft_targets: str | None = None
    soft_target_weight: Probability = 0.5
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    average_labels: bool = False
    weak_gradients: bool = True

    model: str = "r2plus1d_34"
    pretrained: bool = False
    weights: str | None = None
    temporal_shift: Probability = 0.0
    frame_deviation: bool = False
    frozen_share: Probability = 0.0
    frozen_norm: bool = False
    head: Literal["new", "probe"] = "new"
    probe_l2: Positive = 0.01
    probe_rounds: Natural = 0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5

    epochs: Count = 360
    restarts: list[Count] = []
    labeled_batch: Count = 40
    unlabeled_batch: Count = 40
    micro_batch: Natural = 0
    checkpoint_blocks: bool = False
    lr: Positive = 0.2
    warmup_epochs: NonNegative = 0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: NonNegative = 1e-4
    grad_clip: Positive = 40.0
    val_interval: Count = 5
    unreadable: Literal["stop", "skip"] = "stop"
    checkpoint_minutes: NonNegative = 10.0
    test_lists: Annotated[list[str], Field(min_length=1)] = ["val"]
    test_num_clips: Count = 10
    test_num_crops: Literal[1, 3] = 3
    test_crop_size: Count = 256
    test_fusion: Literal["scores", "probabilities"] = "scores"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    tf32: bool = True
    cudnn_benchmark: bool = False
    channels_last: bool = False
    num_processes: Natural = 0
    num_workers: Natural = 0
    augment_on: Literal["cpu", "device"] = "cpu"
    tensorboard: bool = False

    @property
    def is_semi_supervised(self) -> bool:
        """Whether it is trained on unlabelled clips."""
        return tables.objectives()[self.objective].uses_unlabeled

    @property
    def reads_unlabeled(self) -> bool:
        """Whether unlabelled videos are used, be it for a probe alone."""
        is_probe = "probe" in (self.objective, self.head)
        return self.is_semi_supervised or (is_probe and self.probe_rounds > 0)

    @model_validator(mode="after")
    def _check_streams(self) -> Self:
        for is_wrong, message in (
            (
                self.test_crop_size > self.short_side,
                f"test_crop_size {self.test_crop_size} is larger than short_side {self.short_side}",
            ),
            (
                self.distillation_weight and not (self.is_semi_supervised and self.weak_gradients),
                f"distillation_weight acts on weak unlabelled clips, but objective is "
                f"{self.objective!r} and weak_gradients {self.weak_gradients}; set it to 0, or "
                "choose 'fixmatch' or 'uda', and weak_gradients true",
            ),
            (
                self.average_labels and not self.ema_decay,
                "average_labels needs an averaged network; set ema_decay, e.g. 0.99",
            ),
            (self.objective == "probe" and self.epochs != 1, "epochs: it must be 1 for a probe"),
            (
                (ends := [*self.restarts, self.epochs]) != sorted(set(ends)),
                f"restarts: {self.restarts} must grow and stay below epochs, {self.epochs}",
            ),
            (
                self.weights and self.pretrained,
                "weights and pretrained exclude each other; set one of them",
            ),
        ):
            if is_wrong:
                raise ValueError(message)
        return self
