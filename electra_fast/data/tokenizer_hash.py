"""The identity of a tokenizer: a hash that tells whether two give the same ids, whatever version of the ``tokenizers``
library they were saved with.

The library writes a tokenizer as JSON, and a newer one may write more: a rule that got another switch, off unless it is
set. Such a switch changes no id, so it must not change the hash, or every corpus prepared before would seem to be of
another vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import tokenizers

from electra_fast.data.manifest import content_hash

_NO_MATTER = frozenset("version truncation padding post_processor decoder".split())  # none of them decides an id
# What does, as tokenizers 0.20 to 0.23 write it. A component of a type that is not named here counts as it is.
_PARTS = frozenset("added_tokens normalizer pre_tokenizer model".split())
_ADDED_TOKEN = frozenset("id content single_word lstrip rstrip normalized special".split())
_COMPONENTS = {
    "BertNormalizer": "clean_text handle_chinese_chars strip_accents lowercase",
    "Strip": "strip_left strip_right",
    "Replace": "pattern content",
    "Prepend": "prepend",
    "Precompiled": "precompiled_charsmap",
    **dict.fromkeys(("NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "StripAccents"), ""),
    "ByteLevel": "add_prefix_space trim_offsets use_regex",
    "CharDelimiterSplit": "delimiter",
    "Digits": "individual_digits",
    "FixedLength": "length",
    "Metaspace": "replacement prepend_scheme split",
    "Punctuation": "behavior",
    "Split": "pattern behavior invert",
    **dict.fromkeys(("BertPreTokenizer", "UnicodeScripts", "Whitespace", "WhitespaceSplit"), ""),
    "Sequence": "normalizers pretokenizers",
    "WordPiece": "unk_token continuing_subword_prefix max_input_chars_per_word vocab",
    "WordLevel": "unk_token vocab",
    "Unigram": "unk_id byte_fallback vocab",
    "BPE": "dropout unk_token continuing_subword_prefix end_of_word_suffix fuse_unk byte_fallback ignore_merges vocab "
    "merges",
}
_KEYS = {name: frozenset(["type", *keys.split()]) for name, keys in _COMPONENTS.items()}


def tokenizer_hash(backend: tokenizers.Tokenizer, names: Mapping[str, str]) -> str:
    """sha256 over vocabulary, added tokens, normaliser, pre-tokeniser and the names of the special tokens.

    Args:
        backend: the tokenizer.
        names: the special tokens by role.
    """
    return hash_of_json(backend.to_str(), names, _serialised_again)


def hash_of_json(text: str, names: Mapping[str, str], again: Callable[[str], str]) -> str:
    """`tokenizer_hash` of a tokenizer as JSON.

    Keys that are unknown here do not count if they have their defaults: if what is left, read and written ``again`` by
    the library, brings them back with the same values.
    """
    content = _that_matters(text)
    known = {part: _known(value) for part, value in content.items() if part in _PARTS}
    if known != content and _that_matters(again(json.dumps(known))) != content:
        known = content
    return content_hash({"tokenizer": known, "names": dict(names)})


def _serialised_again(text: str) -> str:
    try:
        return tokenizers.Tokenizer.from_str(text).to_str()
    except Exception:  # the library raises bare Exception: something that was left out has no default
        return "{}"


def _that_matters(text: str) -> dict[str, Any]:
    return {part: value for part, value in json.loads(text).items() if part not in _NO_MATTER}


def _known(value: Any) -> Any:
    """A component, or a list of components or added tokens, without the keys that are unknown here."""
    if isinstance(value, list):
        return [_known(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    keys = _KEYS.get(value.get("type"), value.keys()) if "type" in value else _ADDED_TOKEN
    kept = {key: entry for key, entry in value.items() if key in keys}
    return {key: _known(entry) if key in ("normalizers", "pretokenizers") else entry for key, entry in kept.items()}
