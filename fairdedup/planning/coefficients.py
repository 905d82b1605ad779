"""What was measured, in benchmarks/results/scale.json: `benchmarks/coefficients.py` writes this module; do not edit it.

A stage that is not here was not measured.
"""

from __future__ import annotations

from fairdedup.planning.measurement import Cost, MeasuredJob

JOB = MeasuredJob(
    source="benchmarks/results/scale.json, as k-means clusters them",
    hardware="2 workers on 2 cores, Intel(R) Xeon(R) Processor @ 2.50GHz",
    rows=1_000_000,
    dim=512,
    clusters=1_000,
    largest=3_142,
)
COSTS = {
    "embed": Cost(2.858e-08, 0.0257, "as k-means clusters them: embed; in tiny shards"),
    "train k-means": Cost(4.498e-11, 0.000802, "as k-means clusters them: cluster; in tiny shards"),
    "assign": Cost(5.456e-11, 0.000632, "as k-means clusters them: cluster; in tiny shards"),
    "verify": Cost(5.848e-09, 6.01e-05, "as k-means clusters them: prune; in tiny shards"),
    "decide in clusters": Cost(2.164e-10, 0, "as k-means clusters them: prune"),
    "write results": Cost(2.233e-06, 0.00567, "as k-means clusters them: prune; in tiny shards"),
    "state": Cost(1.117e-08, 0.0014, "as k-means clusters them: prune; in tiny shards"),
}
ROW_BYTES = {  # on disk, beside the vectors, for each row, or kept row; ids are the only metadata
    "embeddings": 2.56,
    "decisions": 24.1,
    "kept": 2.1,
    "state": 26.7,
}
WORKER_MIB = {  # most resident memory of a worker, mapped files included, by command
    "embed": 305,
    "cluster": 962,
    "prune": 1513,
}
CONDUCTOR_MIB = 292  # most resident memory of the command itself
CLUSTER_BYTES = 4.78  # of memory, for each value of the largest cluster; with a giant cluster
# Of a row: other clusters that it reaches, duplicates in its own, and in others; by results/across.json
VISITS = 0.217
PAIRS = 2.54
LINKS = 0.0696
