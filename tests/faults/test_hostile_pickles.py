"""Forged pickles are refused: no code of theirs runs, no memory of their choice is read."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from hostile import F4, array, body, called, hostile_values, raw, whole, write_weights

from lib.models.weights import read_tensors
from lib.prepare.import_reference import load_arrays

VALUES = hostile_values()


@pytest.mark.parametrize("name", VALUES)
def test_forged_arrays_are_refused(tmp_path, fault, name):
    path = tmp_path / "a.npy"
    path.write_bytes(whole(b"}", body("one"), VALUES[name], b"s"))
    fault("hostile pickle of arrays", 1, 0)
    with pytest.raises(ValueError, match=f"{path}: damaged .*; use a file of the reference"):
        load_arrays(path)


@pytest.mark.parametrize("in_zip", [True, False])
@pytest.mark.parametrize("name", VALUES)
def test_forged_weights_are_refused(tmp_path, fault, name, in_zip):
    path = tmp_path / "a.pth"
    write_weights(path, VALUES[name], in_zip)
    fault(f"hostile weights, {'zip' if in_zip else 'legacy'}", 1, 0)
    with pytest.raises(ValueError, match=f"weights: {path}"):
        read_tensors(path)


def test_ndarray_cannot_be_called(tmp_path):
    path = tmp_path / "a.npy"
    for arguments in (((1,), "f8"), ((1,), "O", b"A" * 8)):
        path.write_bytes(whole(called("numpy.ndarray", *map(body, arguments))))
        with pytest.raises(ValueError, match="'NoneType' object is not callable"):
            load_arrays(path)


def test_an_honest_array_of_the_same_opcodes_is_read(tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(whole(array((1, 2), F4, raw(np.float32([1.5, -2]).tobytes()))))
    assert load_arrays(path).tolist() == [[1.5, -2.0]]


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_numbers_of_every_plain_kind_are_read(tmp_path: Path, protocol):
    kinds = ["b1", "u1", "i2", ">i4", "<i8", "f2", ">f4", "f8"]
    values = {kind: np.arange(6).reshape(2, 3).astype(kind) for kind in kinds}
    values |= {"fortran": np.asfortranarray(values["f8"]), "none": np.zeros((0, 5))}
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({**values, "scalar": np.float32(2.5)}, protocol))
    loaded = load_arrays(path)
    assert loaded.pop("scalar") == np.float32(2.5)
    for name, value in loaded.items():
        assert value.dtype.newbyteorder("=") == values[name].dtype.newbyteorder("=")
        assert np.array_equal(value, values[name])
