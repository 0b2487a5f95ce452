"""Speed of preparing and looking up data, compared with the targets; one line a measurement.

    python benchmarks/bench_data.py --videos <folder of class folders> --detector yolox_nano.onnx

Without real videos or a detector, the measurements that need them are named and left out.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from lib.data.dataset import VideoRecord, read_dataset, write_dataset
from lib.data.frame_tables import FrameRows, PersonBoxes
from lib.data.video_reader import read_frames
from lib.prepare.jpeg_frames import write_frames
from lib.prepare.own_folder import index_folder
from lib.prepare.parallel import map_in_workers, num_cores
from lib.prepare.person_boxes import YoloxDetector, boxes_of_video, letterbox

MAX_FRAME_VIDEOS = 100  # so many are written as frames


def resident_mb(kind: str = "VmRSS") -> float:
    """Return this process's resident (VmRSS) or private (RssAnon) memory in megabytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(kind):
            return int(line.split()[1]) / 1024
    return float("nan")


def report(what: str, value: str, target: str) -> None:
    """Print one measurement and the load of the machine."""
    print(f"{what:<58} {value:>24}   target {target}   load {os.getloadavg()[0]:.1f}")


def bench_index(videos: Path, work: Path) -> None:
    """Open and count all videos of a folder."""
    start = time.perf_counter()
    dataset = index_folder(videos, work / "index", 0.2, 0)
    seconds = time.perf_counter() - start
    count = len(dataset.index)
    report(f"index + frame count of {count} videos, {num_cores()} cores", f"{seconds:.1f} s",
           "30 s for 1,000")  # fmt: skip


def bench_detection(weights: Path, work: Path) -> None:
    """Compare detection in one process with the bare network on the same frames."""
    dataset = read_dataset(work / "index")
    largest = (dataset.index["width"] * dataset.index["height"]).to_numpy().argmax()
    record = dataset.record(int(largest))
    detector = YoloxDetector(weights)
    frames = read_frames(record.path, np.arange(record.num_frames))
    images = [letterbox(frame, (416, 416))[None] for frame in frames]
    detector.session.run(None, {"images": images[0]})
    bare, ours = [], []
    for _ in range(3):
        start = time.perf_counter()
        for image in images:
            detector.session.run(None, {"images": image})
        bare.append(time.perf_counter() - start)
        start = time.perf_counter()
        boxes_of_video(record, detector.detect, 1)
        ours.append(time.perf_counter() - start)
    each = 1000 * min(ours) / len(images)
    report(f"detection / bare onnxruntime, {record.width} × {record.height}, {each:.1f} ms a frame",
           f"{min(ours) / min(bare):.2f} ×", "1.3 ×")  # fmt: skip


