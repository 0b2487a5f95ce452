"""Files of weights: read without running code, and loaded strictly.

Checkpoints of the reference implementation and of MMAction2 get this library's names.
"""

import re
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

# Names of MMAction2 and the reference (regular expressions) and ours, applied in this order.
REFERENCE_NAMES: tuple[tuple[str, str | Callable[[re.Match], str]], ...] = (
    (r"^module\.", ""),
    (r"^cls_head\.fc_cls\.", "head."),
    (r"^distill_head\.fc_cls\.", "teacher_head."),
    (r"^backbone\.conv1\.", "backbone.stem."),
    (r"^backbone\.layer(\d+)\.", lambda match: f"backbone.stages.{int(match[1]) - 1}."),
    (r"\.downsample\.", ".shortcut."),
    (r"\.conv_s\.", ".spatial."),
    (r"\.conv_t\.", ".temporal."),
    (r"\.bn(_s)?\.", ".norm."),
)
MAX_MESSAGE = 1000  # characters of PyTorch's list of differences


def load_reference_weights(model: nn.Module, path: Path) -> None:
    """Load a checkpoint of the reference or of MMAction2 into `r2plus1d_34` or `r3d_18`, strictly.

    The tensors are under "state_dict" or at the top of the file, with or without "module.".
    """
    theirs = read_tensors(path)
    tensors = {our_name(name): tensor for name, tensor in theirs.items()}
    if len(tensors) < len(theirs):
        raise ValueError(
            f"weights: {path} has two tensors for one of the network; use another file"
        )
    load_strictly(model, tensors, f"weights: {path} does not fit this network")


def our_name(name: str) -> str:
    """Translate the name of a tensor of the reference or MMAction2; unknown names stay."""
    for pattern, ours in REFERENCE_NAMES:
        name = re.sub(pattern, ours, name)
    return name


def load_strictly(model: nn.Module, tensors: dict[str, Tensor], problem: str) -> None:
    """Load a state dict; a ValueError starts with `problem` and names the tensors that differ."""
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        differences = str(error)
        if len(differences) > MAX_MESSAGE:
            differences = differences[:MAX_MESSAGE] + " …"
        raise ValueError(f"{problem}: {differences}") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a state dict: `.safetensors`, or a file of `torch.save` without running its code.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read, or holds anything but tensors and plain data.
    """
    if not path.is_file():
        raise FileNotFoundError(f"weights: {path} does not exist; check the path")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in many ways
        refused = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it asks for {refused[1]}" if refused else "it is damaged or of another kind"
        raise ValueError(
            f"weights: {path} is not a file of tensors and plain data ({reason}). If you trust it, "
            "save its tensors alone where it was written: "
            'torch.save(torch.load(path)["state_dict"], new_path)'
        ) from error
    tensors = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(x, Tensor) for x in tensors.values()):
        raise ValueError(f"weights: {path} holds no state_dict, a dictionary of named tensors")
    return tensors
