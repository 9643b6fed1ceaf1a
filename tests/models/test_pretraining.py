"""The pretraining step, against the same step composed of transformers' models, and on every backend."""

from __future__ import annotations

import math

import pytest
import torch

from electra_fast import ops
from electra_fast.errors import ConfigError
from electra_fast.models import ElectraConfig, ElectraPretrainingPair
from electra_fast.models.pretraining import UNUSED

V, PAD, CLS, SEP, MASK = 300, 0, 1, 2, 3
LENGTHS = (30, 7, 0, 45, 12)
TAIL = 6  # padding after the last sequence


def make_config(**options) -> ElectraConfig:
    tokens = {"vocab_size": V, "cls_token_id": CLS, "sep_token_id": SEP, "mask_token_id": MASK}
    sizes = {"num_hidden_layers": 2, "max_position_embeddings": 64, "sequence_length": 64}
    return ElectraConfig.small(**(tokens | sizes | {"initializer_range": 0.1} | options))


NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def make_pair(**options) -> ElectraPretrainingPair:
    torch.manual_seed(1)
    return ElectraPretrainingPair(make_config(**options))


@pytest.fixture
def batch():
    """Packed ``[CLS] … [SEP] … [SEP]`` sequences and a tail of padding."""
    ids = torch.randint(4, V, (sum(LENGTHS) + TAIL,))
    types, start = torch.zeros_like(ids), 0
    for length in LENGTHS:
        if length:
            ids[start], ids[start + length // 2], ids[start + length - 1] = CLS, SEP, SEP
            types[start + length // 2 + 1 : start + length] = 1
        start += length
    ids[start:] = PAD
    cu_seqlens = torch.tensor([0, *LENGTHS]).cumsum(0).int()
    return {"input_ids": ids, "token_type_ids": types, "cu_seqlens": cu_seqlens}


RNG = torch.tensor([1234, 5])


@pytest.mark.parametrize(("size", "joint"), [("small", 14.20), ("base", 119.39), ("large", 354.66)])
def test_parameter_counts(size, joint):
    config = getattr(ElectraConfig, size)()
    with torch.device("meta"):
        pair = ElectraPretrainingPair(config)

    def millions(module):
        return sum(p.numel() for p in module.parameters()) / 1e6

    encoder = {"small": 13.48, "base": 108.89, "large": 334.09}[size]
    discriminator = {"small": 13.55, "base": 109.48, "large": 335.14}[size]
    assert millions(pair.discriminator.electra) == pytest.approx(encoder, abs=0.005)
    assert millions(pair.discriminator) == pytest.approx(discriminator, abs=0.005)
    assert millions(pair) == pytest.approx(joint, abs=0.005)


def test_one_embedding_module_for_both():
    pair = make_pair()
    generator, discriminator = pair.generator, pair.discriminator
    assert generator.electra.embeddings is discriminator.electra.embeddings
    assert generator.generator_lm_head.weight is pair.embeddings.word_embeddings.weight
    assert generator.electra.embeddings_project.weight.shape == (64, 128)
    assert discriminator.electra.embeddings_project.weight.shape == (256, 128)
    sites = [
        m.site
        for network in (generator, discriminator)
        for m in network.electra.encoder.modules()
        if hasattr(m, "site")
    ]
    assert sites == [*range(1000, 1006), *range(2000, 2006)]


def test_what_a_step_returns(batch):
    pair = make_pair()
    out = pair(**batch, rng=RNG)
    ids, real = batch["input_ids"], sum(LENGTHS)
    used = out.targets != UNUSED
    assert out.generator_count == used.sum() == sum(max(1, round(n * 0.15)) for n in LENGTHS if n)
    assert out.discriminator_count == real == out.mask.sum()
    assert out.mask[:real].all()
    assert torch.equal(ids[out.positions[used]], out.targets[used])
    assert not torch.isin(out.targets[used], torch.tensor([PAD, CLS, SEP, MASK])).any()
    corrupted = ids.clone()
    corrupted[out.positions[used]] = out.sampled[used]
    assert torch.equal(out.labels, corrupted != ids)
    expected = out.generator_loss_sum / used.sum() + 50 * out.discriminator_loss_sum / real
    torch.testing.assert_close(out.loss, expected)
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    torch.testing.assert_close(
        out.discriminator_loss_sum, bce(out.logits[:real], out.labels[:real].float(), reduction="sum")
    )
    assert not out.logits.requires_grad
    assert not out.generator_loss_sum.requires_grad
    out.loss.backward()
    assert all(p.grad is not None for p in pair.parameters())


def test_the_step_composed_of_transformers_models(batch, tmp_path, relative_error):
    """Same masks and samples: losses within 1e-5, gradients of every parameter within 1e-4 of the composition's."""
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    pair = make_pair(**NO_DROPOUT)
    pair.save_pretrained(tmp_path)
    generator = transformers.ElectraForMaskedLM.from_pretrained(tmp_path / "generator").train()
    discriminator = transformers.ElectraForPreTraining.from_pretrained(tmp_path / "discriminator").train()

    out = pair(**batch, rng=RNG)
    out.loss.backward()

    masked = pair.mask(batch["input_ids"], batch["cu_seqlens"], RNG)
    used = out.targets != UNUSED
    labels = torch.full_like(batch["input_ids"], -100)
    labels[out.positions[used]] = out.targets[used]
    corrupted = batch["input_ids"].clone()
    corrupted[out.positions[used]] = out.sampled[used]

    def padded(x, fill):
        rows = [x[a:b] for a, b in zip(batch["cu_seqlens"], batch["cu_seqlens"][1:], strict=False) if b > a]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=fill)

    types = padded(batch["token_type_ids"], 0)
    mask = padded(torch.ones_like(labels), 0)
    first = generator(
        padded(masked.input_ids, PAD), attention_mask=mask, token_type_ids=types, labels=padded(labels, -100)
    ).loss
    second = discriminator(
        padded(corrupted, PAD), attention_mask=mask, token_type_ids=types, labels=padded(out.labels.long(), 0)
    ).loss
    (first + 50 * second).backward()

    torch.testing.assert_close(out.generator_loss_sum / out.generator_count, first.detach(), rtol=1e-5, atol=0)
    torch.testing.assert_close(out.discriminator_loss_sum / out.discriminator_count, second.detach(), rtol=1e-5, atol=0)
    expected = {}
    for prefix, network in (("discriminator.", discriminator), ("generator.", generator)):
        for name, p in network.named_parameters():
            name = name if name.startswith("electra.embeddings.") else prefix + name
            expected[name] = expected.get(name, 0) + p.grad
    for name, p in pair.named_parameters():
        key = name.removeprefix("discriminator.") if "electra.embeddings." in name else name
        if ".key.bias" not in name:
            assert relative_error(p.grad, expected[key]) < 1e-4, name


def run_on(backend: str | None, pair, batch):
    pair.zero_grad()
    if backend is None:
        out = pair(**batch, rng=RNG)
        out.loss.backward()
    else:
        with ops.use_backend(backend):
            out = pair(**batch, rng=RNG)
            out.loss.backward()
    return out, {name: p.grad.clone() for name, p in pair.named_parameters()}


@pytest.mark.parametrize(
    "options", [{}, NO_DROPOUT, {"google_exact": True}], ids=["dropout", "no dropout", "google_exact"]
)
def test_native_and_reference_take_the_same_step(batch, relative_error, options):
    """Masks and dropout bits equal; samples equal but for ties; gradients within 1e-5."""
    if missing := [op for op, table in ops.backends().items() if table["native"] is not None]:
        pytest.skip(f"the native library does not run {', '.join(missing)}")
    pair = make_pair(**options)
    native, gradients = run_on("native", pair, batch)
    reference, expected = run_on("reference", pair, batch)
    assert torch.equal(native.positions, reference.positions)
    assert torch.equal(native.targets, reference.targets)
    assert torch.equal(native.sampled, reference.sampled)
    assert torch.equal(native.labels, reference.labels)
    torch.testing.assert_close(native.loss, reference.loss, rtol=1e-5, atol=0)
    for name, gradient in gradients.items():
        if ".key.bias" not in name:
            assert relative_error(gradient, expected[name]) < 1e-5, name


def test_a_step_is_a_function_of_rng(batch):
    pair = make_pair()
    a, b, c = (pair(**batch, rng=rng) for rng in (RNG, RNG, RNG + 1))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not torch.equal(a.positions, c.positions)
    torch.manual_seed(7)
    drawn = pair(**batch)
    torch.manual_seed(7)
    assert torch.equal(drawn.loss, pair(**batch).loss)


def test_both_passes_drop_their_embeddings_apart(batch):
    """One module, two sites: with equal sites both passes would drop the same embeddings."""
    pair = make_pair()
    seen = []
    pair.embeddings.register_forward_hook(lambda module, args, output: seen.append(output))
    pair(**batch, rng=RNG)
    assert not torch.equal(seen[0] == 0, seen[1] == 0)


def test_given_normalizers_divide_the_sums(batch):
    pair = make_pair()
    out = pair(**batch, rng=RNG, normalizers=(torch.tensor(40.0), 400))
    torch.testing.assert_close(out.loss, out.generator_loss_sum / 40 + 50 * out.discriminator_loss_sum / 400)
    masked = pair.mask(batch["input_ids"], batch["cu_seqlens"], RNG)
    assert (masked.targets != UNUSED).sum() == out.generator_count
    assert torch.equal(pair(**batch, rng=RNG, masked=masked).loss, pair(**batch, rng=RNG).loss)


def test_evaluation_draws_masks_but_drops_nothing(batch):
    pair = make_pair().eval()
    with torch.no_grad():
        out = pair(**batch, rng=RNG)
        assert torch.equal(out.loss, pair(**batch, rng=RNG).loss)
    with torch.no_grad():
        again = make_pair(**NO_DROPOUT)(**batch, rng=RNG)
    torch.testing.assert_close(out.loss, again.loss)


def test_default_places_are_those_of_the_sequences(batch):
    pair = make_pair()
    out = pair(batch["input_ids"], cu_seqlens=batch["cu_seqlens"], rng=RNG)
    positions = torch.cat([torch.arange(n) for n in (*LENGTHS, TAIL)])
    given = pair(
        batch["input_ids"],
        torch.zeros_like(positions),
        positions,
        cu_seqlens=batch["cu_seqlens"],
        rng=RNG,
        max_seqlen=45,
    )
    torch.testing.assert_close(out.loss, given.loss)


def test_padding_changes_nothing(batch):
    pair = make_pair()
    a = pair(**batch, rng=RNG)
    batch["input_ids"][-TAIL:] = 17
    b = pair(**batch, rng=RNG)
    torch.testing.assert_close(a.loss, b.loss)
    parameters = [p for name, p in pair.named_parameters() if "embeddings.word" in name]
    (gradient,) = torch.autograd.grad(b.discriminator_loss_sum * 0 + b.loss, parameters)
    (expected,) = torch.autograd.grad(a.loss, parameters)
    torch.testing.assert_close(gradient, expected)


def test_disallow_correct_never_samples_the_original(batch):
    pair = make_pair(disallow_correct=True, temperature=0.01)
    with torch.no_grad():
        pair.generator.generator_lm_head.weight.zero_()
        for step in range(5):
            out = pair(**batch, rng=torch.tensor([9, step]))
            used = out.targets != UNUSED
            assert (out.sampled[used] != out.targets[used]).all()
            assert out.labels.sum() == used.sum()


def test_uniform_generator_has_no_network(batch):
    pair = make_pair(uniform_generator=True, mask_probability=0.5)
    assert pair.generator is None
    out = pair(**batch, rng=RNG)
    assert (out.generator_loss_sum / out.generator_count).item() == pytest.approx(math.log(V), rel=1e-5)
    out.loss.backward()
    assert all(p.grad is not None for p in pair.parameters())
    steps = [pair(**batch, rng=torch.tensor([seed, 0])) for seed in range(6)]
    samples = torch.cat([step.sampled[step.targets != UNUSED] for step in steps])
    assert samples.unique().numel() > 130  # of 282 draws over 300 tokens some 183 are expected


def test_google_exact_draws_with_replacement_under_its_cap(batch):
    pair = make_pair(google_exact=True, sequence_length=20, mask_probability=0.3)
    out = pair(**batch, rng=RNG)
    assert pair.config.pretraining.max_predictions_per_sequence == 6
    expected = sum(max(1, min(6, round(n * 0.3))) for n in LENGTHS if n)
    assert out.generator_count == expected


def test_a_batch_without_tokens_has_no_loss():
    pair = make_pair()
    out = pair(torch.zeros(8, dtype=torch.long), cu_seqlens=torch.tensor([0, 0, 0], dtype=torch.int32), rng=RNG)
    assert out.loss == 0
    out.loss.backward()
    assert not any(p.grad.any() for p in pair.parameters() if p.grad is not None)


def test_autocast(batch):
    pair = make_pair()
    with torch.autocast("cpu", torch.bfloat16):
        out = pair(**batch, rng=RNG)
    expected = pair(**batch, rng=RNG)
    assert torch.equal(out.positions, expected.positions)
    torch.testing.assert_close(out.loss, expected.loss, rtol=0.05, atol=0)
    assert out.loss.dtype == torch.float32
    out.loss.backward()
    assert all(p.grad.dtype == torch.float32 for p in pair.parameters())


def test_compiles_without_a_break(batch):
    pair = make_pair(num_hidden_layers=1)
    out = torch.compile(pair, backend="aot_eager", fullgraph=True)(**batch, rng=RNG)
    out.loss.backward()
    gradients = {name: p.grad.clone() for name, p in pair.named_parameters()}
    pair.zero_grad()
    expected = pair(**batch, rng=RNG)
    expected.loss.backward()
    assert torch.equal(out.sampled, expected.sampled)
    torch.testing.assert_close(out.loss, expected.loss, rtol=1e-5, atol=0)
    for name, p in pair.named_parameters():
        torch.testing.assert_close(gradients[name], p.grad, rtol=1e-3, atol=1e-4 * p.grad.abs().max().item() + 1e-6)


def test_uniform_pair_saves_its_discriminator_only(tmp_path):
    make_pair(uniform_generator=True).save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["discriminator"]


def test_mistakes_are_named(batch):
    with pytest.raises(ConfigError, match="pretraining needs cls_token_id"):
        ElectraPretrainingPair(ElectraConfig.small(vocab_size=V, num_hidden_layers=1))
    with pytest.raises(ValueError, match="cu_seqlens must be given"):
        make_pair()(batch["input_ids"])
