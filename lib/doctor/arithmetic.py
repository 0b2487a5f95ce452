"""Whether the device computes what a CPU does in double precision; its memory and its speed."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lib.augment.scene import actor_cutmix
from lib.doctor.check import Bench, Result, at_most, holds, not_run, relative
from lib.models.build import build_model
from lib.runs.device import autocast, check_precision, set_kernels, to_channels_last
from lib.train import losses

CLASSES = 10
SMALL = 112  # side of the clips that the CPU computes too, pixels at most
HALF_STEPS, MAX_SKIPPED, HALF_TOLERANCE = 20, 3, 0.05
TIMED_STEPS = 5
GRAD_CLIP = 40.0  # of the paper's recipe
TEST_CLIPS, TEST_SIDE = 32, 256


@contextmanager
def kernels(cudnn_benchmark: bool = False, tf32: bool = False) -> Iterator[None]:
    """Choose kernels for a while."""
    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32
    set_kernels(cudnn_benchmark, tf32)
    try:
        yield
    finally:
        set_kernels(*before)


def _network(bench: Bench) -> nn.Module:
    torch.manual_seed(0)
    return build_model(bench.model, CLASSES, dropout=0.0)


def _clips(bench: Bench, count: int, side: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, bench.clip_len, side, side, generator=generator)


def _small_clips(bench: Bench, count: int = 4) -> Tensor:
    return _clips(bench, count, min(bench.side, SMALL))


def _loss(model: nn.Module, clips: Tensor) -> Tensor:
    targets = torch.arange(len(clips), device=clips.device) % CLASSES
    return nn.functional.cross_entropy(model(clips).float(), targets)


@torch.no_grad()
def logits(bench: Bench) -> Iterator[Result]:
    """The network's output, without and with TF32."""
    model, clips = _network(bench).eval(), _small_clips(bench, 2)
    expected = model.double()(clips.double())
    model.float().to(bench.device)
    with kernels(tf32=False):
        error = relative(model(clips.to(bench.device)), expected)
    yield at_most("logits, relative to double precision", error, 1e-4)
    name = "logits with TF32"
    if not bench.has_gpu or torch.cuda.get_device_capability(bench.device) < (8, 0):
        yield not_run(name, "TF32 needs a GPU since Ampere")
        return
    with kernels(tf32=True):
        yield at_most(name, relative(model(clips.to(bench.device)), expected), 1e-2)


def scene(bench: Bench) -> Iterator[Result]:
    """ActorCutMix."""
    weak, strong = _small_clips(bench).chunk(2)
    mask = (_clips(bench, 2, weak.shape[-1])[:, :1] > 0).float()
    expected = actor_cutmix(weak, strong, mask)
    found = actor_cutmix(*(x.to(bench.device) for x in (weak, strong, mask)))
    error = relative(found.clips, expected.clips)
    yield at_most("ActorCutMix, clips", error, 1e-6)
    is_equal = torch.equal(found.partner.cpu(), expected.partner)
    yield holds("ActorCutMix, partners", is_equal, str(found.partner.tolist()), "equal")
    error = relative(found.label_weight, expected.label_weight)
    yield at_most("ActorCutMix, weights of the labels", error, 1e-6)


def loss_functions(bench: Bench) -> Iterator[Result]:
    """The losses."""
    generator = torch.Generator().manual_seed(2)
    scores, other = torch.randn(2, 16, CLASSES, generator=generator).mul(3)
    for name, loss in {
        "cross-entropy": lambda x, y: losses.soft_cross_entropy(x, y.softmax(1)).mean(),
        "FixMatch": lambda x, y: losses.fixmatch_loss(
            x, losses.hard_targets(y), losses.confident(y, 0.6)
        ),
        "UDA": lambda x, y: losses.uda_loss(
            x, losses.sharpened_targets(y, 0.4), losses.confident(y, 0.6)
        ),
    }.items():
        found = loss(scores.to(bench.device), other.to(bench.device))
        error = relative(found, loss(scores.double(), other.double()))
        yield at_most(f"loss of {name}", error, 1e-5)


def gradient(bench: Bench) -> Iterator[Result]:
    """The norm of a step's gradient.

    Batch norm does not take the statistics of these few clips: it would enlarge the rounding of
    single precision, in the paper's network to 1.6e-3 on a CPU too.
    """
    model, clips, norms = _network(bench).eval(), _small_clips(bench, 2), []
    for device, dtype in (("cpu", torch.float64), (bench.device, torch.float32)):
        model.zero_grad()
        model.to(device, dtype)
        with kernels(tf32=False):
            _loss(model, clips.to(device, dtype)).backward()
        norms.append(nn.utils.get_total_norm([p.grad for p in model.parameters()]))
    yield at_most("norm of the gradient", relative(norms[1], norms[0]), 1e-3)


