"""Embeddings of one vocabulary for another: rows of tokens that both have are kept, others composed from old pieces.

A new token that the old vocabulary lacks starts as the mean of the rows of the old tokens that spell it (Gee et al.
2022, "Fast Vocabulary Transfer for Language Model Compression", EMNLP industry track), and one that cannot be spelt is
drawn from a normal with the mean and deviation of the old rows, number by number. WECHSEL (Minixhofer et al. 2022) and
FOCUS (Dobler and de Melo 2023) weigh similar tokens by auxiliary embeddings instead, which are not needed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from electra_fast.data.tokenizer import Tokenizer
from electra_fast.data.words import SPACES, continuation_prefix, space_of

WORDS = "electra.embeddings.word_embeddings.weight"
ROWS = (WORDS, "generator_lm_head.weight", "generator_lm_head.bias")  # what has a row for every token
Entry = tuple[bool, str]  # whether it begins a word, and its text


@dataclass(frozen=True)
class Transplant:
    """For every new id the old ids whose rows it is the mean of; none: a fresh row.

    Attributes:
        copied, averaged, fresh: how many new rows are of which kind.
    """

    sources: list[list[int]]
    copied: int
    averaged: int
    fresh: int

    def weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A network's weights with its rows moved; fresh ones are drawn from torch's generator."""
        return {name: self.rows(tensor) if name in ROWS else tensor for name, tensor in weights.items()}

    def rows(self, table: Tensor) -> Tensor:
        """``[V_old, ...]`` to ``[V_new, ...]``."""
        old = table.to(torch.float32)
        owner = torch.tensor([new for new, ids in enumerate(self.sources) for _ in ids])
        source = torch.tensor([i for ids in self.sources for i in ids])
        count = torch.tensor([len(ids) for ids in self.sources]).view(-1, *(1,) * (old.ndim - 1))
        sums = old.new_zeros(len(self.sources), *old.shape[1:]).index_add(0, owner, old[source])
        drawn = old.mean(0) + old.std(0) * torch.randn(sums.shape)
        return torch.where(count > 0, sums / count.clamp(min=1), drawn).to(table.dtype)

    def __str__(self) -> str:
        return (
            f"vocabulary of {len(self.sources):,}: {self.copied:,} rows copied, {self.averaged:,} averaged from "
            f"pieces, {self.fresh:,} fresh"
        )


def plan_transplant(old: Tokenizer, new: Tokenizer) -> Transplant:
    """Which old rows make up each new one.

    Special tokens are matched by what they are for, others by text and by whether they begin a word, across kinds of
    tokenizers (``##ing`` is ``ing`` inside a word, as is ``ing`` beside ``Ġ`` or ``▁``). Else the text is cut from the
    left into the longest old tokens, in lower case if that is all the old ones have.
    """
    known: dict[Entry, int] = {}
    for index, entry in _entries(old).items():
        known.setdefault(entry, index)
    longest = max((len(text) for _, text in known), default=0)
    special = {new.special_tokens[role]: index for role, index in old.special_tokens.items()}
    entries = _entries(new)
    sources: list[list[int]] = []
    copied = 0
    for index in range(new.vocab_size):
        if index in special:
            ids, exact = [special[index]], True
        else:
            entry = entries.get(index)
            ids, exact = ([], False) if entry is None else _source(entry, known, longest)
        copied += exact
        sources.append(ids)
    fresh = sum(not ids for ids in sources)
    return Transplant(sources, copied, len(sources) - copied - fresh, fresh)


def _source(entry: Entry, known: Mapping[Entry, int], longest: int) -> tuple[list[int], bool]:
    if entry in known:
        return [known[entry]], True
    begins, text = entry
    return _pieces(begins, text, known, longest) or _pieces(begins, text.lower(), known, longest), False


def _pieces(begins: bool, text: str, known: Mapping[Entry, int], longest: int) -> list[int]:
    """Old ids that spell the text, longest first from the left; none if some character is in none of them."""
    ids, start = [], 0
    while start < len(text):
        for end in range(min(len(text), start + longest), start, -1):
            piece = text[start:end]
            first = begins and start == 0
            found = known.get((first, piece), known.get((not first, piece)))
            if found is not None:
                ids.append(found)
                start = end
                break
        else:
            return []
    return ids


def _entries(tokenizer: Tokenizer) -> dict[int, Entry]:
    """(begins a word, text) of every id that is no special token."""
    from tokenizers import decoders

    prefix, space = continuation_prefix(tokenizer), space_of(tokenizer)
    bytes_of = decoders.ByteLevel()
    special = set(tokenizer.special_tokens.values())
    entries = {}
    for token, index in tokenizer.backend.get_vocab(with_added_tokens=True).items():
        if index in special:
            continue
        if prefix is not None:
            entries[index] = (not token.startswith(prefix), token.removeprefix(prefix))
        elif space == SPACES[0]:  # byte-level: characters stand for bytes
            text = bytes_of.decode([token])
            entries[index] = (text.startswith(" "), text.removeprefix(" "))
        else:
            entries[index] = (space is not None and token.startswith(space), token.removeprefix(space or ""))
    return entries
