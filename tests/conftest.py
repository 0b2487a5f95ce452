"""Small data sets, made once a session, and the settings of small runs."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by NumPy and torch, also of child processes

import av
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import save_file
from tiny import build_tiny, tiny_worker

from lib import registry
from lib.augment.scene import SCENE_AUGMENTATIONS
from lib.augment.temporal import TEMPORAL_OPS
from lib.config import PROJECT_ROOT, TrainSettings
from lib.data import video_reader as video_module
from lib.data.dataset import VideoDataset, write_dataset, write_split
from lib.data.frame_tables import FrameRows, PersonBoxes
from lib.models.networks import NETWORKS
from lib.prepare.synthetic import NUM_FRAMES, make_synthetic
from lib.train import fit, run_model
from lib.train.objectives import OBJECTIVES

SHARED = PROJECT_ROOT.parent / "shared"
_decoded: dict[Path, np.ndarray] = {}
CODED_FRAMES = 40
CODED_SIZE = (48, 64)  # height and width


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny tensors: more threads only cost time, and sums come out the same on every machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def interrupts_arrive():
    """A shell that starts the tests in the background has Ctrl-C ignored, in them and below."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items) -> None:
    """Mark tests in a browser slow, start with files of slow tests; skip `gpu` without CUDA."""
    for item in items:
        if "chromium" in item.fixturenames:
            item.add_marker(pytest.mark.slow)
    slow_files = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow_files)  # stable
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request) -> torch.device:
    """The CPU; with a GPU, also the GPU."""
    return torch.device(request.param)


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Return a file or folder of ../shared, or skip the test and say what is missing."""

    def find(relative: str) -> Path:
        path = SHARED / relative
        if not path.exists():
            pytest.skip(f"{path} is not there: real data is not part of the project")
        return path

    return find


@pytest.fixture(scope="session")
def prepared_dir(tmp_path_factory) -> Path:
    """Folder of prepared data sets; `synthetic` in it is a tiny one."""
    folder = tmp_path_factory.mktemp("data")
    make_synthetic(folder / "synthetic", split_sizes={"train": 18, "val": 8, "val_swapped": 6})
    return folder


def make_tiny_settings(prepared_dir: Path, run_dir: Path, **changes) -> TrainSettings:
    """Return the settings of a run of a second: 18 videos, clips of 4 frames of 16 pixels."""
    return TrainSettings(
        **{
            "dataset": "synthetic",
            "prepared_dir": str(prepared_dir),
            "run_dir": str(run_dir),
            "clip_len": 4,
            "frame_interval": 2,
            "short_side": 20,
            "crop_size": 16,
            "test_crop_size": 20,
            "crop_area_min": 0.08,
            "frame_cache_mb": 50,  # shared by all runs on these videos
            "labeled_fraction": 1.0,
            "unlabeled_scene_p": 0.5,
            "unlabeled_rampup_epochs": 0.0,
            "warmup_epochs": 0.0,
            "weight_decay": 1e-4,
            "test_splits": ["val"],
            "test_num_crops": 3,
            "test_num_clips": 2,
            "model": "r3d_small",
            "dropout": 0.0,
            "confidence_threshold": 0.26,  # four classes: some clips are above it from the start
            "labeled_batch": 4,
            "unlabeled_batch": 6,
            "epochs": 2,
            "val_every_epochs": 1,
            "lr": 0.05,
            "device": "cpu",
        }
        | changes
    )


@pytest.fixture
def tiny_settings(prepared_dir, tmp_path) -> Callable[..., TrainSettings]:
    """Make such settings, of a run in a folder of the test's own."""
    here = {"prepared_dir": prepared_dir, "run_dir": tmp_path / "run"}
    return lambda **changes: make_tiny_settings(**here | changes)


