"""Typed settings, one model per notebook.

The parameters cell of a notebook and the files in `params/` name the fields of these models. A name
that no field has, a wrong type or an impossible value is an error that names the field, before any
work starts.
"""

import ast
import difflib
import json
import textwrap
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

PROJECT_ROOT = Path(__file__).resolve().parent.parent

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]

OPERATION_GROUPS = ("photometric", "geometric")
TemporalOp = Literal["none", "half", "reverse", "drop"]


def project_path(path: str | Path) -> Path:
    """Return `path` as an absolute path; a relative one is relative to the project's root."""
    return (PROJECT_ROOT / Path(path).expanduser()).resolve()


class Settings(BaseModel):
    """What all settings share: frozen, strict types, no unknown names."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def summary(self) -> str:
        """Return the settings as a few wrapped lines `name=value`, for a notebook."""
        pairs = [f"{name}={value!r}".replace(" ", "") for name, value in self.model_dump().items()]
        return textwrap.fill("  ".join(pairs), 110, break_long_words=False, break_on_hyphens=False)

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


class PrepareSettings(DataSettings):
    """Settings of notebook 1.

    Attributes:
        val_fraction: Share of each class put into the list `val` where the data has no split.
        labeled_fractions: Labelled lists to draw from `train`, as shares of each class.
        labeled_counts: Labelled lists to draw from `train`, as videos of each class.
        seed: Seed of the split and of the draws.
        num_processes: Processes that open videos, detect people and so on; 0 for one per core.
        download: Whether files that are missing may be downloaded.
        sources_dir: Folder of archives and published lists that you have already.
        list_files: Lists to take over, in any of the formats of `read_list_file`.
        storage: Videos as they are, or their frames as JPEG files.
        frames_short_side: Short side of these frames, pixels; 0 for that of the video.
        actor_boxes: Person boxes: `keep` what is there, detect with `yolox`, take what moves
            against a still background (`motion`), or `import` the reference's file.
        actor_stride: The detector sees every so many-th frame; boxes between are interpolated.
        detector_weights: A YOLOX network for COCO as an ONNX file; None for YOLOX-Nano.
        detector_min_score: Lowest score of a box that is stored.
        detector_batch: Frames in one call of the network, where its file allows more than one.
        detections_file: The reference's `detections.npy`, for `import`.
        teacher_scores: ImageNet class probabilities for distillation: `keep` what is there,
            `compute` them, or `import` the reference's file.
        teacher_model: An image classifier of torchvision.
        teacher_weights: Its state dict in a file; None for the published ImageNet weights.
        teacher_stride: Every so many-th frame is classified; a clip's frame takes the nearest.
        teacher_batch: Frames in one call of the classifier.
        teacher_file: The reference's file of scores, for `import`.
        device: Where the classifier runs; `auto` takes a GPU if there is one.
    """

    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    labeled_fractions: list[Annotated[float, Field(gt=0, le=1)]] = [0.1]
    labeled_counts: list[Count] = []
    seed: Natural = 0
    num_processes: Natural = 0
    download: bool = False
    sources_dir: str | None = None
    list_files: list[str] = []
    storage: Literal["videos", "frames"] = "videos"
    frames_short_side: Natural = 256

    actor_boxes: Literal["keep", "yolox", "motion", "import"] = "keep"
    actor_stride: Count = 4
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
        if (self.actor_boxes == "import") != (self.detections_file is not None):
            raise ValueError(
                "actor_boxes 'import' and detections_file go together: "
                f"got {self.actor_boxes!r} and {self.detections_file!r}"
            )
        if self.detector_weights is not None and self.actor_boxes != "yolox":
            raise ValueError(
                f"detector_weights is for actor_boxes 'yolox', which is {self.actor_boxes!r}"
            )
        if (self.teacher_scores == "import") != (self.teacher_file is not None):
            raise ValueError(
                "teacher_scores 'import' and teacher_file go together: "
                f"got {self.teacher_scores!r} and {self.teacher_file!r}"
            )
        return self


class ClipSettings(DataSettings):
    """How a clip and its views are made (PAPER.md, recipe).

    Attributes:
        clip_len: Frames in a clip.
        frame_interval: Distance of neighbouring frames, in frames.
        short_side: Short side that a frame is scaled to before it is cropped, pixels.
        crop_size: Side of the network's input, pixels.
        crop_area_min: Smallest area of the random crop, share of the frame.
        randaugment_num_ops: Operations drawn for a strong view (n).
        randaugment_magnitude: Their magnitude m, of 30.
        randaugment_ops: What they are drawn from: `photometric`, `geometric`, or single
            operations by name; empty for none.
        temporal_ops: What the temporal operation is drawn from: none, half, reverse, drop.
        scene_augmentation: What is done to a batch for invariance to the scene.
        actor_min_score: Person boxes must score above this.
        cache_mb: Memory for decoded videos in each process that reads them, megabytes.
    """

    clip_len: Count = 8
    frame_interval: Count = 8
    short_side: Count = 256
    crop_size: Count = 224
    crop_area_min: Annotated[float, Field(gt=0, le=1)] = 0.08
    randaugment_num_ops: Natural = 2
    randaugment_magnitude: Annotated[float, Field(ge=0, le=30)] = 10
    randaugment_ops: list[str] = list(OPERATION_GROUPS)
    temporal_ops: Annotated[list[TemporalOp], Field(min_length=1)] = list(get_args(TemporalOp))
    scene_augmentation: Literal["actor_cutmix", "scene_cutout", "cutmix", "mixup"] = "actor_cutmix"
    actor_min_score: Probability = 0.4
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
        if self.clip_len % 2 and "half" in self.temporal_ops:
            raise ValueError(
                f"clip_len {self.clip_len} is odd and cannot be halved; make it even, or leave "
                "'half' out of temporal_ops"
            )
        return self


class LookSettings(ClipSettings):
    """Settings of notebook 2.

    Attributes:
        list_name: The list whose videos are shown.
        num_videos: How many of them.
        seed: Seed of everything that is drawn.
        train_params: YAML of a run whose training clips are shown; None for one with these clips.
    """

    list_name: str = "train"
    num_videos: Count = 4
    seed: Natural = 0
    train_params: str | None = None


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
        objective: `supervised`, or how unlabelled clips are used.
        labeled_view: View of the labelled clips that is learned from.
        labeled_scene_p: Probability of the scene augmentation on a labelled batch.
        unlabeled_scene_p: The same for an unlabelled batch.
        confidence_threshold: Pseudo-labels below it do not count.
        temperature: Sharpening of UDA's soft pseudo-labels.
        unlabeled_weight: Weight of the unlabelled loss.
        unlabeled_rampup_epochs: Epochs in which that weight grows linearly from 0.
        distillation_weight: Weight of the ImageNet distillation loss; 0 for none.
        model: Network, by name.
        pretrained: Start from the network's published Kinetics weights.
        weights: Start from this checkpoint of the reference or of MMAction2.
        dropout: Dropout before the last layer.
        epochs: Passes over the unlabelled list (supervised: over the labelled list).
        labeled_batch: Labelled clips in a step, over all processes.
        unlabeled_batch: Unlabelled clips in a step, over all processes.
        micro_batch: Most clips of a stream in one forward pass of one process; the rest is
            accumulated. 0 for no bound.
        lr: Peak learning rate at this global batch.
        warmup_epochs: Epochs of linear warm-up.
        momentum: SGD momentum.
        weight_decay: SGD weight decay.
        grad_clip: Largest L2 norm of the gradient.
        val_interval: Epochs between validations (and checkpoints).
        test_lists: Lists that notebook 4 evaluates on.
        test_num_clips: Its clips per video, evenly spaced.
        test_num_crops: Its crops per clip: 1 (centre) or 3 (along the longer side).
        test_crop_size: Side of these crops, pixels.
        test_fusion: What is averaged over the views of a video.
        device: `auto` takes GPUs if there are any.
        precision: Arithmetic of the network on a GPU.
        num_processes: Training processes; 0 for one per GPU, or one on a CPU.
        num_workers: Loader processes per training process and stream; 0 loads in place.
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

    objective: Literal["supervised", "fixmatch", "uda"] = "fixmatch"
    labeled_view: Literal["weak", "strong"] = "weak"
    labeled_scene_p: Probability = 0.0
    unlabeled_scene_p: Probability = 0.5
    confidence_threshold: Annotated[float, Field(gt=0, le=1)] = 0.95
    temperature: Positive = 0.4
    unlabeled_weight: NonNegative = 1.0
    unlabeled_rampup_epochs: NonNegative = 0.0
    distillation_weight: NonNegative = 0.0

    model: str = "r2plus1d_34"
    pretrained: bool = False
    weights: str | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5

    epochs: Count = 360
    labeled_batch: Count = 40
    unlabeled_batch: Count = 40
    micro_batch: Natural = 0
    lr: Positive = 0.2
    warmup_epochs: NonNegative = 0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: NonNegative = 1e-4
    grad_clip: Positive = 40.0

    val_interval: Count = 5
    test_lists: Annotated[list[str], Field(min_length=1)] = ["val"]
    test_num_clips: Count = 10
    test_num_crops: Literal[1, 3] = 3
    test_crop_size: Count = 256
    test_fusion: Literal["scores", "probabilities"] = "scores"

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    num_processes: Natural = 0
    num_workers: Natural = 0
    tensorboard: bool = False

    @property
    def is_semi_supervised(self) -> bool:
        """Whether unlabelled clips are used."""
        return self.objective != "supervised"

    @model_validator(mode="after")
    def _check_streams(self) -> Self:
        if self.test_crop_size > self.short_side:
            raise ValueError(
                f"test_crop_size {self.test_crop_size} is larger than short_side {self.short_side}"
            )
        if not self.is_semi_supervised and self.distillation_weight:
            raise ValueError(
                "distillation_weight acts on unlabelled clips, but objective is 'supervised'; "
                "set it to 0 or choose 'fixmatch' or 'uda'"
            )
        if self.weights and self.pretrained:
            raise ValueError("weights and pretrained exclude each other; set one of them")
        return self


class EvaluateSettings(Settings):
    """Settings of notebook 4; the test protocol itself is the run's (`test_*`).

    Attributes:
        run_dir: Folder of the run.
        checkpoint: `last`, or `best` on the validation list (optimistic: it chose by it).
        batch_videos: Videos in one forward pass.
        invariance_videos: Videos of the last test list that invariance is measured on; drawn
            by a fixed seed.
        compare_with: Folder of a second tested run of the same data, to set beside this one.
        num_processes: Processes to share the videos; 0 for one per GPU, or one on a CPU.
    """

    run_dir: str = "outputs/quickstart/semi"
    checkpoint: Literal["last", "best"] = "last"
    batch_videos: Count = 8
    invariance_videos: Count = 60
    compare_with: str | None = None
    num_processes: Natural = 0


class ReportSettings(Settings):
    """Settings of notebook 5.

    Attributes:
        study_dir: Folder whose run folders are compared.
        title: Title of the page.
        compare: Two groups of runs (names without seed) whose classes are compared; empty for the
            baseline and the best.
    """

    study_dir: str = "outputs/quickstart"
    title: str = "Quick start"
    compare: list[str] = []


AnySettings = TypeVar("AnySettings", bound=Settings)


def make_settings(model: type[AnySettings], values: Mapping[str, Any], source: str) -> AnySettings:
    """Check values and return them as settings.

    Args:
        model: The settings to make.
        values: One value per field name; fields that are not given keep their default.
        source: Where the values are from, for the message (a file or a notebook).

    Raises:
        ValueError: Naming `source`, every wrong field, what is wrong, and the near miss of a name.
    """
    try:
        return model(**values)
    except ValidationError as error:
        lines = [_explain(problem, model) for problem in error.errors()]
        raise ValueError("\n  ".join([f"{source}: settings that cannot be used", *lines])) from None


def _explain(problem: Any, model: type[Settings]) -> str:
    name = str(problem["loc"][0]) if problem["loc"] else ""
    if problem["type"] == "extra_forbidden":
        return _unknown(name, model.model_fields)
    message = problem["msg"].removeprefix("Value error, ")
    if not name:
        return message
    hint = ""
    if problem["type"] in ("float_type", "int_type") and isinstance(problem["input"], str):
        is_power = "e" in problem["input"].lower()
        hint = "YAML reads 1e-4 as text: write 1.0e-4" if is_power else "write it without quotes"
        hint = f" ({hint})"
    return f"{name}: {message}, got {problem['input']!r}{hint}"


def _unknown(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"{name}: no such parameter" + (f"; did you mean {close[0]!r}?" if close else "")


def read_parameters(model: type[AnySettings], namespace: Mapping[str, Any]) -> AnySettings:
    """Return a notebook's parameters as settings; call it with `globals()`.

    The values are those of the parameters cell, overridden by the cell that papermill injects.
    Papermill only logs a warning for a name that the notebook does not declare; here it is an
    error.

    Args:
        model: The notebook's settings.
        namespace: The notebook's `globals()`.

    Raises:
        ValueError: If a parameter is missing, unknown or has a value that cannot be used.
    """
    injected = set()
    for cell in namespace.get("In", []):
        if cell.startswith("# Parameters\n"):  # papermill's mark
            injected |= {
                target.id
                for statement in ast.parse(cell).body
                if isinstance(statement, ast.Assign)
                for target in statement.targets
                if isinstance(target, ast.Name)
            }
    known = list(model.model_fields)
    wrong = [_unknown(name, known) for name in sorted(injected - set(known))]
    wrong += [
        f"{name}: not set; the parameters cell declares it"
        for name in known
        if name not in namespace
    ]
    if wrong:
        raise ValueError("\n  ".join(["parameters of this notebook that cannot be used", *wrong]))
    return make_settings(model, {name: namespace[name] for name in known}, "this notebook")


def notebook_defaults(notebook: Path) -> dict[str, Any]:
    """Return the literal defaults of a notebook's parameters cell.

    Raises:
        ValueError: If no cell has the tag `parameters`.
    """
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            return {
                statement.target.id: ast.literal_eval(statement.value)
                for statement in ast.parse("".join(cell["source"])).body
                if isinstance(statement, ast.AnnAssign)
            }
    raise ValueError(f"{notebook}: no cell tagged 'parameters'")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a flat YAML file of parameters.

    Raises:
        ValueError: If it is not valid YAML, not flat, or has a key twice; names file and line.
    """
    try:
        with open(path, encoding="utf-8") as file:
            values = yaml.load(file, _UniqueKeyLoader)  # a SafeLoader
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        hint = "; use spaces, not tabs" if r"'\t'" in str(error) else ""
        raise ValueError(f"{path}: not valid YAML: {error}{hint}") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or any(isinstance(v, dict) for v in values.values()):
        raise ValueError(f"{path}: must be flat lines `name: value`")
    return values


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key) for key, _ in node.value]
        for position, key in enumerate(keys):
            if key in keys[:position]:
                line = node.value[position][0].start_mark.line + 1
                raise yaml.YAMLError(f"line {line}: {key!r} is set a second time")
        return super().construct_mapping(node, deep)
