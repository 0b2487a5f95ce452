"""Read files of weights safely; import what the reference or MMAction2 (0.x, 1.x) trained."""

import io
import mmap
import pickle
import pickletools
import re
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

MAX_GROWTH, FREE_BYTES = 16, 4096  # texts taken again: so many times what was read, and some more
MAX_TUPLES_TAKEN = 40  # the hash of tuples of the same tuples takes e^(40 / e) steps then
PUTS, GETS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}, {"GET", "BINGET", "LONG_BINGET"}


def check_growth(file: BinaryIO | mmap.mmap) -> None:
    """Refuse a pickle that makes much out of few bytes; `file` stands behind it afterwards.

    Raises:
        pickle.UnpicklingError: If it takes long texts or tuples from its memory again and again,
            or asks for a memory larger than itself.
        ValueError: If it is damaged.
    """
    lengths: dict[int, int] = {}
    length = taken = tuples = 0
    for opcode, value, position in pickletools.genops(file):
        if opcode.name in PUTS:
            place = len(lengths) if value is None else value
            lengths[place] = length
            has_grown = place > position
        elif opcode.name in GETS:
            length = lengths.get(value, 0)
            taken, tuples = taken + abs(length), tuples + (length < 0)
            has_grown = taken > MAX_GROWTH * position + FREE_BYTES or tuples > MAX_TUPLES_TAKEN
        else:
            length, has_grown = _length(opcode.name, value), opcode.name == "DUP"
        if has_grown:
            raise pickle.UnpicklingError("it is made to grow without end")


def _length(name: str, value: object) -> int:
    """Return the length of a text that an opcode brings; −1 for a tuple."""
    if isinstance(value, str | bytes):
        return len(value)
    return -1 if "TUPLE" in name else 0


