"""The library behind the notebooks. `from lib import fit` works for every name in `PUBLIC`."""

import os
from importlib import import_module
from typing import Any

# Read when torch is loaded: idle OpenMP threads sleep instead of busy-waiting. On a busy machine
# the default makes two threads 20 times slower than one (benchmarks/README.md).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Module -> its public names. A module is imported when one of its names is first used.
PUBLIC = {
    "lib.config": ("PrepareSettings", "TrainSettings"),
    "lib.augment.randaugment": ("RandAugment",),
    "lib.augment.temporal": ("TEMPORAL_OPS", "TemporalAugment", "TemporalOperation"),
    "lib.augment.scene": ("SCENE_AUGMENTATIONS", "SceneAugmentation", "actor_cutmix"),
    "lib.augment.views": ("EvalTransform", "StrongTransform", "WeakTransform"),
    "lib.data.dataset": ("VideoDataset", "read_dataset"),
    "lib.data.video_reader": ("read_frames",),
    "lib.data.clip_dataset": ("ClipDataset", "make_generator"),
    "lib.models.networks": ("NETWORKS", "build_model"),
    "lib.prepare.steps": ("open_dataset",),
    "lib.train.objectives": ("OBJECTIVES", "FixMatchObjective"),
    "lib.train.fit": ("fit",),
    "lib.runs.run_dir": ("RunDir",),
    "lib.evaluate.trained_model": ("TrainedModel",),
    "lib.evaluate.new_videos": ("open_video", "predict_video"),
}
_MODULES = {name: module for module, names in PUBLIC.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in _MODULES:
        raise AttributeError(f"module 'lib' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted([*globals(), *_MODULES])
