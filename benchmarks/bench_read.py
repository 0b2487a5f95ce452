"""Cost of reading: clips of video files and decord, JPEG frames and Pillow, whole tests.

    python -m benchmarks.bench_read [<video file, or folder of them> ...]

CPU time in one thread of one process, the shortest of all rounds, in which all take turns. Without
files of your own only generated MP4 files are read.
"""

import argparse
import io
import itertools
import tempfile
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image

from benchmarks.timing import describe_machine, interleave, print_table
from lib.augment.views import EvalTransform
from lib.config import PROJECT_ROOT
from lib.data.clip_dataset import uniform_clip_indices
from lib.data.dataset import VideoRecord
from lib.data.video_reader import iterate_frames, read_frames
from lib.params import read_settings
from lib.prepare.inspect_videos import inspect_video
from lib.prepare.synthetic import make_synthetic
from lib.runs.distributed import DistContext
from lib.train.trainer import Trainer

CLIP = 8 * np.arange(8)  # eight frames, every eighth
MAX_FILES, CLIPS_PER_FILE, ROUNDS = 8, 4, 5
GENERATED = {"320 × 240": (240, 320), "480 × 360": (360, 480), "640 × 360": (360, 640)}
FPS, SECONDS = 30, 10


def write_pan(path: Path, height: int, width: int) -> Path:
    """Write ten seconds of a camera that wanders over a picture, with x264 as it comes."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 60, 60, generator=generator) * 255
    picture = torch.nn.functional.interpolate(coarse, (2 * height, 2 * width), mode="bicubic")[0]
    picture = (picture + 8 * torch.randn(picture.shape, generator=generator)).clamp(0, 255)
    picture = picture.byte().permute(1, 2, 0).numpy()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for angle in np.linspace(0, 12, FPS * SECONDS):
            top = int(height * (0.5 + 0.4 * np.sin(angle)))
            left = int(width * (0.5 + 0.4 * np.cos(1.3 * angle)))
            pixels = np.ascontiguousarray(picture[top : top + height, left : left + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def repeat_video(source: Path, path: Path, times: int) -> Path:
    """Write a video `times` times one after the other into a new file, without coding it anew."""
    with av.open(str(path), "w") as target:
        stream = None
        for number in range(times):
            with av.open(str(source)) as container:
                original = container.streams.video[0]
                stream = stream or target.add_stream_from_template(original)
                shift = int(number * SECONDS / original.time_base)
                for packet in container.demux(original):
                    if packet.dts is not None:
                        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                        packet.stream = stream
                        target.mux(packet)
    return path


def record_of(path: Path) -> VideoRecord:
    """Return a file's record, as preparation would write it."""
    found = inspect_video(path)
    assert found.error is None, (path, found.error)
    size = found.height, found.width
    return VideoRecord(0, "a/b", path, 0, found.frames, *size, found.fingerprint, found.seek)


def clips_of(record: VideoRecord) -> list[np.ndarray]:
    """Return clips all over a video."""
    starts = np.linspace(0, max(0, record.num_frames - 64), CLIPS_PER_FILE).astype(int)
    return [np.minimum(start + CLIP, record.num_frames - 1) for start in starts]


def bench_clips(sources: dict[str, list[Path]]) -> None:
    """Compare reading eight frames with decord's `get_batch`, and with decoding from the start."""
    import decord

    decord.logging.set_level(decord.logging.ERROR)
    rows = []
    for name, paths in sources.items():
        records = [record_of(path) for path in paths]
        reads = [(record, clip) for record in records for clip in clips_of(record)]

        def by_decord(reads=reads):
            for record, clip in reads:
                reader = decord.VideoReader(str(record.path), num_threads=1)
                reader.get_batch(clip.tolist()).asnumpy()

        contenders = {
            "decord": by_decord,
            "seeking": lambda reads=reads: [read_frames(*read) for read in reads],
            "from the start": lambda reads=reads: [read_frames(r.path, c) for r, c in reads],
        }
        if max(record.num_frames for record in records) > 5000:
            del contenders["from the start"]
        times = interleave(contenders, ROUNDS)
        each = {key: value / len(reads) for key, value in times.items()}
        walk = each.get("from the start", float("nan")) / each["decord"]
        found = sum(bool(record.seek) for record in records)
        rows.append([name, f"{found} of {len(records)}", each["decord"], each["seeking"],
                     each["seeking"] / each["decord"], walk])  # fmt: skip
    header = ["8 frames, every 8th", "found by seeking", "decord, ms", "ours, ms"]
    print_table("Clips of video files", [*header, "ours ÷ decord", "from the start ÷ decord"], rows)


