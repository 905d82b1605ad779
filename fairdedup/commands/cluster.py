"""`fairdedup cluster`: the second stage alone. It clusters embeddings, or assigns them to clusters of earlier runs."""

from __future__ import annotations

from fairdedup.config import RunConfig
from fairdedup.core.keep_fraction import count_kept
from fairdedup.core.kmeans import check_clusters
from fairdedup.incremental.earlier_runs import check_cluster_count, check_dimension, find_earlier_runs
from fairdedup.preparation.request import Request
from fairdedup.preparation.stage_records import finish_stage, start_stage
from fairdedup.stages.clustering import ClusterOptions, cluster_embeddings
from fairdedup.storage.contents import Clustered, Embedded, load_embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.workers import Workers


def cluster_run(config: RunConfig, workers: Workers) -> Clustered:
    """Cluster the embeddings of a run, and return the clusters.

    Parameters
    ----------
    config : RunConfig
        Names the run, and the options of the clustering.
    workers : Workers
        Run the tasks of the stages.

    Raises
    ------
    UserError
        If the embeddings are not finished, or there are more clusters than rows.
    """
    directory = RunDirectory(config.out.absolute())
    embedded = load_embedded(directory, workers.submit)
    earlier = find_earlier_runs(config)
    return cluster(Request(config, directory, earlier), embedded, workers)


def cluster(request: Request, embedded: Embedded, workers: Workers) -> Clustered:
    """Write clusters/, the centroids and the embeddings sorted by cluster, and return the clusters.

    Undamaged files of an earlier try are used again.

    Parameters
    ----------
    request : Request
        Options of the command, and the earlier runs.
    embedded : Embedded
        Embeddings of the run.
    workers : Workers
        Run the tasks of the stages.

    Raises
    ------
    UserError
        If the number of clusters or the dimension does not fit the embeddings or the earlier runs.
    """
    config, earlier = request.config, request.earlier
    if earlier is None:
        valid = max(1, embedded.valid)
        kept = count_kept(config.at_most if config.keep is None else config.keep, valid)
        check_clusters(config.clusters, valid, kept)  # before the old clusters are replaced
    else:
        check_cluster_count(config, earlier)
        check_dimension(embedded.dimension, earlier)
    start_stage(embedded.directory, "cluster", request.options_of("cluster"))
    options = ClusterOptions(config.clusters, config.seed, config.threads)
    clustered = cluster_embeddings(embedded, options, workers.submit, None if earlier is None else earlier.centroids)
    finish_stage(embedded.directory, "cluster", embedded.fingerprint, workers.progress)
    return clustered
