"""An exported network scores in ONNX Runtime as it does here."""

import json
from importlib.util import find_spec

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from lib.config import TrainSettings
from lib.evaluate.export import main
from lib.runs.run_dir import RunDir
from lib.train.run_model import build_run_model, run_normalize

# Its import takes a second.
pytestmark = pytest.mark.skipif(find_spec("onnxscript") is None, reason="onnxscript is missing")


@pytest.mark.slow
@pytest.mark.parametrize("model, pooling", [("r3d_small", False), ("timm/test_resnet", True)])
def test_the_exported_folder_scores_as_the_run_does(tmp_path, model, pooling, capsys):
    settings = TrainSettings(
        run_dir=str(tmp_path / "run"), model=model, temporal_std_pooling=pooling, clip_len=4,
        epochs=1, short_side=40, crop_size=32, test_crop_size=32,
    )  # fmt: skip
    run, classes = RunDir(settings.run_dir), ["sit", "stand", "walk"]
    torch.manual_seed(0)
    network = build_run_model(settings, len(classes)).eval()
    run.folder.mkdir()
    run.params_path.write_text(settings.as_yaml())
    state = {"model": network.state_dict(), "ema": None, "step": 1, "epoch": 1}
    state["classes"] = classes
    run.save(state)
    assert main([str(run.folder), str(tmp_path / "out")]) == 0, capsys.readouterr().err

    out = tmp_path / "out"
    clips = torch.randint(0, 256, (3, 4, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        expected = network(run_normalize(settings)(clips)).numpy()
    session = onnxruntime.InferenceSession(str(out / "model.onnx"))
    for count in (3, 1):  # any number of clips
        (scores,) = session.run(None, {"clips": clips[:count].numpy()})
        np.testing.assert_allclose(scores, expected[:count], atol=1e-4)
    assert json.loads((out / "classes.json").read_text()) == classes
    assert json.loads((out / "preprocessing.json").read_text())["clip_len"] == 4
    weights = load_file(out / "weights.safetensors")
    assert all(torch.equal(weights[k], v) for k, v in network.state_dict().items())
    assert "not tested" in (out / "README.md").read_text()


def test_a_run_that_is_not_finished_is_not_exported(tmp_path, capsys):
    (tmp_path / "params.yaml").write_text(TrainSettings(run_dir=str(tmp_path)).as_yaml())
    assert main([str(tmp_path), str(tmp_path / "out")]) == 2
    assert "not finished" in capsys.readouterr().err and not (tmp_path / "out").exists()
