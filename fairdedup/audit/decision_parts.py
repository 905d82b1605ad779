"""The parts of a run's decisions that an audit reads, one task each, and the soft memberships of their rows.

`MapDecisions` starts all tasks of an audit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.memberships import choose_temperatures
from fairdedup.core.prototypes import Prototypes
from fairdedup.stages.group_counts import DecisionPart, PerceivedGroups, measure_gaps
from fairdedup.stages.record_state import read_temperatures
from fairdedup.storage.contents import Embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.tasks import Result, Submit, Task


def list_decision_parts(
    embedded: Embedded, seals: Mapping[str, str], trial: RunDirectory | None = None
) -> list[DecisionPart]:
    """Return the parts of a finished run's decisions, or of a decision that is only tried.

    Parameters
    ----------
    embedded : Embedded
        Embeddings of the run.
    seals : mapping of str to str
        Seal of each file, by its path in the run directory, from run.json.
    trial : RunDirectory, optional
        Folder of the decision that is tried, whose seals these are.
    """
    run, parts = embedded.directory, []
    for group in embedded.groups:
        path = str(run.part("decisions", group.number).relative_to(run.root))
        parts.append(DecisionPart(run, group, seals.get(path, ""), trial))
    return parts


@dataclass(frozen=True)
class MapDecisions:
    """Maps a function over the parts of the decisions.

    Attributes
    ----------
    parts : sequence of DecisionPart
        The parts.
    submit : Submit or None
        Runs the tasks on workers; None runs them in this process, which has the labels and counts quickly.
    """

    parts: Sequence[DecisionPart]
    submit: Submit | None

    def __call__(
        self, step: str, function: Callable[..., Result], *shared: Any, each: Sequence[Any] | None = None
    ) -> list[Result]:
        """Return ``function(part, *shared)`` for each part, in order.

        Parameters
        ----------
        step : str
            Name of the step for the progress display.
        function : callable
            A module-level function.
        *shared : object
            Further arguments, the same for all parts.
        each : sequence or None
            Second argument for each part, after the part itself.
        """
        arguments = [(part, *shared) if each is None else (part, each[k], *shared) for k, part in enumerate(self.parts)]
        if self.submit is None:
            return [function(*own) for own in arguments]
        tasks = [Task(own, part.input, part.name) for own, part in zip(arguments, self.parts, strict=True)]
        return self.submit(step, function, tasks)


def perceived_groups(
    run: RunDirectory, prototypes: Prototypes, temperature: Any, map_decisions: MapDecisions
) -> PerceivedGroups:
    """Return the groups by soft membership, at the temperatures of the run's decisions.

    Prototypes that the run did not use get the temperatures that `balanced` would choose.

    Parameters
    ----------
    run : RunDirectory
        Directory of the run.
    prototypes : Prototypes
        Prototypes of the concepts.
    temperature : float, "auto" or mapping of attribute to either
        The run's option `temperature`.
    map_decisions : MapDecisions
        Maps a function over the parts of the decisions.
    """

    def gaps() -> list[NDArray[np.float64]]:
        of_parts = map_decisions("survey", measure_gaps, prototypes)
        return [np.concatenate(of_attribute) for of_attribute in zip(*of_parts, strict=True)]

    known = read_temperatures(run, prototypes)
    return PerceivedGroups(prototypes, known or choose_temperatures(prototypes, temperature, gaps))
