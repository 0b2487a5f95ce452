"""A video that is damaged or gone in mid-run: the run stops and names it."""

import pytest

from lib.prepare.synthetic import make_synthetic
from lib.train.fit import fit
from lib.train.setup import load_data


@pytest.fixture
def settings(tiny_settings, tiny_network, tmp_path):
    """Those of a run on a data set of its own, of which one training video is damaged."""
    folder = tmp_path / "data" / "synthetic"
    make_synthetic(folder, parts={"train": 6, "val": 4, "val_swapped": 4})
    return tiny_settings(prepared_dir=str(folder.parent), epochs=2, frame_cache_mb=0)


def damage(settings) -> str:
    data = load_data(settings)
    path = data.labeled.record(int(data.labeled_rows[0])).path
    path.write_bytes(path.read_bytes()[:200])
    return str(path)


def test_damaged_video_stops_the_run_and_is_named(settings, fault):
    path = damage(settings)
    with pytest.raises(ValueError, match="cannot be read as a video.*prepare the data") as e:
        fit(settings)
    assert path in str(e.value)
    fault("damaged video stops the run", 1, 0)
