"""Import torchvision, also where its compiled operators do not fit the installed torch.

The torchvision wheel on PyPI is built for CUDA. Beside a CPU build of torch, its library of
compiled operators does not load, and torchvision then fails to import while it describes two of
them (``RuntimeError: operator torchvision::nms does not exist``). This project uses torchvision's
networks, weights and transforms, none of which needs a compiled operator. So the two operators are
declared, without any implementation, and the import is repeated: calling one of them is still an
error. Where the compiled operators load, nothing is declared.

Import torchvision through this module everywhere: ``from lib.torchvision_ops import
torchvision``.
"""

import importlib
from types import ModuleType

import torch

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_declared: list[torch.library.Library] = []  # a Library takes its operators along when it is freed


def import_torchvision() -> ModuleType:
    """Import torchvision, declaring the operators it misses if that is what stops the import.

    Returns:
        The torchvision package, with `torchvision.models.video` imported.

    Raises:
        ImportError: If torchvision is not installed.
        RuntimeError: If the import fails for any other reason.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if str(error) not in {f"operator torchvision::{name} does not exist" for name in _SCHEMAS}:
            raise
        _declare_operators()
    importlib.import_module("torchvision.models.video")
    return importlib.import_module("torchvision")


def _declare_operators() -> None:
    """Give the operators that torchvision describes at import a schema, and no implementation."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS.values():
        library.define(schema)
    _declared.append(library)


torchvision = import_torchvision()
