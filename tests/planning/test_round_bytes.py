"""Bytes of a decision across clusters: the formulas, the files of a run, and what is assumed of the counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from runs import done, manifest

from fairdedup.core.kmeans import NEARBY
from fairdedup.core.remembered_pairs import MOST_PAIRS
from fairdedup.core.rounds import RECENT
from fairdedup.planning.round_bytes import (
    STATES,
    RoundCounts,
    count_round_bytes,
    count_rounds_on_disk,
    count_rounds_read,
    count_rounds_written,
    expect_counts,
)
from fairdedup.planning.stage_work import Size
from fairdedup.stages.pruning import round_files
from fairdedup.storage.packed_arrays import unpack_arrays

HEADERS = (128, 192)  # bytes of an .npy before its values: those of one type, and of columns
SMALL = Size(rows=1000, dim=8, clusters=10, kept=500, shards=1, workers=1)


@pytest.fixture
def rounds(again: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Return the arrays that a decision by `semdedup` at half has left in decisions/_rounds/ when it ended."""
    found: dict[str, np.ndarray] = {}
    remove = round_files.remove_folder

    def look(folder: Path) -> None:
        for path in sorted(folder.glob("*.npy")):
            array = np.load(path)
            assert path.stat().st_size - array.nbytes in HEADERS
            if path.name.startswith(("visits_", "shared_")):
                found[path.name] = array
                continue
            name, number = path.stem.rsplit(".", 1)
            found.update({f"{name}.{key}.{number}": own for key, own in unpack_arrays(array).items()})
        remove(folder)

    monkeypatch.setattr(round_files, "remove_folder", look)
    done("prune", again, "--keep", 0.5, "--rule", "semdedup", "--quiet", "--no-report")
    return found


def count(rounds: dict[str, np.ndarray]) -> RoundCounts:
    """Return the counts of these files, from the lengths of their columns."""

    def length(prefix: str, column: str) -> int:
        return sum(array.shape[-1] for name, array in rounds.items() if name.startswith(prefix) and column in name)

    return RoundCounts(
        visits=length("visits_", "_rows_"),
        pairs=length("pairs-", ".neighbours."),
        links=length("links-", ".links."),
        states=length("round-", ".rows."),
    )


def test_the_formula_is_what_a_run_has_on_disk(rounds, again):
    counts, known = count(rounds), manifest(again)["counts"]
    clusters = len(
        {int(number) for name, own in rounds.items() if name.startswith("clusters.clusters") for number in own}
    )
    size = Size(rows=known["valid"], dim=16, clusters=clusters, kept=known["kept"], shards=2, workers=1)
    groups = len([name for name in rounds if name.startswith("visits_") and "_starts_" in name])
    assert groups == size.groups == 1 and counts.visits > 0 and counts.pairs > 0 and counts.states >= size.rows
    expected = count_round_bytes(size, counts)
    actual = sum(array.nbytes for array in rounds.values())
    few = 64 * clusters * len(rounds)  # names, numbers and sizes of clusters, whatever the rows
    assert expected <= actual <= expected + few
    assert few < 0.5 * expected, "the rows are most of it"


def test_each_array_has_the_bytes_that_the_formula_counts_for_it(rounds):
    def itemsize(part: str) -> set[int]:
        return {array.itemsize for name, array in rounds.items() if part in name}

    assert itemsize("_rows_") == {8} and itemsize("_needed_") == {2} and itemsize("_starts_") == {8}
    assert itemsize(".neighbours.") == {4} and {
        a.itemsize for n, a in rounds.items() if "pairs-" in n and ".needed." in n
    } == {2}
    assert {a.itemsize for n, a in rounds.items() if n.startswith("links-") and ".links." in n} <= {18}
    states = [a for n, a in rounds.items() if n.startswith("round-") and ".rows." in n]
    assert states and all(a.shape[0] == 4 and a.itemsize == 8 for a in states)
    assert itemsize("clusters.centroid_similarity") == itemsize("clusters.price") == {8}


def test_the_counts_of_a_run_are_within_their_bounds(rounds, again):
    counts, rows = count(rounds), manifest(again)["counts"]["valid"]
    assert counts.visits <= (NEARBY - 1) * rows and counts.pairs <= MOST_PAIRS * rows
    assert counts.states <= RECENT * STATES * rows, "more states than the plan expects"


def test_the_formula_by_hand():
    # Starts of visits 8 (10 + 1) 1 and of pairs 8 (1000 + 10), flags 1000, 16 bytes of a row for its cluster.
    fixed = 88 + 8_080 + 1_000 + 16_000
    assert count_round_bytes(SMALL, RoundCounts(0, 0, 0, 0)) == fixed
    assert count_round_bytes(SMALL, RoundCounts(7, 0, 0, 0)) == fixed + 70
    assert count_round_bytes(SMALL, RoundCounts(0, 7, 0, 0)) == fixed + 42
    assert count_round_bytes(SMALL, RoundCounts(0, 0, 7, 0)) == fixed + 126
    assert count_round_bytes(SMALL, RoundCounts(0, 0, 0, 7)) == fixed + 224
    assert count_round_bytes(SMALL, RoundCounts(0, 0, 0, 0), concepts=3) == fixed + 24_000


def test_what_is_written_and_read_by_hand(monkeypatch):
    for name, value in (("VISITS", 0.5), ("PAIRS", 2.0), ("LINKS", 0.25)):
        monkeypatch.setattr(f"fairdedup.planning.round_bytes.{name}", value)
    assert expect_counts(SMALL) == (500, 2_000, 250, 9_000)
    once = 88 + 8_080 + 1_000 + 16_000 + 5_000 + 12_000 + 4_500
    assert count_rounds_on_disk(SMALL) == once + 9 * 32_000
    # Six trials with three states of each row, and flags for each of these steps.
    assert count_rounds_written(SMALL) == once + 18 * 32_000 + 17 * 1_000
    assert count_rounds_read(SMALL) == 16_000 + 16 * 500 + 6 * (once + 3 * 32_000)
