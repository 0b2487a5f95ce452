"""What a short pickle may not do: grow without end when it is read."""

import mmap
import pickle
import pickletools
from typing import BinaryIO

MAX_GROWTH, FREE_BYTES = 16, 4096  # texts taken again: so many times what was read, and some more
MAX_TUPLES_TAKEN = 40  # the hash of tuples of the same tuples takes e^(40 / e) steps then


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
        name = opcode.name
        if name == "MEMOIZE":
            lengths[len(lengths)] = length
        elif name.endswith("PUT"):
            lengths[value] = length
        else:
            is_taken = name.endswith("GET")
            length = lengths.get(value, 0) if is_taken else _length(name, value)
            taken += is_taken * max(0, length)
            tuples += is_taken and length < 0
        has_grown = taken > MAX_GROWTH * position + FREE_BYTES or tuples > MAX_TUPLES_TAKEN
        if has_grown or name == "DUP" or (name.endswith("PUT") and value > position):
            raise pickle.UnpicklingError("it is made to grow without end")


def _length(name: str, value: object) -> int:
    """Return the length of a text that an opcode brings; −1 for a tuple."""
    if isinstance(value, str | bytes):
        return len(value)
    return -1 if "TUPLE" in name else 0
