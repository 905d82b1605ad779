"""The request of a command: its completed configuration, the run directory, and the earlier runs. It writes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from fairdedup.config import STAGE_KEYS, RunConfig
from fairdedup.incremental.earlier_runs import EarlierRuns, check_encoder, find_earlier_runs
from fairdedup.incremental.inherited_options import inherit_options
from fairdedup.preparation.encoder_choice import find_named_encoder
from fairdedup.preparation.recorded_runs import find_recorded_runs
from fairdedup.preparation.stage_options import collect_stage_options
from fairdedup.storage.config_record import EMPTY_RECORD, StageOptions, read_config_record
from fairdedup.storage.layout import RunDirectory


@dataclass(frozen=True)
class Request:
    """Completed request of one command.

    Attributes
    ----------
    config : RunConfig
        Options of the user, completed by those of earlier runs or of the run itself.
    directory : RunDirectory
        Directory of the run.
    earlier : EarlierRuns or None
        Runs of ``--against``.
    model_named : bool
        Whether the user named the model; otherwise it may come from the earlier runs.
    why_rule : str or None
        Why the rule is not the default one, though the user named none; a clause for the user.
    """

    config: RunConfig
    directory: RunDirectory
    earlier: EarlierRuns | None = None
    model_named: bool = False
    why_rule: str | None = None
    _options: dict[str, StageOptions] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def options(self) -> dict[str, StageOptions]:
        """Options of each stage, as `options_of` returns them."""
        return {stage: self.options_of(stage) for stage in STAGE_KEYS}

    def options_of(self, stage: str) -> StageOptions:
        """Return the options of a stage as config.json records them. The files that they name are hashed once.

        Parameters
        ----------
        stage : str
            A key of `STAGE_KEYS`. Options of other stages are not looked at: they may name missing files.
        """
        if stage not in self._options:
            self._options[stage] = collect_stage_options(self.config, stage)
        return self._options[stage]

    def with_rule(self, name: str, why: str | None) -> Request:
        """Return the request with another rule; files that were hashed are not hashed again.

        Parameters
        ----------
        name : str
            Name of the rule.
        why : str or None
            Why it is not the default one.
        """
        changed = replace(self, config=self.config.model_copy(update={"rule": name}), why_rule=why)
        for stage, options in self._options.items():
            changed._options[stage] = {**options, "rule": name} if "rule" in options else options
        return changed

    def check_encoder(self, kind: str) -> None:
        """Refuse an input whose vectors would come from another encoder than those of the earlier runs.

        Parameters
        ----------
        kind : str
            Kind of the input: "images" or "embeddings".

        Raises
        ------
        UserError
            If the encoders differ, or the needed one is not known.
        """
        if self.earlier is not None:
            spec = find_named_encoder(self.config, EMPTY_RECORD)
            check_encoder(kind, spec, self.earlier, model_named=self.model_named)


def read_request(config: RunConfig, inherited: EarlierRuns | None = None) -> Request:
    """Return the request of a command that needs no run directory yet.

    Parameters
    ----------
    config : RunConfig
        Options of the command.
    inherited : EarlierRuns, optional
        What the run directory itself has kept of the runs of ``--against``; these are then not read.

    Raises
    ------
    UserError
        If a run of ``--against`` cannot be used, or contradicts an option.
    """
    earlier = find_earlier_runs(config) if inherited is None else inherited
    completed = config if earlier is None else inherit_options(config, earlier)
    return Request(completed, RunDirectory(config.out.absolute()), earlier, config.model is not None)


def read_clustered_request(config: RunConfig) -> Request:
    """Return the request of a command that starts from a clustered run.

    The seed and the earlier runs are those of the clustering, unless the configuration names a seed.

    Parameters
    ----------
    config : RunConfig
        Options of the command.

    Raises
    ------
    UserError
        If the run was not clustered against the runs that the configuration names, or they have changed since.
    """
    directory = RunDirectory(config.out.absolute())
    clustering = read_config_record(directory).options_of("cluster")
    if "seed" not in config.model_fields_set:
        config = config.model_copy(update={"seed": clustering["seed"]})
    runs = find_recorded_runs(config, directory)
    return read_request(config.model_copy(update={"against": runs.places}), runs.inherited)
