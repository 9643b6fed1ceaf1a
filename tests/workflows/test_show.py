"""What a pair does with sentences."""

import pytest
import torch

from electra_fast.data import Tokenizer
from electra_fast.errors import CheckpointError, ConfigError
from electra_fast.models import ElectraPretrainingPair
from electra_fast.workflows.pretraining import ReplacedTokens, find_replaced, pretrain
from electra_fast.workflows.pretraining.build import open_training_corpus, resolve

SENTENCES = ["the red fox sees the green apple with both eyes .", "every tall tree hears a loud song with its ears ."]


@pytest.fixture
def pair(tiny):
    options = tiny()
    return ElectraPretrainingPair(resolve(options, open_training_corpus(options.data_paths).manifest))


def test_generator_replaces_and_discriminator_points(pair, corpus):
    tokenizer = Tokenizer.load(corpus)
    pair.train()
    shown = find_replaced(pair, SENTENCES, tokenizer=tokenizer, probability=0.3)
    assert pair.generator.training
    assert pair.discriminator.training
    for sentence, result in zip(SENTENCES, shown, strict=True):
        words = "".join(t.removeprefix("##") if t.startswith("##") else f" {t}" for t in result.originals).strip()
        assert words == sentence
        assert 1 <= sum(result.replaced) == sum(result.suspected) <= round(0.3 * (len(result.tokens) + 2))
        assert all(0 < p < 1 for p in result.probabilities)
        lowest = min(p for p, s in zip(result.probabilities, result.suspected, strict=True) if s)
        assert all(p <= lowest for p, s in zip(result.probabilities, result.suspected, strict=True) if not s)


def test_it_is_a_function_of_the_seed(pair, corpus):
    tokenizer = Tokenizer.load(corpus)
    first = find_replaced(pair, SENTENCES[0], tokenizer=tokenizer)
    torch.rand(5)
    assert find_replaced(pair, SENTENCES[0], tokenizer=tokenizer) == first
    others = [find_replaced(pair, SENTENCES[0], tokenizer=tokenizer, seed=seed) for seed in range(1, 5)]
    assert any(other != first for other in others)


def test_from_the_directory_of_a_run(tiny):
    output = pretrain(tiny(total_steps=1)).output
    assert len(find_replaced(output / "model", SENTENCES)) == 2
    with pytest.raises(CheckpointError, match="holds no generator"):
        find_replaced(output, SENTENCES)


def test_long_sentences_are_cut_off(pair, corpus):
    (result,) = find_replaced(pair, " ".join(SENTENCES * 9), tokenizer=Tokenizer.load(corpus))
    assert len(result.tokens) == pair.config.max_position_embeddings - 2


def test_a_pair_needs_its_tokenizer(pair):
    with pytest.raises(ConfigError, match="needs its tokenizer"):
        find_replaced(pair, SENTENCES)


def test_how_it_is_written():
    result = ReplacedTokens(
        tokens=["the", "cat", "ear", "##ly", "[UNK]", "."],
        originals=["the", "fox", "sees", "##ly", "me", "."],
        probabilities=[0.1, 0.9, 0.2, 0.6, 0.7, 0.0],
        suspected=[False, True, False, True, True, False],
    )
    assert result.verdicts() == ["", "found", "missed", "false alarm", "found", ""]
    assert result.found == 2
    assert str(result) == "the ✓cat(fox) ✗ear(sees)?ly ✓[UNK](me) ."
    assert result.__rich__().plain == str(result)
