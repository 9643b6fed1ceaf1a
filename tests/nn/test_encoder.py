"""Attention, feed-forward, encoder layers: Hugging Face's names and numbers, packed and padded."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from electra_fast.models import ElectraConfig
from electra_fast.nn import (
    Attention,
    Embeddings,
    Encoder,
    EncoderLayer,
    FeedForward,
    Intermediate,
    ResidualOutput,
    SelfAttention,
    assign_sites,
    pack_mask,
)

SIZES = {"vocab_size": 50, "embedding_size": 24, "hidden_size": 48, "num_attention_heads": 3, "intermediate_size": 80}
CONFIG = ElectraConfig(num_hidden_layers=2, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3, **SIZES)
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 1]])


@pytest.fixture
def theirs():
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    model = transformers.ElectraModel(transformers.ElectraConfig(num_hidden_layers=2, **SIZES)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def test_layer_is_hugging_faces(theirs):
    ours = EncoderLayer(CONFIG).eval()
    ours.load_state_dict(theirs.encoder.layer[0].state_dict())
    x = torch.randn(3, 6, 48)
    bias = (MASK == 0)[:, None, None, :] * torch.finfo(torch.float32).min
    expected = theirs.encoder.layer[0](x, bias)
    expected = expected[0] if isinstance(expected, tuple) else expected
    padded = ours(x, attention_mask=MASK)
    torch.testing.assert_close(padded[MASK != 0], expected[MASK != 0], rtol=1e-5, atol=1e-5)
    packing = pack_mask(MASK)
    packed = ours(packing.pack(x), packing.cu_seqlens, packing.max_seqlen)
    torch.testing.assert_close(packed, expected[MASK != 0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda: SelfAttention(CONFIG), "encoder.layer.0.attention.self"),
        (lambda: Attention(CONFIG), "encoder.layer.0.attention"),
        (lambda: ResidualOutput(CONFIG, 48), "encoder.layer.0.attention.output"),
        (lambda: Intermediate(CONFIG), "encoder.layer.0.intermediate"),
        (lambda: ResidualOutput(CONFIG, 80), "encoder.layer.0.output"),
        (lambda: Encoder(CONFIG), "encoder"),
        (lambda: Embeddings(CONFIG), "embeddings"),
    ],
)
def test_state_dicts_are_hugging_faces(theirs, make, path):
    ours = make()
    ours.load_state_dict(theirs.get_submodule(path).state_dict())
    assert list(ours.state_dict()) == list(theirs.get_submodule(path).state_dict())


def test_feed_forward_and_embeddings_are_hugging_faces(theirs):
    layer = theirs.encoder.layer[0]
    ours = FeedForward(CONFIG).eval()
    ours.intermediate.load_state_dict(layer.intermediate.state_dict())
    ours.output.load_state_dict(layer.output.state_dict())
    x = torch.randn(4, 5, 48)
    torch.testing.assert_close(ours(x), layer.feed_forward_chunk(x), rtol=1e-5, atol=1e-5)
    embeddings = Embeddings(CONFIG).eval()
    embeddings.load_state_dict(theirs.embeddings.state_dict())
    ids = torch.randint(0, 50, (4, 5))
    types = torch.randint(0, 2, (4, 5))
    torch.testing.assert_close(embeddings(ids), theirs.embeddings(ids))
    torch.testing.assert_close(
        embeddings(ids, torch.arange(3, 8), types),
        theirs.embeddings(ids, token_type_ids=types, position_ids=torch.arange(3, 8).unsqueeze(0)),
    )


def test_self_attention_without_lengths_is_refused():
    with pytest.raises(ValueError, match="needs cu_seqlens"):
        SelfAttention(CONFIG)(torch.randn(6, 48))


def test_every_place_draws_for_itself():
    encoder = Encoder(CONFIG)
    sites = [module.site for module in encoder.modules() if hasattr(module, "site")]
    assert sites == list(range(6))
    assert assign_sites(encoder, 100) == 106
    first, second = encoder.layer
    assert (first.attention.self.site, first.attention.output.site, first.output.site) == (100, 101, 102)
    assert second.output.site == 105


def test_dropout_is_a_function_of_rng():
    encoder, x = Encoder(CONFIG), torch.randn(11, 48)
    cu_seqlens = torch.tensor([0, 4, 11], dtype=torch.int32)
    run = [encoder(x, cu_seqlens, 7, torch.tensor([seed, 0])) for seed in (1, 1, 2)]
    assert torch.equal(run[0], run[1])
    assert not torch.equal(run[0], run[2])
    torch.manual_seed(3)
    drawn = encoder(x, cu_seqlens, 7)
    assert not torch.equal(drawn, encoder(x, cu_seqlens, 7))
    torch.manual_seed(3)
    assert torch.equal(drawn, encoder(x, cu_seqlens, 7))
    encoder.eval()
    assert torch.equal(encoder(x, cu_seqlens, 7), encoder(x, cu_seqlens, 7, torch.tensor([1, 0])))


def test_checkpointing_changes_nothing_but_what_is_kept():
    """With dropout on; what a layer's backward needs is kept by all layers, by every second one, or by none."""
    encoder, x = Encoder(dataclasses.replace(CONFIG, num_hidden_layers=4)), torch.randn(11, 48)
    cu_seqlens, rng = torch.tensor([0, 4, 11], dtype=torch.int32), torch.tensor([1, 0])
    gradients, kept = [], []

    def keep(tensor):
        kept[-1] += tensor.nbytes
        return tensor

    for encoder.gradient_checkpointing in (False, 2, True):
        kept.append(0)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            out = encoder(x, cu_seqlens, 7, rng)
        gradients.append((out, *torch.autograd.grad(out.square().sum(), list(encoder.parameters()))))
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(*gradients, strict=True))
    assert kept[1] == pytest.approx((kept[0] + kept[2]) / 2, rel=0.1)
    assert kept[2] < 0.05 * kept[0]


def test_adapters_and_hooks_on_linear_layers_are_respected():
    """What is not a plain linear layer is called, not read."""

    class Doubled(torch.nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    block = ResidualOutput(CONFIG, 48).eval()
    x, residual = torch.randn(3, 48), torch.randn(3, 48)
    plain = block(x, residual)
    doubled = Doubled(48, 48)
    doubled.load_state_dict(block.dense.state_dict())
    expected = block.LayerNorm(residual + 2 * block.dense(x))
    handle = block.dense.register_forward_hook(lambda module, args, output: 2 * output)
    torch.testing.assert_close(block(x, residual), expected)
    handle.remove()
    assert torch.equal(block(x, residual), plain)
    block.dense = doubled
    torch.testing.assert_close(block(x, residual), expected)


def test_hugging_faces_config_serves_as_well(theirs):
    ours = EncoderLayer(theirs.config).eval()
    ours.load_state_dict(theirs.encoder.layer[1].state_dict())
