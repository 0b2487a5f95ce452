"""Everything that is said of one new video, with its figures in files."""

from dataclasses import dataclass
from pathlib import Path

from lib.evaluate.actor_background import decided_by, part_columns
from lib.evaluate.predict import Classifier, NewVideo, Prediction, predict_video
from lib.plots.prediction import deciding_figure, save_figure, timeline

TO_SEE = (
    "In the clips, actor only is what moves and background only is the rest. Where the background "
    "alone is given the class of the whole clip, the scene may have decided and not the action."
)


@dataclass(frozen=True)
class Answer:
    """What is said of one video.

    Attributes:
        prediction: Of its clips and of the whole.
        parts: Columns on the parts of its deciding clip, from `part_columns`; maybe none.
        timeline: The figure of the classes over time.
        clips: The figure of the deciding clips.
    """

    prediction: Prediction
    parts: dict[str, object]
    timeline: Path
    clips: Path


def answer(
    classifier: Classifier,
    video: NewVideo,
    stem: Path,
    overlap: float = 0.5,
    with_parts: bool = True,
) -> Answer:
    """Predict one video and draw its figures.

    Args:
        classifier: The trained network.
        video: The video.
        stem: Of the figures' paths; `_timeline.png` and `_clips.png` are put behind it.
        overlap: Share of a clip that the next one sees again, in [0, 1).
        with_parts: Whether to ask the network about actor and background as well.

    Raises:
        ValueError: If the video cannot be read.
        OSError: If a figure cannot be written.
    """
    classes = classifier.classes
    prediction = predict_video(classifier, video, overlap)
    decided = decided_by(classifier, prediction, with_parts)
    lines, clips = timeline(prediction, classes), deciding_figure(prediction, decided, classes)
    return Answer(
        prediction,
        part_columns(decided, classes) if with_parts else {},
        save_figure(lines, stem.with_name(f"{stem.name}_timeline.png")),
        save_figure(clips, stem.with_name(f"{stem.name}_clips.png")),
    )
