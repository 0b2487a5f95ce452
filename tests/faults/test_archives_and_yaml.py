"""Archives and YAML that say one thing and hold another."""

import struct
import zipfile

import pytest

from lib.params import read_yaml
from lib.prepare.download import extract


def test_a_member_shorter_than_its_header_is_noticed(tmp_path, fault):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("one.avi", b"x" * 1000)
    sizes = [struct.pack("<I", number) for number in (1000, 2000)]
    path.write_bytes(path.read_bytes().replace(*sizes))
    with pytest.raises(ValueError, match=r"a\.zip: cannot be extracted .*1000 bytes, its header"):
        extract(path, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    fault("archive that lies", 1, 0)


def test_yaml_that_grows_without_end_is_refused(tmp_path, fault):
    path = tmp_path / "a.yaml"
    lines = ["a: &a [x, x]"] + [
        f"{n}{n}: &{n} [*{m}, *{m}]" for m, n in zip("abcd", "bcde", strict=True)
    ]
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"a\.yaml: not valid YAML: references"):
        read_yaml(path)
    fault("YAML that grows without end", 1, 0)


@pytest.mark.parametrize(
    "text", ["3: 4", "lr: 2001-99-99", "lr: \x00", "? [a]\n: 1", "a: " + "9" * 5000]
)
def test_yaml_that_a_library_fails_on_is_named(tmp_path, fault, text):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"a\.yaml: "):
        read_yaml(path)
    fault("YAML that a library fails on", 1, 0)
