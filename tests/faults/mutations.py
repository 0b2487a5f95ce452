"""Valid files, damaged in the ways that disks, networks and people damage them."""

from collections.abc import Callable, Iterator

import numpy as np

HUGE = (b"1e999", b"99999999999999999999", b"-1", b"NaN", b'"x"', b"null", b"[]", b"{}", b"")


def mutations(content: bytes, others: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Yield damaged copies of a file: nothing, another file's content, then `count` random ones."""
    yield b""
    yield content + content
    yield from others
    rng = np.random.default_rng(seed)
    kinds = (_flip_bytes, _cut, _remove_part, _zero_part, _replace_word)
    for number in range(count):
        yield kinds[number % len(kinds)](content, rng)


def _flip_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    damaged = bytearray(content)
    for place in rng.integers(0, len(damaged), 1 + rng.integers(8)):
        damaged[place] ^= 1 << rng.integers(8)
    return bytes(damaged)


def _cut(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: rng.integers(0, len(content))]


def _remove_part(content: bytes, rng: np.random.Generator) -> bytes:
    first, last = np.sort(rng.integers(0, len(content), 2))
    return content[:first] + content[last:]


def _zero_part(content: bytes, rng: np.random.Generator) -> bytes:
    first, last = np.sort(rng.integers(0, len(content), 2))
    return content[:first] + bytes(last - first) + content[last:]


def _replace_word(content: bytes, rng: np.random.Generator) -> bytes:
    """Put an impossible number or another type in the place of a word."""
    words = [i for i in range(1, len(content)) if content[i : i + 1].isalnum()]
    if not words:
        return content[::-1]
    first = words[rng.integers(len(words))]
    last = first
    while last < len(content) and (content[last : last + 1].isalnum() or content[last] in b'."_-'):
        last += 1
    return content[:first] + HUGE[rng.integers(len(HUGE))] + content[last:]


def foreign_errors(read: Callable[[], object], name: str) -> str | None:
    """Return what is wrong with how a reader failed; None if it did not, or told the file."""
    try:
        read()
    except (ValueError, FileNotFoundError) as error:
        return None if name in str(error) else f"unnamed {type(error).__name__}: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None
