"""Predict the classes of new videos with a trained run.

python -m lib.predict outputs/folder/semi_seed0 /some/videos new.mp4

Writes `videos.csv` (a row per video), `clips.csv` (a row per clip, over time), a timeline and the
deciding clips of each video, and `reliability.png` (accuracy over confidence).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm.auto import tqdm

from lib.config import project_path
from lib.evaluate.new_videos import (
    NewVideo,
    Prediction,
    clip_table,
    find_new_videos,
    open_videos,
    predict_video,
    remarks,
    video_table,
)
from lib.evaluate.trained_model import NOT_CALIBRATED, TrainedModel, check_finished
from lib.fileio import check_writable, write_text
from lib.plots.prediction import deciding_figure, reliability_figure, save_figure, timeline
from lib.runs.run_dir import RunDir

FEW_VIDEOS = 50  # a temperature fitted on fewer is uncertain
SHOWN = ("video", "class", "confidence", "second", "actor_only", "background_only")
REGIONS_HELP = (
    '"Actor only" shows the moving region, "background only" the rest. If the background alone '
    "gets the class of the whole clip, the prediction may rest on the scene."
)


def report_video(
    model: TrainedModel, video: NewVideo, stem: Path, overlap: float = 0.5, regions: bool = True
) -> tuple[Prediction, Path, Path]:
    """Predict one video and draw `<stem>_timeline.png` and `<stem>_clips.png`.

    Returns:
        The prediction and the paths of the two figures.

    Raises:
        ValueError: If the video cannot be read.
        OSError: If a figure cannot be written.
    """
    prediction = predict_video(model, video, overlap, regions)
    figures = {
        "timeline": timeline(prediction, model.classes),
        "clips": deciding_figure(prediction, model.classes),
    }
    paths = (save_figure(f, stem.with_name(f"{stem.name}_{k}.png")) for k, f in figures.items())
    return prediction, *paths


def predict_all(
    run: RunDir, videos: Sequence[Path], out: Path, overlap: float = 0.5, regions: bool = True
) -> None:
    """Predict videos and write tables and figures to `out`; unreadable videos are left out.

    Raises:
        ValueError: If the run is not finished, or no video can be read.
    """
    check_finished(run)
    check_writable(out, "--out", "choose another folder")
    opened, problems = open_videos(videos)
    if not opened:
        raise ValueError("\n".join(problems))
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    model = TrainedModel.load(run)
    if model.calibration is None:
        print(NOT_CALIBRATED)
    else:
        save_figure(reliability_figure(model.calibration), out / "reliability.png")
        if model.calibration.videos < FEW_VIDEOS:
            print(f"confidence is calibrated on only {model.calibration.videos} videos")
    print("".join(f"{text}\n" for text in remarks(model.settings, opened)), end="")
    predictions = []
    for number, video in enumerate(tqdm(opened, unit="video", disable=None), 1):
        stem = out / f"{number:03d}_{video.record.path.stem}"
        predictions.append(report_video(model, video, stem, overlap, regions)[0])
    table = video_table(predictions, model.classes, regions)
    clips = clip_table(predictions, model.classes)
    write_text(out / "videos.csv", table.to_csv(index=False, float_format="%.4f"))
    write_text(out / "clips.csv", clips.to_csv(index=False, float_format="%.4f"))
    print(table.filter(SHOWN).round(2).to_string(index=False))
    for one in predictions:
        if note := one.deciding[one.label].note:
            print(f"{one.path.name}: {note}")
    if regions:
        print(REGIONS_HELP)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m lib.predict", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("run", help="folder of a finished run")
    parser.add_argument("videos", nargs="+", type=Path, help="files, or folders of videos")
    parser.add_argument("--out", help="folder of the results (predictions/ of the run)")
    parser.add_argument("--overlap", type=float, default=0.5, help="of neighboring clips (0.5)")
    help_text = "predict the moving region and the rest of each deciding clip alone (yes)"
    parser.add_argument(
        "--regions", action=argparse.BooleanOptionalAction, default=True, help=help_text
    )
    options = parser.parse_args(arguments)
    if not 0 <= options.overlap < 1:
        parser.error("--overlap must be in [0, 1)")
    run = RunDir(options.run)
    out = run.folder / "predictions" if options.out is None else project_path(options.out)
    try:
        videos = find_new_videos(options.videos)
        predict_all(run, videos, out, options.overlap, options.regions)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"tables and figures: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
