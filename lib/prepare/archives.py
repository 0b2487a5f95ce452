"""Unpacking zip and rar archives from the internet, which may be hostile or half there."""

import os
import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO

import rarfile
from tqdm.auto import tqdm

from lib.data.dataset import check_room
from lib.fileio import write_atomic

SUFFIXES = (".zip", ".rar")
Member = zipfile.ZipInfo | rarfile.RarInfo  # a file, folder or something else in an archive


def extract(archive: Path, folder: Path) -> list[Path]:
    """Unpack an archive; files that are there with their full size are kept.

    All names are checked before anything is written.

    Args:
        archive: A zip or rar file.
        folder: Where its files go; made where it is not there.

    Returns:
        The files, in the order of the archive.

    Raises:
        ValueError: If the archive is damaged, names a file outside of the folder, holds links or
            devices, does not fit on the disk, or needs a tool that is missing.
    """
    try:
        return _extract(archive, folder)
    except rarfile.RarCannotExec as error:
        raise ValueError(
            f"{archive}: no program to unpack rar archives was found; install one of unrar, unar, "
            "7z or bsdtar (Debian: apt install unar; conda: conda install -c conda-forge unrar; "
            "macOS: brew install unar), or unpack the archive yourself and give the folder as "
            "videos_dir"
        ) from error
    except Exception as error:  # a damaged archive fails in many ways
        if str(error).startswith(f"{archive}: "):
            raise  # says all that there is to say
        raise ValueError(
            f"{archive}: cannot be unpacked ({error}); what was unpacked is kept. If it is "
            "damaged, delete it and get it again"
        ) from error


def _extract(archive: Path, folder: Path) -> list[Path]:
    with _open(archive) as opened:
        targets = [(member, target(folder, member, archive)) for member in opened.infolist()]
        files = [(member, path) for member, path in targets if not member.is_dir()]
        todo = [(m, p) for m, p in files if not (p.is_file() and p.stat().st_size == m.file_size)]
        check_room(folder, sum(member.file_size for member, _ in todo), str(archive))
        for member, path in tqdm(todo, desc=f"unpacking {archive.name}", unit="file"):
            with opened.open(member) as stream:
                _write(stream, path, member.file_size)
    return [path for _, path in files]


def extract_nested(archive: Path, folder: Path) -> None:
    """Unpack an archive of archives (HMDB-51: one for each class) and remove the inner ones."""
    done = folder / f".{archive.name}.unpacked"
    if done.is_file():
        return
    inner_folder = folder / ".inner"
    for inner in extract(archive, inner_folder):
        if inner.name.lower().endswith(SUFFIXES):
            extract(inner, folder)
    shutil.rmtree(inner_folder)
    done.touch()


def target(folder: Path, member: Member, archive: Path) -> Path:
    """Return where a member goes.

    Raises:
        ValueError: If that is outside of `folder`, or it is neither a plain file nor a folder.
    """
    name = member.filename.replace("\\", "/")
    parts = PurePosixPath(name).parts
    if not (member.is_dir() or _is_plain_file(member)):
        raise ValueError(f"{archive}: {name!r} is a link or a device; nothing was unpacked")
    if not parts or name.startswith("/") or ".." in parts or ":" in parts[0] or "\0" in name:
        raise ValueError(f"{archive}: {name!r} leads out of the folder; nothing was unpacked")
    return folder.joinpath(*parts)


def _is_plain_file(member: Member) -> bool:
    if isinstance(member, zipfile.ZipInfo):
        return not stat.S_ISLNK(member.external_attr >> 16)
    return member.is_file()


def _write(stream: IO[bytes], path: Path, size: int) -> None:
    def copy(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)
            if file.tell() != size:
                raise EOFError(f"{path.name} has {file.tell()} bytes, {size} are announced")

    write_atomic(path, copy)


def _open(path: Path) -> zipfile.ZipFile | rarfile.RarFile:
    if not path.is_file():
        raise ValueError(f"{path}: no such archive")
    if zipfile.is_zipfile(path):
        return zipfile.ZipFile(path)
    if rarfile.is_rarfile(path):
        return rarfile.RarFile(path)
    raise ValueError(
        f"{path}: not a zip or rar archive; perhaps an error page was saved under its name: look "
        "at it, delete it and get it again"
    )


def find_file(folder: Path | None, filename: str) -> Path | None:
    """Return the file of this name in a folder or below it; None where there is none."""
    if folder is None:
        return None
    for root, _, files in os.walk(folder):
        if filename in files:
            return Path(root) / filename
    return None
