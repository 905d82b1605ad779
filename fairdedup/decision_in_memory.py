"""What `deduplicate()` decides, and decides again at another eps: the rows, their clusters, and the options.

It makes a `Result` of a decision. It never decides a row itself: `core/decision.py` does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fairdedup.argument_checks import read_number
from fairdedup.core.decision import Decision, decide
from fairdedup.core.decision_columns import DECIDED, DECISION_COLUMNS
from fairdedup.core.devices import use_device
from fairdedup.core.keep_fraction import parse_eps
from fairdedup.core.model import Options
from fairdedup.core.parts import Decided
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.similarity import EPS_UNIT, reason
from fairdedup.id_arrays import as_column
from fairdedup.in_memory import ClusterInMemory, Threads, WorkspaceInMemory, count_unprotected
from fairdedup.leftover_in_memory import measure_leftover
from fairdedup.result import Result
from fairdedup.row_inputs import RowInputs, count_protected


@dataclass
class DataInMemory:
    """A clustered data set with the options of its decisions.

    Attributes
    ----------
    given : RowInputs
        The rows.
    parts : list of ClusterInMemory
        Their clusters.
    options : Options
        Options of the decisions.
    prototypes : Prototypes or None
        Prototypes, for a rule that needs them.
    leftover : int
        Number of kept rows to look up among all kept; 0 for none.
    device : {"auto", "cpu", "cuda"}
        Device on which duplicates are found.
    warnings : tuple of str
        What the user should know about the options.
    faults : mapping of int to str
        Why rows are rejected that had no vector, by row.
    known : Decision or None
        The last decision, without its rows: the pairs that it has found serve the next one.
    """

    given: RowInputs
    parts: list[ClusterInMemory]
    options: Options
    prototypes: Prototypes | None
    leftover: int
    device: str = "auto"
    warnings: tuple[str, ...] = ()
    faults: Mapping[int, str] = field(default_factory=dict)
    known: Decision | None = None

    def decide(self, *, keep: float | None = None, at_most: float | None = None, eps: float | None = None) -> Result:
        """Decide which rows are kept.

        Parameters
        ----------
        keep, at_most, eps : float, optional
            As in `deduplicate`; exactly one is given.

        Raises
        ------
        UserError
            If they are out of range, or do not fit the rows.
        """
        given, parts = self.given, self.parts
        with use_device(self.device):
            decision = decide(
                parts,
                sum(map(count_unprotected, parts)),
                self.options,
                self.prototypes,
                Threads(os.cpu_count() or 1),
                keep=keep,
                at_most=at_most,
                eps=None if eps is None else parse_eps(eps),
                workspace=WorkspaceInMemory(parts),
                protected=count_protected(given),
                known=self.known,
            )
            leftover = measure_leftover(given, parts, decision, self.leftover, self.options.seed)
        if decision.across is not None:
            decision.across.forget_trials()
        if decision.eps is not None:
            self.known = replace(decision, parts=[], readmitted=decision.readmitted[:0])
        return self._make_result(decision, leftover)

    def decide_at(self, eps: Any) -> Result:
        """Decide at another eps, by the same options.

        Parameters
        ----------
        eps : float
            As in `deduplicate`.

        Raises
        ------
        UserError
            If it is not an eps, or the rule has none.
        """
        return self.decide(eps=read_number("eps", eps, "0.05"))

    def _make_result(self, decision: Decision, leftover: Any) -> Result:
        given = self.given
        decisions = _make_table(decision.parts, decision.readmitted, given.names)
        rejected = np.flatnonzero(given.reasons)
        kept_rows = decisions["row"].to_numpy()[decisions["kept"].to_numpy()]
        reasons = [self.faults.get(int(row), reason(int(given.reasons[row]))) for row in rejected]
        counts = {
            "input": len(given.names),
            "valid": len(given.rows),
            "kept": len(kept_rows),
            "removed": len(given.rows) - len(kept_rows),
            "rejected": len(rejected),
            "readmitted": len(decision.readmitted),
            "clusters": len(self.parts),
        }
        return Result(
            kept=given.names[kept_rows],
            decisions=decisions,
            rejected=pd.DataFrame({"row": rejected, "id": as_column(given.names[rejected]), "reason": reasons}),
            eps=None if decision.eps is None else decision.eps / EPS_UNIT,
            counts=counts,
            guarantees=decision.guarantees,
            warnings=[*self.warnings, *_warn_about_rejected(given), *decision.warnings],
            leftover=leftover,
            _decide_at=self.decide_at,
        )


def _warn_about_rejected(given: RowInputs) -> list[str]:
    """Return a warning if rows that should always be kept cannot be used."""
    if given.protected is None:
        return []
    lost = np.flatnonzero((given.reasons != 0) & given.protected)
    if not len(lost):
        return []
    first = given.names[lost[0]]
    return [
        f"{len(lost)} of the rows always kept cannot be used and {'is' if len(lost) == 1 else 'are'} rejected; the "
        f"first is {first}"
    ]


def _make_table(parts: Sequence[Decided], readmitted: NDArray[np.int64], names: NDArray[Any]) -> pd.DataFrame:
    columns: dict[str, Any] = {name: np.concatenate([part.columns[name] for part in parts]) for name in DECIDED}
    order = np.argsort(columns["row"], kind="stable")
    columns = {name: values[order] for name, values in columns.items()}
    columns["id"] = as_column(names[columns["row"]])
    columns["readmitted"] = np.isin(columns["row"], readmitted)
    columns["kept"] = columns["kept"] | columns["readmitted"]
    return pd.DataFrame({name: columns[name] for name in DECISION_COLUMNS})
