"""The third stage: which rows of a clustered run are kept.

`range_decision` is the stage, `cluster_ranges` splits the clusters for its tasks, `round_files` is what a decision
across clusters leaves for its own later steps, `concept_shares` measures the shares of the concepts, `value_counts`
counts the values of `within`, `run_leftover` the duplicates that are left, `nearest_cosines` suggests an eps,
`border_pairs` finds an example pair at one, and `kept_counter` counts what one keeps.
"""

from fairdedup.stages.pruning.border_pairs import BorderPair
from fairdedup.stages.pruning.kept_counter import KeptCounter, open_counter
from fairdedup.stages.pruning.nearest_cosines import describe_suggestion, suggest_run_eps
from fairdedup.stages.pruning.range_decision import prune
from fairdedup.stages.pruning.round_files import open_workspace
from fairdedup.stages.pruning.run_leftover import measure_leftover

__all__ = [
    "BorderPair",
    "KeptCounter",
    "describe_suggestion",
    "measure_leftover",
    "open_counter",
    "open_workspace",
    "prune",
    "suggest_run_eps",
]
