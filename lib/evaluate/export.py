"""Export of a trained network as a folder that can be used without this project.

    python -m lib.evaluate.export outputs/videos/semi_seed0 exported/

weights.safetensors  the network's tensors
model.onnx           uint8 clips (N, T, 3, H, W) -> logits (N, K), normalization included
preprocessing.json   how clips are cut from a video, and the temperature of their probabilities
classes.json         class names in the order of the logits
params.yaml          all settings of the run
README.md            the model card
"""

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import jinja2
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lib.config import project_path
from lib.evaluate.trained_model import TrainedModel, check_finished
from lib.fileio import check_writable, write_atomic, write_text
from lib.runs.run_dir import RunDir, read_result


class ForExport(nn.Module):
    """The network with its normalization: uint8 clips (N, T, 3, H, W) -> logits (N, K)."""

    def __init__(self, model: TrainedModel):
        super().__init__()
        self.network = model.network
        self.register_buffer("mean", model.normalize.mean[..., None])
        self.register_buffer("std", model.normalize.std[..., None])

    def forward(self, clips: Tensor) -> Tensor:
        """Return the logits of clips."""
        return self.network((clips.transpose(1, 2).float() - self.mean) / self.std)


def export(run: RunDir, out: Path) -> Path:
    """Write the network of a finished run to a folder, and return that."""
    if find_spec("onnxscript") is None:
        raise ValueError("ONNX: the package onnxscript is missing; pip install -e '.[export]'")
    check_finished(run)
    model = TrainedModel.load(run, device="cpu")
    s = model.settings
    check_writable(out, "out", "choose another folder")
    tensors = {name: value.contiguous() for name, value in model.network.state_dict().items()}
    write_atomic(out / "weights.safetensors", lambda path: save_file(tensors, path))
    write_atomic(out / "model.onnx", lambda path: write_onnx(model, path))
    write_text(out / "classes.json", json.dumps(model.classes, indent=1) + "\n")
    preprocessing = s.model_dump(include={"clip_len", "frame_interval", "short_side"}) | {
        "crop_size": s.test_crop_size,
        "crop": "center, after the short side was scaled (bilinear)",
        "colors": "RGB, uint8, clips (N, T, 3, H, W)",
        "mean": model.normalize.mean.flatten().tolist(),
        "std": model.normalize.std.flatten().tolist(),
        "fusion": f"mean of {s.test_average} over the clips of a video",
        "temperature": model.temperature,
    }
    write_text(out / "preprocessing.json", json.dumps(preprocessing, indent=1) + "\n")
    write_text(out / "params.yaml", s.as_yaml())
    result = read_result(run) if run.metrics_path.is_file() else {}
    template = jinja2.Template(Path(__file__).with_name("model_card.md.j2").read_text("utf-8"))
    card = template.render(name=run.name, result=result, model=model, s=s)
    write_text(out / "README.md", card)
    return out


def write_onnx(model: TrainedModel, path: Path) -> None:
    """Write the network for any number of clips of the run's size."""
    s = model.settings
    clips = torch.zeros(2, s.clip_len, 3, s.test_crop_size, s.test_crop_size, dtype=torch.uint8)
    program = torch.onnx.export(
        ForExport(model).eval(),
        (clips,),
        input_names=["clips"],
        output_names=["scores"],
        dynamic_shapes=({0: torch.export.Dim("clips", min=1)},),
        dynamo=True,
        verbose=False,
    )
    program.save(str(path), external_data=False)


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
