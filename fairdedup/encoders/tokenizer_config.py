"""Which keys and values the configuration of a tokenizer may have, in a model folder; `model_config` says the rest."""

from __future__ import annotations

import re

from fairdedup.encoders.model_config import FLAG, NONE, Schema, either, integer, matches, number, several


def _short(value: object) -> bool:
    """Accept what a tokenizer calls a token: text, or the dictionary of an added token."""
    if isinstance(value, dict):
        return len(value) <= 10 and all(isinstance(v, (str, bool, int, type(None))) for v in value.values())
    return value is None or (isinstance(value, str) and len(value) <= 1000)


def _added_tokens(value: object) -> bool:
    return isinstance(value, dict) and all(map(_short, value.values()))


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
    *("src_lang", "tgt_lang", "boi_token", "eoi_token", "wordpieces_prefix"),
)
_TOKENS = (
    *("additional_special_tokens", "extra_special_tokens", "never_split", "language_codes"),
    "model_input_names",
)
_COUNTS = (*("max_length", "max_len", "stride", "pad_to_multiple_of", "pad_token_type_id", "extra_ids", "vocab_size"),)
_WORDS = (
    *("padding_side", "truncation_side", "truncation_strategy", "errors", "backend", "pad_token_type"),
    "tokenizer_version",
)
_FLAGS = (
    *("add_bos_token", "add_eos_token", "add_prefix_space", "clean_up_tokenization_spaces", "do_basic_tokenize"),
    *("do_lower_case", "from_slow", "is_local", "keep_accents", "legacy", "legacy_behaviour", "remove_space"),
    *("spaces_between_special_tokens", "split_special_tokens", "strip_accents", "tokenize_chinese_chars"),
    *("trim_offsets", "use_default_system_prompt", "do_canonicalize", "local_files_only", "use_fast"),
)
TOKENIZER: Schema = {
    "tokenizer_class": matches(rf"TokenizersBackend|({'|'.join(TOKENIZERS)})Tokenizer(Fast)?"),
    **dict.fromkeys(_ONE_TOKEN, _short),
    **dict.fromkeys(_TOKENS, either(_short, _added_tokens, several(_short, 0, 10_000))),
    **dict.fromkeys(_COUNTS, either(integer(0, 1 << 20), NONE)),
    **dict.fromkeys(_WORDS, either(matches("[A-Za-z0-9_.-]{0,40}"), NONE)),
    **dict.fromkeys(_FLAGS, either(FLAG, NONE)),
    "added_tokens_decoder": _added_tokens,
    "sp_model_kwargs": lambda value: value in ({}, None),
    "model_max_length": number(0, 1e40),
}
UNREAD = re.compile(r"chat_template|name_or_path|processor_class|device_map|.*_file|.*_files|image_.*|tokenizer_type")
"""Keys of tokenizer_config.json that are left out: paths on the machine that wrote it, and what is for other models."""
