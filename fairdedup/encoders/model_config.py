"""Which keys and values the configuration of a model folder may have: those that describe an open_clip model, as data.

A folder comes from strangers, and open_clip passes much of its configuration on to transformers and timm, which can
fetch and run code. What is not listed here is refused. Nothing is imported to check it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

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
        return f"{self.key} = {shown} is refused ({reason or default})"


def _integer(low: int, high: int) -> Check:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _number(low: float, high: float) -> Check:
    return lambda value: (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
        and low <= value <= high
    )


def _choice(*values: object) -> Check:
    return lambda value: any(type(value) is type(each) and value == each for each in values)


def _matches(pattern: str) -> Check:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _either(*checks: Check) -> Check:
    return lambda value: any(check(value) for check in checks)


def _several(check: Check, fewest: int, most: int) -> Check:
    return lambda value: isinstance(value, list) and fewest <= len(value) <= most and all(map(check, value))


def _short(value: object) -> bool:
    """Accept what a tokenizer calls a token: text, or the dictionary of an added token."""
    if isinstance(value, dict):
        return len(value) <= 10 and all(isinstance(v, (str, bool, int, type(None))) for v in value.values())
    return value is None or (isinstance(value, str) and len(value) <= 1000)


def _added_tokens(value: object) -> bool:
    return isinstance(value, dict) and all(map(_short, value.values()))


NONE, FLAG = _choice(None), _choice(True, False)
COUNT = _integer(1, 1 << 16)
RATIO = _number(0, 100)
OPTIONAL_RATIO = _either(RATIO, NONE)
SIDE = _integer(1, 1 << 13)
SIZE = _either(SIDE, _several(SIDE, 1, 2))
CHANNELS = _either(_number(-1e3, 1e3), _several(_number(-1e3, 1e3), 1, 3))
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
REPOSITORY = rf"{NAME}(/{NAME})?"

Schema = Mapping[str, "Check | Schema"]

BLOCKS: Schema = {
    "block_type": _choice(None, "default", "custom"),
    **dict.fromkeys(
        ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"), FLAG
    ),
    "act_kwargs": {"approximate": _choice("none", "tanh")},
    "norm_kwargs": {"eps": _number(0, 1)},
    "mlp_ratio": RATIO,
    "ls_init_value": OPTIONAL_RATIO,
    "output_tokens": FLAG,
    "final_ln_after_pool": FLAG,
    "width": COUNT,
}
VISION: Schema = {
    **BLOCKS,
    "layers": _either(_integer(1, 1000), _several(_integer(1, 1000), 4, 4)),
    "head_width": COUNT,
    "patch_size": _either(SIDE, NONE),
    "image_size": SIZE,
    "patch_dropout": _number(0, 1),
    "attentional_pool": _choice(True, False, "parallel", "cascade"),
    "attn_pooler_queries": COUNT,
    "attn_pooler_heads": COUNT,
    "no_ln_pre": FLAG,
    "pos_embed_type": _choice("learnable", "sin_cos_2d"),
    "pool_type": _choice("tok", "avg", "none"),
    "timm_model_name": _either(_matches(r"[A-Za-z0-9_]{1,100}(\.[A-Za-z0-9_]{1,100})?"), NONE),
    "timm_model_pretrained": FLAG,  # open_clip overrides it
    "timm_pool": _either(_matches("[a-z_]{0,20}"), NONE),
    "timm_proj": _choice(None, "", "linear", "mlp", "none"),
    "timm_proj_bias": FLAG,
    "timm_drop": _number(0, 1),
    "timm_drop_path": _either(_number(0, 1), NONE),
}
TEXT: Schema = {
    **BLOCKS,
    "context_length": _integer(1, 1 << 15),
    "vocab_size": _integer(1, 1 << 22),
    "layers": _integer(1, 1000),
    "heads": COUNT,
    "embed_cls": FLAG,
    "pad_id": _integer(-1, 1 << 22),
    "eos_id": _integer(-1, 1 << 22),
    "no_causal_mask": FLAG,
    "pool_type": _choice("first", "last", "argmax", "eos", "none"),
    "proj_bias": FLAG,
    "proj_type": _choice(None, "linear", "none"),
    "hf_tokenizer_name": _either(_matches(REPOSITORY), _choice(None, "")),
    "tokenizer_mode": _choice(None, "", "clips"),
    "tokenizer_kwargs": {
        "clean": _choice("canonicalize", "lower", "whitespace"),
        "strip_sep_token": FLAG,
        "language": _either(_matches("[A-Za-z_-]{1,30}"), NONE),
    },
    "hf_model_name": NONE,
    "hf_model_pretrained": FLAG,  # open_clip overrides it
    "hf_proj_type": _choice(None, "linear", "mlp"),
    "hf_pooler_type": _choice(None, "mean_pooler", "max_pooler", "cls_pooler", "cls_last_hidden_state_pooler"),
}
DECODER: Schema = {**TEXT, "dim_head": COUNT, "n_queries": COUNT, "attn_pooler_heads": COUNT}
MODEL: Schema = {
    "embed_dim": COUNT,
    "vision_cfg": VISION,
    "text_cfg": TEXT,
    "multimodal_cfg": DECODER,
    "quick_gelu": FLAG,
    "custom_text": FLAG,
    "init_logit_scale": _number(-1e3, 1e3),
    "init_logit_bias": _either(_number(-1e3, 1e3), NONE),
    "nonscalar_logit_scale": FLAG,
    "pad_id": _integer(-1, 1 << 22),
}
PREPROCESS: Schema = {
    "size": SIZE,
    "mode": _choice("RGB"),
    "mean": CHANNELS,
    "std": CHANNELS,
    "interpolation": _choice("bicubic", "bilinear", "random"),
    "resize_mode": _choice("shortest", "longest", "squash"),
    "fill_color": _either(_integer(0, 255), _several(_integer(0, 255), 1, 3)),
}
TOKENIZERS = (
    *(
        "Bert",
        "Bloom",
        "CLIP",
        "Deberta",
        "Gemma",
        "GPT2",
        "Llama",
        "M2M100",
        "MBart",
        "MBart50",
        "MT5",
        "MPNet",
        "Nllb",
    ),
    *("PreTrained", "Qwen2", "Roberta", "Siglip", "Siglip2", "T5", "XLMRoberta"),
)
"""Names of transformers' tokenizers, which read JSON, text or SentencePiece's protocol buffers."""

_ONE_TOKEN = (
    *("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"),
    *("src_lang", "tgt_lang"),
)
_TOKENS = ("additional_special_tokens", "extra_special_tokens", "never_split", "language_codes")
_COUNTS = ("max_length", "stride", "pad_to_multiple_of", "pad_token_type_id", "extra_ids")
_WORDS = (
    *("padding_side", "truncation_side", "truncation_strategy", "errors", "backend", "pad_token_type"),
    "tokenizer_version",
)
_FLAGS = (
    *("add_bos_token", "add_eos_token", "add_prefix_space", "clean_up_tokenization_spaces", "do_basic_tokenize"),
    *("do_lower_case", "from_slow", "is_local", "keep_accents", "legacy", "legacy_behaviour", "remove_space"),
    *("spaces_between_special_tokens", "split_special_tokens", "strip_accents", "tokenize_chinese_chars"),
    *("trim_offsets", "use_default_system_prompt", "do_canonicalize", "local_files_only"),
)
TOKENIZER: Schema = {
    "tokenizer_class": _matches(rf"TokenizersBackend|({'|'.join(TOKENIZERS)})Tokenizer(Fast)?"),
    **dict.fromkeys(_ONE_TOKEN, _short),
    **dict.fromkeys(_TOKENS, _either(_short, _added_tokens, _several(_short, 0, 10_000))),
    **dict.fromkeys(_COUNTS, _either(_integer(0, 1 << 20), NONE)),
    **dict.fromkeys(_WORDS, _either(_matches("[A-Za-z0-9_.-]{0,40}"), NONE)),
    **dict.fromkeys(_FLAGS, _either(FLAG, NONE)),
    "added_tokens_decoder": _added_tokens,
    "sp_model_kwargs": lambda value: value in ({}, None),
    "model_max_length": _number(0, 1e40),
}
UNREAD = re.compile(r"chat_template|name_or_path|processor_class|device_map|.*_file|.*_files|image_.*|tokenizer_type")
"""Keys of tokenizer_config.json that are left out: paths on the machine that wrote it, and what is for other models."""


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
