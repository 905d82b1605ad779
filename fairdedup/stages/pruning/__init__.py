"""The third stage: which rows of a clustered run are kept.

`range_decision` is the stage, `cluster_ranges` splits the clusters for its tasks, and `concept_shares` measures the
shares of the concepts.
"""

from fairdedup.stages.pruning.cluster_ranges import make_map_parts, split_clusters
from fairdedup.stages.pruning.range_decision import prune

__all__ = ["make_map_parts", "prune", "split_clusters"]
