"""Restricted unpickling: arrays of numbers and built-in containers, without running code.

NumPy's own constructors are replaced: called by a forged pickle, they would read wild memory.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

DTYPES = {"b1", "f2", "f4", "f8", "O8"} | {kind + size for kind in "iu" for size in "1248"}


class _Dtype:
    """Stand-in for `numpy.dtype`: a number, or objects; the fields of a structure are ignored."""

    def __init__(self, code: str, *_: object):
        if code not in DTYPES:
            raise pickle.UnpicklingError(f"it asks for an array of {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """Array that is created empty and filled from its state, in native byte order."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, is_fortran, data = state
        if kind.dtype != object:
            shape = _from_buffer(data, kind, shape).shape  # as many numbers as bytes
        elif shape != () or type(data) is not list:
            raise pickle.UnpicklingError("it asks for an array of objects")
        super().__setstate__((1, shape, kind.dtype, is_fortran, data))


def _reconstruct(*_: object) -> _Array:
    return np.ndarray.__new__(_Array, (0,))


def _from_buffer(data: bytes, kind: _Dtype, shape: tuple, order: str = "C") -> np.ndarray:
    return np.frombuffer(data, kind.dtype).reshape(shape, order=order)


def _scalar(kind: _Dtype, data: bytes) -> np.generic:
    return _from_buffer(data, kind, (1,))[0]


def _empty_bytes() -> bytes:
    return b""


_ALLOWED: dict[str, Any] = {
    "numpy.ndarray": None,  # an argument of `_reconstruct`, never called
    "numpy.dtype": _Dtype,
    "_codecs.encode": str.encode,  # older pickles create bytes with it
    "builtins.bytes": _empty_bytes,
    "__builtin__.bytes": _empty_bytes,
}
for _package in ("numpy.core", "numpy._core"):  # NumPy 1, NumPy 2
    _ALLOWED[f"{_package}.multiarray._reconstruct"] = _reconstruct
    _ALLOWED[f"{_package}.multiarray.scalar"] = _scalar
    _ALLOWED[f"{_package}.numeric._frombuffer"] = _from_buffer


class _SafeUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ALLOWED[f"{module}.{name}"]


def load_arrays(path: Path, remedy: str) -> Any:
    """Read a pickle, or a `.npy` file that contains one, of arrays and built-in containers.

    Raises:
        ValueError: If it cannot be read or asks for anything else; the message ends in `remedy`.
    """
    try:
        with open(path, "rb") as file:
            is_npy = file.read(6) == b"\x93NUMPY"
            file.seek(0)
            if is_npy:
                np.lib.format.read_magic(file)
                np.lib.format.read_array_header_1_0(file)
            value = _SafeUnpickler(file).load()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # a damaged pickle fails in many ways
        raise ValueError(
            f"{path}: not a pickle of arrays and containers ({error or type(error)}); {remedy}"
        ) from error
    is_wrapped = isinstance(value, _Array) and value.dtype == object
    return value.item() if is_wrapped else value