def bench_frames(work: Path) -> None:
    """Compare writing JPEG frames with ffmpeg, on the same videos and cores, at their own size.

    ffmpeg writes at its best quality (`-qscale:v 2`, files about a third smaller than ours). Both
    take turns, for the machine may be busy with something else; the shortest time of each counts.
    """
    dataset = read_dataset(work / "index")
    step = max(1, len(dataset.index) // MAX_FRAME_VIDEOS)
    records = [dataset.record(row) for row in range(0, len(dataset.index), step)]
    frames = sum(record.num_frames for record in records)
    has_ffmpeg = shutil.which("ffmpeg") is not None
    ours, theirs = [], []
    for _ in range(3):
        ours.append(_our_seconds(records, work / "frames"))
        if has_ffmpeg:
            theirs.append(_ffmpeg_seconds(records, work / "ffmpeg"))
    speed = frames / min(ours)
    what = f"{frames} frames of {len(records)} videos as JPEG, {num_cores()} cores"
    if has_ffmpeg:
        report(f"{what}, {speed:.0f} / s; speed / ffmpeg", f"{min(theirs) / min(ours):.2f}", "0.8")
    else:
        report(f"{what} (ffmpeg is not installed: not compared)", f"{speed:.0f} / s", "-")


def _our_seconds(records: list[VideoRecord], folder: Path) -> float:
    start = time.perf_counter()
    outcomes = list(map_in_workers(partial(write_frames, folder=folder, short_side=0), records))
    seconds = time.perf_counter() - start
    assert all(outcome.error is None for outcome in outcomes)
    shutil.rmtree(folder)
    return seconds


def _ffmpeg_seconds(records: list[VideoRecord], folder: Path) -> float:
    folder.mkdir()
    start = time.perf_counter()
    with ThreadPoolExecutor(num_cores()) as pool:
        list(pool.map(_run_ffmpeg, records, [folder / str(n) for n in range(len(records))]))
    seconds = time.perf_counter() - start
    shutil.rmtree(folder)
    return seconds


def _run_ffmpeg(record: VideoRecord, folder: Path) -> None:
    folder.mkdir()
    source = ["-threads", "1", "-i", str(record.path), "-fps_mode", "passthrough"]
    target = ["-threads", "1", "-qscale:v", "2", str(folder / "img_%05d.jpg")]
    subprocess.run(["ffmpeg", "-loglevel", "quiet", *source, *target], check=True)
    written = len(list(folder.iterdir()))
    assert abs(written - record.num_frames) <= 1, (record.path, written, record.num_frames)


def bench_large_index(work: Path, count: int = 240_000) -> None:
    """Load an index as large as that of Kinetics-400."""
    names = [f"class {n % 400}/{n:011d}_000001_000011" for n in range(count)]
    index = pd.DataFrame({"name": names, "path": [f"{name}.mp4" for name in names]})
    index["class"] = index["name"].str.split("/").str[0]
    index["label"], index["frames"], index["fps"] = np.arange(count) % 400, 300, 30.0
    index["width"], index["height"] = 340, 256
    classes = [f"class {n}" for n in range(400)]
    write_dataset(work / "large", "kinetics400", classes, work, index, {})
    del index, names
    code = (
        "import time, sys; sys.path.insert(0, '.'); from benchmarks.bench_data import resident_mb;"
        "from lib.data.dataset import read_dataset; before = resident_mb();"
        f"start = time.perf_counter(); dataset = read_dataset({str(work / 'large')!r});"
        "print(f'{time.perf_counter() - start:.2f} s, {resident_mb() - before:.0f} MB')"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    report(f"loading an index of {count:,} rows", out.stdout.strip(), "1.5 s, 300 MB")


def bench_boxes(work: Path, videos: int = 83_000, frames: int = 300) -> None:
    """Look up boxes among those of 25 million frames."""
    names = [f"c/{n}" for n in range(videos)]
    index = pd.DataFrame({"name": names, "path": names, "class": "c", "label": 0, "frames": frames})
    index["fps"], index["width"], index["height"] = 30, 340, 256
    dataset = write_dataset(work / "boxes", "folder", ["c"], work, index, {})
    rows = np.tile(np.array([[10, 10, 50, 90, 0.9]], np.float32), (frames, 1))
    result = FrameRows(rows, np.arange(frames, dtype=np.int32))
    PersonBoxes.write(dataset.folder, names, [frames] * videos, (result for _ in names))
    code = (
        "import sys, time; sys.path.insert(0, '.'); import numpy as np;"
        "from benchmarks.bench_data import resident_mb;"
        "from lib.data.frame_tables import PersonBoxes;"
        "from lib.data.dataset import read_dataset;"
        f"dataset = read_dataset({str(work / 'boxes')!r}); before = resident_mb('RssAnon');"
        "boxes = PersonBoxes(dataset); rng = np.random.default_rng(0);"
        f"rows = rng.integers({videos}, size=2000);"
        "start = time.perf_counter();"
        "[boxes.lookup(int(row), np.arange(0, 64, 8)) for row in rows];"
        "each = (time.perf_counter() - start) / 2000 * 1e6;"
        "print(f'{resident_mb(\"RssAnon\") - before:.0f} MB, {each:.0f} µs')"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    report(f"boxes of {videos * frames / 1e6:.0f} million frames: private memory, a look-up",
           out.stdout.strip(), "50 MB")  # fmt: skip


def main() -> None:
    """Run all measurements that can be made here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=Path, help="folder of real videos")
    parser.add_argument("--detector", type=Path, help="yolox_nano.onnx")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if arguments.videos is None:
            print("no --videos: opening, detection and frames are left out")
        else:
            bench_index(arguments.videos, work)
            bench_frames(work)
            if arguments.detector is None:
                print("no --detector: detection is left out")
            else:
                bench_detection(arguments.detector, work)
        bench_large_index(work)
        bench_boxes(work)


if __name__ == "__main__":
    main()
