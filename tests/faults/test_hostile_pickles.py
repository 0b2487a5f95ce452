"""Pickles that ask for memory, time or addresses are refused, at once, in processes of their own.

Before there were stand-ins for NumPy's own functions, some of these ended the process.
"""

import io
import pickle
import resource
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from hostile import F4, array, body, hostile_values, raw, whole, write_weights

from lib.models.weights import check_growth, read_tensors
from lib.prepare.parallel import map_in_workers
from lib.prepare.safe_pickle import as_array, load_arrays

TIMEOUT_S, MEMORY = 20.0, 1 << 30  # bytes that a file may ask for


def read_hostile(path: Path) -> str:
    """Read a file with little memory and return how it was refused; empty if it was taken."""
    limit = psutil.Process().memory_info().vms + MEMORY  # libraries of CUDA may take gigabytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    try:
        if path.suffix == ".pth":
            read_tensors(path)
        else:
            as_array(load_arrays(path, "remedy")["one"][1])
    except ValueError as error:
        return str(error)
    return ""


def refusals(paths: list[Path]) -> dict[str, str]:
    """Return how each file was refused; what happened to its process if it was not."""
    found = {}
    for outcome in map_in_workers(read_hostile, paths, 1, TIMEOUT_S):
        path = paths[outcome.position]
        found[path.name] = f"LOST: {outcome.error}" if outcome.error else outcome.value
    return found


def test_arrays_that_lie_are_refused(tmp_path, fault):
    paths = []
    for number, value in enumerate(hostile_values().values()):
        paths.append(tmp_path / f"{number}.npy")
        entry = whole(b"}", body("one"), b"}", body(1), value, b"s", b"s")
        paths[-1].write_bytes(entry)
    said, lost = refusals(paths), []
    for name, path in zip(hostile_values(), paths, strict=True):
        if not said[path.name].startswith((f"{path}: not a pickle", "an array of numbers")):
            lost.append(name)
    fault("hostile pickle of arrays", len(paths), len(lost))
    assert not lost


@pytest.mark.parametrize("in_zip", [True, False])
def test_weights_that_lie_are_refused(tmp_path, fault, in_zip):
    paths = []
    for number, value in enumerate(hostile_values().values()):
        paths.append(tmp_path / f"{number}.pth")
        write_weights(paths[-1], value, in_zip)
    said, lost = refusals(paths), []
    for name, path in zip(hostile_values(), paths, strict=True):
        if not said[path.name].startswith(str(path)):
            lost.append(name)
    fault(f"hostile weights, {'zip' if in_zip else 'legacy'}", len(paths), len(lost))
    assert not lost


def test_an_honest_array_of_the_same_build_is_read(tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(whole(array((1, 2), F4, raw(np.float32([1.5, -2]).tobytes()))))
    assert load_arrays(path, "").tolist() == [[1.5, -2.0]]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_numbers_of_every_plain_kind_come_in(tmp_path, protocol):
    kinds = ["b1", "u1", "i2", ">i4", "<i8", "f2", ">f4", "f8"]
    values = {kind: np.arange(6).reshape(2, 3).astype(kind) for kind in kinds}
    values |= {"fortran": np.asfortranarray(values["f8"]), "none": np.zeros((0, 5))}
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({**values, "scalar": np.float32(2.5)}, protocol))
    found = load_arrays(path, "")
    assert found.pop("scalar") == np.float32(2.5)
    for name, value in found.items():
        assert as_array(value).dtype == values[name].dtype
        assert np.array_equal(as_array(value), values[name])


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_table_as_the_reference_writes_it_has_not_grown(protocol):
    frames = {n: np.ones((n % 3, 5)) for n in range(300)}
    table = {f"v_Video_{v}": frames | {n: np.ones((2, 5)) for n in range(99)} for v in range(9)}
    check_growth(io.BytesIO(pickle.dumps(table, protocol)))


@pytest.mark.parametrize("in_zip", [True, False])
def test_a_checkpoint_with_an_optimizer_has_not_grown(tmp_path, in_zip):
    model = torch.nn.Sequential(*(torch.nn.Linear(3, 3) for _ in range(20)))
    optimizer = torch.optim.AdamW([{"params": [p]} for p in model.parameters()])
    state = {"state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=in_zip)
    assert read_tensors(tmp_path / "a.pth").keys() == model.state_dict().keys()


def test_a_flipped_bit_in_weights_is_noticed(tmp_path, fault):
    path = tmp_path / "a.pth"
    torch.save({"weight": torch.ones(1000)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.ones(9).numpy().tobytes()) + 4] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="a.pth was not read: it is damaged"):
        read_tensors(path)
    fault("flipped bit in weights", 1, 0)