# How others name a part, a regular expression, and how we do; applied in this order.
TheirNames = Iterable[tuple[str, str | Callable[[re.Match], str]]]
# How MMAction2 and the reference name a part, and how we do.
REFERENCE_NAMES = (
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


class _Forgotten:
    """Takes the place of everything that is no tensor."""

    def __init__(self, *_: object):
        pass

    def __setstate__(self, state: object) -> None:
        """Forget the state."""


# Beside its tensors, a checkpoint of MMAction2 1.x holds curves of its training: arrays in a class
# of MMEngine's. Nobody reads them here, so these names stand for something that keeps nothing.
_FORGOTTEN = [
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy.ndarray",
    "numpy.dtype",
    *(
        f"{package}.multiarray.{name}"
        for package in ("numpy.core", "numpy._core")  # NumPy 1, NumPy 2
        for name in ("_reconstruct", "scalar")
    ),
]
_NUM_PICKLES = 5  # of PyTorch before 1.6, in front of the numbers


def load_reference_weights(model: nn.Module, path: str | Path) -> None:
    """Load a checkpoint of the reference implementation or of MMAction2 into a network.

    Both keep the tensors under "state_dict" or at the top of the file, with or without the prefix
    "module."; MMAction2 1.x adds its training log, which is skipped.

    Args:
        model: `r2plus1d_34` or `r3d_18`, with as many classes as the file has.
        path: The file, usually `*.pth`. It is read without running any code it may contain.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds anything but tensors and plain data, or if its tensors are not
            those of `model`: every missing, unexpected or differently shaped tensor is named, and
            nothing is loaded.
    """
    tensors = with_our_names(Path(path), REFERENCE_NAMES)
    problems = differences(tensors, model.state_dict())
    if problems:
        raise ValueError("\n  ".join([f"{path} does not fit this network:", *problems]))
    model.load_state_dict({ours: tensor for ours, (_, tensor) in tensors.items()})


def with_our_names(path: Path, their_names: TheirNames) -> dict[str, tuple[str, Tensor]]:
    """Read a state dict as `read_tensors` does; return {our name: (name in the file, tensor)}.

    Raises:
        ValueError: If two tensors have one name of ours.
    """
    tensors: dict[str, tuple[str, Tensor]] = {}
    for name, tensor in read_tensors(path).items():
        ours = our_name(name, their_names)
        if ours in tensors:
            raise ValueError(f"{path} holds {ours} twice: as {tensors[ours][0]} and {name}")
        tensors[ours] = name, tensor
    return tensors


def our_name(name: str, their_names: TheirNames) -> str:
    """Translate a tensor's name; what has no counterpart in `their_names` stays as it is."""
    for pattern, ours in their_names:
        name = re.sub(pattern, ours, name)
    return name


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a state dict: `.safetensors`, or a file of `torch.save` without running its code.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read, or holds anything but tensors and plain data.
    """
    if not path.is_file():
        raise FileNotFoundError(f"weights: there is no file {path}")
    content = _load(path)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(x, Tensor) for x in content.values()):
        raise ValueError(f"{path} holds no state_dict: a dictionary from names to tensors")
    return content


def _load(path: Path) -> object:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        _check_growth(path)
        with torch.serialization.safe_globals([(_Forgotten, name) for name in _FORGOTTEN]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ValueError(f"{path} was not read: {error.strerror or error}") from error
    except Exception as error:  # a damaged file fails in many ways
        raise ValueError(f"{path} was not read: {_explain_failure(error)}") from error


def _check_growth(path: Path) -> None:
    """Refuse a file that makes much out of few bytes, or whose checksums are wrong."""
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":
            file.seek(0)
            for _ in range(_NUM_PICKLES):
                check_growth(file)
            return
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("its parts are compressed")
        if (damaged := archive.testzip()) is not None:
            raise ValueError(f"{damaged} does not have its checksum")
        for name in archive.namelist():
            if name.endswith("data.pkl"):
                check_growth(io.BytesIO(archive.read(name)))


def _explain_failure(error: Exception) -> str:
    if asked := re.search(r"GLOBAL (\S+)", str(error)):
        return (
            f"beside tensors and plain data it asks for {asked[1]}, and such a file can run any "
            f"code. If you trust it, save its tensors alone, in the environment that made it: "
            f'torch.save({{"state_dict": torch.load(path)["state_dict"]}}, new_path)'
        )
    return "it is damaged, or no checkpoint of tensors and plain data"


def differences(tensors: dict[str, tuple[str, Tensor]], expected: dict[str, Tensor]) -> list[str]:
    """List in words what keeps tensors from fitting a network, one line each.

    Args:
        tensors: Our name -> name in the file and tensor.
        expected: The network's state dict.
    """
    problems = [f"missing: {name}" for name in expected if name not in tensors]
    for name, (their_name, tensor) in tensors.items():
        if name not in expected:
            problems.append(f"unexpected: {their_name}")
        elif tensor.shape != expected[name].shape:
            problems.append(_explain_shape(name, their_name, tensor.shape, expected[name].shape))
    return problems


def _explain_shape(name: str, their_name: str, found: torch.Size, wanted: torch.Size) -> str:
    parts = {"head": "num_classes", "teacher_head": "teacher_classes"}
    text = f"shape: {their_name} is {tuple(found)} in the file, {tuple(wanted)} in the network"
    part = parts.get(name.split(".")[0])
    if part and found[0] != wanted[0]:
        text += f" (the file has {found[0]} classes: build the network with {part}={found[0]})"
    return text


def build_published(build: Callable[[], nn.Module], name: str) -> nn.Module:
    """Return the network called `name` that `build` makes with its published weights.

    Raises:
        ValueError: If they are neither on this machine nor to be downloaded, or are damaged.
    """
    try:
        return build()
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"pretrained: the published weights of {name!r} cannot be had ({error}). Fetch them "
            "once where there is a network and copy them to the same place "
            f"({torch.hub.get_dir()}/checkpoints, for timm the hub's cache), or name a file in "
            "`weights`"
        ) from error
