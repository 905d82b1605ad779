"""The second stage: centroids, the cluster of each row, and vectors sorted by cluster.

`embedding_clusters` is the stage, `centroid_training` trains k-means, and `group_assignment` has the tasks that assign
rows.
"""

from fairdedup.stages.clustering.centroid_training import ClusterOptions
from fairdedup.stages.clustering.embedding_clusters import cluster_embeddings

__all__ = ["ClusterOptions", "cluster_embeddings"]
