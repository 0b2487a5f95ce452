"""Opening every video once: how many frames, how large, or why it cannot be read."""

import time
from collections.abc import Sequence
from pathlib import Path

import av
import decord
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from lib.files import write_text
from lib.prepare.workers import map_in_workers

PROBE_COLUMNS = ["frames", "fps", "width", "height", "error", "note"]
TIMEOUT_S = 120.0  # a decoder that has not answered by then has frozen
SAVE_EVERY_S = 30.0
FRAME_PREFIX = "img_"  # folders of frames: img_00001.jpg, ..., as in MMAction2's rawframes trees


def probe_videos(
    paths: Sequence[Path],
    num_processes: int = 0,
    timeout_s: float = TIMEOUT_S,
    progress_file: Path | None = None,
) -> pd.DataFrame:
    """Open every video, or folder of JPEG frames, in worker processes and count its frames.

    A file that crashes or freezes the decoder loses its own row only.

    Args:
        paths: The files.
        num_processes: Worker processes; 0 for one per core.
        timeout_s: Longest time for one file, seconds.
        progress_file: Where to keep what is known, so that a repeated call opens only files that
            are new or have changed; None to keep nothing.

    Returns:
        In the order of `paths`, columns frames, fps, width, height, error (None where readable)
        and note (what to know about a readable one, or None).
    """
    known = _read_progress(progress_file)
    keys = [_key(path) for path in paths]
    rows = [known.get(key) for key in keys]
    missing = [position for position, row in enumerate(rows) if row is None]
    saved = time.monotonic()
    try:
        with tqdm(total=len(paths), desc="opening videos", unit="video") as progress:
            progress.update(len(paths) - len(missing))
            todo = [paths[position] for position in missing]
            for outcome in map_in_workers(probe_video, todo, num_processes, timeout_s):
                failed = (0, 0.0, 0, 0, outcome.error, None)
                rows[missing[outcome.position]] = outcome.value or failed
                progress.update()
                if time.monotonic() - saved > SAVE_EVERY_S:
                    _write_progress(progress_file, keys, rows)
                    saved = time.monotonic()
    finally:
        if missing:
            _write_progress(progress_file, keys, rows)
    return pd.DataFrame(rows, columns=PROBE_COLUMNS)


def probe_video(path: Path) -> tuple[int, float, int, int, str | None, str | None]:
    """Return (frames, frames per second, width, height, error, note) of one video.

    The last frame is decoded, not only counted, so that a truncated file is found here and not
    after hours of training.
    """
    try:
        if path.is_dir():
            return _probe_frames(path)
        if path.stat().st_size == 0:
            return _broken("the file is empty")
    except OSError as error:
        return _broken(f"cannot be opened ({error.strerror or error})")
    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        frames = len(reader)
        if frames == 0:
            return _broken("it has no video frame")
        height, width, _ = reader.get_batch([frames - 1]).asnumpy()[0].shape  # as clips are read
    except Exception as error:  # decord raises bare errors of several kinds
        return _broken(_explain(error))
    return frames, float(reader.get_avg_fps()), width, height, None, _compare(path, frames)


def _broken(reason: str) -> tuple[int, float, int, int, str, None]:
    return 0, 0.0, 0, 0, reason, None


def _probe_frames(folder: Path) -> tuple[int, float, int, int, str | None, str | None]:
    """Count the frames `img_00001.jpg` ... of a folder; their frame rate is not known (0)."""
    names = sorted(p.name for p in folder.iterdir() if p.name.startswith(FRAME_PREFIX))
    for position, name in enumerate(names, start=1):
        expected = f"{FRAME_PREFIX}{position:05d}.jpg"
        if name != expected:
            return _broken(f"{expected} is missing, {name} stands in its place")
    if not names:
        return _broken(f"it has no {FRAME_PREFIX}00001.jpg")
    with Image.open(folder / names[-1]) as image:
        image.load()
        return len(names), 0.0, image.width, image.height, None, None


def _compare(path: Path, frames: int) -> str | None:
    """Say where the header of a readable file promises more frames than there are."""
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            promised = container.streams.video[0].frames
    except (av.FFmpegError, IndexError, ValueError):
        return None
    if promised <= frames:
        return None
    return f"truncated or damaged: {frames} of the {promised} frames its header promises"


def _explain(error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].split("] ", 1)[-1]
    if "cannot find video stream" in reason:
        return "it has no video stream (audio only?)"
    if "Error reading" in reason:
        return "it is not a video or its header is damaged"
    if "from_size == to_size" in reason:
        return "it is too narrow for the decoder, which needs about 60 pixels: scale it up"
    if "Check failed" in reason or "threaded_decoder" in reason:
        return "its frames cannot be decoded: truncated or damaged"
    return f"it cannot be decoded ({reason[:120]})"


def _key(path: Path) -> str:
    """Identify the contents of a file without reading it."""
    try:
        state = path.stat()
    except OSError:
        return f"{path}|missing"
    return f"{path}|{state.st_size}|{state.st_mtime_ns}"


def _read_progress(path: Path | None) -> dict[str, tuple]:
    if path is None or not path.is_file():
        return {}
    table = pd.read_csv(path, dtype={"key": str, "error": object, "note": object})
    table = table.astype(object).where(table.notna(), None)
    return {row[0]: row[1:] for row in table.itertuples(index=False, name=None)}


def _write_progress(path: Path | None, keys: list[str], rows: list[tuple | None]) -> None:
    if path is None:
        return
    known = [(key, *row) for key, row in zip(keys, rows, strict=True) if row is not None]
    write_text(path, pd.DataFrame(known, columns=["key", *PROBE_COLUMNS]).to_csv(index=False))