def half_precision(bench: Bench) -> Iterator[Result]:
    """A few steps in bf16 and fp16 beside fp32."""
    expected = None
    for precision in ("fp32", "bf16", "fp16"):
        name = f"{HALF_STEPS} steps in {precision}"
        try:
            check_precision(precision, bench.device.type)
        except ValueError as error:
            yield not_run(name, str(error))
            continue
        values, skipped = _train(bench, precision)
        mean, is_finite = float(values.mean()), bool(values.isfinite().all())
        expected = mean if expected is None else expected
        is_right = is_finite and skipped <= MAX_SKIPPED
        is_right = is_right and abs(mean / expected - 1) <= HALF_TOLERANCE
        text = f"mean loss {mean:.4g} (fp32: {expected:.4g}), {skipped} steps skipped"
        yield holds(name, is_right, text, f"finite, 5 %, ≤ {MAX_SKIPPED} skipped")


def _train(bench: Bench, precision: str) -> tuple[Tensor, int]:
    """Return the losses of a few steps on the same clips, and how many steps were left out."""
    model, clips = _network(bench).train().to(bench.device), _small_clips(bench).to(bench.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    scaler = torch.amp.GradScaler(bench.device.type, enabled=precision == "fp16")
    values, skipped = [], 0
    for _ in range(HALF_STEPS):
        optimizer.zero_grad(set_to_none=True)
        with autocast(bench.device, precision):
            loss = _loss(model, clips)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), GRAD_CLIP)
        scaler.step(optimizer)
        before = scaler.get_scale()
        scaler.update()
        skipped += scaler.get_scale() < before
        values.append(loss.detach())
    return torch.stack(values).cpu(), skipped


def speed(bench: Bench) -> Iterator[Result]:
    """Clips a second of training steps on clips that lie in memory."""
    ways = [(False, False), (False, True)]
    if bench.has_gpu:
        ways += [(True, False), (True, True)]
    for cudnn_benchmark, channels_last in ways:
        model = _network(bench).train()
        if channels_last:
            to_channels_last(model)
        step = _step(model.to(bench.device), _clips(bench, bench.clips, bench.side), bench)
        with kernels(cudnn_benchmark, tf32=True):
            seconds = _seconds(step, bench)
        name = f"cudnn_benchmark {cudnn_benchmark}, channels_last {channels_last}"
        yield Result(f"training, {name}", "measured", f"{bench.clips / seconds:.1f} clips/s")


def _step(model: nn.Module, clips: Tensor, bench: Bench) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    clips = clips.to(bench.device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        _loss(model, clips).backward()
        optimizer.step()

    return step


def _seconds(step: Callable[[], None], bench: Bench) -> float:
    """Return the time of a step, after one that does not count."""
    step()
    started = _now(bench)
    for _ in range(TIMED_STEPS):
        step()
    return (_now(bench) - started) / TIMED_STEPS


def _now(bench: Bench) -> float:
    if bench.has_gpu:
        torch.cuda.synchronize(bench.device)
    return time.perf_counter()


def memory_of_a_step(bench: Bench) -> Iterator[Result]:
    """Peak memory of a step and of a test batch, beside the card's."""
    names = "memory of a step", "memory of a test batch"
    if not bench.has_gpu:
        yield from (not_run(name, "it is that of a GPU") for name in names)
        return
    model = _network(bench).to(bench.device)
    card = torch.cuda.get_device_properties(bench.device).total_memory
    step = _step(model.train(), _clips(bench, 3 * bench.clips, bench.side), bench)
    yield _peak(f"{names[0]}, {bench.clips} + {2 * bench.clips} clips", step, card)
    clips = _clips(bench, TEST_CLIPS, TEST_SIDE).to(bench.device)
    with torch.no_grad():
        yield _peak(f"{names[1]}, {TEST_CLIPS} clips", lambda: model.eval()(clips), card)


def _peak(name: str, work: Callable[[], object], card: int) -> Result:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    work()
    peak = torch.cuda.max_memory_reserved()
    return holds(name, peak <= card, f"{peak / 1e9:.1f} GB", f"{card / 1e9:.1f} GB of the card")


CHECKS = (logits, scene, loss_functions, gradient, half_precision, memory_of_a_step, speed)
