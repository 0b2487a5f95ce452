"""Making a data set ready: its index and its lists."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import decord
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from lib.config import PrepareSettings, project_path
from lib.data.annotations import VideoDataset, draw_labeled_rows, read_dataset, write_dataset
from lib.data.synthetic import make_synthetic
from lib.files import write_text

VIDEO_SUFFIXES = {".avi", ".mp4", ".mkv", ".webm", ".mov", ".mpg", ".mpeg", ".m4v"}
PARTS = ("train", "val")
DATASETS = ("synthetic", "folder")


def dataset_folder(name: str, data_root: str | None, data_dir: str) -> Path:
    """Return where a data set is prepared: `data/<name>`, for `folder` one for each `data_root`.

    Raises:
        ValueError: If the name is not in the catalog, or `folder` comes without `data_root`.
    """
    if name not in DATASETS:
        raise ValueError(f"dataset: no data set {name!r}; there are {list(DATASETS)}")
    if name != "folder":
        return project_path(data_dir) / name
    if data_root is None:
        raise ValueError(
            "data_root: dataset 'folder' needs the folder of your videos "
            "(<class>/<video> or {train,val}/<class>/<video>)"
        )
    root = project_path(data_root)
    digest = hashlib.sha256(str(root).encode()).hexdigest()[:6]
    return project_path(data_dir) / f"folder-{root.name}-{digest}"


def open_dataset(name: str, data_root: str | None, data_dir: str) -> VideoDataset:
    """Open a data set; `synthetic` and `folder` are prepared first where that has not been done.

    Raises:
        ValueError: If it cannot be prepared; says why.
    """
    folder = dataset_folder(name, data_root, data_dir)
    if (folder / "dataset.json").is_file():
        return read_dataset(folder)
    return prepare(PrepareSettings(dataset=name, data_root=data_root, data_dir=data_dir))


def prepare(settings: PrepareSettings) -> VideoDataset:
    """Make a data set ready and draw its labelled lists; what is there already is kept.

    Args:
        settings: Which data set; `val_fraction`, `labeled_fractions` and `seed` of its lists.

    Returns:
        The prepared data set.

    Raises:
        ValueError: If the videos are missing or not laid out as expected.
    """
    folder = dataset_folder(settings.dataset, settings.data_root, settings.data_dir)
    if (folder / "dataset.json").is_file():
        dataset = read_dataset(folder)
    elif settings.dataset == "synthetic":
        dataset = make_synthetic(folder)
    else:
        dataset = index_folder(
            project_path(settings.data_root), folder, settings.val_fraction, settings.seed
        )
    for fraction in settings.labeled_fractions:
        draw_labeled_list(dataset, fraction, settings.seed)
    return dataset


def draw_labeled_list(dataset: VideoDataset, fraction: float, seed: int) -> str:
    """Write the list of a labelled share of `train` and return its name."""
    labels = dataset.index["label"].to_numpy()
    rows = draw_labeled_rows(labels, dataset.read_list("train"), fraction, seed)
    name = f"train_{100 * fraction:g}percent_seed{seed}"
    dataset.write_list(name, rows)
    return name


def index_folder(root: Path, folder: Path, val_fraction: float, seed: int) -> VideoDataset:
    """Index a folder of videos, `<class>/<video>` or `{train,val}/<class>/<video>`.

    Every video is opened in a worker process, so that a file that crashes the decoder ends a worker
    and not the run. Unreadable files are listed in `broken.csv` and left out.

    Args:
        root: The videos.
        folder: The prepared folder to make.
        val_fraction: Share of each class that becomes `val` where there are no parts.
        seed: Seed of that split.

    Raises:
        ValueError: If there is no class folder or no video, two videos have one name, or a class
            has too few videos to be split.
    """
    videos = _find_videos(root)
    print(f"{root}: {len(videos)} videos in {videos['class'].nunique()} classes")
    found = probe_videos([root / path for path in videos["path"]])
    is_broken = found["error"].notna().to_numpy()
    broken = videos.loc[is_broken, ["path"]].assign(reason=found["error"][is_broken])
    write_text(folder / "broken.csv", broken.to_csv(index=False))
    if len(broken):
        print(f"{len(broken)} videos cannot be read and are left out ({folder / 'broken.csv'}):")
        for path, reason in broken.head(10).itertuples(index=False):
            print(f"  {path}: {reason}")
    index = pd.concat([videos, found.drop(columns="error")], axis=1)[~is_broken]
    if index.empty:
        raise ValueError(f"{root}: none of its {len(videos)} videos can be read")
    classes = sorted(index["class"].unique())
    index["label"] = index["class"].map(classes.index)
    index = index.reset_index(drop=True).astype({"frames": int, "width": int, "height": int})
    parts = _split(index, root, val_fraction, seed)
    dataset = write_dataset(
        folder, "folder", classes, root, index, {"made_by": "lib.data.prepare", "root": str(root)}
    )
    for part, rows in parts.items():
        dataset.write_list(part, rows)
    return dataset


def _find_videos(root: Path) -> pd.DataFrame:
    """Return columns part, class, name, path of the videos below `root`, sorted by path."""
    if not root.is_dir():
        raise ValueError(f"data_root: {root} is not a folder")
    parts = [part for part in PARTS if (root / part).is_dir()]
    if parts and parts != list(PARTS):
        raise ValueError(
            f"{root}: has a folder {parts[0]!r} but not both of {list(PARTS)}; give both, or class "
            "folders only"
        )
    rows = []
    for part in parts or [""]:
        for video in sorted((root / part).glob("*/*")):
            if video.suffix.lower() in VIDEO_SUFFIXES and not video.name.startswith("."):
                name = f"{video.parent.name}/{video.stem}"
                path = video.relative_to(root).as_posix()
                rows.append((part, video.parent.name, name, path))
    videos = pd.DataFrame(rows, columns=["part", "class", "name", "path"])
    if videos.empty:
        expected = "<class>/<video> or {train,val}/<class>/<video>"
        loose = [p.name for p in root.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES]
        problem = f"no class folders ({loose[0]} lies outside of one)" if loose else "no videos"
        raise ValueError(
            f"{root}: {problem}; expected {expected} with {sorted(VIDEO_SUFFIXES)} files"
        )
    twice = videos[videos["name"].duplicated(keep=False)].sort_values("name")
    if len(twice):
        raise ValueError(
            f"{root}: two videos have one name: {' and '.join(twice['path'].iloc[:2])}; rename one"
        )
    return videos


def _split(
    index: pd.DataFrame, root: Path, val_fraction: float, seed: int
) -> dict[str, np.ndarray]:
    """Return the index rows of `train` and `val`; every class is in both."""
    if index["part"].iloc[0]:
        rows = {part: np.flatnonzero(index["part"] == part) for part in PARTS}
        for part in PARTS:
            missing = set(index["class"]) - set(index["class"].iloc[rows[part]])
            if missing:
                raise ValueError(f"{root / part}: no readable video of {sorted(missing)}")
        return rows
    counts = index["class"].value_counts()
    if (counts < 2).any():
        lonely = sorted(counts[counts < 2].index)
        raise ValueError(
            f"{root}: {lonely} has one readable video, which cannot be split into train and val; "
            "add a video or remove the class"
        )
    val = np.zeros(len(index), dtype=bool)
    for label, rows in index.groupby("label").groups.items():
        count = min(max(1, round(val_fraction * len(rows))), len(rows) - 1)
        order = np.random.default_rng([seed, int(label)]).permutation(len(rows))
        val[rows.to_numpy()[order[:count]]] = True
    return {"train": np.flatnonzero(~val), "val": np.flatnonzero(val)}


def probe_videos(paths: Sequence[Path], num_processes: int | None = None) -> pd.DataFrame:
    """Open every video and count its frames.

    Args:
        paths: The files.
        num_processes: Worker processes; None for one per core.

    Returns:
        Columns frames, fps, width, height and error (None where readable), in the order of `paths`.
    """
    num_processes = min(num_processes or os.cpu_count() or 1, len(paths))
    chunks = np.array_split(np.arange(len(paths)), max(1, min(len(paths), 8 * num_processes)))
    results: dict[int, tuple] = {}
    with tqdm(total=len(paths), desc="opening videos", unit="video") as progress:
        for chunk in _probe_chunks(paths, chunks, num_processes):
            results |= chunk
            progress.update(len(chunk))
    return pd.DataFrame(
        [results[position] for position in range(len(paths))],
        columns=["frames", "fps", "width", "height", "error"],
    )


def _probe_chunks(paths: Sequence[Path], chunks: list[np.ndarray], num_processes: int):
    """Yield {position: result} per chunk; a chunk whose worker died is tried file by file."""
    suspects = []
    with ProcessPoolExecutor(num_processes, mp_context=get_context("spawn")) as pool:
        jobs = [(chunk, pool.submit(_probe_many, [paths[i] for i in chunk])) for chunk in chunks]
        for chunk, job in jobs:
            try:
                yield dict(zip(chunk.tolist(), job.result(), strict=True))
            except BrokenProcessPool:
                suspects += chunk.tolist()
    for position in suspects:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            try:
                yield {position: pool.submit(probe_video, paths[position]).result()}
            except BrokenProcessPool:
                yield {position: (0, 0.0, 0, 0, "the decoder crashed on it")}


def _probe_many(paths: list[Path]) -> list[tuple]:
    return [probe_video(path) for path in paths]


def probe_video(path: Path) -> tuple[int, float, int, int, str | None]:
    """Return (frames, frames per second, width, height, error) of one video.

    The last frame is decoded, not only counted, so that a truncated file is found here and not
    after hours of training.
    """
    if path.stat().st_size == 0:
        return 0, 0.0, 0, 0, "the file is empty"
    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        frames = len(reader)
        height, width, _ = reader[frames - 1].shape
        return frames, float(reader.get_avg_fps()), width, height, None
    except Exception as error:  # decord raises bare errors of several kinds
        lines = (str(error).strip() or type(error).__name__).splitlines()
        return 0, 0.0, 0, 0, f"cannot be decoded ({lines[-1][:120]})"
