"""Choosing device, precision and kernels: no silent training on the CPU where there is a GPU."""

import pytest
import torch

from lib.runs import device as devices
from lib.runs.distributed import DistContext
from lib.train import fit
from lib.train.run_model import build_run_model
from lib.train.trainer import Trainer


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Make this a machine with NVIDIA devices, of which PyTorch can use all or none."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "DEV", tmp_path)

    def make(count: int, works: bool, build: str | None = "13.0") -> None:
        for number in range(count):
            (tmp_path / f"nvidia{number}").touch()
        (tmp_path / "nvidiactl").touch()
        monkeypatch.setattr(torch.cuda, "is_available", lambda: works)
        monkeypatch.setattr(torch.version, "cuda", build)

    return make


def test_auto_is_the_cpu_without_a_gpu_and_cuda_is_refused(machine):
    machine(0, works=False)
    assert devices.resolve_device("auto") == devices.resolve_device("cpu") == "cpu"
    with pytest.raises(ValueError, match="device: 'cuda': there is no NVIDIA GPU"):
        devices.resolve_device("cuda")
    assert devices.resolve_test_device("cuda") == "cpu"  # of a run that was copied from elsewhere


@pytest.mark.parametrize("asked", ["auto", "cuda"])
@pytest.mark.parametrize("build, name", [("13.0", "for CUDA 13.0"), (None, "without CUDA")])
def test_gpu_that_pytorch_cannot_use_is_an_error(machine, asked, build, name):
    machine(2, works=False, build=build)
    with pytest.raises(ValueError, match=f"a build {name}. cannot use the NVIDIA GPU"):
        devices.resolve_device(asked)
    assert devices.resolve_device("cpu") == "cpu"


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_hidden_gpu_is_not_used(machine, monkeypatch, hidden):
    machine(1, works=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert devices.resolve_device("auto") == "cpu"


def test_unsupported_precisions_are_refused(monkeypatch):
    for precision in ("bf16", "fp16"):
        with pytest.raises(ValueError, match=f"'{precision}' needs a GPU"):
            devices.check_precision(precision, "cpu")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    with pytest.raises(ValueError, match="only emulates 'bf16'"):
        devices.check_precision("bf16", "cuda")
    devices.check_precision("fp16", "cuda")
    devices.check_precision("fp32", "cpu")


def test_autocast_computes_in_the_precision():
    layer, x = torch.nn.Linear(2, 2), torch.ones(1, 2)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with devices.autocast(torch.device("cpu"), precision):
            assert layer(x).dtype is dtype


@pytest.fixture
def kernels():
    """Put the choice of kernels back."""
    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("benchmark, tf32", [(True, False), (False, True)])
def test_run_sets_its_kernels(kernels, tiny_settings, benchmark, tf32):
    changes = {"cudnn_benchmark": benchmark, "tf32": tf32, "objective": "supervised", "epochs": 1}
    Trainer(tiny_settings(**changes), DistContext(0, 1, torch.device("cpu")))
    kernels_set = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32
    assert kernels_set == (benchmark, tf32)


@pytest.mark.slow
def test_channels_last_changes_only_rounding(tiny_settings):
    clips = torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    results = {}
    for channels_last in (False, True):
        torch.manual_seed(0)
        settings = tiny_settings(model="r3d_18", channels_last=channels_last)
        model = build_run_model(settings, 4).eval()
        logits = model(clips)
        logits.logsumexp(1).sum().backward()
        kernel = next(p for p in model.parameters() if p.dim() == 5)
        assert (kernel.stride(1) == 1) == channels_last
        results[channels_last] = logits.detach(), kernel.grad
    torch.testing.assert_close(results[True], results[False], rtol=1e-3, atol=1e-4)


def test_no_loader_processes_on_a_gpu_is_warned_of(tiny_settings, monkeypatch):
    monkeypatch.setattr(fit, "resolve_device", lambda device: "cuda")
    monkeypatch.setattr(fit, "resolve_num_processes", lambda number, device: 1)
    with pytest.warns(UserWarning, match="num_workers: 0 lets the GPU wait"):
        fit.check(tiny_settings())
