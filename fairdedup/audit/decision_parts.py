"""The parts of a run's decisions that an audit reads, one task each, and the soft memberships of their rows.

All tasks of an audit start in `MapDecisions`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.memberships import choose_temperatures
from fairdedup.core.prototypes import Prototypes
from fairdedup.stages.group_counts import DecisionPart, PerceivedGroups, measure_gaps
from fairdedup.stages.record_state import own_temperatures
from fairdedup.storage.layout import RunDirectory, groups

Submit = Callable[..., list[Any]]


def list_decision_parts(run: RunDirectory, checksums: dict[str, str]) -> list[DecisionPart]:
    """Return the parts of a finished run's decisions.

    Parameters
    ----------
    run : RunDirectory
        Directory of the run.
    checksums : dict of str to str
        Checksum of each file, by its path in the run directory, as run.json records them.
    """
    parts = []
    for group in groups(run.records()):
        path = str(run.part("decisions", group.number).relative_to(run.root))
        parts.append(DecisionPart(run, group, checksums.get(path, "")))
    return parts


@dataclass(frozen=True)
class MapDecisions:
    """Maps a function over the parts of the decisions.

    Attributes
    ----------
    parts : sequence of DecisionPart
        The parts.
    submit : Submit or None
        Runs the tasks on workers; None runs them here, where labels are at hand and counting is quick.
    """

    parts: Sequence[DecisionPart]
    submit: Submit | None

    def __call__(
        self, step: str, function: Callable[..., Any], *shared: Any, each: Sequence[Any] | None = None
    ) -> list[Any]:
        """Return ``function(part, *shared)`` for each part, in order.

        Parameters
        ----------
        step : str
            The name that progress shows.
        function : callable
            A module-level function.
        *shared : object
            Arguments that are the same for all parts.
        each : sequence or None
            One more argument for each part, which comes after the part.
        """
        arguments = [(part, *shared) if each is None else (part, each[k], *shared) for k, part in enumerate(self.parts)]
        if self.submit is None:
            return [function(*own) for own in arguments]
        return self.submit(step, function, arguments, [part.group.input for part in self.parts])


def perceived_groups(
    run: RunDirectory, prototypes: Prototypes, temperature: Any, map_decisions: MapDecisions
) -> PerceivedGroups:
    """Return the groups by soft membership, at the temperatures that the run was decided with.

    Prototypes that the run was not decided with have the temperatures that `balanced` would use.

    Parameters
    ----------
    run : RunDirectory
        Directory of the run.
    prototypes : Prototypes
        Prototypes of the concepts.
    temperature : float, "auto" or mapping of attribute to either
        Temperature that the run was configured with.
    map_decisions : MapDecisions
        Maps a function over the parts of the decisions.
    """

    def gaps() -> list[NDArray[np.float64]]:
        of_parts = map_decisions("survey", measure_gaps, prototypes)
        return [np.concatenate(of_attribute) for of_attribute in zip(*of_parts, strict=True)]

    known = own_temperatures(run, prototypes)
    return PerceivedGroups(prototypes, known or choose_temperatures(prototypes, temperature, gaps))
