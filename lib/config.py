"""Settings models, one per notebook, with the defaults of its parameters cell.

The parameters cell of a notebook and the files in `params/` set the fields of these models. An
unknown name, a wrong type or an impossible value is an error that names the field, before any work
starts. The defaults are a small run on a CPU; the values of the paper are in `params/paper`.
"""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from lib.augment.randaugment import OPERATION_GROUPS, RANDAUGMENT_OPS
from lib.augment.scene import SCENE_AUGMENTATIONS
from lib.augment.temporal import TEMPORAL_OPS
from lib.registry import OWN_NAME, PROJECT_ROOT, Table, did_you_mean

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
PathText = Annotated[str, "path"]  # one value on the command line, commas included


def objective_table() -> Table:
    """Return the table of objectives; its module imports the settings."""
    from lib.train.objectives import OBJECTIVES

    return OBJECTIVES


def _in(table: Callable[[], Collection[str]]) -> AfterValidator:
    def check(name: str) -> str:
        names = table()
        if name not in names:
            hint = did_you_mean(name, names) or ";"
            raise ValueError(f"no such name{hint} There are {', '.join(names)}")
        if isinstance(names, Table):
            names.check(name)
        return name

    return AfterValidator(check)


def _check_model(name: str) -> str:
    if OWN_NAME.fullmatch(name):  # others are checked when the network is built
        from lib.models.networks import NETWORKS

        NETWORKS.check(name)
    return name


OperationNames = list[Annotated[str, _in(lambda: [*OPERATION_GROUPS, *RANDAUGMENT_OPS])]]
TemporalNames = Annotated[list[Annotated[str, _in(lambda: TEMPORAL_OPS)]], Field(min_length=1)]
SceneName = Annotated[str, _in(lambda: SCENE_AUGMENTATIONS)]
ObjectiveName = Annotated[str, _in(objective_table)]
ModelName = Annotated[str, AfterValidator(_check_model)]


def project_path(path: str | Path) -> Path:
    """Return `path` as an absolute path; a relative one is relative to the project's root."""
    return (PROJECT_ROOT / Path(path).expanduser()).resolve()


def short_path(path: Path) -> str:
    """Return a path relative to the project's root if it is in there."""
    return str(path.relative_to(PROJECT_ROOT) if path.is_relative_to(PROJECT_ROOT) else path)


class Settings(BaseModel):
    """Base of all settings: frozen, strict types, no unknown names."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )

    def as_yaml(self) -> str:
        """Return the settings as flat YAML in the order of the fields."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False)


class DataSettings(Settings):
    """Prepared data set."""

    dataset: str = "synthetic"
    """Name in the catalog; `folder` for your own videos."""
    videos_dir: PathText | None = None
    """Folder of the original videos; None if the catalog gives it."""
    prepared_dir: PathText = "data"
    """Folder of the prepared data sets."""


class ClipSettings(DataSettings):
    """Clips and their views (Zou et al., section 4.1)."""

    clip_len: Count = 8
    """Frames in a clip."""
    frame_interval: Count = 3
    """Distance of neighboring frames of a clip, in frames of the video."""
    short_side: Count = 36
    """Short side that a frame is scaled to before it is cropped, pixels."""
    crop_size: Count = 32
    """Side of the network's input, pixels."""
    crop_area_min: Fraction = 0.4
    """Smallest area of the random crop, share of the frame."""
    flip: bool = True
    """Flip half of the weak views; false if classes differ by left and right."""
    randaugment_num_ops: Natural = 2
    """Operations drawn for a strong view (n)."""
    randaugment_magnitude: Annotated[float, Field(ge=0, le=30)] = 10.0
    """Magnitude of these operations (m), of 30."""
    randaugment_ops: OperationNames = ["photometric", "geometric"]
    """Groups or single operations to draw from; may be empty."""
    temporal_ops: TemporalNames = ["none", "half", "reverse", "drop"]
    """Temporal operations; without `reverse` if classes differ by the direction of time."""
    scene_augmentation: SceneName = "actor_cutmix"
    """Augmentation of a batch for invariance to the scene (`lib.augment.scene`)."""
    person_min_score: Probability = 0.4
    """Person boxes with a score above this make the person mask."""
    frame_cache_mb: Natural = 400
    """Largest cache of decoded frames, shared by all processes, MB; 0: no cache."""

    @model_validator(mode="after")
    def _check_clips(self) -> Self:
        if self.crop_size > self.short_side:
            raise ValueError(
                f"crop_size {self.crop_size} is larger than short_side {self.short_side}; "
                "a center crop would leave the frame"
            )
        even_only = [name for name in self.temporal_ops if TEMPORAL_OPS[name].needs_even]
        if self.clip_len % 2 and even_only:
            raise ValueError(
                f"clip_len {self.clip_len} is odd, but {', '.join(map(repr, even_only))} needs an "
                "even number of frames; change clip_len, or remove that from temporal_ops"
            )
        return self

    @property
    def scene_needs_person_mask(self) -> bool:
        """True if the scene augmentation needs person boxes."""
        return SCENE_AUGMENTATIONS[self.scene_augmentation].needs_person_mask


