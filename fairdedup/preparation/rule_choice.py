"""Chooses the rule of a run whose user names none: the default one, or one that fits where prototypes cannot be had."""

from __future__ import annotations

from collections.abc import Callable

from fairdedup.config import RunConfig
from fairdedup.core.rules.registry import choose_rule
from fairdedup.preparation.encoder_choice import find_named_encoder
from fairdedup.preparation.request import Request
from fairdedup.storage.config_record import ConfigRecord


def settle_rule(request: Request, kind: str | None, record: ConfigRecord) -> Request:
    """Return the request with the rule that `choose_rule` chooses, if the user named none.

    Parameters
    ----------
    request : Request
        Request of the command.
    kind : str or None
        Kind of the input: "images" or "embeddings"; None if it is not known yet, and then nothing changes.
    record : ConfigRecord
        Content of config.json, which may name the model of ready embeddings.
    """
    config = request.config
    if kind is None or "rule" in config.model_fields_set or config.against:
        return request
    has_prototypes = kind == "images" or _can_have_prototypes(config, record)
    chosen = choose_rule(has_prototypes=has_prototypes, has_column=config.prefer is not None)
    return request if chosen.name == config.rule else request.with_rule(chosen.name, chosen.why)


def explain_rule(request: Request, say: Callable[[str], None]) -> None:
    """Say which rule was chosen, and why, if that is not the default one.

    Parameters
    ----------
    request : Request
        The settled request.
    say : callable
        Prints a line.
    """
    if request.why_rule is not None:
        say(
            f"The model of these embeddings is not known: {request.why_rule}. For a fair rule name the model "
            "(--model ViT-B-16 --pretrained openai) or give prototype vectors (--prototypes FILE)."
        )


def _can_have_prototypes(config: RunConfig, record: ConfigRecord) -> bool:
    return config.prototypes is not None or find_named_encoder(config, record) is not None
