"""`fairdedup audit`: which samples of a finished run were kept and removed, by group. It changes no decision."""

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
    """Measure what was kept of each group, write report/audit.json and report/audit.parquet, and return the report.

    Parameters
    ----------
    config : RunConfig
        Names the run; also prototypes or a model, unless they are the run's own.
    options : AuditOptions
        Which groups to audit, and how.
    workers : Workers
        Run the tasks that read the decisions.

    Raises
    ------
    UserError
        If the run is not finished, or neither labels nor prototypes define its groups.
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
