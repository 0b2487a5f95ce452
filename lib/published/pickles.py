"""What a short pickle may not do: grow without end when it is read."""

import mmap
import pickle
import pickletools
from typing import BinaryIO

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
