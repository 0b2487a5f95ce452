import importlib
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from tiny import tiny_r2plus1d
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lib.config import PROJECT_ROOT
from lib.models.networks import InputSpec, VideoClassifier, build_model, input_spec
from lib.models.video_resnet import ChannelsLastConv3d, FrameDifferences, conv3d
from lib.models.weights import load_reference_weights, our_name

GOLDEN = PROJECT_ROOT / "tests/golden"
REFERENCE = json.loads((GOLDEN / "models.json").read_text())
THEIR_NAME = {our_name(name): name for net in REFERENCE.values() for name, _ in net["keys"]}
TORCHVISION_NAMES = torchvision.models.list_models(module=torchvision.models.video)


# --- Against the reference ------------------------------------------------------------------------


def golden_tensor(k: int, name: str, shape: list[int]) -> torch.Tensor:
    """The k-th tensor of tests/golden/models.json, by the formula its logits were made with."""
    count = int(np.prod(shape))
    s = torch.sin(0.37 * torch.arange(count, dtype=torch.float64) + 1.7 * k).reshape(shape)
    if name.endswith("running_var"):
        return 1 + 0.1 * s.abs()
    if name.endswith("running_mean"):
        return 0.05 * s
    if len(shape) == 1:
        return 1 + 0.1 * s if name.endswith("weight") else 0.05 * s
    return s * (2 / np.prod(shape[1:])) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("network", ["r2plus1d_34", "r3d_18"])
def test_names_shapes_and_logits_equal_the_reference(network):
    reference = REFERENCE[network]["keys"]
    model = build_model(network, 101).double().eval()
    state = model.state_dict()
    assert {our_name(name): shape for name, shape in reference} == {
        name: list(tensor.shape) for name, tensor in state.items()
    }
    for k, (name, shape) in enumerate(reference):
        if not name.endswith("num_batches_tracked"):
            state[our_name(name)] = golden_tensor(k, name, shape)
    model.load_state_dict(state)
    clips = torch.sin(0.013 * torch.arange(2 * 3 * 8 * 64 * 64, dtype=torch.float64))
    with torch.no_grad():
        logits = model(clips.reshape(2, 3, 8, 64, 64))
    expected = np.load(GOLDEN / f"{network}_logits.npy")
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-6)


def test_paper_network_has_63_6_million_parameters():
    with torch.device("meta"):
        model = build_model("r2plus1d_34", 101)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == 63.6


def test_batch_norm_epsilons():
    with torch.device("meta"):
        norms = {
            name: module.eps
            for name, module in build_model("r2plus1d_34", 5).named_modules()
            if isinstance(module, nn.BatchNorm3d)
        }
    for name, eps in norms.items():
        assert eps == (1e-5 if name.endswith(".conv.norm") else 1e-3)


# --- Our networks ---------------------------------------------------------------------------------


def test_small_network_stays_cheap():
    model = build_model("r3d_small", 10).eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 8, 48, 48))
    assert 12e6 < counter.get_total_flops() / 2 < 40e6
    assert sum(p.numel() for p in model.parameters()) < 300_000


def test_frame_differences_are_appended():
    clips = torch.randn(2, 3, 4, 5, 6)
    both = FrameDifferences()(clips)
    torch.testing.assert_close(both[:, :3], clips)
    assert not both[:, 3:, 0].any()
    torch.testing.assert_close(both[:, 3:, 2], clips[:, :, 2] - clips[:, :, 1])


@pytest.mark.parametrize("channels", [6, 16])
def test_channels_last_convolution_equals_conv3d(channels):
    results = []
    for kind in (nn.Conv3d, ChannelsLastConv3d):
        torch.manual_seed(0)
        conv = conv3d(channels, 8, (3, 3, 3), (1, 2, 2), kind)
        clips = torch.randn(2, channels, 4, 8, 8)
        out = conv(clips.requires_grad_())
        out.square().sum().backward()
        results.append([out, clips.grad, conv.weight.grad])
        assert out.is_contiguous() and list(conv.state_dict()) == ["weight"]
    torch.testing.assert_close(*results)


def test_group_norm_keeps_clips_apart_in_training():
    model, clips = build_model("r3d_small", 5, dropout=0.0).train(), torch.randn(4, 3, 8, 32, 32)
    torch.testing.assert_close(model(clips)[:1], model(clips[:1]))


