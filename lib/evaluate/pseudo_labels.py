"""What a run says of the unlabelled videos that it used, as a table to look through.

    python -m lib.evaluate.pseudo_labels outputs/folder/semi_seed0
    python -m lib.evaluate.pseudo_labels outputs/folder/semi_seed0 --list checked

The first writes `pseudo_labels.csv` into the run's folder: a row for each video of its unlabelled
list that has no label in the run, those that most need a look first. The browser at the end of
notebook 4 pages through it. The second writes the labelled list that comes of what was decided
there, and says how to go on with it.

name        the video
label       the class of its fused score, by the run's test protocol
confidence  its probability, calibrated on the validation list where that was tested
second      the second class
agreement   share of the video's views (clips x crops) whose own best class is `label`
"""

import argparse
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from lib.data.video_reader import FrameReader, UnreadableVideoError
from lib.evaluate.calibration import NOT_CALIBRATED, calibrate
from lib.evaluate.label_review import (
    COLUMNS,
    TABLE,
    PseudoLabels,
    command_to_go_on,
    unlabeled_rows,
)
from lib.evaluate.predict import BATCH_CLIPS, check_finished
from lib.evaluate.test import load_trained
from lib.fileio import write_text
from lib.runs.device import autocast, resolve_test_device
from lib.runs.run_dir import RunDir
from lib.train.scoring import VideoViews, fuse
from lib.train.setup import Data, load_data, run_normalize, test_protocol

MAX_SHOWN = 10  # rows that the command prints


def pseudo_label(
    logits: Tensor, fusion: str, temperature: float = 1.0
) -> tuple[int, float, int, float]:
    """Return the class of a video, its probability, the second class, and the agreement.

    Args:
        logits: Of its views, shape (V, K).
        fusion: What is averaged over them: `scores` or `probabilities`.
        temperature: What the fused score (the logarithm of a probability) is divided by.
    """
    fused = fuse(logits[None], fusion)[0]
    if fusion == "probabilities":
        fused = fused.clamp(min=1e-12).log()
    share = (fused / temperature).softmax(dim=0)
    first, second = share.argsort(descending=True, stable=True)[:2].tolist()
    agreement = (logits.argmax(dim=1) == first).double().mean()
    return first, float(share[first]), second, float(agreement)


def write_pseudo_labels(run: RunDir) -> pd.DataFrame:
    """Score the unlabelled videos of a run and write `pseudo_labels.csv` into its folder.

    Returns:
        The table; videos that cannot be read are left out and named on the screen.

    Raises:
        ValueError: If the run uses no unlabelled videos, is not finished, or none can be read.
    """
    settings = run.settings()
    data = load_data(settings)
    rows = unlabeled_rows(run, data)
    check_finished(run)
    calibration = calibrate(run)
    if calibration is None:
        print(NOT_CALIBRATED)
    temperature = 1.0 if calibration is None else calibration.temperature
    classes, found = data.labeled.classes, []
    for name, logits in _views(run, data, rows):
        label, sure, second, agreement = pseudo_label(logits, settings.test_average, temperature)
        found.append((name, classes[label], sure, classes[second], agreement))
    if not found:
        raise ValueError(f"{data.labeled.root}: none of {len(rows)} unlabelled videos can be read")
    table = pd.DataFrame(found, columns=list(COLUMNS)).round({"confidence": 4, "agreement": 4})
    table = table.sort_values(["confidence", "agreement", "name"], ignore_index=True)
    write_text(run.folder / TABLE, table.to_csv(index=False))
    return table


@torch.inference_mode()
def _views(run: RunDir, data: Data, rows: np.ndarray) -> Iterator[tuple[str, Tensor]]:
    """Yield the name of each video that can be read, and the logits (V, K) of its views."""
    settings, dataset = run.settings(), data.labeled
    device = torch.device(resolve_test_device(settings.device))
    precision = settings.precision if device.type == "cuda" else "fp32"
    model = load_trained(run, "last", dataset.classes).to(device).eval()
    normalize = run_normalize(settings).to(device)
    reader = FrameReader(dataset, settings.frame_cache_mb)
    views = VideoViews(dataset, rows, test_protocol(settings), reader)
    for position, row in enumerate(tqdm(rows.tolist(), unit="video", disable=None)):
        try:
            clips = views[position]
        except UnreadableVideoError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        with autocast(device, precision):
            parts = [model(normalize(part.to(device))) for part in clips.split(BATCH_CLIPS)]
        yield dataset.record(row).name, torch.cat(parts).float().cpu()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m lib.evaluate.pseudo_labels")
    parser.description, parser.formatter_class = __doc__, argparse.RawDescriptionHelpFormatter
    parser.add_argument("run", help="folder of a finished run that used unlabelled videos")
    parser.add_argument("--list", metavar="NAME", help="write what was decided as a labelled list")
    options = parser.parse_args(arguments)
    run = RunDir(options.run)
    try:
        if options.list is not None:
            print(f"written: {PseudoLabels(run).write_split(options.list)}; to go on with it:")
            print(command_to_go_on(run, options.list))
            return 0
        table = write_pseudo_labels(run)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table.head(MAX_SHOWN).round(2).to_string(index=False))
    print(f"{len(table)} videos: {run.folder / TABLE}; look through them at the end of")
    print(f"notebooks/4_evaluate.ipynb, with run_dir = {str(run.folder)!r}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
