"""The settings of notebook 1."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lib.config import Count, DataSettings, Natural, Probability


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
        sources_dir: Folder of archives and published lists that you have already.
        list_files: Lists to take over, in any of the formats of `read_list_file`.
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
    sources_dir: str | None = None
    list_files: list[str] = []
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
