"""Pickled arrays from elsewhere, read without running code.

A pickle can call any function when it is read. What is admitted here is built by stand-ins: arrays
of plain numbers, exactly as long as their bytes.
"""

import mmap
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from lib.models.weights import check_growth

NUMBERS = {"b1", "f2", "f4", "f8"} | {kind + size for kind in "iu" for size in "1248"}
OBJECT = "O8"
PLAIN = [None, None, None, -1, -1]  # in the state of a type without fields


class _Kind:
    """Stands in for `numpy.dtype`: a plain number, or objects, of which an array may hold one."""

    def __init__(self, code: str, *_: object):
        if code not in NUMBERS | {OBJECT}:
            raise pickle.UnpicklingError(f"it asks for an array of {code!r}")
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple) -> None:
        _, self.order, *fields, _ = state
        if fields != PLAIN:
            raise pickle.UnpicklingError("it asks for an array of structures")

    def array(self, data: bytes, shape: tuple, is_fortran: bool = False) -> np.ndarray:
        """Return the bytes as an array."""
        if self.code == OBJECT or not all(type(n) is int and n >= 0 for n in shape):
            raise pickle.UnpicklingError("it asks for an array of objects, or without a shape")
        values = np.frombuffer(data, np.dtype(self.code).newbyteorder(self.order))
        return values.reshape(shape, order="F" if is_fortran else "C")


class _Array:
    """Stands in for `numpy.ndarray`, which a pickle makes empty and fills afterwards."""

    value: Any = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, is_fortran, data = state
        if kind.code == OBJECT and shape == () and len(data) == 1:
            self.value = data[0]
        else:
            self.value = kind.array(data, shape, is_fortran)


def _new_array(*_: object) -> _Array:
    return _Array()


def _scalar(kind: _Kind, data: bytes) -> Any:
    return kind.array(data, (1,))[0]


def _from_buffer(data: bytes, kind: _Kind, shape: tuple, order: str) -> np.ndarray:
    return kind.array(data, shape, order == "F")


def _decode_latin1(text: str, encoding: str) -> bytes:
    """Stand in for `_codecs.encode`, which older pickles call to make bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding!r}")
    return text.encode("latin1")


def _empty_bytes() -> bytes:
    """Stand in for `bytes`, which older pickles call without arguments."""
    return b""


_ADMITTED: dict[str, Any] = {
    "numpy.ndarray": _Array,
    "numpy.dtype": _Kind,
    "_codecs.encode": _decode_latin1,
    "builtins.bytes": _empty_bytes,
    "__builtin__.bytes": _empty_bytes,
}
for _package in ("numpy.core", "numpy._core"):  # NumPy 1, NumPy 2
    _ADMITTED[f"{_package}.multiarray._reconstruct"] = _new_array
    _ADMITTED[f"{_package}.multiarray.scalar"] = _scalar
    _ADMITTED[f"{_package}.numeric._frombuffer"] = _from_buffer


class _ArrayUnpickler(pickle.Unpickler):
    """Admits arrays of numbers and built-in containers."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ADMITTED[f"{module}.{name}"]


def load_arrays(path: Path, remedy: str) -> Any:
    """Read a pickle, or a `.npy` file that holds one, of arrays and built-in containers.

    Args:
        path: The file.
        remedy: What to do if it cannot be read.

    Returns:
        What is in it; see `as_array` for its arrays.

    Raises:
        ValueError: If it cannot be read, or asks for anything else; nothing has been run then.
    """
    try:
        with (
            open(path, "rb") as opened,
            mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as file,
        ):
            _skip_npy_header(file)
            start = file.tell()
            check_growth(file)
            file.seek(start)
            value = _ArrayUnpickler(file).load()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # a damaged pickle fails in many ways
        raise ValueError(
            f"{path}: not a pickle of arrays and plain containers ({error or type(error)}); "
            f"it was not run; {remedy}"
        ) from error
    return value.value if isinstance(value, _Array) else value


def as_array(value: Any) -> np.ndarray:
    """Return an array of numbers that `load_arrays` has read.

    Raises:
        ValueError: If it is something else, as lists of lists, which can be without end.
    """
    value = value.value if isinstance(value, _Array) else value
    if not isinstance(value, np.ndarray):
        raise ValueError("an array of numbers is expected")
    return value


def _skip_npy_header(file: mmap.mmap) -> None:
    if file.read(6) != b"\x93NUMPY":
        file.seek(0)
        return
    file.seek(0)
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    _, _, dtype = read[version](file)
    if dtype.kind != "O":
        raise ValueError(f"an array of {dtype}, expected a pickled dictionary")