class PrepareSettings(DataSettings):
    """Settings of notebook 1: prepare a data set."""

    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of each class that becomes the split `val` if the data has no split of its own."""
    groups_file: PathText | None = None
    """Table (CSV) with the columns name and group: clips of one source video, which stay on one
    side of the split; None: groups follow from the names. For `folder`."""
    labeled_counts: list[Count] = []
    """Labeled splits to draw from `train`, as videos of each class. A share is drawn by the run
    itself (`labeled_fraction`)."""
    seed: Natural = 0
    """Seed of the split and of these draws."""
    num_processes: Natural = 0
    """Processes that prepare; 0: one per core."""
    download: bool = False
    """Allow to download missing files, verified by their checksums."""
    downloads_dir: PathText | None = None
    """Folder of archives and published lists that you already have."""
    split_files: list[str] = []
    """Split files to import, in any format of `read_split_file`."""
    storage: Literal["videos", "frames"] = "videos"
    """Train from the video files, or from JPEG frames extracted from them."""
    reader: Literal["auto", "av", "decord"] = "auto"
    """Library that reads the videos: `av` (PyAV); `decord` for those for which it is proved to give
    the same frames; or `auto`: the faster one, measured on a few videos."""
    frames_short_side: Natural = 256
    """Short side of extracted frames, pixels; 0: that of the video."""
    person_boxes: Literal["keep", "yolox", "motion", "import"] = "keep"
    """Person boxes: `keep` those that exist, detect people (`yolox`), take what moves in front of a
    still camera (`motion`), or `import` a table."""
    detector_stride: Count = 4
    """Run the detector on every n-th frame; boxes in between are interpolated."""
    detector_weights: PathText | None = None
    """YOLOX network for COCO as an ONNX file; None: YOLOX-Nano."""
    boxes_file: PathText | None = None
    """Table (CSV) of boxes for `import`: columns name, frame (from 0), x1, y1, x2, y2, score."""
    teacher_scores: Literal["keep", "compute"] = "keep"
    """ImageNet probabilities for distillation: `keep` those that exist, or `compute` them."""
    teacher_model: str = "resnet18"
    """`efficientnet_lite0`, an image classifier of torchvision, or `timm/<name>`."""
    teacher_weights: PathText | None = None
    """State dict of the classifier; None: the published ImageNet weights."""
    teacher_stride: Count = 4
    """Classify every n-th frame; a frame of a clip takes the nearest."""
    soft_targets: str | None = None
    """Network that computes class probabilities from class names: `hf/<repository or folder>` of a
    CLIP, SigLIP or X-CLIP."""
    prompts_file: PathText | None = None
    """Table (CSV) with the columns class and prompt, sentences for each; None: the class names."""

    @model_validator(mode="after")
    def _check_sources(self) -> Self:
        if (self.person_boxes == "import") != (self.boxes_file is not None):
            raise ValueError(
                "person_boxes 'import' and boxes_file go together: got "
                f"{self.person_boxes!r} and {self.boxes_file!r}"
            )
        if self.detector_weights is not None and self.person_boxes != "yolox":
            raise ValueError(
                f"detector_weights is for person_boxes 'yolox', which is {self.person_boxes!r}"
            )
        return self


class ExploreSettings(ClipSettings):
    """Settings of notebook 2: look at the augmentations."""

    short_side: Count = 64
    """Short side that a frame is scaled to before it is cropped, pixels."""
    crop_size: Count = 64
    """Side of the network's input, pixels."""
    frame_cache_mb: Natural = 100
    """Decoded videos that are kept, MB."""
    split_name: str = "train"
    """Split whose videos are shown."""
    num_videos: Count = 4
    """Videos that are shown."""
    seed: Natural = 0
    """Seed of everything that is drawn."""


