"""ElectraModel against transformers: hidden states, every mask pattern, packed input, precision, compilation."""

from __future__ import annotations

import copy

import pytest
import torch

from electra_fast.models import ElectraConfig, ElectraModel
from electra_fast.models.encoder import packed_positions
from electra_fast.models.initialization import GLOROT

SMALL = {"embedding_size": 128, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024}
BASE = {"embedding_size": 768, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
DROPOUT = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}


def ours_of(theirs) -> ElectraModel:
    with torch.device("meta"):
        model = ElectraModel(ElectraConfig.from_huggingface_dict(theirs.config.to_dict()))
    model.load_state_dict({name: x.clone() for name, x in theirs.state_dict().items()}, assign=True)
    return model.eval()


@pytest.mark.parametrize("sizes", [SMALL, BASE], ids=["small", "base"])
def test_hidden_states_and_gradients(make_huggingface, make_batch, relative_error, sizes):
    theirs, batch = make_huggingface(**sizes), make_batch()
    ours, real = ours_of(theirs), batch.attention_mask != 0
    expected = theirs(**batch.inputs()).last_hidden_state[real]
    actual = ours(**batch.inputs())
    assert not actual[~real].any()
    actual = actual[real]
    assert relative_error(actual, expected) < 1e-5
    assert (actual - expected).abs().max() < 1e-5 * expected.abs().max()
    gradient = torch.randn_like(expected)
    expected.backward(gradient)
    actual.backward(gradient)
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        if ".key.bias" not in name:  # its gradient is zero but for rounding: softmax does not see it
            assert relative_error(a.grad, b.grad) < 1e-4, name


@pytest.mark.parametrize("sizes", [SMALL, BASE], ids=["small", "base"])
def test_bfloat16_by_the_rule_of_two(make_huggingface, make_batch, relative_error, sizes):
    """Our bfloat16 model errs at most twice as much as theirs, both against float32; three times for gradients."""
    theirs, batch = make_huggingface(**sizes), make_batch()
    real = batch.attention_mask != 0
    models = {
        "truth": theirs,
        "theirs": copy.deepcopy(theirs).bfloat16(),
        "ours": ours_of(theirs).bfloat16(),
    }
    hidden, gradients = {}, {}
    for name, model in models.items():
        out = model(**batch.inputs())
        out = (out if torch.is_tensor(out) else out.last_hidden_state)[real].float()
        torch.manual_seed(0)
        (out * torch.randn_like(out)).sum().backward()
        hidden[name] = out
        gradients[name] = {
            key: p.grad for key, p in model.named_parameters() if ".key.bias" not in key and p.grad is not None
        }
    error = {name: relative_error(hidden[name], hidden["truth"]) for name in ("theirs", "ours")}
    assert error["ours"] <= 2 * error["theirs"]
    for key, truth in gradients["truth"].items():
        theirs_error = relative_error(gradients["theirs"][key], truth)
        assert relative_error(gradients["ours"][key], truth) <= 3 * theirs_error, key


def test_autocast_keeps_parameters_and_their_gradients_in_float32(make_huggingface, make_batch, relative_error):
    theirs, batch = make_huggingface(**SMALL), make_batch()
    ours, real = ours_of(theirs), batch.attention_mask != 0
    expected = theirs(**batch.inputs()).last_hidden_state[real]
    with torch.autocast("cpu", torch.bfloat16):
        out = ours(**batch.inputs())
    assert out.dtype == torch.bfloat16
    assert relative_error(out[real], expected) < 2e-2
    out.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in ours.parameters())


@pytest.mark.parametrize("sizes", ["small", "base"])
def test_real_depth(make_huggingface, relative_error, sizes):
    """Twelve layers of the real widths, few tokens."""
    config = getattr(ElectraConfig, sizes)(vocab_size=500, max_position_embeddings=64)
    options = {name: getattr(config, name) for name in (*SMALL, "num_hidden_layers")}
    theirs = make_huggingface(**options)
    ours = ours_of(theirs)
    ids = torch.randint(5, 500, (2, 9))
    mask = torch.tensor([[1] * 9, [1] * 4 + [0] * 5])
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask).last_hidden_state[mask != 0]
        assert relative_error(ours(ids, mask)[mask != 0], expected) < 1e-5


@pytest.mark.parametrize(
    "mask",
    [[[0, 0, 1, 1, 1, 1], [1] * 6], [[1, 0, 1, 1, 0, 1], [0, 1, 0, 1, 0, 1]], [[0] * 6, [1, 1, 1, 0, 0, 0]]],
    ids=["left padding", "holes", "an empty row"],
)
def test_any_mask(make_huggingface, mask):
    theirs = make_huggingface(**SMALL)
    ours, mask = ours_of(theirs), torch.tensor(mask)
    ids = torch.randint(5, 500, (2, 6))
    expected = theirs(ids, attention_mask=mask).last_hidden_state
    for given in (mask, mask.bool(), mask.float()):
        out = ours(ids, given)
        torch.testing.assert_close(out[mask != 0], expected[mask != 0], rtol=1e-4, atol=1e-5)
        assert not out[mask == 0].any()


