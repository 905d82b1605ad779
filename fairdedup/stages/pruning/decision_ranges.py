"""The ranges of clusters of a decision, within clusters or across, with or without samples that earlier runs kept."""

from __future__ import annotations

from fairdedup.core.model import Inherited, Options
from fairdedup.stages.pruning.cluster_ranges import SplitClusters, split_clusters
from fairdedup.stages.pruning.earlier_visits import list_earlier_visits
from fairdedup.stages.pruning.round_files import WorkspaceOnDisk
from fairdedup.storage.contents import Clustered
from fairdedup.storage.marks import Marks
from fairdedup.tasks import Submit


def split_for_decision(
    clustered: Clustered,
    marks: Marks,
    options: Options,
    submit: Submit,
    workspace: WorkspaceOnDisk | None,
    inherited: Inherited | None,
) -> SplitClusters:
    """Split the clusters of a run for a decision, once what earlier samples reach is listed.

    Parameters
    ----------
    clustered : Clustered
    marks : Marks
        Which rows are excluded, and which are always kept.
    options : Options
    submit : Submit
        Runs the tasks that list the clusters which earlier samples reach.
    workspace : WorkspaceOnDisk or None
        Of a decision across clusters.
    inherited : Inherited or None
        Values that earlier runs hand on; the samples that they kept are in state/.
    """
    folder = None if workspace is None else workspace.folder
    if folder is not None and inherited is not None:
        root, clusters = clustered.directory.root, len(clustered.sizes)
        list_earlier_visits(root, folder, options, inherited.eps, clusters, submit)
    return split_clusters(clustered, marks, against=inherited is not None, within=options.within, workspace=folder)
