"""`fairdedup refit`: a new run that clusters and decides again what the runs of some lines have embedded.

It never embeds again, and never changes these runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fairdedup.commands.run import run
from fairdedup.config import RunConfig
from fairdedup.incremental.inherited_options import build_refit_config
from fairdedup.storage.manifest import RunManifest
from fairdedup.workers import Workers


def refit(config: RunConfig, runs: Sequence[Path], workers: Workers, *, restart: bool = False) -> RunManifest:
    """Cluster and decide again without embedding again, and return the manifest of the new run.

    Parameters
    ----------
    config : RunConfig
        Options of the new run. Rule, prototypes and model are those of the first of `runs` unless given.
    runs : sequence of Path
        Finished runs. The runs before them in their lines are included.
    workers : Workers
        Run the tasks of the stages.
    restart : bool
        Clear the directory of the new run first.

    Raises
    ------
    UserError
        As `run` does; also if the embeddings of a run are missing or damaged.
    """
    return run(build_refit_config(config, runs, workers.submit), workers, restart=restart)
