import os
import stat

import pytest

from lib.fileio import write_atomic, write_text


def test_write_creates_the_folder(tmp_path):
    path = tmp_path / "a" / "b" / "text.txt"
    assert write_text(path, "früh\n") == path
    assert path.read_bytes() == "früh\n".encode()


def test_temporary_file_has_the_suffix_and_folder_of_the_file(tmp_path):
    seen = []
    write_atomic(tmp_path / "video.mp4", lambda t: (seen.append(t), t.write_text("x")))
    assert seen[0].suffix == ".mp4" and seen[0].parent == tmp_path
    assert os.listdir(tmp_path) == ["video.mp4"]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = write_text(tmp_path / "text.txt", "old")

    def fail(temporary):
        temporary.write_text("half of the n")
        assert path.read_text() == "old"  # a reader sees the old file while the new one is made
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_atomic(path, fail)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["text.txt"]


def test_files_get_the_permissions_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        path = write_text(tmp_path / "text.txt", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
