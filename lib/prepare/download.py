"""Files from the internet: continued where they were cut off, and checked before they are used."""

import hashlib
import shutil
from pathlib import Path

import requests
from tqdm.auto import tqdm

CHUNK = 1 << 16  # bytes; of a cut connection, what has come since the last chunk is lost
TIMEOUT_S = 60  # without a byte


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def matches(path: Path, checksum: str) -> bool:
    """Tell whether a file has a checksum: SHA-256 in hexadecimal, or `md5:` and the MD5."""
    kind, _, digits = checksum.rpartition(":")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, kind or "sha256").hexdigest() == digits


def download(url: str, path: Path, checksum: str | None, allowed: bool) -> Path:
    """Return a file, downloaded first where it is not there yet.

    What arrives is kept in `<path>.part`, so that a repeated call continues.

    Args:
        url: Its address.
        path: Where it belongs.
        checksum: As `matches` takes it; None where none is published.
        allowed: Whether the network may be used.

    Raises:
        ValueError: If it may not be, or cannot be downloaded, or has another checksum; names the
            file, the address and what to do. With another checksum it is kept as
            `<path>.rejected`.
    """
    path = Path(path)
    if path.is_file():
        if checksum is None or matches(path, checksum):
            return path
        raise ValueError(
            f"{path}: its checksum is not {checksum}; it is damaged or another file: delete it, "
            f"and get it again from {url}"
        )
    if not allowed:
        raise ValueError(
            f"{path}: not there. Set download to true to get it from {url}, or put it there "
            "yourself"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    arrived = path.with_name(path.name + ".part")
    try:
        _fetch(url, arrived)
    except requests.exceptions.SSLError as error:
        raise ValueError(
            f"{url}: its certificate is not accepted ({error}); get the file with a browser and "
            f"put it at {path}"
        ) from error
    except (requests.exceptions.RequestException, OSError) as error:
        raise ValueError(
            f"{url}: cannot be downloaded ({error}). What has arrived is kept: try again, or get "
            f"the file elsewhere and put it at {path}"
        ) from error
    if checksum is not None and not matches(arrived, checksum):
        rejected = arrived.replace(path.with_name(path.name + ".rejected"))
        raise ValueError(
            f"{url}: has another checksum than expected ({checksum}); the file was changed there "
            f"or damaged on the way. It is kept as {rejected} and not used: try again, or put the "
            f"right one at {path}"
        )
    return arrived.replace(path)


def _fetch(url: str, partial: Path) -> None:
    """Add to a file what an earlier call did not get.

    Raises:
        OSError: If the connection ends early or the disk is too small.
    """
    done = partial.stat().st_size if partial.is_file() else 0
    headers = {"Range": f"bytes={done}-", "Accept-Encoding": "identity"}
    with requests.get(url, stream=True, timeout=TIMEOUT_S, headers=headers) as response:
        if response.status_code == 416:  # nothing after what is there
            return
        response.raise_for_status()
        done = done if response.status_code == 206 else 0
        total = done + int(response.headers.get("Content-Length", 0))
        _receive(response, partial, done, total)
    if (size := partial.stat().st_size) < total:
        raise OSError(f"the connection ended after {size} of {total} bytes")


def _receive(response: requests.Response, partial: Path, done: int, total: int) -> None:
    free = shutil.disk_usage(partial.parent).free
    if total - done > free:
        raise OSError(f"{(total - done) / 1e9:.1f} GB to get, {free / 1e9:.1f} GB free")
    title = partial.name.removesuffix(".part")
    with (
        open(partial, "ab" if done else "wb") as file,
        tqdm(total=total or None, initial=done, desc=title, unit="B", unit_scale=True) as bar,
    ):
        for chunk in response.iter_content(CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
