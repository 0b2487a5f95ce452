"""A trained network as a folder that others can use without this project.

    python -m lib.evaluate.export outputs/folder/semi_seed0 exported/

weights.safetensors  the network's tensors
model.onnx           uint8 clips (N, T, 3, H, W) -> scores (N, K), normalisation inside
preprocessing.json   how a clip is made of a video, and the temperature of its probabilities
classes.json         class names in the order of the scores
params.yaml          all settings of the run
README.md            the model card
"""

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lib.config import project_path
from lib.evaluate.predict import Classifier, load_classifier
from lib.fileio import check_writable, read_json, write_atomic, write_text
from lib.runs.run_dir import RunDir

CARD = """# {name}

Action recognition in {num} classes: {classes}.

- **Network** {s.model}, trained with the objective `{s.objective}` for {s.epochs} epochs, seed {s.seed}. All settings: `params.yaml`.
- **Data** {s.dataset}, {percent:g} % of the labels of list `{s.labeled_split}`. The licence of the videos holds for what may be done with this model: state it here before you pass it on.
- **Results** {results}. One seed; differences between seeds can be several points.
- **Confidence** probabilities are softmax(scores / {temperature:.3f}).
- **Input** {s.clip_len} frames, every {s.frame_interval}, short side {s.short_side}, centre crop {s.test_crop_size}: `preprocessing.json`.

## What it is not for

It always answers with one of its classes, also where nothing of them is to be seen. It may have learned places and objects instead of the actions. Do not decide about people by it, and test it on videos of the camera and place where it is used.
"""  # noqa: E501


class ForExport(nn.Module):
    """The network with its normalisation: uint8 clips (N, T, 3, H, W) -> scores (N, K)."""

    def __init__(self, classifier: Classifier):
        super().__init__()
        self.model = classifier.model
        self.register_buffer("mean", classifier.normalize.mean[..., None])
        self.register_buffer("std", classifier.normalize.std[..., None])

    def forward(self, clips: Tensor) -> Tensor:
        """Return the scores of clips."""
        return self.model((clips.transpose(1, 2).float() - self.mean) / self.std)


def export(run: RunDir, out: Path) -> Path:
    """Write a finished run's network as a folder; returns it.

    Raises:
        ValueError: If the run is not finished, ONNX cannot be written here, or the folder not.
    """
    if find_spec("onnxscript") is None:
        raise ValueError("ONNX needs the package onnxscript; pip install -e '.[export]'")
    classifier = load_classifier(run)
    check_writable(out, "out", "choose another folder")
    tensors = {name: value.contiguous() for name, value in classifier.model.state_dict().items()}
    write_atomic(out / "weights.safetensors", lambda path: save_file(tensors, path))
    write_atomic(out / "model.onnx", lambda path: write_onnx(classifier, path))
    write_text(out / "classes.json", json.dumps(classifier.classes, indent=1) + "\n")
    write_text(out / "preprocessing.json", json.dumps(preprocessing(classifier), indent=1) + "\n")
    write_text(out / "params.yaml", run.settings().as_yaml())
    write_text(out / "README.md", model_card(run, classifier))
    return out


def write_onnx(classifier: Classifier, path: Path) -> None:
    """Write the network for clips of the run's size, any number of them at once."""
    s = classifier.settings
    clips = torch.zeros(2, s.clip_len, 3, s.test_crop_size, s.test_crop_size, dtype=torch.uint8)
    program = torch.onnx.export(
        ForExport(classifier).eval(),
        (clips,),
        input_names=["clips"],
        output_names=["scores"],
        dynamic_shapes=({0: torch.export.Dim("clips", min=1)},),
        dynamo=True,
        verbose=False,
    )
    program.save(str(path), external_data=False)


def preprocessing(classifier: Classifier) -> dict:
    """Return how a clip is made of a video."""
    s = classifier.settings
    return {
        "clip_len": s.clip_len,
        "frame_interval": s.frame_interval,
        "short_side": s.short_side,
        "crop_size": s.test_crop_size,
        "crop": "centre, after the short side was scaled (bilinear)",
        "colors": "RGB, uint8, clips (N, T, 3, H, W)",
        "mean": classifier.normalize.mean.flatten().tolist(),
        "std": classifier.normalize.std.flatten().tolist(),
        "fusion": f"mean of {s.test_average} over the clips of a video",
        "temperature": classifier.temperature,
    }


def model_card(run: RunDir, classifier: Classifier) -> str:
    """Return what a reader of the folder should know, Markdown."""
    s, results = run.settings(), "not tested"
    if run.metrics_path.is_file():
        lists = read_json(run.metrics_path, "test the run again")["splits"]
        results = "; ".join(
            f"{name}: top-1 {values['top1']:.1f} % of {values['videos']} videos"
            for name, values in lists.items()
        )
    return CARD.format(
        name=run.name,
        num=len(classifier.classes),
        classes=", ".join(classifier.classes),
        s=s,
        percent=100 * s.labeled_fraction,
        results=results,
        temperature=classifier.temperature,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m lib.evaluate.export", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("run", help="folder of a finished run")
    parser.add_argument("out", help="folder to write")
    options = parser.parse_args(arguments)
    try:
        print(f"written: {export(RunDir(options.run), project_path(options.out))}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
