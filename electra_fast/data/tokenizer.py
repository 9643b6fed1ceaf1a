"""The tokenizer of a corpus: loaded from what the user has, saved so that ``transformers`` and shards agree on it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from electra_fast.data.tokenizer_hash import tokenizer_hash
from electra_fast.data.word_cache import WordCache, works_word_by_word
from electra_fast.errors import ConfigError, TokenizerError
from electra_fast.files import write_text

SPECIAL_TOKENS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
_OTHER_NAMES = {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}
_LONGEST_WORD = 100
CLASS_WORDPIECE = "ElectraTokenizer"
CLASS_OTHER = "PreTrainedTokenizerFast"


class Tokenizer:
    """A ``tokenizers`` tokenizer with the five special tokens ELECTRA needs.

    Attributes:
        backend: the ``tokenizers.Tokenizer``, without truncation or padding.
        names: the special tokens by role (pad, unk, cls, sep, mask).
        special_tokens: their ids by role; also ``pad_id``, ``unk_id``, ``cls_id``, ``sep_id``, ``mask_id``.
        vocab_size: largest id plus one, added tokens included.
        hash: sha256 over vocabulary, special tokens and rules: two tokenizers of one hash give the same ids.

    Raises:
        TokenizerError: a special token is missing.
    """

    def __init__(
        self, backend: tokenizers.Tokenizer, names: Mapping[str, str] = SPECIAL_TOKENS, *, origin: str = "given"
    ) -> None:
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True  # "[MASK]" written in a text is five characters, not the special token
        vocabulary = backend.get_vocab(with_added_tokens=True)
        self.names = {role: _present_name(role, names, vocabulary) for role in SPECIAL_TOKENS}
        missing = [self.names[role] for role in SPECIAL_TOKENS if self.names[role] not in vocabulary]
        if missing:
            raise TokenizerError(
                f"tokenizer {origin} has no {' and no '.join(missing)}; "
                f"ELECTRA needs {' '.join(SPECIAL_TOKENS.values())}. "
                "Add what is missing to the vocabulary, or leave out --tokenizer to train one"
            )
        self.backend = backend
        self.special_tokens = {role: vocabulary[name] for role, name in self.names.items()}
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = self.special_tokens.values()
        self.vocab_size = max(vocabulary.values()) + 1
        backend.post_processor = processors.TemplateProcessing(
            single=f"{self.names['cls']} $A {self.names['sep']}",
            pair=f"{self.names['cls']} $A {self.names['sep']} $B:1 {self.names['sep']}:1",
            special_tokens=[(self.names[role], self.special_tokens[role]) for role in ("cls", "sep")],
        )
        self.hash = tokenizer_hash(backend, self.names)
        self._words = WordCache(backend) if works_word_by_word(backend) else None

    @property
    def special_ids(self) -> list[int]:
        """Ids that are never masked: [PAD], [CLS], [SEP], [MASK] ([UNK] may be, as in google-research/electra)."""
        return [self.pad_id, self.cls_id, self.sep_id, self.mask_id]

    @property
    def is_wordpiece(self) -> bool:
        return isinstance(self.backend.model, models.WordPiece)

    def encode_lines(self, lines: Sequence[str]) -> list[list[int]]:
        """Token ids of every line, without special tokens. A tokenizer is not to be shared between threads."""
        if self._words is not None:
            return self._words.encode_lines(lines)
        return [encoding.ids for encoding in self.backend.encode_batch_fast(lines, add_special_tokens=False)]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Text of a sequence of ids."""
        return self.backend.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def token(self, token_id: int) -> str:
        """The vocabulary entry of an id.

        Raises:
            TokenizerError: the id is not in the vocabulary.
        """
        token = self.backend.id_to_token(token_id)
        if token is None:
            raise TokenizerError(f"token id {token_id} is not in the vocabulary of {self.vocab_size} entries")
        return token

    def save(self, directory: str | Path, *, model_max_length: int = 512) -> None:
        """Write ``tokenizer.json``, ``tokenizer_config.json`` and, for a WordPiece, ``vocab.txt``.

        ``transformers.AutoTokenizer.from_pretrained(directory)`` gives the same ids. A line's number in a vocab.txt is
        the id of the token on it, so there is none of a vocabulary whose ids have gaps.

        Args:
            directory: made if absent.
            model_max_length: most tokens of a sequence, which ``transformers`` truncates to and warns beyond: of a
                corpus the longest example, of a model the position table.
        """
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        config: dict[str, Any] = {f"{role}_token": name for role, name in self.names.items()}
        config["model_max_length"] = model_max_length
        config["tokenizer_class"] = CLASS_OTHER
        if self.is_wordpiece:
            entries = sorted(self.backend.get_vocab(with_added_tokens=True).items(), key=lambda entry: entry[1])
            gapless = all(index == place for place, (_, index) in enumerate(entries))
            if gapless:
                write_text(folder / "vocab.txt", "".join(f"{token}\n" for token, _ in entries))
            rules = _rules(self.backend)
            if rules is not None and gapless:
                config.update(rules, tokenizer_class=CLASS_WORDPIECE)
        write_text(folder / "tokenizer_config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")
        write_text(folder / "tokenizer.json", self.backend.to_str(pretty=True) + "\n")

    @staticmethod
    def load(path: str | Path, *, lowercase: bool | None = None, strip_accents: bool | None = None) -> Tokenizer:
        """Load a vocab.txt, a tokenizer.json, or a Hugging Face directory that holds either.

        Args:
            path: the file or directory.
            lowercase: for a bare vocab.txt, which does not say. None: yes unless an entry has an upper-case letter.
            strip_accents: for a bare vocab.txt. None: as ``lowercase``, which is BERT's rule.

        Raises:
            TokenizerError: missing, damaged, of another kind, or without a special token ELECTRA needs.
            ConfigError: ``lowercase`` or ``strip_accents`` for a tokenizer that says so itself.
        """
        given = Path(path)
        if not given.exists():
            raise TokenizerError(
                f"tokenizer {given} does not exist. Give a vocab.txt, a tokenizer.json or a directory with one"
            )
        folder = given if given.is_dir() else given.parent
        if given.is_file() and given.suffix != ".json":
            rules = {"do_lower_case": lowercase, "strip_accents": strip_accents}
            return Tokenizer(_from_vocabulary(given, rules), origin=str(given))
        if lowercase is not None or strip_accents is not None:
            raise ConfigError(
                f"tokenizer {given} says itself whether case and accents are kept: leave out the options for them"
            )
        config = _read_config(folder)
        names = {role: config.get(f"{role}_token", SPECIAL_TOKENS[role]) for role in SPECIAL_TOKENS}
        file = given if given.is_file() else folder / "tokenizer.json"
        if file.exists():
            return Tokenizer(_from_json(file), names, origin=str(given))
        if (folder / "vocab.txt").exists():
            return Tokenizer(_from_vocabulary(folder / "vocab.txt", config), names, origin=str(given))
        raise TokenizerError(
            f"{given} holds neither tokenizer.json nor vocab.txt. Where transformers can load it, "
            "AutoTokenizer.from_pretrained(...).save_pretrained(...) writes a tokenizer.json"
        )


