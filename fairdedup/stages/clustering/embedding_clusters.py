"""The second stage: train spherical k-means on a seeded sample, assign every row exactly, sort by cluster."""

from __future__ import annotations

import numpy as np

from fairdedup.core import kmeans
from fairdedup.stages.clustering.centroid_training import ClusterOptions, train_on_workers
from fairdedup.stages.clustering.group_assignment import sort_group
from fairdedup.storage.contents import Clustered, Embedded, read_sizes, write_sizes
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.made_of import is_up_to_date, mark_up_to_date
from fairdedup.storage.records import remove_sorted_from
from fairdedup.storage.run_files import write_array
from fairdedup.storage.sealed_files import Seal, load_array
from fairdedup.storage.seals import seal
from fairdedup.storage.shard_groups import hash_of
from fairdedup.tasks import Submit, map_groups


def take_centroids(run: RunDirectory, frozen: Seal) -> str:
    """Copy the centroids of an earlier run, and return their seal."""
    made_of = hash_of("frozen", frozen.expected)
    if not is_up_to_date(run.centroids, made_of):
        write_array(run.centroids, load_array(frozen))
        mark_up_to_date(run.centroids, made_of)
    return seal(run.centroids)


def cluster_embeddings(
    embedded: Embedded, options: ClusterOptions, submit: Submit, frozen: Seal | None = None
) -> Clustered:
    """Cluster the embeddings of a run; files that are complete and undamaged are used again.

    Parameters
    ----------
    embedded : Embedded
    options : ClusterOptions
    submit : Submit
    frozen : Seal, optional
        Centroids of an earlier run. With them nothing is trained, and the run may have no rows.

    Returns
    -------
    Clustered

    Raises
    ------
    UserError
        If there are fewer vectors than clusters.
    """
    run, records, valid = embedded.directory, embedded.records, embedded.valid
    if frozen is not None:
        centroids = take_centroids(run, frozen)
    else:
        number = kmeans.check_clusters(options.clusters, valid)
        centroids = train_on_workers(run.root, records, number, options, submit)
    counts = map_groups(submit, "assign", sort_group, embedded.groups, run.root, centroids)
    remove_sorted_from(run, len(embedded.groups))
    sizes = np.sum(counts, axis=0)
    known = read_sizes(run)
    if known is None or not np.array_equal(known, sizes):
        write_sizes(run, sizes)
    return Clustered(embedded, sizes)
