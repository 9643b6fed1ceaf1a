"""Translation models against transformers' EncoderDecoderModel, and decoding with a cache against decoding without."""

from __future__ import annotations

import json
import math

import pytest
import torch
import torch.nn.functional as F

from electra_fast.errors import CheckpointError, ConfigError
from electra_fast.models import ElectraConfig
from electra_fast.models.search import beam_search, greedy_search
from electra_fast.models.translate import CachedDecoding, SearchOptions, translate
from electra_fast.models.translation import ElectraForTranslation, TranslationConfig, shift_right

SOURCES, TARGETS = 60, 40
SPECIAL = {"pad": 0, "cls": 2, "sep": 3, "mask": 4}
LENGTHS, LABEL_LENGTHS = (4, 9, 2), (6, 1, 7)


def config(**changes) -> TranslationConfig:
    encoder = ElectraConfig(
        vocab_size=SOURCES, embedding_size=16, hidden_size=32, num_attention_heads=2, intermediate_size=64,
        num_hidden_layers=2, max_position_embeddings=64,
    )  # fmt: skip
    options = {"layers": 2, "max_length": 24} | changes
    return TranslationConfig.for_encoder(encoder, TARGETS, SPECIAL, **options)


@pytest.fixture
def model() -> ElectraForTranslation:
    made = ElectraForTranslation(config()).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.08)
    return made


def packed(lengths):
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)


def batch():
    ids = torch.randint(5, SOURCES, (sum(LENGTHS),))
    labels = torch.randint(5, TARGETS, (sum(LABEL_LENGTHS),))
    labels[packed(LABEL_LENGTHS)[1:].long() - 1] = SPECIAL["sep"]
    return ids, packed(LENGTHS), labels, packed(LABEL_LENGTHS)


def padded(values, lengths, fill):
    return torch.nn.utils.rnn.pad_sequence(list(values.split(lengths)), batch_first=True, padding_value=fill)


@pytest.fixture
def theirs(model, tmp_path):
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    model.save_pretrained(tmp_path / "saved")
    return transformers.EncoderDecoderModel.from_pretrained(tmp_path / "saved").eval()


