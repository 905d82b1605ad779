"""Chooses the rule of a run whose user names none: the default one, or one that fits where prototypes cannot be had."""

from __future__ import annotations

from collections.abc import Callable

from fairdedup.config import RunConfig
from fairdedup.core.rules.registry import find_rule, simplest_rule
from fairdedup.preparation.encoder_choice import find_named_encoder
from fairdedup.preparation.request import Request
from fairdedup.storage.config_record import ConfigRecord


def settle_rule(request: Request, kind: str | None, record: ConfigRecord) -> Request:
    """Return the request with a rule that needs no prototypes, if the user named no rule and there can be none.

    Parameters
    ----------
    request : Request
        Request of the command.
    kind : str or None
        Kind of the input: "images" or "embeddings"; None if it is not known yet, and then nothing changes.
    record : ConfigRecord
        Content of config.json, which may name the model of ready embeddings.
    """
    if kind != "embeddings" or not _lacks_prototypes(request.config, record):
        return request
    return request.with_rule(simplest_rule().name)


def explain_rule(config: RunConfig, request: Request, say: Callable[[str], None]) -> None:
    """Say which rule was chosen, and why, if `settle_rule` has chosen one.

    Parameters
    ----------
    config : RunConfig
        Options of the command, as the user gave them.
    request : Request
        The settled request.
    say : callable
        Prints a line.
    """
    settled = request.config.rule
    if "rule" in config.model_fields_set or request.earlier is not None or settled == config.rule:
        return
    say(
        f"The model of these embeddings is not known, so there are no prototypes: the rule is {settled}, which ignores "
        "groups. For a fair rule name the model (--model ViT-B-16 --pretrained openai) or give prototype vectors "
        "(--prototypes FILE)."
    )


def _lacks_prototypes(config: RunConfig, record: ConfigRecord) -> bool:
    if "rule" in config.model_fields_set or config.against or config.prototypes is not None:
        return False
    return find_rule(config.rule).needs_prototypes and find_named_encoder(config, record) is None
