"""What the options change of the pretraining step: each against its formula, written out."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from electra_fast import ops
from electra_fast.errors import ConfigError
from electra_fast.models import ElectraConfig, ElectraPretrainingPair, PretrainingConfig, load_pretrained
from electra_fast.models.embedding_sharing import TABLES
from electra_fast.models.noise import UNUSED
from electra_fast.optim import parameter_groups

V, CLS, SEP, MASK = 300, 1, 2, 3
LENGTHS = (30, 7, 45, 12)
RNG = torch.tensor([1234, 5])
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def make_pair(**options) -> ElectraPretrainingPair:
    fixed = {"vocab_size": V, "cls_token_id": CLS, "sep_token_id": SEP, "mask_token_id": MASK, "initializer_range": 0.1}
    sizes = {"num_hidden_layers": 2, "max_position_embeddings": 64, "sequence_length": 64}
    torch.manual_seed(1)
    return ElectraPretrainingPair(ElectraConfig.small(**(fixed | sizes | options)))


@pytest.fixture
def batch():
    """Packed ``[CLS] … [SEP]`` sequences and a tail of padding."""
    torch.manual_seed(2)
    ids = torch.randint(4, V, (sum(LENGTHS) + 6,))
    cu_seqlens = torch.tensor([0, *LENGTHS]).cumsum(0).int()
    ids[cu_seqlens[:-1]], ids[cu_seqlens[1:] - 1], ids[cu_seqlens[-1] :] = CLS, SEP, 0
    return {"input_ids": ids, "cu_seqlens": cu_seqlens}


@pytest.mark.parametrize(
    "options",
    [
        {"embedding_sharing": "gdes"},
        {"embedding_sharing": "none", "freeze_generator": True},
        {"temperature_schedule": "exponential"},
        {"objective": "mlm"},
        {"objective": "electric"},
        {"objective": "electric", "embedding_sharing": "gdes", "google_exact": True},
        {"initialization": "local", "embedding_sharing": "none"},
    ],
    ids=lambda options: " ".join(map(str, options.values())),
)
def test_every_trained_parameter_gets_a_gradient(batch, options):
    """What DistributedDataParallel needs: none is left out, whichever options are on."""
    pair = make_pair(**options)
    out = pair(**batch, rng=RNG)
    out.loss.backward()
    assert torch.isfinite(out.loss)
    for name, parameter in pair.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


@pytest.mark.parametrize(
    "options",
    [{"objective": "electric", "embedding_sharing": "gdes"}, {"temperature_schedule": "exponential"}],
    ids=["electric gdes", "exponential"],
)
def test_compiles_without_a_break(batch, options):
    pair = make_pair(num_hidden_layers=1, **options)
    out = torch.compile(pair, backend="aot_eager", fullgraph=True)(**batch, rng=RNG)
    torch.testing.assert_close(out.loss, pair(**batch, rng=RNG).loss)


class TestEmbeddingSharing:
    def test_gdes_starts_as_full_sharing(self, batch):
        """With the same weights and Δ = 0 both compute the same."""
        full, gdes = make_pair(**NO_DROPOUT), make_pair(embedding_sharing="gdes", **NO_DROPOUT)
        gdes.generator.load_state_dict(full.generator.state_dict())
        zero = {f"electra.embeddings.{name}.weight": getattr(gdes.embeddings, name).weight for name in TABLES}
        assert not any(table.any() for table in zero.values())
        gdes.discriminator.load_state_dict(full.discriminator.state_dict() | zero)
        assert torch.equal(full(**batch, rng=RNG).loss, gdes(**batch, rng=RNG).loss)

    def test_gdes_keeps_the_discriminators_gradient_from_the_generators_table(self, batch):
        pair = make_pair(embedding_sharing="gdes", generator_weight=0.0)
        pair(**batch, rng=RNG).loss.backward()
        assert not any(p.grad.any() for p in pair.generator.parameters())
        assert all(getattr(pair.embeddings, name).weight.grad.any() for name in TABLES)
        shared = make_pair(generator_weight=0.0)
        shared(**batch, rng=RNG).loss.backward()
        assert shared.generator.electra.embeddings.word_embeddings.weight.grad.any()

    def test_gdes_gradient_of_the_differences_is_that_of_the_table(self, batch):
        """∂/∂Δ at stop_gradient(E) + Δ is ∂/∂E of a discriminator with tables of its own."""
        gdes, none = (make_pair(embedding_sharing=s, generator_weight=0.0, **NO_DROPOUT) for s in ("gdes", "none"))
        none.generator.load_state_dict(gdes.generator.state_dict())
        tables = {f"electra.embeddings.{name}.weight": gdes.embeddings.table(name).detach() for name in TABLES}
        none.discriminator.load_state_dict(gdes.discriminator.state_dict() | tables)
        for pair in (gdes, none):
            pair(**batch, rng=RNG).loss.backward()
        for name in TABLES:
            grads = [getattr(pair.embeddings, name).weight.grad for pair in (gdes, none)]
            torch.testing.assert_close(*grads)

    def test_gdes_saves_the_sum(self, batch, tmp_path):
        pair = make_pair(embedding_sharing="gdes").eval()
        with torch.no_grad():
            for name in TABLES:
                getattr(pair.embeddings, name).weight.normal_(std=0.1)
        pair.save_pretrained(tmp_path)
        saved = load_pretrained(tmp_path / "discriminator")
        ids = batch["input_ids"][None, :30]
        assert torch.equal(saved(ids).logits, pair.discriminator(ids).logits)
        generator, delta = pair.generator.electra.embeddings, pair.embeddings
        total = generator.word_embeddings.weight + delta.word_embeddings.weight
        assert torch.equal(saved.electra.embeddings.word_embeddings.weight, total)
        assert torch.equal(
            load_pretrained(tmp_path / "generator").electra.embeddings.word_embeddings.weight,
            generator.word_embeddings.weight,
        )

    def test_without_sharing_nothing_is_shared(self):
        pair = make_pair(embedding_sharing="none")
        names = [{p.data_ptr() for p in network.parameters()} for network in (pair.discriminator, pair.generator)]
        assert names[0].isdisjoint(names[1])


class TestFrozenGenerator:
    def test_it_is_no_part_of_the_loss_nor_of_the_optimiser(self, batch):
        pair = make_pair(embedding_sharing="gdes", freeze_generator=True)
        out = pair(**batch, rng=RNG)
        torch.testing.assert_close(out.loss, 50 * out.discriminator_loss_sum / out.discriminator_count)
        assert out.generator_loss_sum > 0
        optimised = {p for group in parameter_groups(pair) for p in group["params"]}
        assert optimised.isdisjoint(pair.generator.parameters())
        assert set(pair.discriminator.parameters()) <= optimised

    def test_it_drops_nothing(self, batch):
        pair = make_pair(embedding_sharing="none", freeze_generator=True).train()
        dropped = pair(**batch, rng=RNG)
        pair.eval()
        assert torch.equal(dropped.generator_loss_sum, pair(**batch, rng=RNG).generator_loss_sum)
        assert not torch.equal(dropped.discriminator_loss_sum, pair(**batch, rng=RNG).discriminator_loss_sum)


class TestTemperature:
    def test_schedule(self):
        config = PretrainingConfig(temperature_schedule="exponential", initial_temperature=3.0, total_steps=1000)
        assert config.temperature_at(0) == 3.0
        assert config.temperature_at(100) == pytest.approx(1 + 2 / math.e)
        assert config.temperature_at(1000) == pytest.approx(1, abs=1e-4)
        assert PretrainingConfig(temperature=0.5).temperature_at(7) == 0.5

    @pytest.mark.parametrize("frozen", [{}, {"embedding_sharing": "none", "freeze_generator": True}])
    def test_it_is_that_of_the_samples_alone(self, batch, frozen):
        """The draws are those of a constant temperature; a trained generator's loss is taken at 1."""
        decaying = {"temperature_schedule": "exponential", "initial_temperature": 4.0, "temperature_decay": 0.5}
        pair = make_pair(total_steps=100, **decaying, **frozen)
        pair.anneal(25)
        temperature = pair.config.pretraining.temperature_at(25)
        assert temperature == pytest.approx(1 + 3 * math.exp(-0.5))
        out = pair(**batch, rng=RNG)
        expected = make_pair(temperature=temperature, **frozen)(**batch, rng=RNG)
        assert torch.equal(out.sampled, expected.sampled)
        assert not torch.equal(out.sampled, make_pair(**frozen)(**batch, rng=RNG).sampled)
        if not frozen:
            torch.testing.assert_close(out.generator_loss_sum, expected.generator_loss_sum)

    def test_evaluation_draws_at_the_last(self, batch):
        pair = make_pair(temperature_schedule="exponential", initial_temperature=50.0).eval()
        assert torch.equal(pair(**batch, rng=RNG).sampled, make_pair().eval()(**batch, rng=RNG).sampled)


