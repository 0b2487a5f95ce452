"""Forged pickles are refused: no code of theirs runs, no memory of their choice is read."""

import pytest
from hostile import hostile_values, write_weights

from lib.models.weights import read_tensors

VALUES = hostile_values()


@pytest.mark.parametrize("in_zip", [True, False])
@pytest.mark.parametrize("name", VALUES)
def test_forged_weights_are_refused(tmp_path, fault, name, in_zip):
    path = tmp_path / "a.pth"
    write_weights(path, VALUES[name], in_zip)
    fault(f"hostile weights, {'zip' if in_zip else 'legacy'}", 1, 0)
    with pytest.raises(ValueError, match=f"weights: {path}"):
        read_tensors(path)
