"""What is trained how fast: the sizes' values, layer-wise decay as corrected and as published, groups and schedule."""

import pytest
import torch
from transformers import ElectraConfig, ElectraForSequenceClassification

from electra_fast.optim import ElectraAdam
from electra_fast.workflows.finetuning import FinetuneOptions
from electra_fast.workflows.finetuning.recipe import (
    Recipe,
    depth_of,
    make_optimizer,
    make_schedule,
    rate_factor,
    recipe_for,
)


def recipe(**changes):
    values = {"learning_rate": 1.0, "layer_decay": 0.5, "published": False, "epochs": 3.0, "max_steps": None}
    return Recipe(**{**values, "warmup": 0.1, **changes})


@pytest.mark.parametrize(
    ("hidden", "rate", "decay"), [(128, 3e-4, 0.8), (256, 3e-4, 0.8), (768, 1e-4, 0.8), (1024, 5e-5, 0.9)]
)
def test_values_of_the_sizes(hidden, rate, decay):
    found = recipe_for(FinetuneOptions(), hidden, 100_000, 3.0)
    assert (found.learning_rate, found.layer_decay, found.epochs, found.warmup) == (rate, decay, 3.0, 0.1)


def test_small_sets_get_more_epochs_and_options_count():
    assert recipe_for(FinetuneOptions(), 256, 2490, 3.0).epochs == 10
    assert recipe_for(FinetuneOptions(), 256, 2490, 2.0).epochs == 2
    given = recipe_for(FinetuneOptions(epochs=1.5, learning_rate=1e-3, layer_decay=0.7), 256, 10, 3.0)
    assert (given.epochs, given.learning_rate, given.layer_decay) == (1.5, 1e-3, 0.7)


def test_random_weights_all_learn_alike():
    assert recipe_for(FinetuneOptions(from_scratch=True), 256, 10, 3.0).layer_decay == 1.0
    assert recipe_for(FinetuneOptions(from_scratch=True, layer_decay=0.8), 256, 10, 3.0).layer_decay == 0.8


NAMES = {
    "electra.embeddings.word_embeddings.weight": 0,
    "electra.embeddings_project.bias": 0,
    "electra.encoder.layer.0.output.dense.weight": 1,
    "electra.encoder.layer.2.attention.self.query.weight": 3,
    "classifier.out_proj.weight": 4,
    "decoder.layers.1.weight": 4,
    "encoder.electra.encoder.layer.1.output.dense.bias": 2,
}


@pytest.mark.parametrize("name", NAMES)
def test_exponents(name):
    depth = NAMES[name]
    assert depth_of(name, layers=3) == depth
    assert rate_factor(name, 3, recipe()) == 0.5 ** (4 - depth)
    published = 5 - depth if depth < 4 else 0  # google-research/electra: n + 2 - depth, and n + 2 is the head's depth
    assert rate_factor(name, 3, recipe(published=True)) == 0.5**published


@pytest.fixture
def model():
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "embedding_size": 4}
    return ElectraForSequenceClassification(ElectraConfig(vocab_size=10, num_hidden_layers=2, **sizes))


@pytest.mark.parametrize(("name", "kind"), [("electra", ElectraAdam), ("adamw", torch.optim.AdamW)])
def test_groups(model, name, kind):
    optimizer = make_optimizer(model, FinetuneOptions(optimizer=name), recipe())
    assert type(optimizer) is kind
    found = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    assert len(found) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        decay = 0.0 if "LayerNorm" in name or "bias" in name else 0.01
        assert found[id(parameter)] == (0.5 ** (3 - depth_of(name, 2)), decay)


def test_schedule_rises_and_falls_at_the_same_time(model):
    optimizer = make_optimizer(model, FinetuneOptions(), recipe())
    schedule = make_schedule(optimizer, 20, 0.1)
    rates = []
    for _ in range(20):
        rates.append(max(schedule.get_last_lr()))
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([min(1, step / 2) * (1 - step / 20) for step in range(20)])
