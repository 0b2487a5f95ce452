"""Forged pickles of arrays: wrong sizes, and addresses that the file chooses."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

ADDRESSES = b"A" * 8
LEGACY = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True})


def body(value: Any) -> bytes:
    """The opcodes of a plain value, without beginning and end."""
    return pickle.dumps(value, 2)[2:-1]


def whole(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


def called(name: str, *arguments: bytes) -> bytes:
    """The opcodes of calling what a name stands for."""
    module, _, function = name.rpartition(".")
    return f"c{module}\n{function}\n".encode() + b"(" + b"".join(arguments) + b"tR"


def built(made: bytes, state: bytes) -> bytes:
    return made + state + b"b"


def dtype(code: str, *state: Any) -> bytes:
    made = called("numpy.dtype", body(code), body(False), body(True))
    return built(made, body(state)) if state else made


def array(shape: tuple, kind: bytes, data: bytes) -> bytes:
    """An array as NumPy writes it, of which everything may be false."""
    new = called("numpy._core.multiarray._reconstruct", b"cnumpy\nndarray\n", body((0,)), body("b"))
    return built(new, b"(" + body(1) + body(shape) + kind + body(False) + data + b"t")


def raw(data: bytes) -> bytes:
    return called("_codecs.encode", body(data.decode("latin1")), body("latin1"))


F4 = dtype("f4", 3, "<", None, None, None, -1, -1, 0)
O8 = dtype("O8", 3, "|", None, None, None, -1, -1, 63)


def hostile_values() -> dict[str, bytes]:
    """Opcodes of values of a dictionary, by their defect."""
    return {
        "addresses as objects": called("numpy.ndarray", body((1,)), body("O"), body(ADDRESSES)),
        "addresses in an array": array((1,), O8, raw(ADDRESSES)),
        "type of forged fields": array(
            (1,), dtype("V8", 3, "|", None, ("a",), {"a": ("O", 999)}, 8, 1, 16), raw(ADDRESSES)
        ),
        "fewer bytes than numbers": array((1000,), F4, raw(b"1234")),
        "more bytes than numbers": array((1,), F4, raw(b"12345678")),
        "negative lengths": array((-1, -4), F4, raw(b"1234" * 4)),
        "objects without the flag": array(
            (1,), dtype("O8", 3, "|", None, None, None, -1, -1, 0), raw(ADDRESSES)
        ),
        "half a number": array((1,), F4, raw(b"12345")),
        "an array without end": called("numpy.ndarray", body((10**12,)), body("f8")),
        "a scalar of objects": called("numpy._core.multiarray.scalar", O8, raw(ADDRESSES)),
        "a buffer of objects": called(
            "numpy._core.numeric._frombuffer", raw(ADDRESSES), O8, body((1,)), body("C")
        ),
    }


def write_weights(path: Path, value: bytes, in_zip: bool) -> None:
    """Write a file of `torch.save` whose state_dict holds a value."""
    content = whole(b"}", body("state_dict"), b"}", body("x"), value, b"s", b"s")
    if not in_zip:
        start = b"".join(pickle.dumps(part, 2) for part in LEGACY)
        path.write_bytes(start + content + pickle.dumps([], 2))
        return
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {"data.pkl": content, "version": b"3\n", "byteorder": b"little"}.items():
            archive.writestr(f"archive/{name}", data)
