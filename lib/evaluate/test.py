"""Test of a trained run on its test splits, by one process or one per GPU."""

import json

import numpy as np
from tqdm.auto import tqdm

from lib.config import EvaluateSettings
from lib.evaluate.run_results import SplitResult, read_results, split_file
from lib.evaluate.trained_model import TrainedModel
from lib.fileio import write_atomic, write_text
from lib.runs.device import resolve_test_device
from lib.runs.distributed import DistContext, launch, resolve_num_processes
from lib.runs.run_dir import RunDir
from lib.train.run_data import load_data
from lib.train.scoring import VideoViews, score_videos


def evaluate(settings: EvaluateSettings) -> dict[str, SplitResult]:
    """Test a run on its test splits by its own protocol and write the results to its folder.

    Writes `scores_<split>.npz` (scores, labels) and `predictions_<split>.csv` of each split, and
    `metrics.json`; returns split name -> result.
    """
    run = RunDir(settings.run_dir)
    trained = run.settings()
    data = load_data(trained)
    device = resolve_test_device(trained.device)
    num_processes = resolve_num_processes(settings.num_processes, device)
    if device != "cpu" or num_processes > 1:  # raise errors before processes start
        _load(run, data.labeled.classes, "cpu")
    for name in trained.test_splits:
        data.labeled.read_labeled_split(name)
    launch(evaluate_worker, (run, settings.batch_clips), num_processes, device)
    results = read_results(run)
    for name, result in results.items():
        classes, predicted = np.array(result.dataset.classes), result.scores.argmax(axis=1)
        table = result.dataset.index.iloc[result.rows][["name"]]
        table = table.assign(**{"class": classes[result.labels], "predicted": classes[predicted]})
        table["is_correct"] = predicted == result.labels
        write_text(split_file(run, "predictions", name, ".csv"), table.to_csv(index=False))
    summary = {
        "protocol": {k: v for k, v in trained.model_dump().items() if k.startswith("test_")},
        "labels": len(data.labeled_rows),
        "unlabeled": len(data.other_rows),
        "splits": {k: r.metrics | {"videos": len(r.rows)} for k, r in results.items()},
    }
    write_text(run.metrics_path, json.dumps(summary, indent=1) + "\n")
    return results


def evaluate_worker(world: DistContext, run: RunDir, batch_clips: int) -> None:
    """Score the videos of one process; rank 0 writes the scores of all and shows its progress."""
    dataset = load_data(run.settings()).labeled
    model = _load(run, dataset.classes, world.device)
    for name in model.settings.test_splits:
        rows = dataset.read_split(name)
        with tqdm(total=len(rows), desc=name, unit="video", disable=world.rank > 0) as progress:
            scores = score_videos(
                model.network,
                model.normalize,
                VideoViews(dataset, rows, model.protocol, model.settings.frame_cache_mb),
                world,
                batch_clips=batch_clips,
                num_workers=model.settings.num_workers,
                precision=model.precision,
                on_batch=lambda videos, bar=progress: bar.update(videos * world.world_size),
            )
        if world.rank == 0:
            arrays = {"scores": scores, "labels": dataset.index["label"].to_numpy()[rows]}
            path = split_file(run, "scores", name, ".npz")
            write_atomic(path, lambda temporary, a=arrays: np.savez(temporary, **a))


def _load(run: RunDir, classes: tuple[str, ...], device: object) -> TrainedModel:
    """Load a network without the calibration that an earlier test may have left."""
    return TrainedModel.load(run, classes=classes, device=device, is_calibrated=False)