def test_small_network_overfits_one_batch():
    torch.manual_seed(0)
    model, labels = build_model("r3d_small", 4, dropout=0.0), torch.arange(8) % 4
    clips = torch.randn(8, 3, 8, 32, 32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(25):
        loss = nn.functional.cross_entropy(model(clips), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05


@pytest.mark.parametrize("size", [(1, 16, 16), (3, 50, 70), (16, 64, 64)])
def test_small_network_takes_any_clip_size(size):
    assert build_model("r3d_small", 3).eval()(torch.zeros(1, 3, *size)).shape == (1, 3)


def test_action_and_teacher_heads():
    model = build_model("r3d_small", 6, teacher_classes=1000, dropout=0.25)
    clips = torch.randn(2, 3, 4, 32, 32)
    logits, teacher_logits = model(clips, with_teacher=True)
    assert logits.shape == (2, 6) and teacher_logits.shape == (2, 1000)
    assert model(clips).shape == (2, 6)
    assert model.backbone(clips).shape == (2, model.head.in_features)
    assert model.dropout.p == 0.25
    assert model.teacher_head.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not model.teacher_head.bias.any()
    model.eval()
    torch.testing.assert_close(model(clips), model.head(model.backbone(clips)))


def test_missing_teacher_head_is_refused():
    with pytest.raises(ValueError, match="teacher_classes > 0"):
        build_model("r3d_small", 6)(torch.zeros(1, 3, 2, 16, 16), with_teacher=True)


# --- By name --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["r2plus1d_18", "mc3_18", "torchvision/r3d_18", "swin3d_t"])
def test_torchvision_network_forward_and_backward(name):
    model = build_model(name, 5, teacher_classes=7)
    logits, teacher_logits = model(torch.randn(2, 3, 4, 32, 32), with_teacher=True)
    assert logits.shape == (2, 5) and teacher_logits.shape == (2, 7)
    (logits.sum() + teacher_logits.sum()).backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.slow
def test_feature_sizes_of_every_torchvision_video_network():
    for name in TORCHVISION_NAMES:
        spec = input_spec(f"torchvision/{name}")
        with torch.device("meta"):
            model = build_model(f"torchvision/{name}", 5).eval()
            size = max(spec.min_crop_size, 32)
            clips = torch.zeros(2, 3, max(spec.min_clip_len, 2), size, size)
            assert model.backbone(clips).shape == (2, model.head.in_features), name
            assert model(clips).shape == (2, 5), name


@pytest.mark.slow
def test_s3d_features_followed_by_its_classifier_are_its_logits():
    torch.manual_seed(0)
    network = torchvision.models.get_model("s3d", weights=None).eval()
    model = build_model("s3d", 400).eval()
    model.backbone.load_state_dict(network.state_dict(), strict=False)
    model.head.weight.data = network.classifier[1].weight.data.flatten(1)
    model.head.bias.data = network.classifier[1].bias.data
    assert model.dropout.p == 0.2
    clips = torch.randn(1, 3, 14, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(model(clips), network(clips), rtol=0, atol=1e-5)


def test_pretrained_weights_reach_the_backbone(monkeypatch):
    published = torchvision.models.get_model("mc3_18", weights=None).state_dict()
    asked = []

    def download(url, *args, **kwargs):
        asked.append(url)
        return published

    api = importlib.import_module("torchvision.models._api")
    monkeypatch.setattr(api, "load_state_dict_from_url", download)
    model = build_model("mc3_18", 5, pretrained=True)
    assert len(asked) == 1 and "mc3_18" in asked[0]
    for name, tensor in model.backbone.state_dict().items():
        torch.testing.assert_close(tensor, published[name])


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("r2plus1d34", "r2plus1d_34"),
        ("r3d18", "r3d_18"),
        ("mvit_v2", "mvit_v2_s"),
        ("torchvision/r3d18", "torchvision/r3d_18"),
    ],
)
def test_misspelled_network_gets_a_suggestion(name, meant):
    with pytest.raises(ValueError, match=rf"no network '{name}'; did you mean '{meant}'\?$"):
        build_model(name, 5)


def test_unknown_name_lists_the_choices():
    with pytest.raises(ValueError, match="there is no network 'x'; choose one of r2plus1d_34"):
        input_spec("x")
    with pytest.raises(ValueError, match="there is no network 'torchvision/r2plus1d_34'"):
        build_model("torchvision/r2plus1d_34", 5)


def test_our_networks_have_no_published_weights():
    with pytest.raises(ValueError, match="no published weights for 'r3d_18'; set it to false"):
        build_model("r3d_18", 5, pretrained=True)
    with pytest.raises(ValueError, match="no published weights"):
        input_spec("r2plus1d_34", pretrained=True)


def test_default_dropout_is_the_networks_own():
    assert build_model("mc3_18", 5).dropout.p == 0.0
    assert build_model("r3d_small", 5).dropout.p == 0.2
    with torch.device("meta"):
        assert build_model("r2plus1d_34", 5).dropout.p == 0.5
        assert build_model("mvit_v2_s", 5).dropout.p == 0.5


# --- Input ----------------------------------------------------------------------------------------


def test_input_specs():
    assert input_spec("r2plus1d_34") == InputSpec(
        (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), 256, 224
    )
    swin = input_spec("swin3d_t", pretrained=True)
    assert swin.mean == pytest.approx((123.675, 116.28, 103.53))
    assert swin.std == pytest.approx((58.395, 57.12, 57.375))
    r2plus1d = input_spec("r2plus1d_18")
    assert (r2plus1d.short_side, r2plus1d.crop_size) == (128, 112)


@pytest.mark.parametrize("name", TORCHVISION_NAMES)
def test_published_clip_sizes_are_accepted(name):
    notes = torchvision.models.get_model_weights(name).DEFAULT.meta["_docs"]
    spec = input_spec(f"torchvision/{name}")
    clip_len = int(re.search(r"clip_len=(\d+)", notes)[1])
    spec.check(name, clip_len, spec.crop_size)


@pytest.mark.parametrize(
    ("name", "clip_len", "crop_size", "words"),
    [
        ("mvit_v2_s", 8, 224, "clip_len: mvit_v2_s takes exactly 16, not 8"),
        ("mvit_v2_s", 16, 256, "crop_size: mvit_v2_s takes exactly 224, not 256"),
        ("s3d", 8, 224, "clip_len: s3d takes at least 14, not 8"),
        ("s3d", 16, 112, "crop_size: s3d takes at least 224, not 112"),
        ("r3d_18", 1, 112, "clip_len: r3d_18 takes at least 2, not 1"),
    ],
)
def test_clip_sizes_that_a_network_refuses(name, clip_len, crop_size, words):
    with pytest.raises(ValueError, match=words):
        input_spec(name).check(name, clip_len, crop_size)


# --- Importing weights ----------------------------------------------------------------------------


def their_state(model: VideoClassifier) -> dict[str, torch.Tensor]:
    names = {f"teacher_head.{part}": f"distill_head.fc_cls.{part}" for part in ("weight", "bias")}
    names |= THEIR_NAME
    return {names[name]: tensor for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("layout", ["bare", "with other data", "module."])
def test_checkpoint_layouts_load(layout, tmp_path):
    source, model, path = (
        tiny_r2plus1d(5, teacher_classes=9),
        tiny_r2plus1d(5, teacher_classes=9),
        tmp_path / "epoch_3.pth",
    )
    state = their_state(source)
    if layout == "module.":
        state = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save(state if layout == "bare" else {"meta": {}, "state_dict": state}, path)
    load_reference_weights(model, path)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, source.state_dict()[name], rtol=0, atol=0)


def test_all_differing_tensors_are_named(tmp_path):
    state = their_state(tiny_r2plus1d(5))
    del state["backbone.layer2.0.downsample.conv.conv_s.weight"], state["backbone.conv1.bn.bias"]
    state["backbone.layer9.extra"] = torch.zeros(1)
    state["neck.weight"] = torch.zeros(1)
    state["backbone.layer1.0.conv1.bn.weight"] = torch.zeros(6)
    state["cls_head.fc_cls.bias"] = torch.zeros(4)
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="weights: .*a.pth does not fit this network") as error:
        load_reference_weights(tiny_r2plus1d(5), tmp_path / "a.pth")
    missing, unexpected, *shapes = str(error.value).splitlines()[1:]
    assert '"backbone.stem.norm.bias", "backbone.stages.1.0.shortcut.conv.spatial' in missing
    assert '"neck.weight", "backbone.stages.8.extra"' in unexpected
    assert ["stages.0.0.conv1.norm.weight" in shapes[0], "head.bias" in shapes[1]] == [True, True]
    assert "Size([4]) from checkpoint, the shape in current model is torch.Size([5])" in shapes[1]