def test_logits_and_gradients_are_transformers(model, theirs):
    ids, cu_seqlens, labels, label_cu_seqlens = batch()
    given = shift_right(labels, label_cu_seqlens, SPECIAL["cls"])
    assert [row[0].item() for row in given.split(LABEL_LENGTHS)] == [SPECIAL["cls"]] * 3
    mask, label_mask = (padded(torch.ones(sum(n)), n, 0.0) for n in (LENGTHS, LABEL_LENGTHS))
    expected = theirs(
        input_ids=padded(ids, LENGTHS, 0),
        attention_mask=mask,
        decoder_input_ids=padded(given, LABEL_LENGTHS, 0),
        decoder_attention_mask=label_mask,
    ).logits[label_mask != 0]
    features = model.decoder(given, label_cu_seqlens, 7, model.encode(ids, cu_seqlens))
    torch.testing.assert_close(model.decoder.logits(features), expected, rtol=1e-4, atol=1e-5)

    loss = model(ids, cu_seqlens, labels, label_cu_seqlens).loss
    expected_loss = F.cross_entropy(expected, labels)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=1e-6)
    loss.backward()
    expected_loss.backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name], rtol=1e-3, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_smoothed_loss_is_torchs_on_whole_logits(smoothing):
    decoder = ElectraForTranslation(config()).decoder
    with torch.no_grad():
        decoder.generator_lm_head.bias.normal_()
    features, targets = torch.randn(30, 16, requires_grad=True), torch.randint(0, TARGETS, (30,))
    loss = decoder.loss(features, targets, smoothing)
    expected = F.cross_entropy(decoder.logits(features), targets, label_smoothing=smoothing)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    wanted = (features, decoder.table, decoder.generator_lm_head.bias)
    for a, b in zip(torch.autograd.grad(loss, wanted), torch.autograd.grad(expected, wanted), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_training_drops_and_smooths_and_evaluation_does_not(model):
    arguments = batch()
    plain = model(*arguments).loss
    assert torch.equal(plain, model(*arguments, rng=torch.tensor([7, 0])).loss)
    model.train()
    drawn = [model(*arguments, rng=torch.tensor([seed, 0])).loss for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    sites = [module.site for module in model.modules() if hasattr(module, "site")]
    assert sorted(sites) == list(range(len(sites)))


class Whole:
    """Without a cache: every row, with its source, through the whole decoder at every step."""

    def __init__(self, model, ids, lengths):
        self.model, self.sources = model, list(ids.split(lengths))
        self.rows = [(i, []) for i in range(len(lengths))]

    def step(self, tokens, parents):
        if parents is not None:
            self.rows = [self.rows[i] for i in parents.tolist()]
        self.rows = [(i, [*written, token]) for (i, written), token in zip(self.rows, tokens.tolist(), strict=True)]
        sources = [self.sources[i] for i, _ in self.rows]
        memory = self.model.encode(torch.cat(sources), packed([len(s) for s in sources]))
        lengths = [len(written) for _, written in self.rows]
        ids = torch.tensor([token for _, written in self.rows for token in written])
        features = self.model.decoder(ids, packed(lengths), max(lengths), memory)
        return self.model.decoder.logits(features[packed(lengths)[1:].long() - 1])


@pytest.mark.parametrize("beams", [1, 2, 4])
def test_the_cache_changes_nothing(model, beams):
    ids, cu_seqlens, *_ = batch()
    limits = torch.tensor([8, 14, 11])
    ends = {"start": SPECIAL["cls"], "end": SPECIAL["sep"]}

    def search(decoding):
        if beams == 1:
            return greedy_search(decoding, limits, **ends)
        return beam_search(decoding, limits, beams=beams, alpha=0.6, best=2, **ends)

    with torch.no_grad():
        cached = search(CachedDecoding(model, model.encode(ids, cu_seqlens)))
        whole = search(Whole(model, ids, LENGTHS))
    for a, b in zip(cached, whole, strict=True):
        assert [h.tokens for h in a] == [h.tokens for h in b]
        assert [h.score for h in a] == pytest.approx([h.score for h in b], abs=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_sentence_does_not_depend_on_its_batch(model, beams):
    ids, cu_seqlens, *_ = batch()
    options = SearchOptions(beams=beams, longest_ratio=1.0, longest_extra=6)
    together = translate(model, ids, cu_seqlens, options=options)
    alone = [translate(model, part, packed((len(part),)), options=options)[0] for part in ids.split(LENGTHS)]
    assert [[h.tokens for h in found] for found in together] == [[h.tokens for h in found] for found in alone]
    longest = [max(len(h.tokens) for h in found) for found in together]
    assert all(length < n + 6 for length, n in zip(longest, LENGTHS, strict=True))


def test_greedy_is_transformers_generate(model, theirs):
    ids, cu_seqlens, *_ = batch()
    ours = translate(model, ids, cu_seqlens, options=SearchOptions(beams=1, longest_ratio=0.0, longest_extra=12))
    generated = theirs.generate(
        input_ids=padded(ids, LENGTHS, 0),
        attention_mask=padded(torch.ones(sum(LENGTHS)), LENGTHS, 0.0),
        do_sample=False,
        num_beams=1,
        max_new_tokens=11,  # ours ends the twelfth by force
    )
    expected = [row[1:].tolist() for row in generated]
    expected = [row[: row.index(SPECIAL["sep"])] if SPECIAL["sep"] in row else row for row in expected]
    assert [found[0].tokens for found in ours] == expected


def test_round_trips(model, theirs, tmp_path):
    loaded = ElectraForTranslation.from_pretrained(tmp_path / "saved")
    assert loaded.config == model.config
    theirs.save_pretrained(tmp_path / "again")
    again = ElectraForTranslation.from_pretrained(tmp_path / "again")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])
        assert torch.equal(tensor, again.state_dict()[name])
    assert ElectraForTranslation.from_pretrained(tmp_path / "saved", dtype=torch.bfloat16).decoder.table.dtype == (
        torch.bfloat16
    )


def test_a_pretrained_encoder_is_taken_over(make_huggingface, tmp_path):
    theirs = make_huggingface("ElectraForPreTraining")
    theirs.save_pretrained(tmp_path)
    encoder = ElectraConfig.from_huggingface_dict(theirs.config.to_dict())
    made = ElectraForTranslation.from_encoder(TranslationConfig.for_encoder(encoder, TARGETS, SPECIAL), tmp_path)
    assert torch.equal(
        made.encoder.encoder.layer[1].output.dense.weight, theirs.electra.encoder.layer[1].output.dense.weight
    )
    assert made.training
    ids = torch.randint(5, SOURCES, (1, 7))
    hidden = made.eval().encode(ids[0], packed((7,))).hidden
    torch.testing.assert_close(hidden, theirs.electra(ids).last_hidden_state[0], rtol=1e-4, atol=1e-5)


def test_a_fresh_decoder_starts_near_even_odds(model):
    fresh = ElectraForTranslation(config()).eval()
    assert abs(fresh(*batch()).loss.item() - math.log(TARGETS)) < 1.5


def test_damaged_directories_are_named(model, tmp_path):
    model.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    wrong = values | {"decoder": values["decoder"] | {"num_hidden_layers": 3}}
    (tmp_path / "config.json").write_text(json.dumps(wrong))
    with pytest.raises(CheckpointError, match=r"does not hold what its config promises: .*layer\.2"):
        ElectraForTranslation.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(values | {"decoder": dict(values["decoder"], is_decoder=False)}))
    with pytest.raises(ConfigError, match="decoder must have is_decoder and add_cross_attention"):
        ElectraForTranslation.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(values["encoder"]))
    with pytest.raises(ConfigError, match="'electra': a translation model's"):
        ElectraForTranslation.from_pretrained(tmp_path)


def test_wrong_calls_are_refused(model):
    ids, cu_seqlens, labels, label_cu_seqlens = batch()
    with pytest.raises(ValueError, match="as many entries as cu_seqlens, 4, got 3"):
        model(ids, cu_seqlens, labels, label_cu_seqlens[:-1])
    with pytest.raises(ValueError, match=r"at most 24 tokens .* got 25"):
        model(ids, cu_seqlens, labels, label_cu_seqlens, label_max_seqlen=25)
    with pytest.raises(ValueError, match=r"call model\.eval"):
        translate(model.train(), ids, cu_seqlens)


@pytest.mark.parametrize("wrong", [{"beams": 0}, {"best": 5}, {"length_penalty": -1.0}])
def test_wrong_search_options_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SearchOptions(**wrong)


def test_configurations_that_cannot_be():
    fine = config()
    with pytest.raises(ConfigError, match="the same hidden_size, got 32 and 48"):
        fine.replace(decoder=fine.decoder.replace(hidden_size=48))
    with pytest.raises(ConfigError, match="needs sep_token_id"):
        fine.replace(decoder=fine.decoder.replace(sep_token_id=None))
