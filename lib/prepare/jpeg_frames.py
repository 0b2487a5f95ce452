"""Store a data set as JPEG frames instead of videos: larger, and faster to read at random."""

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from lib.data.dataset import (
    READER_COLUMNS,
    VideoDataset,
    VideoRecord,
    check_room,
    read_description,
    write_dataset,
)
from lib.data.frame_tables import (
    PERSON_BOXES_FILE,
    SCALED_TO,
    FrameRows,
    PersonBoxes,
    read_made_with,
)
from lib.data.video_reader import FRAME_FILE, iterate_frames
from lib.prepare.parallel import map_in_workers

QUALITY = 95  # of the JPEG files, of 100
BYTES_PER_PIXEL = 0.35  # of such a file, approximately


def write_frames(record: VideoRecord, folder: Path, short_side: int) -> tuple[int, int]:
    """Write `<class>/<name>/img_00001.jpg` and so on, unless done; return their width and height.

    The video's folder is renamed when it is complete. A short side of 0 is that of the video.
    """
    target = folder / record.name
    if not target.is_dir():
        unfinished = target.with_name(f".{target.name}.unfinished")
        unfinished.mkdir(parents=True, exist_ok=True)
        short = min(record.width, record.height)
        for number, frame in enumerate(iterate_frames(record, np.arange(record.num_frames)), 1):
            image = Image.fromarray(frame)
            if short_side not in (0, short):
                size = tuple(max(1, round(side * short_side / short)) for side in image.size)
                image = image.resize(size, Image.Resampling.BILINEAR)
            image.save(unfinished / FRAME_FILE.format(number), quality=QUALITY)
        unfinished.rename(target)
    with Image.open(target / FRAME_FILE.format(record.num_frames), formats=["JPEG"]) as image:
        return image.size


def stores_frames(dataset: VideoDataset) -> bool:
    """Return True if a data set is read from folders of frames."""
    return all(dataset.record(row).path.is_dir() for row in (0, len(dataset.index) - 1))


def jpeg_bytes(videos: np.ndarray, short_side: int) -> float:
    """Estimate the disk space of the stored frames, bytes; short side as in `write_frames`.

    `videos` (V, 3) are frames, width and height of each video.
    """
    frames, sides = videos[:, 0], videos[:, 1:]
    scale = short_side / sides.min(axis=1) if short_side else np.ones(len(videos))
    return float((frames * sides.prod(axis=1) * scale**2).sum() * BYTES_PER_PIXEL)


def store_frames(
    dataset: VideoDataset, short_side: int = 256, num_processes: int = 0
) -> VideoDataset:
    """Write the frames of all videos and make the index refer to them; scale the person boxes.

    ValueError if a video cannot be read, or the missing frames do not fit on the disk. Frames that
    are written are kept.
    """
    if stores_frames(dataset):
        return dataset
    folder, index = dataset.folder / "frames", dataset.index.copy()
    records = [dataset.record(row) for row in range(len(index))]
    is_missing = [not (folder / record.name).is_dir() for record in records]
    missing = index.loc[is_missing, ["frames", "width", "height"]].to_numpy()
    remedy = "set prepared_dir to another disk, or keep storage = 'videos'"
    size = jpeg_bytes(missing, short_side)
    check_room(folder, size, f"the frames of {len(missing)} videos", remedy)
    sizes = np.zeros((len(records), 2), dtype=np.int64)
    write = partial(write_frames, folder=folder, short_side=short_side)
    results = map_in_workers(write, records, num_processes)
    for result in tqdm(results, "writing frames", len(records), unit="video"):
        if result.error is not None:
            path = records[result.position].path
            raise ValueError(f"{path}: its frames cannot be stored: {result.error}")
        sizes[result.position] = result.value
    made_with = read_made_with(dataset.folder / PERSON_BOXES_FILE)
    if made_with is not None and made_with.get(SCALED_TO) != short_side:
        scales = sizes / index[["width", "height"]].to_numpy()
        _scale_boxes(dataset, scales, {**made_with, SCALED_TO: short_side})
    index["path"] = "frames/" + index["name"]
    index[["width", "height"]] = sizes
    index[READER_COLUMNS] = ""
    source = {**read_description(dataset.folder)["source"], "frames_of": str(dataset.root)}
    return write_dataset(
        dataset.folder, dataset.name, dataset.classes, dataset.folder, index, source
    )


def _scale_boxes(dataset: VideoDataset, scales: np.ndarray, made_with: dict) -> None:
    tables = map(PersonBoxes(dataset).read, range(len(scales)))
    boxes = [
        FrameRows(rows * np.array([x, y, x, y, 1]), frames)
        for (rows, frames), (x, y) in zip(tables, scales, strict=True)
    ]
    names, num_frames = dataset.index["name"].tolist(), dataset.index["frames"].tolist()
    PersonBoxes.write(dataset.folder, names, num_frames, boxes, made_with)
