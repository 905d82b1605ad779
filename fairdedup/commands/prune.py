"""`fairdedup prune`: the third stage alone. It decides a clustered run, or decides it again with other options."""

from __future__ import annotations

from fairdedup.commands.run import decide
from fairdedup.config import RunConfig
from fairdedup.preparation.recorded_runs import list_recorded_runs
from fairdedup.preparation.request import read_clustered_request
from fairdedup.preparation.rule_choice import explain_rule, settle_rule
from fairdedup.preparation.run_checks import check_decision_options
from fairdedup.storage.config_record import read_config_record
from fairdedup.storage.contents import load_clustered, load_embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import RunManifest
from fairdedup.workers import Workers


def prune_run(config: RunConfig, workers: Workers) -> RunManifest:
    """Decide which samples of a clustered run are kept, and return the manifest.

    Parameters
    ----------
    config : RunConfig
        Names the run, and the options of the decision.
    workers : Workers
        Run the tasks of the stages.

    Raises
    ------
    UserError
        If the clusters are not finished, or an option is missing or contradicts another.
    """
    directory = RunDirectory(config.out.absolute())
    if not list_recorded_runs(directory):
        check_decision_options(config)  # before the files are verified, which takes a while
    clustered = load_clustered(load_embedded(directory), workers.submit)
    record = read_config_record(directory)
    assert record.input is not None
    request = settle_rule(read_clustered_request(config), record.input.kind, record)
    check_decision_options(request.config)
    explain_rule(request, workers.progress.say)
    return decide(request, clustered, workers)
