"""Predict the classes of new videos with a trained run, or with the recommended run of a study.

python -m lib.predict outputs/videos /some/videos new.mp4

Writes `videos.csv` (a row per video), `clips.csv` (a row per clip, over time), `segments.csv` (a
row per stretch of one class), a timeline and the deciding clips of each video, and
`reliability.png` (accuracy over confidence). The tables are also written when the command is
interrupted.
`segments.csv`, corrected and put next to the videos, makes training data of them.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
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
    segment_table,
    video_table,
)
from lib.evaluate.run_results import recommended_run
from lib.evaluate.trained_model import NOT_CALIBRATED, TrainedModel, check_finished
from lib.fileio import check_writable, write_text
from lib.plots.evaluation import deciding_figure, reliability_figure, save_figure, timeline
from lib.prepare.find_videos import SEGMENTS_FILE
from lib.runs.run_dir import RunDir

FEW_VIDEOS = 50  # a temperature fitted on fewer is uncertain
MAX_NAME = 200  # bytes of a video's name in a figure's; a file name has at most 255
SHOWN = ("video", "class", "confidence", "second", "actor_only", "background_only")
REGIONS_HELP = (
    '"Actor only" shows the moving region, "background only" the rest. If the background alone '
    "gets the class of the whole clip, the prediction may rest on the scene."
)


def report_video(model: TrainedModel, video: NewVideo, stem: Path, overlap: float) -> Prediction:
    """Predict a video and draw `<stem>_timeline.png` and `<stem>_clips.png`.

    A name that is too long is cut to `MAX_NAME` bytes.
    """
    prediction = predict_video(model, video, overlap)
    name = stem.name.encode(errors="ignore")[:MAX_NAME].decode(errors="ignore")
    for kind, draw in {"timeline": timeline, "clips": deciding_figure}.items():
        save_figure(draw(prediction, model.classes), stem.with_name(f"{name}_{kind}.png"))
    return prediction


def predict_all(run: RunDir, videos: Sequence[Path], out: Path, overlap: float) -> None:
    """Predict videos and write tables and figures to `out`; unreadable videos are left out.

    ValueError if the run is not finished, or no video can be read.
    """
    check_finished(run)
    check_writable(out, "--out", "choose another folder")
    opened, problems = open_videos(videos)
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    model = TrainedModel.load(run)
    if model.calibration is None:
        print(NOT_CALIBRATED)
    else:
        save_figure(reliability_figure(model.calibration), out / "reliability.png")
        if model.calibration.videos < FEW_VIDEOS:
            print(f"confidence is calibrated on only {model.calibration.videos} videos")
    print("".join(f"{text}\n" for text in remarks(model.protocol.span, opened)), end="")
    predictions: list[Prediction] = []
    try:
        for number, video in enumerate(tqdm(opened, unit="video", disable=None), 1):
            stem = out / f"{number:03d}_{video.record.path.stem}"
            try:
                predictions.append(report_video(model, video, stem, overlap))
            except (ValueError, OSError) as error:
                print(f"left out: {error}", file=sys.stderr)
    finally:  # also when interrupted
        if predictions:
            _print_table(write_tables(predictions, model.classes, out), predictions)
            print(f"{REGIONS_HELP}\ntables and figures: {out}")
    if not predictions:
        raise ValueError(f"none of {len(videos)} videos can be read")


def write_tables(
    predictions: list[Prediction], classes: tuple[str, ...], out: Path
) -> pd.DataFrame:
    """Write `videos.csv`, `clips.csv` and `segments.csv`; return the table of the videos."""
    table, clips = video_table(predictions, classes), clip_table(predictions, classes)
    write_text(out / "videos.csv", table.to_csv(index=False, float_format="%.4f"))
    write_text(out / "clips.csv", clips.to_csv(index=False, float_format="%.4f"))
    segments = segment_table(predictions, classes)
    write_text(out / SEGMENTS_FILE, segments.to_csv(index=False, float_format="%.3f"))
    return table


def _print_table(table: pd.DataFrame, predictions: list[Prediction]) -> None:
    print(table.filter(SHOWN).round(2).to_string(index=False))
    for prediction in predictions:
        if note := prediction.deciding[prediction.label].note:
            print(f"{prediction.record.path.name}: {note}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m lib.predict", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("run", help="folder of a finished run, or of runs: the recommended one")
    parser.add_argument("videos", nargs="+", help="files, or folders of videos")
    parser.add_argument("--out", help="folder of the results (predictions/ of the run)")
    parser.add_argument("--overlap", type=float, default=0.5, help="of neighboring clips (0.5)")
    options = parser.parse_args(arguments)
    if not 0 <= options.overlap < 1:
        parser.error("--overlap must be in [0, 1)")
    if "" in options.videos:  # of an unset variable; a path of it is the current folder
        parser.error("the name of a video is empty")
    try:
        run = RunDir(options.run)
        if not run.params_path.is_file():
            run = recommended_run(run.folder)
            print(f"{run.folder}: the run that the report recommends")
        out = run.folder / "predictions" if options.out is None else project_path(options.out)
        videos = find_new_videos([Path(name) for name in options.videos])
        predict_all(run, videos, out, options.overlap)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the tables have the videos that were finished", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
