"""Random damage to bytes, as Hypothesis draws it: for the tests of readers."""

from __future__ import annotations

from hypothesis import strategies as st

OPERATION = st.tuples(
    st.sampled_from(("flip", "set", "set", "cut", "insert", "repeat", "delete", "move")),
    st.integers(0, 1 << 16),
    st.integers(0, 1 << 16),
    st.one_of(
        st.binary(min_size=1, max_size=8), st.sampled_from((b"\0", b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80" * 9))
    ),
)
CHANGES = st.lists(OPERATION, min_size=1, max_size=4)
Change = tuple[str, int, int, bytes]


def changed(data: bytes, changes: list[Change]) -> bytes:
    """Return bytes with random damage, at positions counted from the front, where headers are, or from the end."""
    work = bytearray(data)
    for kind, place, length, new in changes:
        at = place // 2 % (len(work) + 1)
        at = len(work) - at if place % 2 else at
        size = length % 64 + 1
        if kind == "flip" and at < len(work):
            work[at] ^= 1 << length % 8
        elif kind == "set":
            work[at : at + len(new)] = new
        elif kind == "cut":
            del work[at:]
        elif kind == "insert":
            work[at:at] = new
        elif kind == "repeat":
            work[at:at] = work[at : at + size]
        elif kind == "delete":
            del work[at : at + size]
        else:
            work[at : at + size] = work[length % (len(work) + 1) :][:size]
    return bytes(work)
