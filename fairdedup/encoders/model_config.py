"""Which keys and values the configuration of a model folder may have: those that describe an open_clip model, as data.

A folder comes from strangers, and open_clip passes much of its configuration on to transformers and timm, which can
fetch and run code. What is not listed here is refused. Nothing is imported to check it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fairdedup.errors import visible

Check = Callable[[object], bool]

REASONS = {
    "trust_remote_code": "it would run Python from the folder or from the network",
    "auto_map": "it would run Python from the folder or from the network",
    "code_revision": "it would run Python from the network",
    "hf_model_name": "it names a model of transformers outside the folder",
    "bpe_path": "it names a file outside the folder",
    "reduction_mask": "it changes captions at random, or downloads data",
    "timm_model_name": "it must be a plain name of timm, neither a path nor an address",
    "hf_tokenizer_name": "it must be a name as 'owner/name', neither a path nor an address",
    "tokenizer_class": "the class must be one of transformers that reads only text and numbers",
    "additional_special_tokens": "it would become part of a regular expression",
}
"""Why a key, or a value of it, is refused; other keys are just unknown."""


@dataclass(frozen=True)
class Refusal(Exception):
    """A key that a configuration may not have, or not with this value.

    Attributes
    ----------
    key : str
        The key with those above it, as "text_cfg.tokenizer_kwargs.trust_remote_code".
    value : object
        Its value.
    known : bool
        Whether the key may be there with another value.
    """

    key: str
    value: object
    known: bool

    def __str__(self) -> str:
        """Return the key, the value and why it is refused, in one line."""
        value = repr(self.value)
        shown = value if len(value) <= 60 else f"{value[:57]}..."
        reason = REASONS.get(self.key.rpartition(".")[2])
        default = "the value is not one that such a model can have" if self.known else "open_clip has no such key"
        key = self.key if len(self.key) <= 200 else f"{self.key[:197]}..."
        return f"{visible(key)} = {shown} is refused ({reason or default})"


def integer(low: int, high: int) -> Check:
    """Accept whole numbers of a range."""
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def number(low: float, high: float) -> Check:
    """Accept finite numbers of a range."""
    return lambda value: isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def one_of(*values: object) -> Check:
    """Accept these values, of the same type."""
    return lambda value: any(type(value) is type(each) and value == each for each in values)


def matches(pattern: str) -> Check:
    """Accept text that a regular expression matches as a whole."""
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def either(*checks: Check) -> Check:
    """Accept what one of several checks accepts."""
    return lambda value: any(check(value) for check in checks)


def several(check: Check, fewest: int, most: int) -> Check:
    """Accept lists of a length whose elements a check accepts."""
    return lambda value: isinstance(value, list) and fewest <= len(value) <= most and all(map(check, value))


NONE, FLAG = one_of(None), one_of(True, False)
COUNT = integer(1, 1 << 16)
RATIO = number(0, 100)
OPTIONAL_RATIO = either(RATIO, NONE)
SIDE = integer(1, 1 << 13)
SIZE = either(SIDE, several(SIDE, 1, 2))
CHANNELS = either(number(-1e3, 1e3), several(number(-1e3, 1e3), 1, 3))
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
REPOSITORY = rf"{NAME}(/{NAME})?"

Schema = Mapping[str, "Check | Schema"]

BLOCKS: Schema = {
    "block_type": one_of(None, "default", "custom"),
    **dict.fromkeys(
        ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"), FLAG
    ),
    "act_kwargs": {"approximate": one_of("none", "tanh")},
    "norm_kwargs": {"eps": number(0, 1)},
    "mlp_ratio": RATIO,
    "ls_init_value": OPTIONAL_RATIO,
    "output_tokens": FLAG,
    "final_ln_after_pool": FLAG,
    "width": COUNT,
}
VISION: Schema = {
    **BLOCKS,
    "layers": either(integer(1, 1000), several(integer(1, 1000), 4, 4)),
    "head_width": COUNT,
    "patch_size": either(SIDE, NONE),
    "image_size": SIZE,
    "patch_dropout": number(0, 1),
    "attentional_pool": one_of(True, False, "parallel", "cascade"),
    "attn_pooler_queries": COUNT,
    "attn_pooler_heads": COUNT,
    "no_ln_pre": FLAG,
    "pos_embed_type": one_of("learnable", "sin_cos_2d"),
    "pool_type": one_of("tok", "avg", "none"),
    "timm_model_name": either(matches(r"[A-Za-z0-9_]{1,100}(\.[A-Za-z0-9_]{1,100})?"), NONE),
    "timm_model_pretrained": FLAG,  # open_clip overrides it
    "timm_pool": either(matches("[a-z_]{0,20}"), NONE),
    "timm_proj": one_of(None, "", "linear", "mlp", "none"),
    "timm_proj_bias": FLAG,
    "timm_drop": number(0, 1),
    "timm_drop_path": either(number(0, 1), NONE),
}
TEXT: Schema = {
    **BLOCKS,
    "context_length": integer(1, 1 << 15),
    "vocab_size": integer(1, 1 << 22),
    "layers": integer(1, 1000),
    "heads": COUNT,
    "embed_cls": FLAG,
    "pad_id": integer(-1, 1 << 22),
    "eos_id": integer(-1, 1 << 22),
    "no_causal_mask": FLAG,
    "pool_type": one_of("first", "last", "argmax", "eos", "none"),
    "proj_bias": FLAG,
    "proj_type": one_of(None, "linear", "none"),
    "hf_tokenizer_name": either(matches(REPOSITORY), one_of(None, "")),
    "tokenizer_mode": one_of(None, "", "clips"),
    "tokenizer_kwargs": {
        "clean": one_of("canonicalize", "lower", "whitespace"),
        "strip_sep_token": FLAG,
        "language": either(matches("[A-Za-z_-]{1,30}"), NONE),
    },
    "hf_model_name": NONE,
    "hf_model_pretrained": FLAG,  # open_clip overrides it
    "hf_proj_type": one_of(None, "linear", "mlp"),
    "hf_pooler_type": one_of(None, "mean_pooler", "max_pooler", "cls_pooler", "cls_last_hidden_state_pooler"),
}
DECODER: Schema = {**TEXT, "dim_head": COUNT, "n_queries": COUNT, "attn_pooler_heads": COUNT}
MODEL: Schema = {
    "embed_dim": COUNT,
    "vision_cfg": VISION,
    "text_cfg": TEXT,
    "multimodal_cfg": DECODER,
    "quick_gelu": FLAG,
    "custom_text": FLAG,
    "init_logit_scale": number(-1e3, 1e3),
    "init_logit_bias": either(number(-1e3, 1e3), NONE),
    "nonscalar_logit_scale": FLAG,
    "pad_id": integer(-1, 1 << 22),
}
PREPROCESS: Schema = {
    "size": SIZE,
    "mode": one_of("RGB"),
    "mean": CHANNELS,
    "std": CHANNELS,
    "interpolation": one_of("bicubic", "bilinear", "random"),
    "resize_mode": one_of("shortest", "longest", "squash"),
    "fill_color": either(integer(0, 255), several(integer(0, 255), 1, 3)),
}


def keep_data(
    found: object, schema: Schema, above: str = "", *, unread: re.Pattern[str] | None = None
) -> dict[str, object]:
    """Return a copy of a configuration that has only keys and values of a schema.

    Parameters
    ----------
    found : object
        What a file of JSON holds.
    schema : mapping of str to callable or mapping
        Tells for each key which values it may have.
    above : str
        Name of the configuration, for the error.
    unread : re.Pattern or None
        Names of keys that are left out without an error.

    Returns
    -------
    dict of str to object
        The configuration without what is left out.

    Raises
    ------
    Refusal
        If a key is not of the schema, or a value is not allowed.
    """
    if not isinstance(found, dict):
        raise Refusal(above or "the file", found, known=True)
    kept: dict[str, object] = {}
    for key, value in found.items():
        name, check = f"{above}.{key}" if above else key, schema.get(key)
        if check is None:
            if unread is not None and unread.fullmatch(key):
                continue
            raise Refusal(name, value, known=False)
        if callable(check):
            if not check(value):
                raise Refusal(name, value, known=True)
            kept[key] = value
        elif value is not None or key not in ("act_kwargs", "norm_kwargs", "tokenizer_kwargs"):
            kept[key] = keep_data(value, check, name)
    return kept


def find_code(found: object, above: str = "", depth: int = 0) -> Refusal | None:
    """Return the first key, anywhere in a configuration, by which libraries find code; None if there is none."""
    pairs = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    for key, value in pairs:
        name = f"{above}.{key}" if above else str(key)
        if key in ("trust_remote_code", "auto_map", "code_revision"):
            return Refusal(name, value, known=False)
        inner = find_code(value, name, depth + 1) if depth < 50 else None
        if inner is not None:
            return inner
    return None


def count_least_parameters(model: Mapping[str, object]) -> int:
    """Return a number of parameters that a model has at least, by the layers of its towers.

    Parameters
    ----------
    model : mapping of str to object
        The checked ``model_cfg`` of a folder.
    """
    least = 0
    for tower in ("vision_cfg", "text_cfg", "multimodal_cfg"):
        keys = model.get(tower)
        if not isinstance(keys, Mapping):
            continue
        default = 768 if tower == "vision_cfg" else 512
        layers, width = keys.get("layers", 12), keys.get("width", default)
        if tower == "text_cfg":
            least += keys.get("vocab_size", 49408) * width
        if isinstance(layers, int) and not keys.get("timm_model_name"):
            least += layers * (4 * width * width + 2 * width * int(width * keys.get("mlp_ratio", 4.0)))
    return least
