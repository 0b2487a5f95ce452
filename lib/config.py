"""Typed settings, one model per notebook; here what they share, and those of a run.

The parameters cell of a notebook and the files in `params/` name the fields of these models. A name
that no field has, a wrong type or an impossible value is an error that names the field, before any
work starts. Augmentations and objectives are named by the tables that hold them.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lib import registry

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
        videos_dir: Folder of the original videos; None where the catalog knows.
        prepared_dir: Folder of the prepared data sets.
    """

    dataset: str = "synthetic"
    videos_dir: str | None = None
    prepared_dir: str = "data"


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
        frame_cache_mb: Largest cache of decoded frames, shared by all processes, in MB; 0: none.
    """

    clip_len: Count = 8
    frame_interval: Count = 8
    short_side: Count = 256
    crop_size: Count = 224
    crop_area_min: Annotated[float, Field(gt=0, le=1)] = 0.08
    randaugment_num_ops: Natural = 2
    randaugment_magnitude: Annotated[float, Field(ge=0, le=30)] = 10
    randaugment_ops: registry.OperationNames = ["photometric", "geometric"]
    temporal_ops: registry.TemporalNames = ["none", "half", "reverse", "drop"]
    scene_augmentation: registry.SceneName = "actor_cutmix"
    person_min_score: Probability = 0.4
    frame_cache_mb: Natural = 0

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
        known = registry.temporal_ops()
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
        return registry.scene_augmentations()[self.scene_augmentation].needs_person_mask


class TrainSettings(ClipSettings):
    """Settings of notebook 3: one run.

    Attributes:
        run_dir: Folder of the run.
        seed: Seed of the initial weights and of everything drawn in training.
        labeled_split: List that labelled videos are drawn from.
        labeled_fraction: Share of each of its classes that is labelled.
        labeled_seed: Seed of that draw.
        unlabeled_dataset: Data set of the unlabelled clips; None for the labelled one.
        unlabeled_videos_dir: Its `videos_dir`.
        unlabeled_split: Its list.
        val_split: List for validation.
        objective: `probe`, `supervised`, or how unlabelled clips are used (`lib.train.objectives`).
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
        ema_teacher: Let it give the pseudo-labels.
        joint_forward: Let weak, labelled and strong clips share one pass; false saves time, and is
            another method, for batch norm then sees the weak clips apart, twice a step.
        model: Network, by name.
        pretrained: Start from the network's published weights (Kinetics, or ImageNet).
        weights: Start from this file: an image network's, or one of the reference or MMAction2.
        tsm_fraction: Share of an image network's channels that move by one frame (TSM: 0.25).
        temporal_std_pooling: Pool its features to mean and deviation over the frames.
        freeze_fraction: Share of the backbone's layers, the first ones, that are not trained.
        freeze_batch_norm: Keep the statistics of all batch norms as the weights came with them.
        head_init: How the head starts: `random`, or as a logistic regression (`linear_probe`).
        probe_l2: L2 of that regression's weights.
        self_training_rounds: Rounds of self-training on the unlabelled split, each with more
            pseudo-labels; 0 uses the labels alone.
        dropout: Dropout before the last layer.
        epochs: Passes over the unlabelled list (supervised: over the labelled list).
        lr_restart_epochs: Epochs at which the cosine schedule restarts; to extend a finished run,
            add its old `epochs`.
        labeled_batch: Labelled clips in a step, over all processes.
        unlabeled_batch: Unlabelled clips in a step, over all processes.
        micro_batch: Clips of a stream in one pass, then gradients are accumulated; 0 for no bound.
        lr: Peak learning rate at this global batch.
        warmup_epochs: Epochs of linear warm-up.
        momentum: SGD momentum.
        weight_decay: SGD weight decay.
        grad_clip: Largest L2 norm of the gradient.
        val_every_epochs: Epochs between validations (and checkpoints).
        checkpoint_every_minutes: Also save at this interval within an epoch; 0 for never.
        test_splits: Lists that notebook 4 evaluates on.
        test_num_clips: Its clips per video, evenly spaced.
        test_num_crops: Its crops per clip: 1 (centre) or 3 (along the longer side).
        test_crop_size: Side of these crops, pixels.
        test_average: What is averaged over the views of a video.
        device: `auto` takes GPUs if there are any.
        precision: Arithmetic of the network on a GPU.
        tf32: Let `fp32` convolutions of GPUs since Ampere round to TF32, as PyTorch does.
        cudnn_benchmark: Let a GPU try which convolution is fastest for each size of input.
        channels_last: Keep channels last in memory, as the small networks always do.
        num_processes: Training processes; 0 for one per GPU, or one on a CPU.
        num_workers: Loader processes per training process and stream; 0 loads in place.
        tensorboard: Also write the log as TensorBoard events, into `tensorboard/` of the run.
    """

    run_dir: str = "outputs/quickstart/semi"
    seed: Natural = 0

    labeled_split: str = "train"
    labeled_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    labeled_seed: Natural = 0
    unlabeled_dataset: str | None = None
    unlabeled_videos_dir: str | None = None
    unlabeled_split: str = "train"
    val_split: str = "val"

    objective: registry.ObjectiveName = "fixmatch"
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
    ema_teacher: bool = False
    joint_forward: bool = True

    model: str = "r2plus1d_34"
    pretrained: bool = False
    weights: str | None = None
    tsm_fraction: Probability = 0.0
    temporal_std_pooling: bool = False
    freeze_fraction: Probability = 0.0
    freeze_batch_norm: bool = False
    head_init: Literal["random", "linear_probe"] = "random"
    probe_l2: Positive = 0.01
    self_training_rounds: Natural = 0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5

    epochs: Count = 360
    lr_restart_epochs: list[Count] = []
    labeled_batch: Count = 40
    unlabeled_batch: Count = 40
    micro_batch: Natural = 0
    lr: Positive = 0.2
    warmup_epochs: NonNegative = 0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: NonNegative = 1e-4
    grad_clip: Positive = 40.0
    val_every_epochs: Count = 5
    checkpoint_every_minutes: NonNegative = 10.0
    test_splits: Annotated[list[str], Field(min_length=1)] = ["val"]
    test_num_clips: Count = 10
    test_num_crops: Literal[1, 3] = 3
    test_crop_size: Count = 256
    test_average: Literal["logits", "probabilities"] = "logits"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    tf32: bool = True
    cudnn_benchmark: bool = False
    channels_last: bool = False
    num_processes: Natural = 0
    num_workers: Natural = 0
    tensorboard: bool = False

    @property
    def is_semi_supervised(self) -> bool:
        """Whether it is trained on unlabelled clips."""
        return registry.objectives()[self.objective].uses_unlabeled

    @property
    def reads_unlabeled(self) -> bool:
        """Whether unlabelled videos are used, be it for a probe alone."""
        is_probe = "linear_probe" in (self.objective, self.head_init)
        return self.is_semi_supervised or (is_probe and self.self_training_rounds > 0)

    @model_validator(mode="after")
    def _check_streams(self) -> Self:
        for is_wrong, message in (
            (
                self.test_crop_size > self.short_side,
                f"test_crop_size {self.test_crop_size} is larger than short_side {self.short_side}",
            ),
            (
                self.distillation_weight and not (self.is_semi_supervised and self.joint_forward),
                f"distillation_weight acts on weak unlabelled clips, but objective is "
                f"{self.objective!r} and joint_forward {self.joint_forward}; set it to 0, or "
                "choose 'fixmatch' or 'uda', and joint_forward true",
            ),
            (
                self.ema_teacher and not self.ema_decay,
                "ema_teacher needs an averaged network; set ema_decay, e.g. 0.99",
            ),
            (
                self.objective == "linear_probe" and self.epochs != 1,
                "epochs: it must be 1 for a probe",
            ),
            (
                (ends := [*self.lr_restart_epochs, self.epochs]) != sorted(set(ends)),
                f"lr_restart_epochs: {self.lr_restart_epochs} must increase and stay below epochs, "
                f"{self.epochs}",
            ),
            (
                self.weights and self.pretrained,
                "weights and pretrained exclude each other; set one of them",
            ),
        ):
            if is_wrong:
                raise ValueError(message)
        return self


class PrepareSettings(DataSettings):
    """Settings of notebook 1.

    Attributes:
        val_fraction: Share of each class put into the list `val` where the data has no split.
        groups_file: Table (CSV) with the columns name and group: clips of one source video, which
            stay on one side of the split; None goes by the names. For `folder`.
        labeled_fractions: Labelled lists to draw from `train`, as shares of each class.
        labeled_counts: Labelled lists to draw from `train`, as videos of each class.
        seed: Seed of the split and of the draws.
        num_processes: Processes that open videos, detect people and so on; 0 for one per core.
        download: Whether files that are missing may be downloaded.
        downloads_dir: Folder of archives and published lists that you have already.
        split_files: Lists to take over, in any of the formats of `read_split_file`.
        storage: Videos as they are, or their frames as JPEG files.
        frames_short_side: Short side of these frames, pixels; 0 for that of the video.
        person_boxes: Person boxes: `keep` what is there, detect with `yolox`, take what moves
            against a still background (`motion`), or `import` the reference's file.
        detector_stride: The detector sees every so many-th frame; boxes between are interpolated.
        detector_weights: A YOLOX network for COCO as an ONNX file; None for YOLOX-Nano.
        detector_min_score: Lowest score of a box that is stored.
        detector_batch: Frames in one call of the network, where its file allows more than one.
        detections_file: The reference's `detections.npy`, for `import`.
        teacher_scores: ImageNet class probabilities for distillation: `keep` what is there,
            `compute` them, or `import` the reference's file.
        teacher_model: `efficientnet_lite0`, an image classifier of torchvision, `timm/<name>`.
        teacher_weights: Its state dict in a file; None for the published ImageNet weights.
        teacher_stride: Every so many-th frame is classified; a clip's frame takes the nearest.
        teacher_batch: Frames in one call of the classifier.
        teacher_file: The reference's file of scores, for `import`.
        device: Where the classifier runs; `auto` takes a GPU if there is one.
    """

    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    groups_file: str | None = None
    labeled_fractions: list[Annotated[float, Field(gt=0, le=1)]] = [0.1]
    labeled_counts: list[Count] = []
    seed: Natural = 0
    num_processes: Natural = 0
    download: bool = False
    downloads_dir: str | None = None
    split_files: list[str] = []
    storage: Literal["videos", "frames"] = "videos"
    frames_short_side: Natural = 256

    person_boxes: Literal["keep", "yolox", "motion", "import"] = "keep"
    detector_stride: Count = 4
    detector_weights: str | None = None
    detector_min_score: Probability = 0.1
    detector_batch: Count = 8
    detections_file: str | None = None

    teacher_scores: Literal["keep", "compute", "import"] = "keep"
    teacher_model: str = "resnet18"
    teacher_weights: str | None = None
    teacher_stride: Count = 4
    teacher_batch: Count = 64
    teacher_file: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @model_validator(mode="after")
    def _check_sources(self) -> Self:
        if (self.person_boxes == "import") != (self.detections_file is not None):
            raise ValueError(
                "person_boxes 'import' and detections_file go together: "
                f"got {self.person_boxes!r} and {self.detections_file!r}"
            )
        if self.detector_weights is not None and self.person_boxes != "yolox":
            raise ValueError(
                f"detector_weights is for person_boxes 'yolox', which is {self.person_boxes!r}"
            )
        if (self.teacher_scores == "import") != (self.teacher_file is not None):
            raise ValueError(
                "teacher_scores 'import' and teacher_file go together: "
                f"got {self.teacher_scores!r} and {self.teacher_file!r}"
            )
        return self


class ExploreSettings(ClipSettings):
    """Settings of notebook 2.

    Attributes:
        split_name: The list whose videos are shown.
        num_videos: How many of them.
        seed: Seed of everything that is drawn.
        train_params: YAML of a run whose training clips are shown; None for one with these clips.
    """

    split_name: str = "train"
    num_videos: Count = 4
    seed: Natural = 0
    train_params: str | None = None


class ReportSettings(Settings):
    """Settings of notebook 5.

    Attributes:
        study_dir: Folder whose run folders are compared.
        title: Title of the page.
        baseline: The group of runs (name without seed) that all others are compared with; empty
            for what the study claims, else the supervised ones with weak views.
        compared_groups: Two groups of runs whose classes are compared; empty for those of the first
            question.
    """

    study_dir: str = "outputs/quickstart"
    title: str = "Quick start"
    baseline: str = ""
    compared_groups: list[str] = []


class EvaluateSettings(Settings):
    """Settings of notebook 4; the test protocol itself is the run's (`test_*`).

    Attributes:
        run_dir: Folder of the run.
        checkpoint: `last`, or `best` on the validation list (optimistic: it chose by it).
        batch_clips: Views in one forward pass: the memory of testing, whatever test_num_clips is.
        invariance_videos: Videos of the last test list that invariance is measured on; drawn
            by a fixed seed.
        second_run_dir: Folder of a second tested run of the same data, to set beside this one.
        num_processes: Processes to share the videos; 0 for one per GPU, or one on a CPU.
    """

    run_dir: str = "outputs/quickstart/semi"
    checkpoint: Literal["last", "best"] = "last"
    batch_clips: Count = 32
    invariance_videos: Count = 60
    second_run_dir: str | None = None
    num_processes: Natural = 0
