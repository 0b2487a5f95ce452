"""Download files, with resume and checksum, and extract zip and rar archives."""

import hashlib
import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath

import rarfile
import requests
from tqdm.auto import tqdm

from lib.data.dataset import check_room

CHUNK = 1 << 16  # bytes
TIMEOUT_S = 60  # without a byte


class UnavailableError(ValueError):
    """A file that is not there and cannot be downloaded."""


def sha256_of(path: Path, algorithm: str = "sha256") -> str:
    """Return the SHA-256, or another checksum, of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def matches(path: Path, checksum: str | None) -> bool:
    """Return True if a file has a checksum: the beginning of its SHA-256, `md5:…`, None for any."""
    algorithm, _, digits = (checksum or "").rpartition(":")
    return not digits or sha256_of(path, algorithm or "sha256").startswith(digits)


def download(url: str, path: Path, checksum: str | None, allowed: bool) -> Path:
    """Return `path`; download the file first if it is not there and if that is allowed.

    A partial download is kept in `<path>.part`, and a repeated call continues it. UnavailableError
    if it is not there, and may not or cannot be downloaded; ValueError if it has another checksum
    (as in `matches`).
    """
    if path.is_file():
        if not matches(path, checksum):
            raise ValueError(
                f"{path}: its checksum is not {checksum}; delete it and get it again from {url}"
            )
        return path
    if not allowed:
        raise UnavailableError(
            f"{path}: not there; set download to true to get it from {url}, or put it there"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        _fetch(url, part)
    except requests.RequestException as error:
        raise UnavailableError(
            f"{url}: cannot be downloaded ({error}); run again to continue, or put it at {path}"
        ) from error
    if not matches(part, checksum):
        part.unlink()
        raise ValueError(
            f"{url}: its checksum is not {checksum}, so it was deleted; run again, or put the "
            f"right file at {path}"
        )
    return part.replace(path)


def _fetch(url: str, part: Path) -> None:
    """Append the missing bytes to a partial download."""
    done = part.stat().st_size if part.is_file() else 0
    headers = {"Range": f"bytes={done}-", "Accept-Encoding": "identity"}
    with requests.get(url, stream=True, timeout=TIMEOUT_S, headers=headers) as response:
        if response.status_code == 416:  # no bytes are missing
            return
        response.raise_for_status()
        done = done if response.status_code == 206 else 0
        total = done + int(response.headers.get("Content-Length", 0))
        bar = tqdm(total=total or None, initial=done, desc=part.stem, unit="B", unit_scale=True)
        with bar, open(part, "ab" if done else "wb") as file:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    if (size := part.stat().st_size) < total:
        raise requests.ConnectionError(f"the connection ended after {size} of {total} bytes")


def extract(archive: Path, folder: Path) -> list[Path]:
    """Extract a zip or rar archive; return the files in its order.

    Files that are there with their full size are kept. ValueError if the archive is damaged, does
    not fit on the disk, or needs a program that is missing; before anything is written, if it holds
    links or names outside of the folder.
    """
    try:
        with _open(archive) as opened:
            paths = {m: _target(folder, m) for m in opened.infolist() if not m.is_dir()}
            todo = [
                m
                for m, path in paths.items()
                if not path.is_file() or path.stat().st_size != m.file_size
            ]
            check_room(folder, sum(member.file_size for member in todo), str(archive))
            for member in tqdm(todo, desc=f"extracting {archive.name}", unit="file"):
                opened.extract(member, folder)
    except rarfile.RarCannotExec as error:
        raise ValueError(
            f"{archive}: no program for rar archives; install unrar, unar, 7z or bsdtar, or "
            "extract it yourself and set videos_dir"
        ) from error
    except Exception as error:  # damaged archives fail in many ways
        raise ValueError(
            f"{archive}: cannot be extracted ({error}); if damaged, delete it and get it again"
        ) from error
    return list(paths.values())


def extract_nested(archive: Path, folder: Path) -> None:
    """Extract an archive of archives (HMDB-51: one per class), without keeping the inner ones."""
    done = folder / f".{archive.name}.unpacked"
    if done.is_file():
        return
    inner_folder = folder / ".inner"
    for inner in extract(archive, inner_folder):
        extract(inner, folder)
    shutil.rmtree(inner_folder)
    done.touch()


def _open(path: Path) -> zipfile.ZipFile | rarfile.RarFile:
    if zipfile.is_zipfile(path):
        return zipfile.ZipFile(path)
    if path.is_file() and rarfile.is_rarfile(path):
        return rarfile.RarFile(path)
    raise ValueError("not a zip or rar archive, perhaps an error page")


def _target(folder: Path, member: zipfile.ZipInfo | rarfile.RarInfo) -> Path:
    """Return the path of a member; ValueError if it is a link or outside of `folder`."""
    name = member.filename
    parts = PurePosixPath(name).parts
    is_of_zip = isinstance(member, zipfile.ZipInfo)
    if stat.S_ISLNK(member.external_attr >> 16) if is_of_zip else not member.is_file():
        raise ValueError(f"{name!r} is a link or a device")
    if not parts or name[0] == "/" or ".." in parts or any(sign in name for sign in ":\\\0"):
        raise ValueError(f"{name!r} is outside of the folder")
    return folder.joinpath(*parts)
