"""Heads that attend to the neighbours from the start."""

import math

import pytest
import torch

from electra_fast.errors import ConfigError
from electra_fast.models import ElectraConfig, ElectraPretrainingPair
from electra_fast.models.local_initialization import OFFSETS


def pair(**changes) -> ElectraPretrainingPair:
    options = {
        "vocab_size": 500,
        "pad_token_id": 0,
        "cls_token_id": 2,
        "sep_token_id": 3,
        "mask_token_id": 4,
        "embedding_size": 128,
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 256,
        "generator_hidden_fraction": 0.5,
        "initialization": "local",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    torch.manual_seed(0)
    return ElectraPretrainingPair(ElectraConfig.small(**(options | changes)))


def first_layer_attention(network, embeddings, length: int = 60) -> torch.Tensor:
    """Probabilities [H, length, length] of the first layer on random tokens."""
    hidden = embeddings(torch.randint(5, 500, (length,)))
    if network.embeddings_project is not None:
        hidden = network.embeddings_project(hidden)
    attention = network.encoder.layer[0].attention.self
    heads = network.config.num_attention_heads
    q, k = (m(hidden).view(length, heads, -1).transpose(0, 1) for m in (attention.query, attention.key))
    return (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(-1)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"hidden_size": 256},
        {"num_attention_heads": 8},
        {"embedding_size": 64},
        {"initialization": "local-glorot"},
    ],
)
@torch.no_grad()
def test_every_head_looks_where_its_offset_says(changes):
    model = pair(**changes).eval()
    for network in (model.discriminator.electra, model.generator.electra):
        probabilities = first_layer_attention(network, model.embeddings)
        inner = range(5, 55)
        for head, rows in enumerate(probabilities):
            offset = OFFSETS[head % len(OFFSETS)]
            at = torch.stack([rows[i, i + offset] for i in inner]).mean()
            near = torch.stack([rows[i, i + offset - 2 : i + offset + 3].sum() for i in inner]).mean()
            assert at > 0.25, (head, at)
            assert near > 0.8, (head, near)


@torch.no_grad()
def test_a_single_head_alternates_by_layer():
    model = pair(num_attention_heads=2)  # one head in the generator
    layers = model.generator.electra.encoder.layer
    assert model.generator.config.num_attention_heads == 1
    first, second = (layer.attention.self.query.weight[:16, :16] for layer in layers)
    torch.testing.assert_close(first, second.T)  # rotations by opposite offsets


@torch.no_grad()
def test_linear_layers_are_the_usual_ones_or_glorots():
    def deviations(initialization):
        layer = pair(initialization=initialization).discriminator.electra.encoder.layer[1]
        modules = (layer.attention.self.value, layer.attention.output.dense, layer.intermediate.dense)
        return [module.weight.std().item() for module in modules]

    cut = 0.0176  # a normal of 0.02, cut at two deviations
    assert deviations("google") == pytest.approx([cut] * 3, rel=0.03)
    assert deviations("local") == pytest.approx([cut] * 3, rel=0.03)
    glorot = [math.sqrt(2 / 256), math.sqrt(2 / 256), math.sqrt(2 / 384)]
    assert deviations("local-glorot") == pytest.approx(glorot, rel=0.03)


@torch.no_grad()
def test_states_differ_between_tokens_unless_glorots():
    """Share of a state that is not the mean of all, after four layers: what fine-tuning has to work with."""

    def own_share(initialization):
        model = pair(initialization=initialization, num_hidden_layers=4).eval().discriminator.electra
        states = model(torch.randint(5, 500, (8, 60))).flatten(0, 1)
        return ((states - states.mean(0)).norm(dim=-1) / states.norm(dim=-1)).mean().item()

    assert own_share("local") > own_share("local-glorot") + 0.15


@torch.no_grad()
def test_the_usual_start_is_uniform_and_stays_the_default():
    model = pair(initialization="google").eval()
    probabilities = first_layer_attention(model.discriminator.electra, model.embeddings)
    assert probabilities.max() < 0.05
    assert ElectraConfig.small().pretraining.initialization == "google"


def test_it_is_a_function_of_the_seed():
    first, second = (pair().state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_errors():
    with pytest.raises(ConfigError, match="initialization must be google or local or local-glorot, got 'loca'"):
        pair(initialization="loca")
    with pytest.raises(ConfigError, match="heads of at least 4 numbers"):
        pair(hidden_size=16, num_attention_heads=8, embedding_size=16, generator_hidden_fraction=1.0)


def test_without_a_generator():
    model = pair(uniform_generator=True)
    assert model.generator is None
    assert not torch.equal(
        model.embeddings.position_embeddings.weight[0], model.embeddings.position_embeddings.weight[1]
    )