@pytest.fixture
def own_file(tmp_path, monkeypatch) -> Iterator[Callable[[str, str], Path]]:
    """Write a user's file, found by its name; what settings name in it is forgotten at the end."""
    monkeypatch.setattr(registry, "PROJECT_ROOT", tmp_path)

    def write(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    yield write
    for table in (TEMPORAL_OPS, SCENE_AUGMENTATIONS, OBJECTIVES, NETWORKS):
        for name in [name for name in table if ".py:" in name]:
            del table[name]


def write_teacher_scores(dataset: VideoDataset) -> None:
    """Write scores as lib.data.frame_tables documents them, of every second frame of every video.

    The frame t of row v is of class (40·v + t) mod 999 with probability 3/4; 1/4 goes to class 999.
    """
    counts = (dataset.index["frames"].to_numpy() + 1) // 2
    frames = np.concatenate([2 * np.arange(count) for count in counts])
    classes = (40 * np.repeat(np.arange(len(counts)), counts) + frames) % 999
    probabilities = np.zeros((len(frames), 1000), dtype=np.float16)
    probabilities[np.arange(len(frames)), classes] = 0.75
    probabilities[:, 999] = 0.25
    tensors = {
        "probabilities": probabilities,
        "frames": frames.astype(np.int32),
        "video_offsets": np.concatenate([[0], counts.cumsum()]).astype(np.int64),
        "num_frames": dataset.index["frames"].to_numpy(np.int64),
        "names": np.frombuffer("\n".join(dataset.index["name"]).encode(), dtype=np.uint8),
    }
    save_file(tensors, dataset.folder / "teacher.safetensors")


@pytest.fixture(scope="session")
def execute_warm() -> Iterator[Callable[[str, Path, dict], None]]:
    """Execute notebooks by papermill in one kernel, which imports the library once.

    The function takes the notebook's name, the path of the executed copy and the parameters.
    """
    import nbformat  # it and papermill take two seconds
    import papermill
    from jupyter_client.manager import AsyncKernelManager
    from jupyter_core.utils import run_sync

    kernel = AsyncKernelManager(kernel_name="python3")

    def execute(name: str, output: Path, parameters: dict) -> None:
        content = nbformat.read(PROJECT_ROOT / "notebooks" / name, as_version=4)
        content.cells.insert(0, nbformat.v4.new_code_cell("get_ipython().reset()\n__spec__ = None"))
        nbformat.write(content, output)
        options = {"cwd": output.parent, "progress_bar": False, "km": kernel}
        papermill.execute_notebook(output, output, parameters, **options)

    yield execute
    if run_sync(kernel.is_alive)():
        run_sync(kernel.shutdown_kernel)(now=True)


@pytest.fixture
def decoded_once(monkeypatch) -> None:
    """Decode each synthetic video once a session; for many runs on the same ones."""

    real = video_module.read_frames

    def read(record, frame_indices):
        if record.path not in _decoded:
            _decoded[record.path] = real(record, np.arange(NUM_FRAMES))
        return _decoded[record.path][frame_indices]

    monkeypatch.setattr(video_module, "read_frames", read)


@pytest.fixture
def tiny_network(monkeypatch) -> None:
    """Let runs train a network without batch norm, in this process and in spawned ones."""
    monkeypatch.setattr(run_model, "build_run_model", build_tiny)
    monkeypatch.setattr(fit, "train_worker", tiny_worker)


@pytest.fixture
def at_forward(monkeypatch):
    """Call a function in the n-th training pass of the networks built from now on."""

    def install(number: int, function) -> None:
        real, count = run_model.build_run_model, iter(range(10**6))

        def build(settings, num_classes):
            model = real(settings, num_classes)

            def hook(module, *_):
                if module.training and next(count) == number:
                    function()

            model.register_forward_hook(hook)
            return model

        monkeypatch.setattr(run_model, "build_run_model", build)

    return install


def coded_frames(video: int, num_frames: int = CODED_FRAMES) -> np.ndarray:
    """Frames that tell what they are: red is 4 · frame + video, green the row, blue the column."""
    height, width = CODED_SIZE
    frames = np.zeros((num_frames, height, width, 3), dtype=np.uint8)
    frames[..., 0] = (4 * np.arange(num_frames) + video)[:, None, None]
    frames[..., 1] = np.arange(height)[:, None]
    frames[..., 2] = np.arange(width)
    return frames


def write_lossless(path: Path, frames: np.ndarray) -> Path:
    """Write RGB frames (T, H, W, 3), uint8, as a video that gives every pixel back; 8 a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=8)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def coded(tmp_path_factory) -> VideoDataset:
    """Four lossless videos of `coded_frames`, with one box per frame that moves to the right."""
    folder = tmp_path_factory.mktemp("coded")
    names = [f"class{video % 2}/v{video}" for video in range(4)]
    height, width = CODED_SIZE
    for video, name in enumerate(names):
        write_lossless(folder / f"videos/{name}.mkv", coded_frames(video))
    boxes = [
        [np.array([[t, 10.0 + video, t + 12, 30 + video, 0.9]]) for t in range(CODED_FRAMES)]
        for video in range(4)
    ]
    PersonBoxes.write(folder, names, [CODED_FRAMES] * 4, map(FrameRows.stack, boxes))
    index = pd.DataFrame(
        {
            "name": names,
            "path": [f"videos/{name}.mkv" for name in names],
            "class": [name.split("/")[0] for name in names],
            "label": [0, 1, 0, 1],
            "frames": CODED_FRAMES,
            "fps": 8,
            "width": width,
            "height": height,
        }
    )
    dataset = write_dataset(folder, "coded", ["class0", "class1"], folder, index, {})
    write_split(dataset, "train", [0, 1, 2])
    write_split(dataset, "val", [3])
    return dataset


# --- Faults ---------------------------------------------------------------------------------------

_faults: dict[str, list[tuple[str, int, int]]] = {}  # by test


@pytest.fixture
def fault(request) -> Callable[[str, int, int], None]:
    """Return what notes a fault: its name, how often it was injected, how often work was lost."""
    noted = _faults.setdefault(request.node.nodeid, [])
    return lambda name, times, lost: noted.append((name, times, lost))


def fault_rows(failed: set[str]) -> list[tuple[str, int, int]]:
    """Return the noted faults by name, and as lost each test that failed without noting what was.

    Args:
        failed: Ids of the tests that failed.
    """
    noted = [row for rows in _faults.values() for row in rows]
    silent = {test for test in failed if not any(row[2] for row in _faults.get(test, ()))}
    noted += [(f"failed: {test.split('::')[-1]}"[:50], 1, 1) for test in sorted(silent)]
    sums = {name: (0, 0) for name, _, _ in noted}
    for name, times, lost in noted:
        sums[name] = sums[name][0] + times, sums[name][1] + lost
    return [(name, *numbers) for name, numbers in sums.items()]


def pytest_terminal_summary(terminalreporter) -> None:
    """Print what was injected, and what it cost: the table of `make faults`."""
    bad = [terminalreporter.stats.get(kind, []) for kind in ("failed", "error")]
    rows = fault_rows({report.nodeid for reports in bad for report in reports})
    if os.environ.get("FAULTS") != "full" or not rows:
        return
    rows.append(("all of them", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    terminalreporter.write_sep("=", "faults")
    terminalreporter.write_line(f"{'fault':<50} {'times':>6} {'survived':>9} {'lost':>5}")
    for name, times, lost in rows:
        terminalreporter.write_line(f"{name:<50} {times:>6} {times - lost:>9} {lost:>5}")
