"""A video that is damaged or gone in mid-run: the run stops, or takes others and says so."""

import pytest

from lib.data.dataset import read_dataset
from lib.prepare.synthetic import make_synthetic
from lib.report.sentences import replaced_sentence
from lib.runs.run_dir import RunDir
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


def test_it_stops_and_names_the_video_and_the_way_on(settings, fault):
    path = damage(settings)
    with pytest.raises(ValueError, match="cannot be read as a video.*set unreadable to") as e:
        fit(settings)
    assert path in str(e.value)
    fault("damaged video stops the run", 1, 0)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_it_is_skipped_and_said(settings, capfd, fault, num_workers):
    path = damage(settings)
    with pytest.raises(ValueError, match="set unreadable to 'skip'"):
        fit(settings)
    run = fit(settings.model_copy(update={"unreadable": "skip", "num_workers": num_workers}))
    shares = [entry["data/replaced"] for entry in run.log_entries()]
    assert run.is_finished() and all(0 < share < 1 for share in shares)
    assert (
        capfd.readouterr().out.count(f"{path}: cannot be read; others are taken") == 2
    )  # once a stream
    assert f"{run.name} {50 * sum(shares):.3g} %" in replaced_sentence([run])
    fault(f"damaged video skipped, {num_workers} loaders", 1, 0)


def test_a_disk_that_is_gone_is_not_skipped(settings, fault):
    dataset = read_dataset(load_data(settings).labeled.folder)
    for row in range(len(dataset.index)):
        dataset.record(row).path.unlink()
    with pytest.raises(ValueError, match="is the disk there"):
        fit(settings.model_copy(update={"unreadable": "skip"}))
    fault("videos gone in mid-run", 1, 0)


def test_nothing_changes_where_all_can_be_read(settings):
    first = fit(settings)
    skips = settings.model_copy(update={"unreadable": "skip", "run_dir": settings.run_dir + "2"})
    again = RunDir(fit(skips).folder)
    for one, two in zip(first.log_entries(), again.log_entries(), strict=True):
        assert two.pop("data/replaced") == 0
        assert one["loss/total"] == two["loss/total"]
    assert not replaced_sentence([again])
