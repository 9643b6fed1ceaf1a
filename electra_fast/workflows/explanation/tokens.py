"""A text, or two, as the model reads it, and how its tokens lie in what the user wrote."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from electra_fast.data.tokenizer import Tokenizer
from electra_fast.errors import ConfigError, DataError

SPECIAL = -1  # word of a token that is none of a text's


@dataclass(frozen=True)
class Tokens:
    """One sequence, ``[CLS] text [SEP]`` or ``[CLS] text [SEP] second [SEP]``.

    Attributes:
        ids, types: int64 ``[S]``.
        pieces: each token as it is written in the text, special ones by their names.
        words: for each token the number of its word, counted through both texts; `SPECIAL` for special tokens.
        spaces: for each token, whether a space (or anything else that is no token) stands before it.
        segments: for each token 0 or 1, the text that it is of; None for special tokens.
        cut: tokens that were left out at the end, because the model reads no more.
    """

    ids: Tensor
    types: Tensor
    pieces: list[str]
    words: list[int]
    spaces: list[bool]
    segments: list[int | None]
    cut: int

    @property
    def word_count(self) -> int:
        """Number of words."""
        return max(self.words, default=SPECIAL) + 1

    def positions(self, word: int) -> list[int]:
        """The tokens of a word."""
        return [position for position, own in enumerate(self.words) if own == word]

    def word(self, word: int) -> str:
        """A word as it is written."""
        return "".join(self.pieces[position] for position in self.positions(word))

    def baseline(self, stand_in: int) -> Tensor:
        """The sequence with ``stand_in`` for every token of a text; special tokens stay."""
        special = torch.tensor([word == SPECIAL for word in self.words])
        return torch.where(special, self.ids, stand_in)


def tokens_of(tokenizer: Tokenizer, text: str, second: str | None, longest: int, *, cut_second: bool = False) -> Tokens:
    """Tokenise what the user wrote, as it is.

    Args:
        longest: most tokens that the model reads.
        cut_second: leave the first text, a question, whole.

    Raises:
        DataError: there is nothing to read. ConfigError: a question that fills the model.
    """
    whole = tokenizer.backend.encode(text, second)
    if all(whole.special_tokens_mask):
        raise DataError(f"text must have at least one word that the model can read, got {text!r}")
    tokenizer.backend.enable_truncation(longest, strategy="only_second" if cut_second else "longest_first")
    try:
        found = tokenizer.backend.encode(text, second)
    except Exception as error:  # the library raises bare Exception
        raise ConfigError(f"text is too long: the model reads {longest} tokens at most ({error})") from None
    finally:
        tokenizer.backend.no_truncation()
    words, spaces, pieces = [], [], []
    before: tuple[int | None, int | None, int] = (None, None, 0)
    for special, segment, word, (start, end), name in zip(
        found.special_tokens_mask, found.sequence_ids, found.word_ids, found.offsets, found.tokens, strict=True
    ):
        if special:
            words.append(SPECIAL)
            spaces.append(True)
            pieces.append(name)
            continue
        same = before[:2] == (segment, word)
        words.append(max(words) + (not same))
        spaces.append(before[0] != segment or start > before[2])
        pieces.append((second if segment else text)[start:end])
        before = (segment, word, end)
    return Tokens(
        torch.tensor(found.ids), torch.tensor(found.type_ids), pieces, words, spaces, list(found.sequence_ids),
        len(whole) - len(found),
    )  # fmt: skip
