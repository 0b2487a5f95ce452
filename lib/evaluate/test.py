"""Testing a trained run, on one device or many."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn
from tqdm.auto import tqdm

from lib.config import EvaluateSettings, TrainSettings
from lib.data.dataset import VideoDataset
from lib.data.video_reader import FrameReader
from lib.fileio import write_atomic, write_text
from lib.runs.device import resolve_test_device
from lib.runs.distributed import DistContext, launch, resolve_num_processes
from lib.runs.run_dir import RunDir
from lib.train.ema import tested_weights
from lib.train.scoring import metrics, score_videos
from lib.train.setup import build_run_model, load_data, run_normalize, test_protocol


@dataclass(frozen=True)
class SplitResult:
    """The result on one list.

    Attributes:
        dataset: The data set.
        rows: Index rows of the videos, shape (N,).
        scores: Fused scores, shape (N, K).
        labels: Class indices, shape (N,).
        fusion: What they were averaged from, `logits` or `probabilities` (`test_average`).
    """

    dataset: VideoDataset
    rows: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    fusion: str

    @property
    def metrics(self) -> dict[str, float]:
        """Return `top1`, `top5`, `mean_class_accuracy`, in percent."""
        return metrics(self.scores, self.labels)


def load_trained(run: RunDir, checkpoint: str, classes: tuple[str, ...]) -> nn.Module:
    """Return a run's network with the weights of a checkpoint.

    Args:
        run: The run.
        checkpoint: `last` or `best`.
        classes: Class names of the data set that it is tested on.

    Raises:
        ValueError: If the checkpoint is missing or was trained on other classes.
    """
    state = run.load(checkpoint)
    if state["classes"] != list(classes):
        trained, tested = (f"{len(c)} ({', '.join(c[:3])}, …)" for c in (state["classes"], classes))
        raise ValueError(
            f"{run.checkpoint_path(checkpoint)}: trained on classes {trained}, the data set has "
            f"{tested}; test it on the data set that it was trained on"
        )
    began_with = {"pretrained": False, "weights": None}  # which is not needed again
    model = build_run_model(run.settings().model_copy(update=began_with), len(classes))
    model.load_state_dict(tested_weights(state))
    return model


def evaluate(settings: EvaluateSettings) -> dict[str, SplitResult]:
    """Test a run on its test lists by its own protocol and write the results to its folder.

    Writes per list `scores_<list>.npz` (scores, labels) and `predictions_<list>.csv`, and last
    `metrics.json`.

    Args:
        settings: Which run and checkpoint.

    Returns:
        List name -> result.

    Raises:
        ValueError: If there is no such run or checkpoint, or a list does not fit.
    """
    run = RunDir(settings.run_dir)
    trained = run.settings()
    data = load_data(trained)
    device = resolve_test_device(trained.device)
    load_trained(run, settings.checkpoint, data.labeled.classes)
    rows = {name: data.labeled.read_split(name) for name in trained.test_splits}
    with tqdm(total=sum(map(len, rows.values())), desc="testing", unit="video") as progress:
        counter = run.folder / ".evaluated"
        launch(
            evaluate_worker,
            (settings, trained, counter),
            resolve_num_processes(settings.num_processes, device),
            device,
            lambda: _follow(progress, counter),
        )
        counter.unlink(missing_ok=True)
    results = {}
    for name, part in rows.items():
        with np.load(scores_path(run, name)) as file:
            results[name] = SplitResult(data.labeled, part, **file, fusion=trained.test_average)
        _write_predictions(run, name, results[name])
    summary = {
        "checkpoint": settings.checkpoint,
        "protocol": {k: v for k, v in trained.model_dump().items() if k.startswith("test_")},
        "labels": len(data.labeled_rows),
        "splits": {
            name: {**result.metrics, "videos": len(result.rows)} for name, result in results.items()
        },
    }
    write_text(run.metrics_path, json.dumps(summary, indent=1) + "\n")
    return results


def evaluate_worker(
    world: DistContext, settings: EvaluateSettings, trained: TrainSettings, counter: Path
) -> None:
    """Score the videos of one process; rank 0 writes the scores of all."""
    run = RunDir(settings.run_dir)
    dataset = load_data(trained).labeled
    model = load_trained(run, settings.checkpoint, dataset.classes).to(world.device)
    normalize = run_normalize(trained).to(world.device)
    done = 0

    def count(videos: int) -> None:
        nonlocal done
        done += videos * world.world_size
        if world.rank == 0:
            write_text(counter, str(done))

    for name in trained.test_splits:
        rows = dataset.read_split(name)
        scores = score_videos(
            model,
            normalize,
            dataset,
            rows,
            test_protocol(trained),
            world,
            batch_clips=settings.batch_clips,
            num_workers=trained.num_workers,
            precision=trained.precision if world.device.type == "cuda" else "fp32",
            reader=FrameReader(dataset, trained.frame_cache_mb),
            progress=count,
        )
        if world.rank == 0:
            labels = dataset.index["label"].to_numpy()[rows]
            arrays = {"scores": scores, "labels": labels}
            write_atomic(scores_path(run, name), lambda path, a=arrays: np.savez(path, **a))


def scores_path(run: RunDir, split_name: str) -> Path:
    """Return where the scores of a list are kept."""
    return run.folder / f"scores_{Path(split_name).name.removesuffix('.txt')}.npz"


def _follow(progress: tqdm, counter: Path) -> None:
    if counter.exists() and (text := counter.read_text()):
        progress.update(min(int(text), progress.total) - progress.n)


def _write_predictions(run: RunDir, split_name: str, result: SplitResult) -> None:
    classes, predicted = np.array(result.dataset.classes), result.scores.argmax(axis=1)
    table = result.dataset.index.iloc[result.rows][["name"]]
    table = table.assign(**{"class": classes[result.labels], "predicted": classes[predicted]})
    table["is_correct"] = predicted == result.labels
    path = run.folder / f"predictions_{Path(split_name).name.removesuffix('.txt')}.csv"
    write_text(path, table.to_csv(index=False))
