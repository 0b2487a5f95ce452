"""What a network makes of the actor alone and of the background alone of a video."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from lib.evaluate.invariance import PARTS, CenterClips, actor_and_background
from lib.evaluate.test import SplitResult, load_trained
from lib.plots.clips import clip_rows
from lib.plots.style import shorten
from lib.runs.device import resolve_test_device
from lib.runs.run_dir import RunDir
from lib.train.setup import Normalize, run_normalize


def part_views(clip: Tensor, mask: Tensor | None, fill: Tensor) -> dict[str, Tensor | str]:
    """Return a clip as a whole, its actors alone and its background alone.

    Args:
        clip: uint8, shape (T, 3, H, W).
        mask: 1 on people, (T, 1, H, W); None where the data set has no boxes.
        fill: Colour of what is left out, (3, 1, 1).

    Returns:
        Part -> clip, or a text that says why there is none.
    """
    if mask is None:
        why = "no person boxes: notebook 1 makes them"
    elif not mask.any():
        why = "no person was found in this clip"
    elif mask.all():
        why = "the boxes cover the whole clip"
    else:
        parts = actor_and_background(clip, mask, fill.to(torch.uint8))
        return dict(zip(PARTS, (clip, *parts), strict=True))
    return dict(zip(PARTS, (clip, why, why), strict=True))


def part_predictor(
    run: RunDir,
    checkpoint: str,
    classes: Sequence[str],
    clips: Callable[[int], tuple[Tensor, Tensor | None]],
) -> Callable[[int], tuple[dict[str, Tensor | str], dict[str, np.ndarray]]]:
    """Return a function: index row -> the parts of the centre clip, and probabilities of each.

    Args:
        run: The trained run.
        checkpoint: `last` or `best`.
        classes: Class names of the data set.
        clips: A `CenterClips` of it.

    Raises:
        ValueError: If the checkpoint is missing or does not fit.
    """
    device = torch.device(resolve_test_device(run.settings().device))
    normalize = run_normalize(run.settings()).to(device)
    model = load_trained(run, checkpoint, tuple(classes)).to(device).eval()

    def predict(row: int) -> tuple[dict[str, Tensor | str], dict[str, np.ndarray]]:
        views = part_views(*clips(row), normalize.mean.round().cpu())
        return views, part_shares(model, normalize, views)

    return predict


@torch.inference_mode()
def part_shares(
    model: nn.Module,
    normalize: Normalize,
    views: Mapping[str, Tensor | str],
    temperature: float = 1.0,
) -> dict[str, np.ndarray]:
    """Return the probabilities (K,) of each view that is there.

    Args:
        model: In evaluation mode, on the device of `normalize`.
        normalize: What makes its input of uint8 clips.
        views: From `part_views`.
        temperature: What scores are divided by before they become probabilities.
    """
    shown = {name: view for name, view in views.items() if isinstance(view, Tensor)}
    clips = torch.stack(list(shown.values())).to(normalize.mean.device)
    shares = (model(normalize(clips)).float() / temperature).softmax(dim=1).cpu().numpy()
    return dict(zip(shown, shares, strict=True))


def parts_figure(run: RunDir, checkpoint: str, result: SplitResult, position: int) -> Figure:
    """Show a video as a whole, its actor alone and its background alone, with the predictions.

    Args:
        run: The trained run.
        checkpoint: `last` or `best`.
        result: Of one list.
        position: Of the video in the list.
    """
    classes = result.dataset.classes
    clips = CenterClips(result.dataset, run.settings())
    predict = part_predictor(run, checkpoint, classes, clips)
    views, shares = predict(int(result.rows[position]))
    rows = {}
    for part, share in shares.items():
        best = int(share.argmax())
        rows[f"{part}\n{shorten(classes[best], 20)} {100 * share[best]:.0f} %"] = views[part]
    truth = shorten(classes[int(result.labels[position])], 30)
    missing = "" if len(shares) > 1 else f"; {views['actor only']}"
    return clip_rows(rows, f"What the network sees in each part of a clip of {truth}{missing}")