def test_duplicate_tensor_is_refused(tmp_path):
    state = their_state(tiny_r2plus1d(5))
    state["head.bias"] = torch.zeros(5)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="two tensors for one of the network"):
        load_reference_weights(tiny_r2plus1d(5), tmp_path / "a.pth")


class Malicious:
    """Runs code when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("in_zip", [True, False])
def test_malicious_file_is_refused_and_not_run(in_zip, tmp_path):
    trace, path = tmp_path / "executed", tmp_path / "a.pth"
    content = {"state_dict": {"backbone.conv1.bn.bias": Malicious(Path.touch, trace)}}
    if in_zip:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(ValueError, match="a.pth is not a file of tensors"):
        load_reference_weights(tiny_r2plus1d(5), path)
    assert not trace.exists()
    torch.load(path, weights_only=False) if in_zip else pickle.loads(path.read_bytes())
    assert trace.exists()  # it would have run


def test_refusal_names_what_the_file_asks_for(tmp_path):
    torch.save({"state_dict": {"x": Malicious(eval, "1")}}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="it asks for eval.*save its tensors alone"):
        load_reference_weights(tiny_r2plus1d(5), tmp_path / "a.pth")


@pytest.mark.parametrize("content", [b"", b"<html>404", b"PK\x03\x04 cut off"])
def test_damaged_file_is_refused(content, tmp_path):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(
        ValueError, match="a.pth is not a file of tensors and plain data .it is damaged"
    ):
        load_reference_weights(tiny_r2plus1d(5), tmp_path / "a.pth")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"state_dict": {"x": 1.0}}])
def test_file_without_state_dict_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="holds no state_dict"):
        load_reference_weights(tiny_r2plus1d(5), tmp_path / "a.pth")
