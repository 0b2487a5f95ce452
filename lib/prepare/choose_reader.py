"""Choice of the library that reads each video file: decord where it is proved exact, else PyAV.

Both give the same frames there, so that no result depends on the choice.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from lib.data.dataset import VideoDataset, VideoRecord, read_description, write_dataset
from lib.data.frame_index import checksum, open_stream, read_by_decord
from lib.data.video_reader import DECORD, iterate_frames, read_frames
from lib.prepare.parallel import map_in_workers

MIN_FILES = 50  # `auto` measures nothing for fewer, which fit into the cache of decoded frames
NUM_MEASURED = 4  # files that `auto` measures, and clips of each
NUM_STARTS = 32  # key frames from which a file is read to prove decord
# Reasons why PyAV reads a file, in the column reader of the index; details follow a colon
ASKED, SLOWER = "PyAV was asked for", "decord is not faster"
DIFFERS, FAILS = "decord gives other frames", "decord fails"
HAS_B_FRAMES = "it has B-frames"  # its last frame by decord 3.4 is now the right one and now not


def choose_readers(dataset: VideoDataset, reader: str, num_processes: int = 0) -> VideoDataset:
    """Decide which library reads each video file, and write that into the index.

    `reader` is `av`; `decord` where it is exact; or `auto`, which does so if decord is faster.
    """
    rows, index = undecided(dataset.index, reader), dataset.index.copy()
    if not len(rows):
        return dataset
    try:
        for row, verdict in _decide(dataset, rows, reader, num_processes):
            index.loc[row, "reader"] = verdict
    finally:  # an interrupted proof is continued by the next call
        source = read_description(dataset.folder)["source"]
        dataset = write_dataset(
            dataset.folder, dataset.name, dataset.classes, dataset.root, index, source
        )
    return dataset


def undecided(index: pd.DataFrame, reader: str) -> np.ndarray:
    """Return the rows of an index for which a setting `reader` asks for a decision."""
    is_file = index["fingerprint"] != ""
    if reader == "av":
        return np.flatnonzero(index["reader"] == DECORD)
    if reader == "auto" and is_file.sum() < MIN_FILES:
        return np.zeros(0, dtype=np.int64)
    is_open = index["reader"].isin([""] if reader == "auto" else ["", ASKED, SLOWER])
    return np.flatnonzero(is_file & is_open)


def readers_text(index: pd.DataFrame) -> str:
    """Return the number of video files that each library reads, and the reasons for PyAV."""
    readers = index["reader"][index["fingerprint"] != ""]
    if readers.empty:
        return "nothing to choose"
    reasons = Counter(text.split(":")[0] for text in readers if text not in ("", DECORD))
    why = "".join(f"; {count:,}: {reason}" for reason, count in reasons.items())
    return f"decord {(readers == DECORD).sum():,}, PyAV {(readers != DECORD).sum():,}{why}"


def _decide(
    dataset: VideoDataset, rows: np.ndarray, reader: str, num_processes: int
) -> Iterator[tuple[int, str]]:
    """Yield rows with the value of their column reader."""
    if reader == "av":
        yield from ((row, ASKED) for row in rows)
    elif reader == "auto" and not _is_decord_faster(dataset, rows, num_processes):
        yield from ((row, SLOWER) for row in rows)
    else:
        files = list(dataset.index.iloc[rows].groupby("path", sort=False).groups.values())
        segments = [list(map(dataset.record, rows)) for rows in files]
        results = map_in_workers(prove_decord, segments, num_processes)
        for result in tqdm(results, "proving decord", len(files), unit="video"):
            verdict = result.value or f"{FAILS}: {result.error}"
            yield from ((row, verdict) for row in files[result.position])


def _is_decord_faster(dataset: VideoDataset, rows: np.ndarray, num_processes: int) -> bool:
    some = rows[np.linspace(0, len(rows) - 1, NUM_MEASURED).astype(int)]
    results = map_in_workers(compare_speed, list(map(dataset.record, some)), num_processes)
    times = np.array([result.value for result in results if result.error is None])
    print(f"decord is exact for {len(times)} of {len(some)} videos that were tried")
    if not len(times):
        return False
    pyav, decord = 1000 * times.mean(axis=0)
    print(f"a clip of eight frames takes PyAV {pyav:.1f} ms, decord {decord:.1f} ms")
    return decord < pyav


def compare_speed(record: VideoRecord) -> tuple[float, float]:
    """Return the CPU time of PyAV and of decord for a clip, seconds; ValueError if not exact."""
    if (verdict := prove_decord([record])) != DECORD:
        raise ValueError(verdict)
    times = [time.process_time()]
    for reader in ("", DECORD):
        for start in np.linspace(0, record.num_frames - 1, NUM_MEASURED).astype(int):
            clip = (start + 8 * np.arange(8)) % record.num_frames
            read_frames(replace(record, reader=reader), clip)
        times.append(time.process_time())
    return tuple(np.diff(times) / NUM_MEASURED)


def prove_decord(segments: Sequence[VideoRecord]) -> str:
    """Return "decord" if it gives exactly the frames of a file, otherwise the reason against it.

    `segments` are all records of the file, whose frames are compared. Runs read ascending frames.
    For each of them decord goes to the key frame before it, unless it is already beyond that, and
    on from there frame by frame. So the frames are compared one after the other, with gaps, from
    key frames on, and at both ends of what each key frame starts.
    """
    path = segments[0].path
    with open_stream(path) as (_, stream):
        if stream.codec_context.has_b_frames:
            return HAS_B_FRAMES
    frames = [record.first_frame + np.arange(record.num_frames) for record in segments]
    numbers = np.unique(np.concatenate(frames))
    by_pyav = iterate_frames(replace(segments[0], reader="", first_frame=0), numbers)
    expected = dict(zip(numbers.tolist(), map(checksum, by_pyav), strict=True))
    try:
        for selected in _reads(path, numbers):
            found = map(checksum, read_by_decord(path, selected))
            for number, value in zip(selected.tolist(), found, strict=True):
                if value != expected[number]:
                    return f"{DIFFERS}: {number} of {selected[:8].tolist()}"
    except LookupError as error:
        return f"{FAILS}: {str(error).splitlines()[0]}"
    return DECORD


def _reads(path: Path, numbers: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the ascending frames of each read that proves decord."""
    import decord

    yield from (numbers[::gap] for gap in (1, 2, 3, 8))
    keys = decord.VideoReader(str(path.absolute()), num_threads=1).get_key_indices()
    is_start = np.isin(numbers, keys) | (np.diff(numbers, prepend=-2) > 1)
    parts = np.split(numbers, np.flatnonzero(is_start)[1:])  # from a key frame, or after a gap
    yield from (np.array([part[end] for part in parts]) for end in (0, -1))
    for place in np.unique(np.linspace(0, len(parts) - 1, NUM_STARTS).astype(int)):
        yield parts[place]
