"""Packed arrays come back as they were, as views of the packed bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies

from fairdedup.storage.packed_arrays import pack_arrays, unpack_arrays

PAIRS = np.dtype([("first", np.int64), ("second", np.int64), ("needed", np.int16)])
ARRAYS = numpy_strategies.arrays(
    dtype=st.sampled_from([np.uint8, np.int16, np.float16, np.float32, np.int64, np.bool_, np.dtype("S3"), PAIRS]),
    shape=numpy_strategies.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
)


def equal_bytes(a: np.ndarray, b: np.ndarray) -> bool:
    return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


@given(st.dictionaries(st.text(max_size=5), ARRAYS, max_size=4))
def test_arrays_come_back(arrays):
    found = unpack_arrays(pack_arrays(arrays))
    assert list(found) == list(arrays)
    assert all(equal_bytes(found[name], array) for name, array in arrays.items())


def test_arrays_are_aligned_views():
    arrays = {"a": np.arange(3, dtype=np.int8), "b": np.arange(5.0), "c": np.arange(12)[::2].reshape(2, 3)}
    packed = pack_arrays(arrays)
    packed.flags.writeable = False
    for name, array in unpack_arrays(packed).items():
        assert np.shares_memory(array, packed) and not array.flags.writeable
        assert array.ctypes.data % array.dtype.itemsize == 0
        assert np.array_equal(array, arrays[name])


@pytest.mark.parametrize("damage", [slice(0, 8), slice(8, 20), slice(-1, None)])
def test_damaged_bytes_are_an_error(damage):
    packed = pack_arrays({"a": np.arange(3), "b": np.arange(3.0)})
    if damage.start == -1:
        packed = packed[:-64]
    else:
        packed[damage] = 255
    with pytest.raises(ValueError):
        unpack_arrays(packed)


def test_objects_are_refused():
    with pytest.raises(ValueError, match="Python objects"):
        pack_arrays({"a": np.array(["x"], object)})