def write_jpegs(record: VideoRecord, folder: Path) -> VideoRecord:
    """Write a video's frames as preparation does; return their record."""
    folder.mkdir()
    for number, frame in enumerate(iterate_frames(record, np.arange(record.num_frames)), 1):
        Image.fromarray(frame).save(folder / f"img_{number:05d}.jpg", quality=95)
    return VideoRecord(0, "a/b", folder, 0, record.num_frames, record.height, record.width)


def bench_jpeg(folder: VideoRecord) -> None:
    """Compare reading a clip of JPEG frames with Pillow."""

    def by_pillow() -> None:
        for index in CLIP:
            content = (folder.path / f"img_{index + 1:05d}.jpg").read_bytes()
            np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))

    times = interleave({"Pillow": by_pillow, "ours": lambda: read_frames(folder, CLIP)}, 30)
    ratio = times["ours"] / times["Pillow"]
    size = f"8 JPEG frames, {folder.width} × {folder.height}"
    print_table("JPEG", [size, "ms"], [*times.items(), ("ours ÷ Pillow", ratio)])


def bench_test(records: dict[str, VideoRecord]) -> None:
    """Compare resizing a video's frames, a loader's part, and cutting its views with decoding."""
    rows = []
    for name, record in records.items():
        indices = uniform_clip_indices(record.num_frames, 8, 8, 10)
        wanted, positions = np.unique(indices, return_inverse=True)
        frames, transform = read_frames(record, wanted), EvalTransform(256, 256, 3)
        clips, resized = positions.reshape(indices.shape), transform.resize(frames)
        times = interleave(
            {
                "decoding": lambda r=record, w=wanted: read_frames(r, w),
                "resizing": lambda f=frames, t=transform: t.resize(f),
                "views": lambda f=resized, c=clips, t=transform: t.views(f, c),
            },
            ROUNDS,
        )
        ratio = 1 + times["resizing"] / times["decoding"]
        rows.append([name, *times.values(), ratio])
    header = ["10 × 3 views of 256²", "decoding, ms", "resizing, ms", "views, ms"]
    print_table("Testing a video", [*header, "decoding and resizing ÷ decoding"], rows)


def bench_feeding(work: Path) -> None:
    """Compare steps of the demo on the embedded data with steps on a batch that is in memory."""
    parts = {"train": 300, "val": 60, "val_swapped": 60}
    make_synthetic(work / "data" / "synthetic", split_sizes=parts)
    changes = {"prepared_dir": str(work / "data"), "num_processes": 1, "run_dir": str(work)}
    recipe = PROJECT_ROOT / "params" / "demo" / "recipe.yaml"
    settings = read_settings([recipe]).model_copy(update=changes)
    own = Trainer(settings, DistContext(0, 1, torch.device("cpu")))
    loaded = own.load_pairs(0, 10**6)
    in_memory = itertools.repeat(next(loaded))
    for _ in range(40):  # every video is cached then
        next(loaded)
    times = interleave(
        {
            "a batch in memory": lambda: own.train_step(in_memory),
            "the loader": lambda: own.train_step(loaded),
        },
        20,
    )
    ratio = times["a batch in memory"] / times["the loader"]
    rows = [*times.items(), ("steps with the loader ÷ steps with a batch in memory", ratio)]
    print_table("Feeding", ["a step of the demo with", "ms"], rows)


def main() -> None:
    """Run all measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("videos", nargs="*", type=Path, help="files, or folders of files")
    parser.add_argument("--feeding", action="store_true", help="measure this alone")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if given.feeding:
            return bench_feeding(work)
        sources = {path.name: files_of(path) for path in given.videos}
        for name, size in GENERATED.items():
            sources[f"MP4, {name}"] = [write_pan(work / f"{size[1]}.mp4", *size)]
        longer = repeat_video(work / "640.mp4", work / "long.mp4", 600 // SECONDS)
        sources["MP4, 640 × 360, ten minutes"] = [longer]
        bench_clips(sources)
        video = record_of(write_pan(work / "340.mp4", 256, 340))
        jpegs = write_jpegs(video, work / "jpegs")
        bench_jpeg(jpegs)
        bench_feeding(work)
        tested = {name: record_of(paths[0]) for name, paths in sources.items()}
        bench_test({**tested, "JPEG, 340 × 256": jpegs})


def files_of(path: Path) -> list[Path]:
    """Return a file, or some of the files below a folder."""
    if path.is_file():
        return [path]
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return files[:: max(1, len(files) // MAX_FILES)][:MAX_FILES]


if __name__ == "__main__":
    main()
