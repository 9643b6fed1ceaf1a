"""MultiheadAttention against torch.nn.MultiheadAttention: self and cross, batch first or not, padding, causal."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from electra_fast.nn import MultiheadAttention

PADDING = torch.tensor([[False] * 5, [False, False, True, True, True], [True, False, False, False, True]])


def pair(**options):
    theirs, ours = nn.MultiheadAttention(24, 3, **options).eval(), MultiheadAttention(24, 3, **options).eval()
    for name, parameter in theirs.named_parameters():
        nn.init.normal_(parameter, std=0.3)
        assert name in dict(ours.named_parameters())
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"kdim": 10, "vdim": 14}])
@pytest.mark.parametrize("padding", [None, PADDING])
def test_cross_attention_is_torchs(batch_first, options, padding):
    theirs, ours = pair(batch_first=batch_first, **options)
    query = torch.randn(3, 7, 24, requires_grad=True)
    key, value = (torch.randn(3, 5, options.get(name, 24), requires_grad=True) for name in ("kdim", "vdim"))
    results = []
    for module in (theirs, ours):
        inputs = (query, key, value) if batch_first else tuple(x.transpose(0, 1) for x in (query, key, value))
        out, weights = module(*inputs, key_padding_mask=padding, need_weights=False)
        assert weights is None
        gradients = torch.autograd.grad(out.square().sum(), [query, key, value, *module.parameters()])
        results.append((out, *gradients))
    for ours_, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(ours_, expected, rtol=1e-4, atol=1e-4)


def test_causal_self_attention_is_torchs():
    theirs, ours = pair(batch_first=True)
    x = torch.randn(3, 6, 24)
    mask = nn.Transformer.generate_square_subsequent_mask(6)
    expected, _ = theirs(x, x, x, attn_mask=mask, is_causal=True, need_weights=False)
    torch.testing.assert_close(ours(x, x, x, is_causal=True)[0], expected, rtol=1e-4, atol=1e-5)


def test_dropout_follows_rng():
    module = MultiheadAttention(24, 3, dropout=0.5, batch_first=True)
    x = torch.randn(2, 6, 24)
    runs = [module(x, x, x, rng=torch.tensor([seed, 0]))[0] for seed in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_what_is_not_offered_is_refused():
    module, x = MultiheadAttention(24, 3, batch_first=True), torch.randn(3, 5, 24)
    with pytest.raises(ValueError, match="need_weights must be False"):
        module(x, x, x, need_weights=True)
    with pytest.raises(ValueError, match="attn_mask must be None"):
        module(x, x, x, attn_mask=torch.zeros(5, 5))
    with pytest.raises(ValueError, match="key_padding_mask must be bool"):
        module(x, x, x, key_padding_mask=torch.zeros(3, 5))
    with pytest.raises(ValueError, match="query must have shape"):
        module(x[0], x[0], x[0])
    with pytest.raises(ValueError, match="is_causal needs as many keys as queries"):
        module(x, x[:, :4], x[:, :4], is_causal=True)
    with pytest.raises(ValueError, match="is_causal cannot be combined"):
        module(x, x, x, is_causal=True, key_padding_mask=PADDING)
    with pytest.raises(ValueError, match="add_bias_kv and add_zero_attn must be False"):
        MultiheadAttention(24, 3, add_zero_attn=True)
