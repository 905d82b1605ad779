"""The fence of a run in a store: a later command takes the run over, and the earlier one writes nothing more."""

from __future__ import annotations

import numpy as np
import pytest
from stores import BUCKET, Store

from fairdedup.errors import FairdedupError
from fairdedup.storage import fence
from fairdedup.storage.fence import NAME, raise_fence
from fairdedup.storage.lock import lock_run_directory
from fairdedup.storage.object_stores import as_path
from fairdedup.storage.run_files import write_array


def test_a_later_command_takes_a_run_in_a_store_over(bucket: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fence, "REMEMBERED", 0.0)
    root = as_path(f"{BUCKET}/taken-over")
    with lock_run_directory(root):
        write_array(root / "first.npy", np.zeros(3))
        with raise_fence(root):  # as a second command does, which no lock keeps out
            write_array(root / "second.npy", np.ones(3))
            token = (root / NAME).read_bytes()
        assert not (root / NAME).exists()
        with pytest.raises(FairdedupError, match=f"^{root} was taken over by another command"):
            write_array(root / "late.npy", np.zeros(3))
        assert token
    assert {path.name for path in root.iterdir()} == {"first.npy", "second.npy"}


def test_a_store_is_not_looked_at_before_each_of_many_writes(bucket: Store) -> None:
    root = as_path(f"{BUCKET}/many")
    with lock_run_directory(root):
        with bucket.proxy.recording() as requests:
            for number in range(20):
                write_array(root / f"{number}.npy", np.zeros(3))
        reads = [r for r in requests if r.method == "GET" and NAME in r.path]
    assert 1 <= len(reads) <= 1 + 20 * fence.REMEMBERED
