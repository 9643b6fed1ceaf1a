"""One optimiser step: schedule, accumulation, randomness by counter, and losses that are not finite."""

import functools
import itertools
import json

import pytest
import torch

from electra_fast import rng
from electra_fast.data import PackedBatch
from electra_fast.errors import ConfigError, CorpusError, DivergenceError
from electra_fast.ops import MaskedTokens, use_backend
from electra_fast.workflows.pretraining import loop, pretrain, resume, step
from electra_fast.workflows.pretraining.build import build, open_training_corpus, resolve
from electra_fast.workflows.pretraining.step import training_step


@pytest.fixture
def start(tiny):
    """``start(name="value", …)``: a run of these options before its first step."""
    opened = []

    def make(**changes):
        options = tiny(**changes)
        corpus = open_training_corpus(options.data_paths)
        state = build(options, resolve(options, corpus.manifest), corpus, torch.device("cpu"))
        opened.append(state.batches)
        return state

    yield make
    for batches in opened:
        batches.close()


def weights(state):
    return [p.detach().clone() for p in state.pair.parameters()]


def test_first_step_has_no_learning_rate_and_fills_the_moments(start):
    state = start()
    before = weights(state)
    training_step(state)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(state), strict=True))
    assert all(slot["exp_avg_sq"].any() for slot in state.optimizer.state.values())
    training_step(state)
    assert not any(torch.equal(a, b) for a, b in zip(before, weights(state), strict=True))
    assert state.step == 2
    assert state.learning_rate.item() == pytest.approx(1e-3 * (1 - 1 / 8) * 0.5)


def test_weights_are_a_function_of_the_seed(start):
    torch.manual_seed(5)
    first = weights(start())
    torch.manual_seed(6)
    assert all(torch.equal(a, b) for a, b in zip(first, weights(start()), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, weights(start(seed=1)), strict=True))


def test_native_and_reference_make_the_same_updates(start):
    """Masks, samples, both losses, gradients, clipping and optimiser, with dropout, four steps long."""
    states, results = {}, {}
    for backend in ("native", "reference"):
        states[backend] = start(learning_rate=1e-3)
        with use_backend(backend):
            results[backend] = torch.tensor([training_step(states[backend]) for _ in range(4)])
    torch.testing.assert_close(results["native"], results["reference"], rtol=1e-5, atol=0)
    expected = dict(states["reference"].pair.named_parameters())
    for name, ours in states["native"].pair.named_parameters():
        if ".key.bias" not in name:  # has no gradient but rounding, which Adam makes as large as any other
            difference = (ours - expected[name]).norm() / expected[name].norm()
            assert difference < 1e-5, (name, difference)


def joined(batches, tokens):
    """One batch of the sequences of several, padded to ``tokens``."""
    used = [batch.tokens for batch in batches]
    begins = [0, *itertools.accumulate(used)]

    def join(name):
        values = [getattr(batch, name)[:n] for batch, n in zip(batches, used, strict=True)]
        return torch.cat([*values, torch.zeros(tokens - begins[-1], dtype=torch.int64)])

    ends = [b.cu_seqlens[1:] + begin for b, begin in zip(batches, begins, strict=False)]
    cu_seqlens = torch.cat([torch.zeros(1, dtype=torch.int32), *ends])
    parts = (join(name) for name in ("input_ids", "token_type_ids", "position_ids"))
    return PackedBatch(*parts, cu_seqlens, begins[-1], sum(b.sequences for b in batches)), begins


