"""Products of 8-bit integers are exact, by the kernel for AVX2 and by torch, in every shape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fairdedup.core import fast_arithmetic, int8_kernel
from fairdedup.core.approximate import approximate_in_int8
from fairdedup.core.similarity import Vectors, unit_float16

with_avx2 = pytest.mark.skipif("avx2" not in int8_kernel.cpu_features(), reason="this processor has no AVX2")
WAYS = [pytest.param(int8_kernel.multiply_by_avx2, marks=with_avx2), fast_arithmetic._multiply_by_torch]


@pytest.mark.parametrize("multiply", WAYS)
@given(n=st.integers(0, 40), m=st.integers(0, 150), d=st.integers(0, 70), extreme=st.booleans(), seed=st.integers(0, 9))
@example(n=16, m=64, d=16, extreme=True, seed=0)  # whole tiles alone
@example(n=17, m=65, d=1, extreme=True, seed=0)  # one row, column and value more than whole tiles
@example(n=1, m=3, d=512, extreme=True, seed=0)
def test_products_are_those_of_whole_numbers(multiply, n, m, d, extreme, seed):
    if multiply is fast_arithmetic._multiply_by_torch and 0 in (n, m, d):
        return  # no caller multiplies nothing by torch
    rng = np.random.default_rng(seed)
    draw = (lambda shape: rng.choice([-128, 127], shape)) if extreme else (lambda shape: rng.integers(-128, 128, shape))
    rows, other = draw((n, d)).astype(np.int8), draw((m, d)).astype(np.int8)
    around = np.full((n + 2, m), -7, np.int32)
    multiply(rows, other, around[1:-1])
    assert (around[1:-1] == rows.astype(np.int64) @ other.astype(np.int64).T).all()
    assert (around[[0, -1]] == -7).all()  # nothing beside the products is written


@with_avx2
def test_rows_may_be_read_only_and_strided():
    rng = np.random.default_rng(0)
    rows, other = rng.integers(-127, 128, (20, 24), np.int8), rng.integers(-127, 128, (30, 12), np.int8)
    rows.flags.writeable = False
    out = np.empty((20, 30), np.int32)
    int8_kernel.multiply_by_avx2(rows[:, ::2], other, out)
    assert (out == rows[:, ::2].astype(int) @ other.T.astype(int)).all()


@with_avx2
@pytest.mark.parametrize(
    ("other", "out"),
    [((5, 8), np.empty((4, 5), np.int32)), ((5, 7), np.empty((4, 6), np.int32)),
     ((5, 7), np.empty((4, 5), np.int64)), ((5, 7), np.empty((5, 4), np.int32).T)],
)  # fmt: skip
def test_what_does_not_fit_is_refused(other, out):
    with pytest.raises(ValueError, match="they do not fit"):
        int8_kernel.multiply_by_avx2(np.zeros((4, 7), np.int8), np.zeros(other, np.int8), out)


@pytest.mark.parametrize(
    ("features", "way"),
    [({"avx2"}, "_has_avx2_alone"), ({"avx2", "avx512f"}, None), ({"neon"}, None), (set(), None),
     ({"avx2", "avxvnni"}, "_has_int8_instructions"), ({"avx2", "avx512f", "avx512vnni"}, "_has_int8_instructions")],
)  # fmt: skip
def test_the_kernel_is_taken_where_nothing_is_faster(features, way, monkeypatch):
    monkeypatch.setattr(fast_arithmetic, "cpu_features", lambda: frozenset(features))
    assert [name for name in ("_has_avx2_alone", "_has_int8_instructions") if getattr(fast_arithmetic, name)()] == (
        [way] if way else []
    )


@with_avx2
def test_rounded_vectors_have_the_same_products_by_the_kernel_and_by_torch(monkeypatch):
    vectors = Vectors.of(unit_float16(np.random.default_rng(0).normal(size=(300, 33)))[0])
    rounded, found = approximate_in_int8(vectors), []
    for kernel in (True, False):
        monkeypatch.setattr(fast_arithmetic, "_has_avx2_alone", lambda kernel=kernel: kernel)
        found.append(rounded.multiply(rounded))
    assert found[0].dtype == found[1].dtype == np.int32
    assert (found[0] == found[1]).all()


@with_avx2
@pytest.mark.parametrize("rows", [1, 16, 100, 257])
def test_threads_that_share_a_product_write_all_of_it(rows, monkeypatch):
    monkeypatch.setattr(fast_arithmetic, "_has_avx2_alone", lambda: True)
    monkeypatch.setattr(fast_arithmetic, "_count_threads", lambda: 3)
    monkeypatch.setattr(fast_arithmetic, "SHARED_WORK", 0)
    rng = np.random.default_rng(rows)
    one, other = rng.integers(-127, 128, (rows, 33), np.int8), rng.integers(-127, 128, (70, 33), np.int8)
    assert (fast_arithmetic.multiply_int8(one, other) == one.astype(int) @ other.T.astype(int)).all()
