"""Downloads from a server on this machine: whole, cut off, changed, forbidden."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lib.prepare.download import UnavailableError, download

CONTENT = bytes(range(256)) * 1600
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT with ranges; `/cut` ends the connection after half of it."""

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Range")))
        if self.path == "/missing":
            self.send_error(404)
            return
        start = int(self.headers.get("Range", "bytes=0-").split("=")[1].split("-")[0])
        if start >= len(CONTENT):
            self.send_error(416)
            return
        partial = self.path != "/no-ranges" and start > 0
        body = CONTENT[start:] if partial else CONTENT
        self.send_response(206 if partial else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.path == "/cut" else body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    server.server_close()


def test_a_file_is_downloaded_once(server, tmp_path):
    path = tmp_path / "new folder" / "file.bin"
    assert download(server.url + "/whole", path, SHA256, allowed=True).read_bytes() == CONTENT
    download(server.url + "/whole", path, SHA256, allowed=True)
    assert len(server.asked) == 1 and [p.name for p in path.parent.iterdir()] == ["file.bin"]


def test_half_a_download_is_continued(server, tmp_path):
    path = tmp_path / "file.bin"
    with pytest.raises(ValueError, match="run again to continue"):
        download(server.url + "/cut", path, SHA256, allowed=True)
    kept = (tmp_path / "file.bin.part").stat().st_size
    assert 0.7 * len(CONTENT) / 2 < kept <= len(CONTENT) / 2 and not path.exists()
    download(server.url + "/whole", path, SHA256, allowed=True)
    assert path.read_bytes() == CONTENT and server.asked[-1][1] == f"bytes={kept}-"


def test_a_server_without_ranges_starts_again(server, tmp_path):
    path = tmp_path / "file.bin"
    (tmp_path / "file.bin.part").write_bytes(b"something old")
    download(server.url + "/no-ranges", path, SHA256, allowed=True)
    assert path.read_bytes() == CONTENT


def test_a_part_that_was_complete_is_taken(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    download(server.url + "/whole", tmp_path / "file.bin", SHA256, allowed=True)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_file_with_a_wrong_checksum_is_an_error_and_not_kept(server, tmp_path):
    for _ in range(2):
        with pytest.raises(ValueError, match="checksum is not 000.*was deleted") as info:
            download(server.url + "/whole", tmp_path / "file.bin", "0" * 64, allowed=True)
        assert not isinstance(info.value, UnavailableError)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file.bin").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="checksum is not .*delete it and get it again"):
        download(server.url + "/whole", tmp_path / "file.bin", SHA256, allowed=True)


def test_an_md5_is_checked_where_only_that_is_published(server, tmp_path):
    md5 = "md5:" + hashlib.md5(CONTENT).hexdigest()
    assert download(server.url + "/whole", tmp_path / "a", md5, allowed=True).is_file()
    assert download(server.url + "/whole", tmp_path / "a", md5, allowed=False).is_file()
    with pytest.raises(ValueError, match="its checksum is not md5:000"):
        download(server.url + "/whole", tmp_path / "b", "md5:" + "0" * 32, allowed=True)


def test_no_network_unless_allowed(server, tmp_path):
    with pytest.raises(UnavailableError, match="set download to true"):
        download(server.url + "/whole", tmp_path / "file.bin", SHA256, allowed=False)
    assert server.asked == []


def test_no_such_file_and_no_server(server, tmp_path):
    with pytest.raises(UnavailableError, match="cannot be downloaded .*404"):
        download(server.url + "/missing", tmp_path / "file.bin", SHA256, allowed=True)
    with pytest.raises(UnavailableError, match="cannot be downloaded"):
        download("http://127.0.0.1:9/file", tmp_path / "file.bin", SHA256, allowed=True)
