"""`fairdedup audit`: who of a finished run was kept and who was removed, by group."""

from __future__ import annotations

from fairdedup.audit.audit_decisions import audit_decisions
from fairdedup.audit.audit_options import AuditOptions
from fairdedup.audit.audit_report import AuditReport
from fairdedup.commands.replace import complete_stopped_replacement
from fairdedup.config import RunConfig
from fairdedup.datasets.labels import read_labels
from fairdedup.preparation.prototype_choice import find_run_prototypes
from fairdedup.storage.contents import load_clustered, load_embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import require_manifest
from fairdedup.workers import Workers


def audit_run(config: RunConfig, options: AuditOptions, workers: Workers) -> AuditReport:
    """Measure who was kept, write report/audit.json and report/audit.parquet, and return the report.

    Parameters
    ----------
    config : RunConfig
        Names the run, and prototypes or a model if they are not the run's own.
    options : AuditOptions
    workers : Workers

    Raises
    ------
    UserError
        If the run is not finished, or its groups can be told neither by labels nor by prototypes.
    """
    directory = RunDirectory(config.out.absolute())
    complete_stopped_replacement(directory, workers)
    manifest = require_manifest(directory)
    clustered = load_clustered(load_embedded(directory))
    labels = read_labels(options.labels, options.label_columns) if options.labels else None
    prototypes = None
    if labels is None or options.suggest:
        prototypes = find_run_prototypes(config, clustered.embedded, manifest.config.get("prune", {}), workers)
    return audit_decisions(clustered, manifest, options, labels=labels, prototypes=prototypes, submit=workers.submit)