def wordpiece(vocabulary: Mapping[str, int], *, lowercase: bool, strip_accents: bool | None) -> tokenizers.Tokenizer:
    """BERT's tokenizer over a vocabulary: clean, set Chinese characters apart, split at spaces and punctuation.

    Args:
        vocabulary: token to id.
        lowercase: whether text is lower-cased.
        strip_accents: whether accents are removed; None: as ``lowercase``.
    """
    backend = tokenizers.Tokenizer(
        models.WordPiece(dict(vocabulary), unk_token=SPECIAL_TOKENS["unk"], max_input_chars_per_word=_LONGEST_WORD)
    )
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=strip_accents, lowercase=lowercase
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    known = [token for token in SPECIAL_TOKENS.values() if token in vocabulary]
    backend.add_special_tokens(known)
    return backend


def _present_name(role: str, names: Mapping[str, str], vocabulary: Mapping[str, int]) -> str:
    for name in (names[role], SPECIAL_TOKENS[role], _OTHER_NAMES[role]):
        if name in vocabulary:
            return name
    return names[role]


def _rules(backend: tokenizers.Tokenizer) -> dict[str, bool | None] | None:
    """BERT's rules in the words of tokenizer_config.json; None if the tokenizer has other rules."""
    normalizer = backend.normalizer
    if not isinstance(normalizer, normalizers.BertNormalizer) or not isinstance(
        backend.pre_tokenizer, pre_tokenizers.BertPreTokenizer
    ):
        return None
    return {
        "do_lower_case": normalizer.lowercase,
        "strip_accents": normalizer.strip_accents,
        "tokenize_chinese_chars": normalizer.handle_chinese_chars,
    }


def _from_json(path: Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise TokenizerError(f"{path} is damaged, or no tokenizer.json: {error}") from None


def _from_vocabulary(path: Path, rules: Mapping[str, Any]) -> tokenizers.Tokenizer:
    try:
        entries = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"cannot read vocabulary {path}: {error}") from None
    while entries and not entries[-1]:
        entries.pop()
    vocabulary: dict[str, int] = {}
    for index, entry in enumerate(entries):
        token = entry.rstrip("\r")
        if token in vocabulary:
            raise TokenizerError(f"{path}, line {index + 1}: {token!r} is also on line {vocabulary[token] + 1}")
        vocabulary[token] = index
    lowercase = rules.get("do_lower_case")
    if lowercase is None:
        words = (token for token in vocabulary if token not in SPECIAL_TOKENS.values())
        lowercase = all(token == token.lower() for token in words if not token.startswith("["))
    strip_accents = rules.get("strip_accents")
    return wordpiece(vocabulary, lowercase=lowercase, strip_accents=strip_accents)


def _read_config(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json over special_tokens_map.json; a token may be a string or an object with its content."""
    merged: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        try:
            value = json.loads((folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except ValueError as error:
            raise TokenizerError(f"{folder / name} is damaged: {error}") from None
        for key, entry in value.items():
            content = entry.get("content") if isinstance(entry, dict) and key.endswith("_token") else entry
            if content is not None:
                merged[key] = content
    return merged
