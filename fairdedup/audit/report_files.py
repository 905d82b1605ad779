"""Writes report/audit.json and report/audit.parquet, and reads the first. No other module writes them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from fairdedup.audit.audit_report import AttributeReport, AuditReport, GroupReport
from fairdedup.errors import FairdedupError, UserError
from fairdedup.storage.checked_json import read_json, write_json
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.remedies import quote
from fairdedup.storage.run_files import write_table

_INTERVALS = ("rate_interval", "shift_interval", "skew_interval")
_TEXT = ("attribute", "group", "why")
_TRUTH = ("intersection", "sufficient", "under_four_fifths")


def write_audit_report(run: RunDirectory, report: AuditReport) -> None:
    """Write report/audit.parquet and then report/audit.json.

    Parameters
    ----------
    run : RunDirectory
        Directory of the run.
    report : AuditReport
        What to write.
    """
    write_table(run.report("audit.parquet"), _group_table(report))
    write_json(run.report("audit.json"), report.to_json())


def read_audit_report(run: RunDirectory) -> AuditReport | None:
    """Return the content of report/audit.json, or None if the file does not exist.

    Parameters
    ----------
    run : RunDirectory
        Directory of the run.

    Raises
    ------
    UserError
        If the file is damaged, or was not written by `write_audit_report`.
    """
    path = run.report("audit.json")
    try:
        found = read_json(path)
        return None if found is None else AuditReport.model_validate(found)
    except (ValidationError, FairdedupError):
        raise UserError(
            f"{path} is not the report of an audit: run `fairdedup audit {quote(run.root)}` again"
        ) from None


def _group_table(report: AuditReport) -> pa.Table:
    """Return one line for each group of each attribute and intersection."""
    lines = [_group_line(attribute, group) for attribute in report.attributes for group in attribute.groups]
    if not lines:
        return pa.table({})
    return pa.table({name: _typed(name, [line[name] for line in lines]) for name in lines[0]})


def _group_line(attribute: AttributeReport, group: GroupReport) -> dict[str, Any]:
    line: dict[str, Any] = {"attribute": attribute.attribute, "intersection": attribute.intersection}
    for name in GroupReport.model_fields:
        if name in _INTERVALS:
            line[f"{name}_low"], line[f"{name}_high"] = getattr(group, name) or (None, None)
        elif name != "loss":
            line[name] = getattr(group, name)
    loss = group.loss
    return line | {"loss_whole": loss.whole, "loss_between": loss.between, "loss_within": loss.within}


def _typed(name: str, values: list[Any]) -> pa.Array:
    if name in _TEXT:
        return pa.array(values, pa.string())
    if name in _TRUTH:
        return pa.array(values, pa.bool_())
    return pa.array([None if v is None else float(v) for v in values], pa.float64())
