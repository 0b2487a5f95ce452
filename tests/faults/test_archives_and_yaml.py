"""Archives and YAML that say one thing and hold another."""

import pytest

from lib.params import read_yaml


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