def test_packed_is_padded(make_huggingface, make_batch):
    ours, batch = ours_of(make_huggingface(**SMALL)), make_batch()
    real = batch.attention_mask != 0
    lengths = batch.attention_mask.sum(1)
    cu_seqlens = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).int()
    tail = torch.zeros(5, dtype=torch.long)  # rows after the last sequence
    ids, types = (torch.cat([x[real], tail]) for x in (batch.input_ids, batch.token_type_ids))
    packed = ours(ids, token_type_ids=types, cu_seqlens=cu_seqlens)
    torch.testing.assert_close(packed[: int(lengths.sum())], ours(**batch.inputs())[real], rtol=1e-5, atol=1e-5)


def test_packed_positions():
    cu_seqlens = torch.tensor([0, 3, 3, 5], dtype=torch.int32)
    assert packed_positions(cu_seqlens, 7).tolist() == [0, 1, 2, 0, 1, 0, 0]


def test_positions_may_be_given(make_huggingface):
    theirs = make_huggingface(**SMALL)
    ids, positions = torch.randint(5, 500, (2, 6)), torch.arange(10, 16)
    expected = theirs(ids, position_ids=positions.unsqueeze(0)).last_hidden_state
    torch.testing.assert_close(ours_of(theirs)(ids, position_ids=positions), expected, rtol=1e-4, atol=1e-5)


def test_dropout_is_a_function_of_rng(make_batch):
    model, batch = ElectraModel(ElectraConfig(vocab_size=500, num_hidden_layers=2)), make_batch()
    runs = [model(**batch.inputs(), rng=torch.tensor([seed, 0])) for seed in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    torch.manual_seed(3)
    drawn = model(**batch.inputs())
    torch.manual_seed(3)
    assert torch.equal(drawn, model(**batch.inputs()))
    sites = [module.site for module in model.modules() if hasattr(module, "site")]
    assert sites == list(range(7))


@pytest.mark.parametrize("training", [False, True])
def test_compiles_without_a_break(make_batch, training):
    config = ElectraConfig(vocab_size=500, num_hidden_layers=1, max_position_embeddings=64)
    model, batch = ElectraModel(config).train(training), make_batch()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    real, rng = batch.attention_mask != 0, torch.tensor([1, 0])
    out = compiled(**batch.inputs(), rng=rng)
    assert not out[~real].any()
    expected = model(**batch.inputs(), rng=rng)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    parameters = list(model.parameters())
    for a, b in zip(
        torch.autograd.grad(out.square().sum(), parameters),
        torch.autograd.grad(expected.square().sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    cu_seqlens = torch.tensor([0, 4, 11], dtype=torch.int32)
    ids = batch.input_ids.flatten()[:11]
    torch.testing.assert_close(
        compiled(ids, cu_seqlens=cu_seqlens, rng=rng), model(ids, cu_seqlens=cu_seqlens, rng=rng), rtol=1e-4, atol=1e-5
    )


def test_starts_as_googles_does():
    model = ElectraModel(ElectraConfig(vocab_size=2000, num_hidden_layers=1, initializer_range=0.02))
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            assert not p.any(), name
        elif "LayerNorm" in name:
            assert (p == 1).all(), name
        elif name.split(".")[-2] in GLOROT:
            bound = (6 / sum(p.shape)) ** 0.5
            assert p.abs().max() <= bound
            assert p.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
        else:
            assert p.abs().max() <= 0.04, name
            if p.numel() > 10_000:
                assert p.std().item() == pytest.approx(0.02 * 0.8796, rel=0.05), name  # a normal cut at two deviations


def test_mistakes_are_named(make_batch):
    model, batch = (
        ElectraModel(ElectraConfig(vocab_size=500, num_hidden_layers=1, max_position_embeddings=16)),
        make_batch(),
    )
    cu_seqlens = torch.tensor([0, 20], dtype=torch.int32)
    with pytest.raises(ValueError, match="at most 16 tokens"):
        model(batch.input_ids)
    with pytest.raises(ValueError, match="at most 16 tokens"):
        model(batch.input_ids[0], cu_seqlens=cu_seqlens, max_seqlen=20)
    with pytest.raises(ValueError, match="need cu_seqlens"):
        model(batch.input_ids[0])
    with pytest.raises(ValueError, match=r"must have shape \[B, S\], or \[T\] with cu_seqlens"):
        model(batch.input_ids[:, :16], cu_seqlens=cu_seqlens)
    with pytest.raises(ValueError, match=r"attention_mask must have the shape of input_ids, \[4, 16\]"):
        model(batch.input_ids[:, :16], batch.attention_mask)
