"""PyTorch and our own reader read what we write."""

import numpy as np
import pytest
import torch

from dsd_jax.tensor_files import pickle_file
from dsd_jax.tensor_files.pickle_writer import state_dict

NUMBERS = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
TENSORS = {
    "a.weight": NUMBERS,
    "ä": NUMBERS[0].T,
    "half": NUMBERS.astype(np.float16),
    "scalar": np.float32(5),
    "empty": np.zeros((0, 3)),
}


@pytest.mark.parametrize("weights_only", [True, False])
def test_the_same_in_pytorch(tmp_path, weights_only):
    (tmp_path / "x.bin").write_bytes(state_dict(TENSORS))
    for found in (
        torch.load(tmp_path / "x.bin", weights_only=weights_only),
        torch.load(tmp_path / "x.bin", weights_only=weights_only, mmap=True),
        pickle_file.read(tmp_path / "x.bin"),
    ):
        assert list(found) == list(TENSORS)
        for name, array in TENSORS.items():
            assert str(found[name].dtype).endswith("float32")
            assert tuple(found[name].shape) == array.shape
            np.testing.assert_array_equal(np.asarray(found[name]), array)
