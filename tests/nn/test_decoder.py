"""Decoder layers against torch.nn's and transformers', values and gradients; a token at a time as all at once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from electra_fast.models import ElectraConfig
from electra_fast.nn import assign_sites
from electra_fast.nn.decoder import Decoder, DecoderLayer, Memory

CONFIG = ElectraConfig(
    vocab_size=50, embedding_size=24, hidden_size=48, num_attention_heads=3, intermediate_size=80, num_hidden_layers=2,
    hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)  # fmt: skip
LENGTHS, MEMORY_LENGTHS = (5, 1, 8), (3, 7, 2)


def packed(lengths):
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)


def theirs_of(layer: DecoderLayer) -> nn.TransformerDecoderLayer:
    """torch.nn's layer with the same weights."""
    theirs = nn.TransformerDecoderLayer(
        48, 3, 80, dropout=0.0, activation="gelu", layer_norm_eps=CONFIG.layer_norm_eps, batch_first=True
    ).to(layer.output.dense.weight.dtype)
    parts = {
        "self_attn": (layer.attention, theirs.norm1),
        "multihead_attn": (layer.crossattention, theirs.norm2),
    }
    with torch.no_grad():
        for name, (block, norm) in parts.items():
            attention = getattr(theirs, name)
            inner = block.self
            linears = (inner.query, inner.key, inner.value)
            attention.in_proj_weight.copy_(torch.cat([linear.weight for linear in linears]))
            attention.in_proj_bias.copy_(torch.cat([linear.bias for linear in linears]))
            attention.out_proj.load_state_dict(block.output.dense.state_dict())
            norm.load_state_dict(block.output.LayerNorm.state_dict())
    theirs.linear1.load_state_dict(layer.intermediate.dense.state_dict())
    theirs.linear2.load_state_dict(layer.output.dense.state_dict())
    theirs.norm3.load_state_dict(layer.output.LayerNorm.state_dict())
    return theirs


def randomised(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return module


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_a_layer_is_torchs(dtype, tolerance):
    """Sequence by sequence, since torch's has no packed form; gradients of inputs and of every weight."""
    layer = randomised(DecoderLayer(CONFIG)).to(dtype)
    theirs = theirs_of(layer)
    x = torch.randn(sum(LENGTHS), 48, dtype=dtype, requires_grad=True)
    memory = torch.randn(sum(MEMORY_LENGTHS), 48, dtype=dtype, requires_grad=True)
    weights = torch.randn(sum(LENGTHS), 48, dtype=dtype)
    out = layer(x, packed(LENGTHS), 8, Memory(memory, packed(MEMORY_LENGTHS), 7))
    expected = torch.cat(
        [
            theirs(a[None], b[None], nn.Transformer.generate_square_subsequent_mask(len(a), dtype=dtype))[0]
            for a, b in zip(x.split(LENGTHS), memory.split(MEMORY_LENGTHS), strict=True)
        ]
    )
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)
    actual_gradients = torch.autograd.grad((out * weights).sum(), (x, memory, *layer.parameters()))
    inputs = torch.autograd.grad((expected * weights).sum(), (x, memory, *theirs.parameters()))
    for actual, wanted in zip(actual_gradients[:2], inputs[:2], strict=True):
        torch.testing.assert_close(actual, wanted, rtol=20 * tolerance, atol=20 * tolerance)
    for parameter, gradient in zip(layer.parameters(), actual_gradients[2:], strict=True):
        parameter.data.copy_(gradient)
    in_torchs_layout = dict(theirs_of(layer).named_parameters())  # of the gradients, which now stand for the weights
    for name, wanted in zip(dict(theirs.named_parameters()), inputs[2:], strict=True):
        torch.testing.assert_close(in_torchs_layout[name].data, wanted, rtol=20 * tolerance, atol=20 * tolerance)


def test_gradients_by_finite_differences():
    config = ElectraConfig(
        vocab_size=9, embedding_size=4, hidden_size=4, num_attention_heads=2, intermediate_size=6, num_hidden_layers=1
    )
    decoder = randomised(Decoder(config)).double().eval()
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    memory = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)

    def run(x, memory):
        return decoder(x, packed((2, 1)), 2, Memory(memory, packed((1, 3)), 3))

    assert torch.autograd.gradcheck(run, (x, memory))


def test_state_dict_is_hugging_faces():
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    config = transformers.ElectraConfig(
        **CONFIG.to_huggingface_dict() | {"is_decoder": True, "add_cross_attention": True}
    )
    theirs = transformers.ElectraModel(config).encoder
    assert list(Decoder(CONFIG).state_dict()) == list(theirs.state_dict())


def test_no_token_sees_what_comes_later_or_another_sequence():
    decoder = randomised(Decoder(CONFIG)).eval()
    x, memory = torch.randn(14, 48), torch.randn(12, 48)
    before = decoder(x, packed(LENGTHS), 8, Memory(memory, packed(MEMORY_LENGTHS), 7))
    x[3:5] += 1.0  # the end of the first sequence
    memory[3:10] += 1.0  # what the second one looks at
    after = decoder(x, packed(LENGTHS), 8, Memory(memory, packed(MEMORY_LENGTHS), 7))
    changed = (before != after).any(1)
    assert changed.tolist() == [False] * 3 + [True] * 3 + [False] * 8


def test_every_place_draws_for_itself():
    decoder = Decoder(CONFIG)
    sites = [module.site for module in decoder.modules() if hasattr(module, "site")]
    assert sites == list(range(10))
    assert assign_sites(decoder, 5) == 15


def test_token_by_token_is_all_at_once():
    """Two rows for one sequence of the memory, none for another, rows reordered on the way."""
    decoder = randomised(Decoder(CONFIG)).eval()
    memory = Memory(torch.randn(12, 48), packed(MEMORY_LENGTHS), 7)
    sources, length = [0, 0, 2], 6
    x = torch.randn(3, length, 48)
    cu_rows = torch.tensor([0, 2, 2, 3], dtype=torch.int32)
    with torch.no_grad():
        keys = [layer.crossattention.self.keys(memory) for layer in decoder.layer]
        past = [torch.empty(3, 0, 2, 3, 16)] * 2
        steps = []
        for place in range(length):
            token, longer = x[:, place], []
            for layer, before, own in zip(decoder.layer, past, keys, strict=True):
                token, now = layer.step(token, before, own, cu_rows)
                longer.append(now)
            past = longer
            steps.append(token)
        each = memory.hidden.split(MEMORY_LENGTHS)
        rows = Memory(torch.cat([each[i] for i in sources]), packed([MEMORY_LENGTHS[i] for i in sources]), 7)
        whole = decoder(x.flatten(0, 1), packed((length,) * 3), length, rows)
    torch.testing.assert_close(torch.stack(steps, 1).flatten(0, 1), whole, rtol=1e-4, atol=1e-5)
