"""Embeddings moved to another vocabulary, row by row."""

import pytest
import tokenizers
import torch
from tokenizers import models, pre_tokenizers

from electra_fast.data import Tokenizer
from electra_fast.data.tokenizer import SPECIAL_TOKENS, wordpiece
from electra_fast.models.transplant import ROWS, plan_transplant

SPECIAL = list(SPECIAL_TOKENS.values())


def words(*entries, special=SPECIAL):
    return Tokenizer(
        wordpiece({t: i for i, t in enumerate([*special, *entries])}, lowercase=False, strip_accents=False)
    )


def byte_level(*entries):
    names = {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}
    vocabulary = {t: i for i, t in enumerate([*entries, *names.values()])}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return Tokenizer(backend, names)


def sources(old, new):
    """Old tokens by new token."""
    plan = plan_transplant(old, new)
    return plan, {new.token(i): [old.token(j) for j in ids] for i, ids in enumerate(plan.sources)}


OLD = words("play", "##ing", "p", "##lay", "##s", "the", "t", "!")


def test_pieces_of_new_words():
    plan, found = sources(
        OLD, words("the", "playing", "plays", "##playing", "##ing", "xyz", "The", special=SPECIAL[::-1])
    )
    assert found == {
        **{token: [token] for token in SPECIAL},
        "the": ["the"],
        "##ing": ["##ing"],
        "playing": ["play", "##ing"],
        "plays": ["play", "##s"],
        "##playing": ["play", "##ing"],  # "play" is only known at a beginning
        "xyz": [],
        "The": ["the"],
    }
    assert (plan.copied, plan.averaged, plan.fresh) == (7, 4, 1)
    assert str(plan) == "vocabulary of 12: 7 rows copied, 4 averaged from pieces, 1 fresh"


def test_from_a_wordpiece_to_a_byte_level_vocabulary():
    _, found = sources(OLD, byte_level("Ġthe", "ing", "Ġplaying", "Ã©", "!"))
    names = dict(zip(("<pad>", "<unk>", "<s>", "</s>", "<mask>"), SPECIAL, strict=True))
    assert found == {
        **{new: [old] for new, old in names.items()},
        "Ġthe": ["the"],
        "ing": ["##ing"],
        "Ġplaying": ["play", "##ing"],
        "Ã©": [],
        "!": ["!"],
    }


def test_bytes_that_spell_a_letter():
    _, found = sources(words("é"), byte_level("ĠÃ©", "Ġa"))
    assert found["ĠÃ©"] == ["é"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows(dtype):
    plan, found = sources(OLD, words("the", "playing", *(f"{x}{y}" for x in "xyz" for y in range(200))))
    table = torch.randn(13, 6).to(dtype)
    assert sum(not pieces for pieces in found.values()) == 600
    torch.manual_seed(1)
    moved = plan.rows(table)
    assert moved.dtype == dtype
    assert torch.equal(moved[:5], table[:5])
    assert torch.equal(moved[5], table[10])
    torch.testing.assert_close(moved[6].float(), (table[5].float() + table[6].float()) / 2, rtol=1e-2, atol=1e-2)
    fresh = moved[7:].float()
    assert (fresh.mean(0) - table.float().mean(0)).abs().max() < 0.2
    torch.testing.assert_close(fresh.std(0), table.float().std(0), rtol=0.15, atol=0)


def test_only_what_has_a_row_for_every_token_is_moved():
    weights = {name: torch.randn(13, 4) for name in ROWS} | {
        "electra.encoder.layer.0.output.dense.bias": torch.ones(13)
    }
    moved = plan_transplant(OLD, words("the")).weights(weights)
    assert [len(tensor) for tensor in moved.values()] == [6, 6, 6, 13]
