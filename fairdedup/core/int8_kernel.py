"""Exact products of 8-bit integers by AVX2, for processors that have no instruction made for them.

One instruction (`vpmaddwd`) multiplies 16 pairs of 16-bit integers and adds them by twos: twice the work of one in
float32. numba would not emit it from a loop, so the innermost loop is written in LLVM's own language.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic as _intrinsic
from numpy.typing import NDArray

from fairdedup.core.compiled import njit

LANES = 16  # rows of one panel: two registers of eight sums for each column
COLUMNS = 4  # columns of one tile: with two halves eight registers of sums, of the sixteen that AVX2 has
WIDENED = 64  # columns that are widened to 16 bits at a time; they stay in the cache for all panels
_INDEX, _WORD = ir.IntType(64), ir.IntType(32)
intrinsic: Any = _intrinsic  # its calls lack the first parameter, which numba gives
_SUMS, _PAIRS = ir.VectorType(_WORD, 8), ir.VectorType(ir.IntType(16), 16)


@lru_cache(maxsize=1)
def cpu_features() -> frozenset[str]:
    """Return what LLVM calls the instructions of this processor, as "avx2"; empty where it cannot tell."""
    try:
        return frozenset(name for name, present in binding.get_host_cpu_features().items() if present)
    except RuntimeError:
        return frozenset()


def _lanes(*places: int) -> ir.Constant:
    return ir.Constant(ir.VectorType(_WORD, len(places)), list(places))


def _store_tile(build: ir.IRBuilder, sums: list[list[Any]], pointers: list[Any]) -> None:
    """Store the sums [column][half] so that each row, at its pointer, has its four columns side by side."""
    row = ir.VectorType(_WORD, COLUMNS)
    for half in range(2):
        by_two = [
            build.shuffle_vector(sums[c][half], sums[c + 1][half], _lanes(*range(16))) for c in range(0, COLUMNS, 2)
        ]
        every = build.shuffle_vector(*by_two, _lanes(*range(32)))
        for lane in range(8):
            four = build.shuffle_vector(every, every, _lanes(*range(lane, 32, 8)))
            build.store(four, build.bitcast(pointers[8 * half + lane], row.as_pointer()), align=4)


@intrinsic
def _multiply_tile(_typing, panels, panel, wide, first, out, row, column):  # type: ignore[no-untyped-def]
    """out[row : row + 16, column : column + 4] = products of a panel with wide[first : first + 4].

    `panels` (p, h, 16) and `wide` (c, h) hold pairs of 16-bit integers as int32; `out` is int32. All are contiguous.
    """
    signature = types.void(panels, panel, wide, first, out, row, column)

    def generate(context, build, signature, args):  # type: ignore[no-untyped-def]
        panels, wide, out = (context.make_array(signature.args[k])(context, build, args[k]) for k in (0, 2, 4))
        _, panel, _, first, _, row, column = args
        pairs, width = (cgutils.unpack_tuple(build, array.shape)[1] for array in (wide, out))
        multiply_add = cgutils.get_or_insert_function(
            build.module, ir.FunctionType(_SUMS, [_PAIRS, _PAIRS]), "llvm.x86.avx2.pmadd.wd"
        )

        def number(value: int) -> ir.Constant:
            return ir.Constant(_INDEX, value)

        def line(array: Any, place: Any, more: int, length: Any) -> Any:
            return build.gep(array.data, [build.mul(build.add(place, number(more)), length)])

        own = line(panels, panel, 0, build.mul(pairs, number(LANES)))
        others = [line(wide, first, c, pairs) for c in range(COLUMNS)]
        before, loop, after = build.block, build.append_basic_block("loop"), build.append_basic_block("after")
        build.branch(loop)

        build.position_at_end(loop)
        k = build.phi(_INDEX)
        sums = [[build.phi(_SUMS) for _ in range(2)] for _ in range(COLUMNS)]
        here = build.bitcast(build.gep(own, [build.mul(k, number(LANES))]), _SUMS.as_pointer())
        halves = [build.bitcast(build.load(build.gep(here, [number(h)]), align=4), _PAIRS) for h in range(2)]
        grown = []
        for other in others:
            one = build.insert_element(ir.Constant(_SUMS, None), build.load(build.gep(other, [k])), _WORD(0))
            pair = build.bitcast(build.shuffle_vector(one, one, _lanes(*[0] * 8)), _PAIRS)
            grown.append([build.call(multiply_add, [pair, half]) for half in halves])
        grown = [[build.add(*two) for two in zip(*pair, strict=True)] for pair in zip(sums, grown, strict=True)]
        following = build.add(k, number(1))
        k.add_incoming(number(0), before)
        k.add_incoming(following, loop)
        for old, new in zip(sum(sums, []), sum(grown, []), strict=True):
            old.add_incoming(ir.Constant(_SUMS, None), before)
            old.add_incoming(new, loop)
        build.cbranch(build.icmp_signed("<", following, pairs), loop, after)

        build.position_at_end(after)
        _store_tile(build, grown, [build.gep(line(out, row, lane, width), [column]) for lane in range(LANES)])
        return context.get_dummy_value()

    return signature, generate


@njit
def _pack(rows):  # type: ignore[no-untyped-def]
    """Return rows (n, d) as panels of 16 rows, pair of values after pair: (p, h, 16), int32, padded with zeros."""
    n, d = rows.shape
    panels = np.zeros(((n + LANES - 1) // LANES, (d + 1) // 2, 2 * LANES), np.int16)
    for i in range(n):
        panel, lane = panels[i // LANES], 2 * (i % LANES)
        for j in range(d):
            panel[j // 2, lane + j % 2] = rows[i, j]
    return panels.view(np.int32)


@njit
def _multiply(rows, other, out):  # type: ignore[no-untyped-def]
    """Write the products of rows (n, d) and other rows (m, d), both int8, to out (n, m)."""
    panels = _pack(rows)
    n, d = rows.shape
    widened = np.zeros((WIDENED, d + d % 2), np.int16)
    pairs = widened.view(np.int32)
    edge = np.empty((LANES, COLUMNS), np.int32)
    for start in range(0, other.shape[0], WIDENED):
        some = min(WIDENED, other.shape[0] - start)
        for i in range(some):
            for j in range(d):
                widened[i, j] = other[start + i, j]
        for p in range(panels.shape[0]):
            tall = min(LANES, n - p * LANES)
            for c in range(0, some, COLUMNS):
                wide = min(COLUMNS, some - c)
                if tall == LANES and wide == COLUMNS:
                    _multiply_tile(panels, p, pairs, c, out, p * LANES, start + c)
                    continue
                _multiply_tile(panels, p, pairs, c, edge, 0, 0)
                for x in range(tall):
                    for y in range(wide):
                        out[p * LANES + x, start + c + y] = edge[x, y]


def multiply_by_avx2(rows: NDArray[np.int8], other: NDArray[np.int8], out: NDArray[np.int32]) -> None:
    """Write the products of 8-bit rows with other rows, on one thread. Needs AVX2: see `cpu_features`.

    Parameters
    ----------
    rows : ndarray of shape (n, d), int8
    other : ndarray of shape (m, d), int8
        Their products must fit into 32 bits.
    out : ndarray of shape (n, m), int32, C-contiguous
        Where to write the products.

    Raises
    ------
    ValueError
        If the shapes or types do not fit together, or `out` is not contiguous.
    """
    fits = rows.shape[1] == other.shape[1] and out.shape == (len(rows), len(other))
    if not fits or out.dtype != np.int32 or not out.flags.c_contiguous:
        raise ValueError(f"rows {rows.shape}, other {other.shape} and out {out.shape}, {out.dtype}: they do not fit")
    if rows.shape[1]:
        _multiply(np.ascontiguousarray(rows), np.ascontiguousarray(other), out)
    else:
        out[...] = 0