def test_two_accumulated_batches_equal_one_of_twice_the_size(start):
    """Masked tokens differ from batch to batch, so a mean of the batches' means would not do."""
    plain = {
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "temperature": 1e-4,  # the sample is the most likely token, whatever slot it is drawn in
    }
    parts, whole = start(accumulation=2, **plain), start(**plain)
    steps = [[next(parts.batches), next(parts.batches)] for _ in range(3)]
    masks, merged = [], []
    for number, batches in enumerate(steps):
        one, begins = joined(batches, 160)
        merged.append(one)
        each = [parts.pair.mask(b.input_ids, b.cu_seqlens, rng.make(0, 2 * number + i)) for i, b in enumerate(batches)]
        ids = torch.cat([m.input_ids[: b.tokens] for m, b in zip(each, batches, strict=True)])
        ids = torch.cat([ids, torch.zeros(160 - len(ids), dtype=torch.int64)])
        positions = torch.cat(
            [m.positions + begin * (m.targets != -100) for m, begin in zip(each, begins, strict=False)]
        )
        masks.append(MaskedTokens(ids, positions, torch.cat([m.targets for m in each])))
    longest = parts.batches.max_seqlen
    for state, sequence in ((parts, itertools.chain.from_iterable(steps)), (whole, merged)):
        state.batches = _Given(sequence, longest)
    drawn = iter(masks)
    whole.pair.mask = lambda *_: next(drawn)
    for _ in range(3):
        a, b = training_step(parts), training_step(whole)
        torch.testing.assert_close(a, b, rtol=1e-5, atol=0)
    for a, b in zip(parts.pair.parameters(), whole.pair.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


class _Given:
    """Batches given beforehand."""

    def __init__(self, batches, max_seqlen):
        self.batches, self.max_seqlen = iter(batches), max_seqlen

    def __next__(self):
        return next(self.batches)


def test_nothing_random_but_seed_and_counter(start):
    """Two runs interleaved with other draws from torch's generator take the same steps."""
    first, second = start(accumulation=2), start(accumulation=2)
    for _ in range(3):
        a = training_step(first)
        torch.rand(7)
        b = training_step(second)
        assert torch.equal(torch.stack(a), torch.stack(b))


def test_a_compiled_network_takes_the_same_steps(start, monkeypatch):
    """Traced without a break, with accumulation; torch's own operations run as ever, so that no bit may differ."""
    plain = start(accumulation=2, hidden_dropout_prob=0.1)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager", fullgraph=True))
    compiled = start(accumulation=2, hidden_dropout_prob=0.1, compile=True)
    assert compiled.forward is not compiled.network
    for _ in range(3):
        assert torch.equal(torch.stack(training_step(plain)), torch.stack(training_step(compiled)))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_computing_activations_again_changes_no_bit(start, precision):
    states = [start(precision=precision, hidden_dropout_prob=0.1, activation_checkpointing=k) for k in (0, 2, 1)]
    for _ in range(3):
        plain, *others = [torch.stack(training_step(state)) for state in states]
        assert all(torch.equal(plain, other) for other in others)
    for plain, *others in zip(*(weights(state) for state in states), strict=True):
        assert all(torch.equal(plain, other) for other in others)


def test_bf16_autocast_keeps_float32_weights_and_stays_near(start):
    exact, low = start(), start(precision="bf16")
    for _ in range(3):
        a, b = training_step(exact), training_step(low)
    assert a[0].item() == pytest.approx(b[0].item(), rel=0.02)
    assert {p.dtype for p in low.pair.parameters()} == {torch.float32}


def test_weights_that_turn_nan_are_named_not_stumbled_over(tiny, monkeypatch):
    """The forward pass itself gives NaN, which the metrics have to count before the loss is looked at."""

    def spoil(state):
        if state.step == 4:
            with torch.no_grad():
                state.pair.discriminator.electra.encoder.layer[0].output.dense.bias.fill_(float("nan"))
        return training_step(state)

    monkeypatch.setattr(loop, "training_step", spoil)
    with pytest.raises(DivergenceError, match="the loss of step 5 is nan"):
        pretrain(tiny())


def poisoned(monkeypatch, step, what):
    """From that step on, losses or gradients are NaN."""

    def wrapped(state):
        loss, norm = training_step(state)
        if state.step >= step:
            loss, norm = (torch.tensor(float("nan")), norm) if what == "loss" else (loss, torch.tensor(float("inf")))
        return loss, norm

    monkeypatch.setattr(loop, "training_step", wrapped)


@pytest.mark.parametrize(
    ("what", "message"),
    [("loss", "the loss of step 5 is nan"), ("norm", r"the gradients of step 5 are not finite \(norm inf\)")],
)
def test_training_that_diverges_stops_and_keeps_the_last_good_checkpoint(tiny, monkeypatch, what, message):
    poisoned(monkeypatch, 5, what)
    with pytest.raises(DivergenceError, match=rf"{message}; the last good checkpoint is .*step-00000003\.pt"):
        pretrain(tiny())
    monkeypatch.undo()
    result = resume(tiny().output_path)
    assert result.step == 8
    records = [json.loads(line) for line in (result.output / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if r["split"] == "train"] == list(range(1, 9))


def fails_in(monkeypatch, steps):
    """The loss of these steps (from 0) is NaN, and so are all gradients."""
    taken = step.forward

    def wrapped(state, *rest):
        output = taken(state, *rest)
        return output._replace(loss=output.loss * torch.nan) if state.step in steps else output

    monkeypatch.setattr(step, "forward", wrapped)


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_a_step_that_is_not_finite_changes_nothing(start, monkeypatch, backend):
    fails_in(monkeypatch, {2})
    state = start(accumulation=2)
    with use_backend(backend):
        for _ in range(2):
            training_step(state)
        moments = [m.clone() for slot in state.optimizer.state.values() for m in slot.values()]
        before = weights(state)
        assert training_step(state)[0].isnan()
        after = [m for slot in state.optimizer.state.values() for m in slot.values()]
        assert all(torch.equal(a, b) for a, b in zip(before + moments, weights(state) + after, strict=True))
        training_step(state)
    figures = state.metrics.compute()
    assert figures["skipped_steps"] == 1
    assert 0 < figures["loss"] < 100, "the mean of the others"
    assert 0 < figures["generator_loss"] < 10
    assert not any(torch.equal(a, b) for a, b in zip(before, weights(state), strict=True))


def test_skipped_steps_are_said_and_the_run_goes_on(tiny, monkeypatch, capsys):
    fails_in(monkeypatch, {2, 4})
    result = pretrain(tiny(on_nonfinite="skip"))
    assert result.step == 8
    records = [json.loads(line) for line in (result.output / "metrics.jsonl").read_text().splitlines()]
    assert [r["skipped_steps"] for r in records if r["split"] == "train"] == [0, 0, 1, 0, 1, 0, 0, 0]
    said = capsys.readouterr().err
    assert "the loss of step 3 is nan: skipped, the weights are as they were" in said
    assert "the loss of step 5 is nan: skipped" in said


def test_ten_skipped_steps_in_a_row_stop_the_run(tiny, monkeypatch):
    fails_in(monkeypatch, range(4, 20))
    with pytest.raises(DivergenceError, match=r"step 14 is nan, after 9 such steps that were skipped; the last good"):
        pretrain(tiny(on_nonfinite="skip", total_steps=20))


def test_divergence_before_any_checkpoint(tiny, monkeypatch):
    poisoned(monkeypatch, 1, "loss")
    with pytest.raises(DivergenceError, match="the loss of step 1 is nan; no checkpoint was due before"):
        pretrain(tiny())


def test_a_batch_larger_than_the_corpus(start):
    with pytest.raises(CorpusError, match=r"has \d+ tokens for training, fewer than a batch of 160000: lower"):
        start(batch_size=4000)


def test_precision_must_be_decided(start):
    with pytest.raises(ConfigError, match="measure which is faster"):
        start(precision="auto")
