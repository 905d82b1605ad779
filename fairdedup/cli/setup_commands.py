"""The command that checks a machine before a run."""

from __future__ import annotations

from typing import Any

import click

from fairdedup.cli.help_format import ExampleCommand
from fairdedup.cli.options import INPUT, MACHINE, options
from fairdedup.cli.session import Session
from fairdedup.errors import FairdedupError, visible


@click.command(
    cls=ExampleCommand,
    examples=["fairdedup doctor", "fairdedup doctor photos/ --out my-run --model ViT-B-16 --pretrained openai"],
)
@INPUT
@options("out", "model", "pretrained", "batch_size", "device", *MACHINE)
def doctor(**flags: Any) -> None:
    """Check whether a run would work here, and say what to do where it would not.

    It checks this machine, and what is named: INPUT, the run directory, the model, the scheduler. The exit code is 1 if
    something would stop a run.
    """
    session = Session.open(flags)
    from fairdedup.commands.doctor import examine_machine

    findings = []
    for finding in examine_machine(session.config):
        findings.append(finding)
        if session.prints:
            click.echo(visible(f"{finding.state:<4}  {finding.name:<15}  {finding.text}"))
    stops = [f"{finding.name}: {finding.text}" for finding in findings if finding.state == "stop"]
    if stops:
        raise FairdedupError(f"a run would stop here: {' '.join(stops)}")
    session.finish(findings=[finding.to_json() for finding in findings])
