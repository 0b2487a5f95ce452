"""Say what is in new videos, with a trained run.

python -m lib.predict outputs/folder/semi_seed0 /some/videos new.mp4

Writes `videos.csv` (a row a video), `clips.csv` (a row a clip, over time), a timeline and the
deciding clips of each video, and `reliability.png` (what confidence means).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm.auto import tqdm

from lib.config import project_path
from lib.evaluate.calibration import NOT_CALIBRATED, Calibration
from lib.evaluate.predict import (
    check_finished,
    clip_table,
    find_new_videos,
    load_classifier,
    open_videos,
    remarks,
    video_table,
)
from lib.evaluate.prediction_report import TO_SEE, Answer, answer
from lib.fileio import check_writable, write_text
from lib.plots.prediction import reliability_figure, save_figure
from lib.runs.run_dir import RunDir

FEW_VIDEOS = 50  # that a temperature should rest on
SHOWN = ("video", "class", "confidence", "second", "actor_only", "background_only")


def predict_all(
    run: RunDir, videos: Sequence[Path], out: Path, overlap: float = 0.5, with_parts: bool = True
) -> None:
    """Predict videos and write tables and figures; what cannot be read is said first.

    Raises:
        ValueError: If the run is not finished, or no video can be read.
    """
    check_finished(run)
    check_writable(out, "--out", "choose another folder")
    opened, problems = open_videos(videos)
    if not opened:
        raise ValueError("\n".join(problems))
    _say_left_out(problems)
    classifier = load_classifier(run)
    _say_what_confidence_means(classifier.calibration, out)
    for words in remarks(classifier, opened, overlap):
        print(words)
    answers = []
    for number, video in enumerate(tqdm(opened, unit="video", disable=None), 1):
        try:
            stem = out / f"{number:03d}_{video.record.path.stem}"
            answers.append(answer(classifier, video, stem, overlap, with_parts))
        except ValueError as error:  # changed meanwhile
            problems.append(str(error))
            _say_left_out(problems[-1:])
    if not answers:
        raise ValueError("\n".join(problems))
    _write_tables(answers, classifier.classes, out)


def _say_left_out(problems: Sequence[str]) -> None:
    print("".join(f"left out: {problem}\n" for problem in problems), end="", file=sys.stderr)


def _say_what_confidence_means(calibration: Calibration | None, out: Path) -> None:
    if calibration is None:
        print(NOT_CALIBRATED)
        return
    if calibration.videos < FEW_VIDEOS:
        print(f"confidence is calibrated on {calibration.videos} videos only: take it as rough")
    save_figure(reliability_figure(calibration), out / "reliability.png")


def _write_tables(answers: Sequence[Answer], classes: tuple[str, ...], out: Path) -> None:
    """Write `videos.csv` and `clips.csv`, and print the first."""
    predictions = [one.prediction for one in answers]
    videos = video_table(predictions, classes, [one.parts for one in answers])
    for name, table in (("videos", videos), ("clips", clip_table(predictions, classes))):
        write_text(out / f"{name}.csv", table.to_csv(index=False, float_format="%.4f"))
    shown = [name for name in SHOWN if name in videos]
    print(videos[shown].round(2).to_string(index=False))
    for one in answers:
        if one.parts.get("parts_note"):
            print(f"{one.prediction.path.name}: {one.parts['parts_note']}")
    if answers[0].parts:
        print(TO_SEE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m lib.predict", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("run", help="folder of a finished run")
    parser.add_argument("videos", nargs="+", type=Path, help="files, or folders of videos")
    parser.add_argument("--out", help="folder of the results (predictions/ of the run)")
    parser.add_argument("--overlap", type=float, default=0.5, help="of neighbouring clips (0.5)")
    words = "ask about what moves and the rest of each deciding clip alone (yes)"
    parser.add_argument("--parts", action=argparse.BooleanOptionalAction, default=True, help=words)
    options = parser.parse_args(arguments)
    if not 0 <= options.overlap < 1:
        parser.error("--overlap must be in [0, 1)")
    run = RunDir(options.run)
    out = run.folder / "predictions" if options.out is None else project_path(options.out)
    try:
        videos = find_new_videos(options.videos)
        predict_all(run, videos, out, options.overlap, options.parts)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"tables and figures: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