class TrainSettings(ClipSettings):
    """Settings of notebook 3: one run."""

    run_dir: PathText = "outputs/quickstart/semi"
    """Folder of the run."""
    seed: Natural = 0
    """Seed of the initial weights and of everything that is drawn in training."""

    labeled_split: str = "train"
    """Split that the labeled videos are drawn from."""
    labeled_fraction: Fraction = 0.0267
    """Share of each class of that split that is labeled."""
    labeled_seed: Natural = 0
    """Seed of that draw."""
    unlabeled_dataset: str | None = None
    """Data set of the unlabeled clips; None: the labeled one."""
    unlabeled_videos_dir: PathText | None = None
    """Folder of its original videos."""
    unlabeled_split: str = "train"
    """Split of the unlabeled videos."""
    val_split: str = "val"
    """Split for validation."""

    objective: ObjectiveName = "fixmatch"
    """`linear_probe`, `supervised`, or a semi-supervised objective (`lib.train.objectives`).
    As `model`, `temporal_ops` and `scene_augmentation` it may be of your own: `my_idea.py:Name`, a
    file in the project's root or next to the notebooks (docs/change_one_idea.md)."""
    labeled_view: Literal["weak", "strong"] = "weak"
    """View of the labeled clips that is learned from."""
    labeled_scene_p: Probability = 0.0
    """Probability of the scene augmentation on a labeled batch."""
    unlabeled_scene_p: Probability = 0.9
    """Probability of the scene augmentation on an unlabeled batch."""
    confidence_threshold: Fraction = 0.8
    """Pseudo-labels with a lower probability do not count."""
    temperature: Positive = 0.4
    """Sharpening of UDA's soft pseudo-labels."""
    threshold_momentum: Decay = 0.999
    """Momentum of the moving averages of FreeMatch."""
    unlabeled_weight: NonNegative = 1.0
    """Weight of the unlabeled loss."""
    unlabeled_rampup_epochs: NonNegative = 4.0
    """Epochs in which that weight grows linearly from 0."""
    distillation_weight: NonNegative = 0.0
    """Weight of the ImageNet distillation loss; 0: no distillation."""
    soft_targets: PathText | None = None
    """Table of class probabilities by another model (`lib.data.frame_tables`)."""
    soft_target_weight: Probability = 0.5
    """Weight of these probabilities in the pseudo-labels."""
    ema_decay: Decay = 0.0
    """Decay of the exponential moving average of the network, which is then tested; 0: no EMA."""
    ema_teacher: bool = False
    """Take the pseudo-labels from the EMA."""
    joint_forward: bool = True
    """Forward weak, labeled and strong clips together. If False, weak clips get their own pass
    without gradients: faster, but another method, because batch norm then sees them separately."""

    model: ModelName = "r3d_small"
    """Network, by name (`lib.models`)."""
    pretrained: bool = False
    """Start from the network's published weights (Kinetics, ImageNet, or those of the hub)."""
    weights: PathText | None = None
    """Start from this file: weights of an image network, of the reference, or of MMAction2."""
    temporal_std_pooling: bool = False
    """Pool features of an image network to mean and standard deviation over the frames."""
    freeze_fraction: Probability = 0.0
    """Share of the backbone's layers, the first ones, that are frozen."""
    freeze_batch_norm: bool = False
    """Keep the running statistics of all batch norms."""
    head_init: Literal["random", "linear_probe"] = "random"
    """Initial weights of the head: `random`, or of a logistic regression (`linear_probe`)."""
    init_noise: NonNegative = 0.0
    """Relative deviation of noise on the initial weights; 1e-6 acts like another processor."""
    probe_l2: Positive = 0.01
    """L2 regularization of that logistic regression."""
    self_training_rounds: Natural = 0
    """Rounds of self-training, each with more pseudo-labels of the unlabeled split; 0: none."""
    dropout: Decay = 0.2
    """Dropout before the last layer."""
    drop_path: Decay = 0.0
    """Probability that a sample skips the last transformer block in training; it grows linearly
    over the blocks, from 0. Torchvision's MViT and Swin also have their own, of 0.2 and 0.1."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass (hub, timm): less memory, a third slower."""

    epochs: Count = 12
    """Passes over the unlabeled split (supervised: over the labeled videos)."""
    lr_restart_epochs: list[Count] = []
    """Epochs at which the cosine schedule restarts. To extend a finished run, add its old
    `epochs`."""
    labeled_batch: Count = 8
    """Labeled clips in a step, over all processes."""
    unlabeled_batch: Count = 16
    """Unlabeled clips in a step, over all processes."""
    micro_batch: Natural = 0
    """Largest number of clips of a stream in one pass; gradients are accumulated; 0: no bound."""
    lr: Positive = 0.07
    """Peak learning rate at this global batch."""
    warmup_epochs: NonNegative = 1.0
    """Epochs of linear warm-up."""
    layer_decay: Fraction = 1.0
    """Factor between the learning rates of neighboring transformer blocks: the head has `lr`, block
    n of N has lr · layer_decay^(N + 1 − n)."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Optimizer; `adamw` for transformers, with an `lr` of about 0.001."""
    momentum: Decay = 0.9
    """Momentum of SGD, the first beta of AdamW."""
    weight_decay: NonNegative = 0.0005
    """Weight decay; AdamW leaves out norms and biases."""
    grad_clip: Positive = 40.0
    """Largest L2 norm of the gradient."""
    val_every_epochs: Count = 4
    """Epochs between validations, each of which saves a checkpoint."""
    checkpoint_every_minutes: NonNegative = 10.0
    """Minutes between further checkpoints within an epoch; 0: none."""

    test_splits: Annotated[list[str], Field(min_length=1)] = ["val", "val_swapped"]
    """Splits that notebook 4 tests on."""
    test_num_clips: Count = 3
    """Clips of a video in the test, evenly spaced."""
    test_num_crops: Literal[1, 3] = 1
    """Crops of a clip in the test: 1 (center) or 3 (along the longer side)."""
    test_crop_size: Count = 32
    """Side of these crops, pixels."""
    test_average: Literal["logits", "probabilities"] = "logits"
    """Scores that are averaged over the views of a video."""
    test_checkpoint: Literal["last", "best"] = "last"
    """Checkpoint that is tested, and that predicts: the last one, or that of the best validation,
    which is optimistic on the validation split. A run that starts from a linear probe is best at
    its start, unless a later validation is better by more than two standard errors."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device; `auto` takes GPUs if there are any."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the network on a GPU."""
    tf32: bool = True
    """Allow TF32 in `fp32` convolutions (GPUs since Ampere), as PyTorch does by default."""
    cudnn_benchmark: bool = False
    """Let cuDNN time its algorithms for each input size and take the fastest."""
    channels_last: bool = False
    """Keep channels last in memory, as the small networks always do."""
    num_processes: Natural = 0
    """Training processes; 0: one per GPU, or one on a CPU."""
    num_workers: Natural = 0
    """Loader processes per training process and stream; 0: load in the training process."""
    tracker: Literal["none", "tensorboard", "trackio", "wandb", "mlflow"] = "none"
    """Program that the log is sent to as well (docs/machines.md)."""

    @property
    def is_semi_supervised(self) -> bool:
        """True if unlabeled clips are trained on."""
        return objective_table()[self.objective].uses_unlabeled

    @property
    def labeled_source(self) -> tuple[str, str | None, str]:
        """Name, `videos_dir` and `prepared_dir` of the data set of the labeled videos."""
        return self.dataset, self.videos_dir, self.prepared_dir

    @property
    def unlabeled_source(self) -> tuple[str, str | None, str]:
        """The same of the unlabeled videos, if there are any."""
        if self.unlabeled_dataset is None or not self.reads_unlabeled:
            return self.labeled_source
        return self.unlabeled_dataset, self.unlabeled_videos_dir, self.prepared_dir

    @property
    def batches(self) -> dict[str, int]:
        """Clips in a step by setting: the labeled ones, and the unlabeled ones if there are any."""
        names = ("labeled_batch", "unlabeled_batch")[: 1 + self.is_semi_supervised]
        return {name: getattr(self, name) for name in names}

    @property
    def reads_unlabeled(self) -> bool:
        """True if unlabeled videos are read (also for a self-trained probe)."""
        is_probe = "linear_probe" in (self.objective, self.head_init)
        return self.is_semi_supervised or (is_probe and self.self_training_rounds > 0)

    @model_validator(mode="after")
    def _check_objective(self) -> Self:
        if self.distillation_weight and not (self.is_semi_supervised and self.joint_forward):
            raise ValueError(
                f"distillation_weight acts on weak unlabeled clips, but objective is "
                f"{self.objective!r} and joint_forward {self.joint_forward}; set it to 0, or "
                "choose 'fixmatch' or 'uda', and joint_forward true"
            )
        if self.ema_teacher and not self.ema_decay:
            raise ValueError("ema_teacher needs an EMA; set ema_decay, e.g. 0.99")
        if self.objective == "linear_probe" and self.epochs != 1:
            raise ValueError("epochs: it must be 1 for a linear probe")
        return self

    @model_validator(mode="after")
    def _check_schedule_and_network(self) -> Self:
        if self.test_crop_size > self.short_side:
            raise ValueError(
                f"test_crop_size {self.test_crop_size} is larger than short_side {self.short_side}"
            )
        ends = [*self.lr_restart_epochs, self.epochs]
        if ends != sorted(set(ends)):
            raise ValueError(
                f"lr_restart_epochs: {self.lr_restart_epochs} must increase and stay below epochs, "
                f"{self.epochs}"
            )
        if self.weights and self.pretrained:
            raise ValueError("weights and pretrained exclude each other; set one of them")
        return self


