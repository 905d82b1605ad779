"""What was measured, in benchmarks/results/scale.json: `benchmarks/coefficients.py` writes this module; do not edit it.

A stage that is not here was not measured.
"""

from __future__ import annotations

from fairdedup.planning.measurement import Cost, MeasuredJob

JOB = MeasuredJob(
    source="benchmarks/results/scale.json, sizes, 4,000,000 rows",
    hardware="2 workers on 2 cores, AMD EPYC",
    rows=4_000_000,
    dim=512,
    clusters=2_000,
    largest=6_863,
)
COSTS = {
    "embed": Cost(2.884e-08, 0.0257, "sizes, 4,000,000 rows: embed; in tiny shards"),
    "train k-means": Cost(1.883e-11, 0.000802, "sizes, 4,000,000 rows: cluster; in tiny shards"),
    "assign": Cost(6.192e-11, 0.000632, "sizes, 4,000,000 rows: cluster; in tiny shards"),
    "verify": Cost(3.649e-09, 6.01e-05, "sizes, 4,000,000 rows: prune; in tiny shards"),
    "decide in clusters": Cost(2.603e-11, 0, "sizes, 4,000,000 rows: prune"),
    "decide across": Cost(9.125e-11, 0, "sizes, 4,000,000 rows: prune"),
    "write results": Cost(2.583e-06, 0.00567, "sizes, 4,000,000 rows: prune; in tiny shards"),
    "state": Cost(1.750e-08, 0.0014, "sizes, 4,000,000 rows: prune; in tiny shards"),
    "leftover": Cost(5.273e-11, 0, "sizes, 4,000,000 rows: prune"),
}
ROW_BYTES = {  # on disk, beside the vectors, for each row, or kept row; ids are the only metadata
    "embeddings": 2.32,
    "decisions": 25.8,
    "kept": 2.91,
    "state": 146,
}
WORKER_MIB = {  # most resident memory of a worker, mapped files included, by command
    "embed": 442,
    "cluster": 799,
    "prune": 791,
}
CONDUCTOR_MIB = 924  # most resident memory of the command itself
CLUSTER_BYTES = 4.78  # of memory, for each value of the largest cluster; with a giant cluster
# Of a row: other clusters that it reaches, duplicates in its own, and in others; by results/across.json
VISITS = 0.217
PAIRS = 2.54
LINKS = 0.0696
