"""The third stage: which rows of a clustered run are kept.

`range_decision` is the stage, `cluster_ranges` splits the clusters for its tasks, `round_files` is what a decision
across clusters leaves for its own later steps, `concept_shares` measures the shares of the concepts, `value_counts`
counts the values of `within`, `run_leftover` the duplicates that are left, `nearest_cosines` suggests an eps, and
`border_pairs` finds an example pair at one.
"""

from fairdedup.stages.pruning.border_pairs import (
    BorderPair,
    choose_border_pair,
    find_border_pair,
    find_border_pair_across,
)
from fairdedup.stages.pruning.cluster_ranges import make_map_parts, split_clusters
from fairdedup.stages.pruning.nearest_cosines import describe_suggestion, suggest_run_eps
from fairdedup.stages.pruning.range_decision import prune
from fairdedup.stages.pruning.round_files import WorkspaceOnDisk, open_workspace
from fairdedup.stages.pruning.run_leftover import measure_leftover
from fairdedup.stages.pruning.value_counts import count_values

__all__ = [
    "BorderPair",
    "WorkspaceOnDisk",
    "choose_border_pair",
    "count_values",
    "describe_suggestion",
    "find_border_pair",
    "find_border_pair_across",
    "make_map_parts",
    "measure_leftover",
    "open_workspace",
    "prune",
    "split_clusters",
    "suggest_run_eps",
]