class TestMaskedLanguageModel:
    def test_one_network_and_its_loss(self, batch):
        pair = make_pair(objective="mlm", **NO_DROPOUT)
        assert pair.discriminator is None
        assert pair.generator.config.hidden_size == 256
        out = pair(**batch, rng=RNG)
        masked = pair.mask(batch["input_ids"], batch["cu_seqlens"], RNG)
        used = masked.targets != UNUSED
        hidden = pair.generator.electra(masked.input_ids, cu_seqlens=batch["cu_seqlens"])
        logits = pair.generator.generator_lm_head(pair.generator.generator_predictions(hidden))
        expected = F.cross_entropy(logits[masked.positions[used]], masked.targets[used])
        torch.testing.assert_close(out.loss, expected)
        assert out.discriminator_count == 0
        assert not out.mask.any()

    def test_it_is_saved_as_a_masked_language_model(self, tmp_path):
        make_pair(objective="mlm").save_pretrained(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["generator"]


class TestElectric:
    def logits(self, pair, batch):
        """Of the two-tower generator at every token, ``[T, V]``, one sequence at a time, with dense causal masks."""
        towers, rows = pair.generator, []
        for begin, end in zip(batch["cu_seqlens"], batch["cu_seqlens"][1:], strict=False):
            ids = batch["input_ids"][begin:end]
            n, zero = len(ids), torch.zeros(1, towers.left.config.hidden_size)
            left = torch.cat([towers_alone(towers.left, ids[: t + 1], range(t + 1)) for t in range(n)])
            right = torch.cat([towers_alone(towers.right, ids[t:].flip(0), range(n - 1, t - 1, -1)) for t in range(n)])
            both = torch.cat([torch.cat([zero, left[:-1]]), torch.cat([right[1:], zero])], dim=1)
            rows.append(towers.predictions(both) @ towers.embeddings.word_embeddings.weight.t() + towers.bias)
        return torch.cat(rows)

    @pytest.mark.parametrize("options", [{}, {"google_exact": True}], ids=["distinct", "google_exact"])
    def test_losses(self, batch, options):
        pair = make_pair(objective="electric", **options, **NO_DROPOUT)
        out = pair(**batch, rng=RNG)
        real = sum(LENGTHS)
        ids = batch["input_ids"]
        log_q = F.log_softmax(self.logits(pair, batch), dim=-1)
        candidate = ~torch.isin(ids[:real], torch.tensor([0, CLS, SEP, MASK]))
        own = log_q.gather(1, ids[:real, None]).squeeze(1)
        torch.testing.assert_close(out.generator_loss_sum, -own[candidate].sum(), rtol=1e-4, atol=0)
        assert out.generator_count == candidate.sum()

        used = out.targets != UNUSED
        corrupted, _ = ops.replace_tokens(ids, out.positions, out.targets, out.sampled)
        chosen = torch.zeros(real, dtype=torch.bool)
        chosen[out.positions[used]] = True
        assert torch.equal(out.labels[:real], chosen)
        hidden = pair.discriminator.electra(corrupted, cu_seqlens=batch["cu_seqlens"])
        energies = pair.discriminator.discriminator_predictions(hidden)[:real]
        log_noise = log_q.gather(1, corrupted[:real, None]).squeeze(1)
        logits = energies + log_noise + math.log(0.15 / 0.85)
        torch.testing.assert_close(out.logits[:real], logits, rtol=1e-3, atol=1e-3)
        expected = F.binary_cross_entropy_with_logits(logits, chosen.float(), reduction="sum")
        torch.testing.assert_close(out.discriminator_loss_sum, expected, rtol=1e-4, atol=0)

    def test_the_noise_has_no_gradient_in_the_energies_loss(self, batch):
        pair = make_pair(objective="electric", generator_weight=0.0, embedding_sharing="none")
        pair(**batch, rng=RNG).loss.backward()
        assert not any(p.grad.any() for p in pair.generator.parameters())

    def test_no_tower_sees_the_token_it_predicts(self, batch):
        """Also in evaluation, where the encoder's layers may run in one call."""
        pair = make_pair(objective="electric").eval()
        text = torch.randn(batch["input_ids"].shape[0], 128)
        changed = text.clone()
        changed[40] += 1.0
        with torch.no_grad():
            before, after = (pair.generator(x, batch["cu_seqlens"], 64, RNG) for x in (text, changed))
        assert torch.equal(before[40], after[40])
        differs = (before != after).any(1)
        assert differs[37:82].sum() == 44
        assert differs.sum() == 44

    def test_only_the_discriminator_is_saved(self, tmp_path):
        make_pair(objective="electric").save_pretrained(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["discriminator"]


def towers_alone(tower, ids, positions):
    """The last hidden state of a causal tower that was given nothing after it."""
    hidden = tower.embeddings(ids, torch.tensor(list(positions)))
    return tower.encode(hidden, torch.tensor([0, len(ids)], dtype=torch.int32), len(ids), RNG)[-1:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "bert"}, "objective must be electra or electric or mlm, got 'bert'"),
        ({"freeze_generator": True}, "freeze_generator needs embedding_sharing gdes or none"),
        (
            {"uniform_generator": True, "embedding_sharing": "gdes"},
            "excludes freeze_generator and embedding_sharing gdes",
        ),
        ({"objective": "electric", "uniform_generator": True}, "objective electric trains its generator"),
        ({"objective": "electric", "disallow_correct": True}, "no disallow_correct"),
        ({"objective": "mlm", "embedding_sharing": "none"}, "objective mlm has one network"),
        ({"masking": "word", "google_exact": True}, "excludes masking word"),
        ({"temperature_decay": 0.0}, "temperature_decay must be greater than 0"),
    ],
)
def test_options_that_exclude_each_other(options, message):
    with pytest.raises(ConfigError, match=message):
        PretrainingConfig(**options)


def test_whole_words_need_to_know_where_they_begin(batch):
    with pytest.raises(ConfigError, match="masking word needs word_starts"):
        make_pair(masking="word")