class EvaluateSettings(Settings):
    """Settings of notebook 4; the test protocol itself belongs to the run (`test_*`)."""

    run_dir: PathText = "outputs/quickstart/semi"
    """Folder of the run."""
    batch_clips: Count = 32
    """Views in one forward pass: bounds the memory of testing."""
    invariance_videos: Count = 60
    """Videos of the last test split that invariance is measured on; drawn with a fixed seed."""
    num_processes: Natural = 0
    """Processes that share the videos; 0: one per GPU, or one on a CPU."""


class ReportSettings(Settings):
    """Settings of notebook 5."""

    study_dir: PathText = "outputs/quickstart"
    """Folder whose run folders are compared."""
    title: str = "Quick start"
    """Title of the page."""
    baseline: str = ""
    """Group of runs (name without seed) that all others are compared with; empty: the claims of the
    study, or else the supervised groups with weak views."""


class PredictSettings(Settings):
    """Settings of notebook 6: predict new videos, and label the unlabeled ones."""

    run_dir: PathText = "outputs/quickstart/semi"
    """Folder of a finished run."""
    videos: list[PathText] = []
    """New videos, files or folders; empty: the first validation videos of the run."""
    overlap: Decay = 0.5
    """Share that neighboring clips of a video have in common."""
    max_figures: Natural = 3
    """Videos whose figures are shown."""
    pseudo_labels: bool = True
    """Score the unlabeled videos of the run, unless that has been done."""
    label_next: Natural = 20
    """Unlabeled videos that are chosen to be labeled."""
    choose_by: Literal["k-center", "k-center x uncertainty", "random"] = "k-center"
    """Way to choose them (`lib.evaluate.choose_videos`)."""
