"""Say what is in new videos, with a trained run.

python -m lib.predict outputs/folder/semi_seed0 /some/videos new.mp4

Writes `videos.csv` (a row a video), `clips.csv` (a row a clip, over time), a timeline and the
deciding clips of each video, and `reliability.png` (what confidence means).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from tqdm.auto import tqdm

from lib.config import project_path
from lib.files import check_writable, write_text
from lib.predict.calibration import calibrate
from lib.predict.figures import deciding_figure, reliability_figure, timeline
from lib.predict.predict import (
    Classifier,
    Prediction,
    clip_table,
    find_new_videos,
    load_classifier,
    predict_video,
    video_table,
)
from lib.run.folder import Run

FEW_VIDEOS = 50  # that a temperature should rest on


def predict_all(run: Run, videos: Sequence[Path], out: Path, overlap: float = 0.5) -> list[str]:
    """Predict videos and write tables and figures.

    Returns:
        What could not be read, in words.

    Raises:
        ValueError: If the run is not finished, or no video can be read.
    """
    calibration = calibrate(run)
    if calibration is None:
        print("confidence is not calibrated: test the run first (notebooks/4_evaluate.ipynb)")
    elif calibration.videos < FEW_VIDEOS:
        print(f"confidence is calibrated on {calibration.videos} videos only: take it as rough")
    classifier = load_classifier(run, calibration.temperature if calibration else 1.0)
    check_writable(out, "--out", "choose another folder")
    if calibration is not None:
        _save(reliability_figure(calibration), out / "reliability.png")
    predictions, problems = [], []
    for number, path in enumerate(tqdm(videos, unit="video", disable=None), 1):
        try:
            predictions.append(predict_video(classifier, path, overlap))
        except ValueError as error:
            problems.append(str(error))
            continue
        _draw(classifier, predictions[-1], out / f"{number:03d}_{path.stem}")
    if not predictions:
        raise ValueError("\n".join(problems))
    for name, table in (("videos", video_table), ("clips", clip_table)):
        text = table(predictions, classifier.classes).to_csv(index=False, float_format="%.4f")
        write_text(out / f"{name}.csv", text)
    shown = video_table(predictions, classifier.classes)
    print(shown[["video", "class", "confidence", "second"]].round(2).to_string(index=False))
    return problems


def _draw(classifier: Classifier, prediction: Prediction, stem: Path) -> None:
    _save(timeline(prediction, classifier.classes), stem.with_name(f"{stem.name}_timeline.png"))
    _save(deciding_figure(classifier, prediction), stem.with_name(f"{stem.name}_clips.png"))


def _save(figure: plt.Figure, path: Path) -> None:
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m lib.predict", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("run", help="folder of a finished run")
    parser.add_argument("videos", nargs="+", type=Path, help="files, or folders of videos")
    parser.add_argument("--out", help="folder of the results (predictions/ of the run)")
    parser.add_argument("--overlap", type=float, default=0.5, help="of neighbouring clips (0.5)")
    options = parser.parse_args(arguments)
    if not 0 <= options.overlap < 1:
        parser.error("--overlap must be in [0, 1)")
    run = Run(options.run)
    out = run.folder / "predictions" if options.out is None else project_path(options.out)
    try:
        problems = predict_all(run, find_new_videos(options.videos), out, options.overlap)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("".join(f"left out: {problem}\n" for problem in problems), end="", file=sys.stderr)
    print(f"tables and figures: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
