"""A device computes what the CPU computes in double precision, within rounding."""

import pytest
import torch
from torch import Tensor, nn

from lib.augment.scene import actor_cutmix
from lib.models.networks import build_model
from lib.runs.device import autocast, check_precision, set_kernels
from lib.train.objectives import FixMatchObjective, UDAObjective

CLASSES, STEPS = 10, 20


@pytest.fixture(autouse=True)
def kernels():
    """Restore the choice of kernels."""
    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32
    set_kernels(cudnn_benchmark=False, tf32=False)
    yield
    set_kernels(*before)


def make_model(device: torch.device) -> nn.Module:
    """Return the paper's network for a GPU, a small one for a CPU; on the CPU."""
    torch.manual_seed(0)
    return build_model("r2plus1d_34" if device.type == "cuda" else "r3d_small", CLASSES, dropout=0)


def make_clips(device: torch.device, count: int) -> Tensor:
    side = 112 if device.type == "cuda" else 32
    return torch.randn(count, 3, 8, side, side, generator=torch.Generator().manual_seed(1))


def relative_error(value: Tensor, expected: Tensor) -> float:
    value, expected = value.detach().double().cpu(), expected.detach().double().cpu()
    return float((value - expected).abs().max() / expected.abs().max())


def compute_loss(model: nn.Module, clips: Tensor) -> Tensor:
    targets = torch.arange(len(clips), device=clips.device) % CLASSES
    return nn.functional.cross_entropy(model(clips).float(), targets)


@torch.no_grad()
def test_logits_equal_double_precision(device):
    model, clips = make_model(device).eval(), make_clips(device, 2)
    expected = model.double()(clips.double())
    model.float().to(device)
    assert relative_error(model(clips.to(device)), expected) <= 1e-4
    set_kernels(cudnn_benchmark=False, tf32=True)
    assert relative_error(model(clips.to(device)), expected) <= 1e-2


def test_gradient_norm_equals_double_precision(device):
    """Without batch statistics: those of a few clips enlarge rounding, to 1.6e-3 on a CPU too."""
    model, clips, norms = make_model(device).eval(), make_clips(device, 4), []
    for place, dtype in ((torch.device("cpu"), torch.float64), (device, torch.float32)):
        model.zero_grad()
        model.to(place, dtype)
        compute_loss(model, clips.to(place, dtype)).backward()
        norms.append(nn.utils.get_total_norm([p.grad for p in model.parameters()]))
    assert relative_error(norms[1], norms[0]) <= 1e-3


def test_actor_cutmix_equals_the_cpu(device):
    weak, strong = make_clips(device, 4).chunk(2)
    mask = (make_clips(device, 2)[:, :1] > 0).float()
    expected = actor_cutmix(weak, strong, mask)
    mixed = actor_cutmix(*(value.to(device) for value in (weak, strong, mask)))
    assert relative_error(mixed.clips, expected.clips) <= 1e-6
    assert mixed.partner.tolist() == expected.partner.tolist()
    assert relative_error(mixed.label_weight, expected.label_weight) <= 1e-6


@pytest.mark.parametrize("kind", [FixMatchObjective, UDAObjective])
def test_unlabeled_losses_equal_double_precision(device, kind):
    objective = kind(confidence_threshold=0.6)

    def compute(strong: Tensor, weak: Tensor) -> Tensor:
        mask = objective.confidence_mask(weak, None)
        return objective.unlabeled_loss(strong, objective.pseudo_labels(weak), mask)

    generator = torch.Generator().manual_seed(2)
    strong, weak = torch.randn(2, 16, CLASSES, generator=generator).mul(3)
    value = compute(strong.to(device), weak.to(device))
    assert relative_error(value, compute(strong.double(), weak.double())) <= 1e-5


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_steps_in_half_precision_lose_what_single_precision_loses(precision):
    device = torch.device("cuda")
    check_precision(precision, "cuda")
    (expected, _), (mean, skipped) = train(device, "fp32"), train(device, precision)
    assert mean == pytest.approx(expected, rel=0.05) and skipped <= 3


def train(device: torch.device, precision: str) -> tuple[float, int]:
    """Return the mean loss of steps on the same clips, and the number of steps left out."""
    model, clips = make_model(device).train().to(device), make_clips(device, 4).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    values, skipped = [], 0
    for _ in range(STEPS):
        optimizer.zero_grad()
        with autocast(device, precision):
            loss = compute_loss(model, clips)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 40.0)
        scaler.step(optimizer)
        before = scaler.get_scale()
        scaler.update()
        skipped += scaler.get_scale() < before
        values.append(loss.detach())
    return float(torch.stack(values).mean()), skipped
