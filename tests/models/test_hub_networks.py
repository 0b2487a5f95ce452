"""Networks of the hub: small ones of the real classes, written to disk and read back offline."""

import json

import pytest
import torch
from hub import IMAGENET, NETWORKS, write_network
from safetensors.torch import load_file, save_file

from lib.models import transformers_video
from lib.models.networks import build_model, input_spec
from lib.models.transformers_video import missing_network

transformers = pytest.importorskip("transformers")
IMAGES = ("dinov2", "dinov3", "clip", "siglip")


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Every network, written once: name -> the setting `model`."""
    folder = tmp_path_factory.mktemp("hub")
    return {name: write_network(folder / name, name) for name in NETWORKS}


def published_features(name: str, folder: str, clips: torch.Tensor) -> torch.Tensor:
    """Compute features of clips (B, 3, T, H, W) with the package alone."""
    network_class = NETWORKS[name][2] or "AutoModel"
    network = getattr(transformers, network_class).from_pretrained(folder).eval()
    frames = clips.transpose(1, 2)
    if name in IMAGES:
        vision = getattr(network, "vision_model", network)
        return torch.stack([vision(frames[:, t]).pooler_output for t in range(4)]).mean(0)
    if name == "xclip":
        return network.get_video_features(frames).pooler_output
    if name.endswith("_classifier"):
        network.classifier = torch.nn.Identity()
        return network(frames).logits
    if name.startswith("videomae"):
        return (
            transformers.VideoMAEModel.from_pretrained(folder)
            .eval()(frames)
            .last_hidden_state.mean(1)
        )
    tokens = network(frames).last_hidden_state
    return tokens.mean(1) if name == "vjepa2" else tokens[:, 0]


@pytest.mark.parametrize("name", NETWORKS)
def test_features_are_those_of_the_published_network(networks, name):
    clips = torch.randn(2, 3, 4, 16, 16)
    model = build_model(networks[name], 5, pretrained=True, teacher_classes=3).eval()
    with torch.no_grad():
        expected = published_features(name, networks[name].removeprefix("hf/"), clips)
        torch.testing.assert_close(model.backbone(clips), expected, rtol=1e-5, atol=1e-6)
    logits, teacher_logits = model.train()(clips, with_teacher=True)
    assert logits.shape == (2, 5) and teacher_logits.shape == (2, 3)
    (logits.sum() + teacher_logits.sum()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []  # as DDP demands
    fresh = build_model(networks[name], 5).backbone.state_dict()
    assert fresh.keys() == model.backbone.state_dict().keys()
    assert any(not torch.equal(fresh[k], v) for k, v in model.backbone.state_dict().items())


@pytest.mark.parametrize(
    ("name", "clip_len", "crop_size", "words"),
    [
        ("videomae", 8, 16, "clip_len: .* takes exactly 4, not 8"),
        ("videomae", 4, 32, "crop_size: .* takes exactly 16, not 32"),
        ("vjepa2", 3, 16, "clip_len: .* takes at least 2 and multiples of 2, not 3"),
        ("vjepa2", 4, 24, "crop_size: .* takes exactly 16, not 24"),
        ("vivit", 2, 16, "clip_len: .* takes exactly 4, not 2"),
        ("xclip", 8, 16, "clip_len: .* takes exactly 4, not 8"),
        ("dinov2", 1, 20, "crop_size: .* takes at least 8 and multiples of 8, not 20"),
        ("clip", 1, 24, "crop_size: .* takes exactly 16, not 24"),
    ],
)
def test_clip_sizes_are_checked_against_the_configuration(
    networks, name, clip_len, crop_size, words
):
    with pytest.raises(ValueError, match=words):
        input_spec(networks[name]).check("x", clip_len, crop_size)
    input_spec(networks[name]).check("x", 4, 16)


@pytest.mark.parametrize(("name", "size"), [("vjepa2", (2, 16)), ("dinov2", (3, 24))])
def test_sizes_that_are_free_are_taken(networks, name, size):
    input_spec(networks[name]).check(name, *size)
    clips = torch.zeros(1, 3, size[0], size[1], size[1])
    assert build_model(networks[name], 2)(clips).shape == (1, 2)


def test_normalization_is_that_of_the_preprocessor(networks, tmp_path):
    spec = input_spec(networks["videomae"])
    assert spec.mean == pytest.approx((123.675, 116.28, 103.53))
    assert spec.std == pytest.approx((58.395, 57.12, 57.375))
    folder = tmp_path / "vivit"
    name = write_network(folder, "vivit")
    values = {"rescale_factor": 1 / 127.5, "offset": True, "image_mean": [0.5] * 3}
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(values | {"image_std": [0.5] * 3}))
    spec = input_spec(name)  # (x / 127.5 − 1 − 0.5) / 0.5
    assert spec.mean == pytest.approx((191.25,) * 3) and spec.std == pytest.approx((63.75,) * 3)
    path.write_text(json.dumps(IMAGENET | {"do_normalize": False}))
    assert input_spec(name).std == pytest.approx((255.0,) * 3)


def test_a_repository_in_the_cache_needs_no_connection(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    name = "hf/owner/tiny"
    with pytest.raises(ValueError, match='hf download owner/tiny --include "\\*.json"'):
        build_model(name, 3, pretrained=True)
    assert "hf download owner/tiny" in missing_network(name)
    snapshot = tmp_path / "models--owner--tiny" / "snapshots" / "abc"
    write_network(snapshot, "videomae")
    refs = tmp_path / "models--owner--tiny" / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    assert missing_network(name) == ""
    assert build_model(name, 3, pretrained=True).head.in_features == 24


def test_files_that_cannot_be_used_are_refused(tmp_path, monkeypatch):
    folder = tmp_path / "videomae"
    name = write_network(folder, "videomae")
    weights = folder / "model.safetensors"
    with pytest.raises(ValueError, match="weights: .* reads the weights in its own folder"):
        build_model(name, 3, weights=weights)
    with pytest.raises(ValueError, match="temporal_std_pooling: .* is no image network"):
        build_model(name, 3, temporal_std_pooling=True)
    tensors = load_file(weights)
    save_file({k: v for k, v in tensors.items() if k != "layernorm.bias"}, weights)
    with pytest.raises(ValueError, match="lack network.layernorm.bias|lack layernorm.bias"):
        build_model(name, 3, pretrained=True)
    save_file(tensors | {"layernorm.bias": torch.zeros(3)}, weights)
    with pytest.raises(ValueError, match="model: .* cannot be loaded"):
        build_model(name, 3, pretrained=True)
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="no \\*.safetensors, and other files .* are pickles"):
        build_model(name, 3, pretrained=True)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match="has no preprocessor_config.json or"):
        input_spec(name)
    config = json.loads((folder / "config.json").read_text())
    values = config | {"model_type": "own", "auto_map": {"AutoModel": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="type 'own' cannot be used, and code .* is never run"):
        build_model(name, 3)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match="has no config.json"):
        build_model(name, 3)


def test_without_the_extra_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr(transformers_video, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs the package transformers; pip install -e"):
        build_model(f"hf/{tmp_path}", 3)
