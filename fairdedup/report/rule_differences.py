"""The samples that a rule of `fairdedup compare` decides differently from the run, as CSV or Parquet.

One part of the decisions is in memory at a time. Lines are in the order of the rules, and then of the input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from fairdedup.stages.id_export import write_csv
from fairdedup.storage.run_files import atomic_write, open_table_writer
from fairdedup.storage.sealed_files import Seal, load_table

SCHEMA = pa.schema(
    [("id", pa.string()), ("rule", pa.string()), ("kept_by_run", pa.bool_()), ("kept_by_rule", pa.bool_())]
)


def write_differences(path: Path, own: Sequence[Seal], trials: Sequence[tuple[str, Sequence[Seal]]]) -> int:
    """Write the samples on which rules and the run differ, and return the number of lines.

    Parameters
    ----------
    path : Path
        The file to write, whose name ends in .csv or .parquet.
    own : sequence of p Seal
        The parts of the run's decisions.
    trials : sequence of (str, sequence of p Seal)
        Each rule, and the same parts as it decides them.
    """
    tables = _iterate_differences(own, trials)
    if path.suffix.lower() == ".csv":
        with atomic_write(path) as aside:
            return write_csv(aside, tables)
    count = 0
    with open_table_writer(path, SCHEMA) as writer:
        for table in tables:
            writer.write_table(table)
            count += table.num_rows
    return count


def _iterate_differences(own: Sequence[Seal], trials: Sequence[tuple[str, Sequence[Seal]]]) -> Iterator[pa.Table]:
    yield SCHEMA.empty_table()  # the header, if there is no difference
    for rule, parts in trials:
        for mine, tried in zip(own, parts, strict=True):
            table = load_table(mine, ["id", "kept"])
            before = table.column("kept").to_numpy()
            after = load_table(tried, ["kept"]).column("kept").to_numpy()
            differ = np.flatnonzero(before != after)
            if len(differ):
                names = table.column("id").take(pa.array(differ)).cast(pa.string())
                columns = [names, pa.array([rule] * len(differ)), pa.array(before[differ]), pa.array(after[differ])]
                yield pa.table(columns, schema=SCHEMA)
