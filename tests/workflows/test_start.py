"""Runs that begin with networks trained before: published directories, another run, another vocabulary, longer text."""

import dataclasses
import json
import shutil

import pytest
import torch

from electra_fast.data import PrepareOptions, Tokenizer, prepare
from electra_fast.data.manifest import Manifest
from electra_fast.errors import CheckpointError, ConfigError
from electra_fast.models import load_pretrained
from electra_fast.workflows.pretraining import pretrain, resume
from electra_fast.workflows.pretraining.build import open_training_corpus, resolve
from electra_fast.workflows.pretraining.checkpoint import CheckpointDirectory, load_checkpoint
from electra_fast.workflows.pretraining.loop import TrainingLoop
from electra_fast.workflows.pretraining.start import adopt

from .conftest import TINY, write_text

# What a run that takes its networks from a checkpoint does not say.
SIZES = (
    "num_hidden_layers",
    "hidden_size",
    "embedding_size",
    "num_attention_heads",
    "intermediate_size",
    "generator_hidden_fraction",
    "generator_layers_fraction",
    "max_position_embeddings",
)
WORDS = "electra.embeddings.word_embeddings.weight"
POSITIONS = "electra.embeddings.position_embeddings.weight"


@pytest.fixture
def continued(tiny):
    """Options of a tiny run without sizes."""

    def make(output="run", **changes):
        return dataclasses.replace(tiny(output), **{**dict.fromkeys(SIZES), **changes})

    return make


@pytest.fixture
def released(corpus, tmp_path):
    """``released()``: a discriminator and a generator of other widths and heads, saved by transformers."""
    transformers = pytest.importorskip("transformers", reason="writes what is published")

    def make(spare=0, **changes):
        shared = {
            "vocab_size": Manifest.load(corpus).vocab_size + spare,
            "embedding_size": 16,
            "max_position_embeddings": 40,
        }
        sizes = {
            "discriminator": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
            "generator": {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3},
        }
        classes = {"discriminator": "ElectraForPreTraining", "generator": "ElectraForMaskedLM"}
        models = {}
        for name in classes:
            torch.manual_seed(3)
            config = transformers.ElectraConfig(**shared, **sizes[name], intermediate_size=48, **changes)
            models[name] = getattr(transformers, classes[name])(config)
        for key, tensor in models["discriminator"].electra.embeddings.state_dict().items():
            models["generator"].electra.embeddings.state_dict()[key].copy_(tensor)
        for name, model in models.items():
            model.generator_lm_head.bias.data.normal_() if name == "generator" else None
            model.save_pretrained(tmp_path / "released" / name)
            for file in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copy(corpus / file, tmp_path / "released" / name / file)
        return tmp_path / "released"

    return make


def begun(options):
    """The pair and the notes of a run before its first step."""
    corpus = open_training_corpus(options.data_paths, options.data_weights)
    options, start = adopt(options, corpus)
    loop = TrainingLoop(options, corpus, start=start)
    loop.state.batches.close()
    return loop.state, loop.notes


def test_published_networks_of_different_widths(continued, released, tmp_path):
    """Every weight arrives, and what is saved again is what was loaded."""
    state, notes = begun(continued(init=released()))
    assert notes == []
    generator = state.pair.generator.config
    assert (generator.hidden_size, generator.num_attention_heads, generator.intermediate_size) == (24, 3, 48)
    assert generator.num_hidden_layers == 1
    state.pair.save_pretrained(tmp_path / "again")
    for name in ("discriminator", "generator"):
        first = load_pretrained(tmp_path / "released" / name).state_dict()
        second = load_pretrained(tmp_path / "again" / name).state_dict()
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_such_a_run_trains_and_resumes_without_the_checkpoint(continued, released, tmp_path):
    """Once there is a checkpoint of its own, the one it began with may be gone."""
    folder = released()
    result = pretrain(continued(init=folder, total_steps=1))
    saved = load_pretrained(result.output / "model" / "discriminator").state_dict()
    assert "init = " in (result.output / "config.toml").read_text()
    shutil.rmtree(folder)
    assert resume(result.output).step == 1
    again = load_pretrained(result.output / "model" / "discriminator").state_dict()
    assert all(torch.equal(saved[key], again[key]) for key in saved)


@pytest.mark.parametrize("sharing", ["full", "gdes", "none"])
def test_embeddings_that_differ_are_told_or_kept(continued, released, tmp_path, sharing):
    folder = released()
    generator = load_pretrained(folder / "generator")
    with torch.no_grad():
        generator.electra.embeddings.word_embeddings.weight[7] += 0.25
    generator.save_pretrained(folder / "generator")
    state, notes = begun(continued(init=folder, embedding_sharing=sharing))
    state.pair.save_pretrained(tmp_path / "again")
    words = {
        name: [load_pretrained(place / name).state_dict()[WORDS] for place in (folder, tmp_path / "again")]
        for name in ("discriminator", "generator")
    }
    torch.testing.assert_close(*words["discriminator"], rtol=0, atol=1e-7)
    if sharing == "full":
        assert notes == [
            "the networks' embeddings differ by up to 0.25: the discriminator's are taken for both "
            "(embedding_sharing gdes and none keep each network's)"
        ]
        assert torch.equal(words["generator"][1], words["discriminator"][0])
    else:
        assert notes == []
        assert torch.equal(*words["generator"])


def test_a_discriminator_alone_and_a_generator_alone(continued, released, tiny):
    folder = released()
    state, notes = begun(continued(init_discriminator=folder / "discriminator", generator_hidden_fraction=0.5))
    assert "the generator starts fresh" in notes[0]
    assert "warmup_steps" in notes[0]
    assert state.pair.generator.config.hidden_size == 16
    options = dataclasses.replace(tiny(), max_position_embeddings=None, generator_layers_fraction=None)
    options = dataclasses.replace(options, generator_hidden_fraction=None, init_generator=folder / "generator")
    state, notes = begun(dataclasses.replace(options, hidden_size=36, freeze_generator=True, embedding_sharing="none"))
    assert notes == ["the discriminator starts fresh"]
    assert state.pair.discriminator.config.hidden_size == 36
    assert state.pair.generator.config.hidden_size == 24
    saved = load_pretrained(folder / "generator").state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in state.pair.generator.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 64}, "hidden_size is 32 in the checkpoint, got 64: leave it out"),
        ({"generator_hidden_fraction": 0.5}, r"generator_hidden_fraction is 0\.75 in the checkpoint, got 0\.5"),
        ({"max_position_embeddings": 20}, "max_position_embeddings cannot become smaller than the checkpoint's 40"),
        ({"objective": "mlm"}, "init is for objective electra, got objective mlm"),
        ({"uniform_generator": True}, "has no generator network"),
    ],
)
def test_options_at_odds_with_the_checkpoint(continued, released, changes, message):
    with pytest.raises(ConfigError, match=message):
        begun(continued(init=released(), **changes))


def test_networks_that_do_not_belong_together(continued, released):
    folder = released()
    path = folder / "generator" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"embedding_size": 8}))
    with pytest.raises(ConfigError, match="the discriminator has embedding_size 16, the generator 8"):
        begun(continued(init=folder))


def test_nothing_to_begin_with(continued, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds no networks"):
        begun(continued(init=tmp_path / "empty"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init": "a", "init_generator": "b"}, "leave out init_discriminator and init_generator"),
        ({"init_moments": True}, "init_moments needs init, the directory of a run"),
        ({"transplant": True}, "transplant needs a checkpoint"),
    ],
)
def test_options_of_the_start_that_exclude_each_other(tiny, changes, message):
    with pytest.raises(ConfigError, match=message):
        tiny(**changes)


@pytest.fixture(scope="module")
def long_corpus(corpus, tmp_path_factory):
    """The same tokenizer, examples of up to 72 tokens."""
    folder = tmp_path_factory.mktemp("long")
    write_text(folder / "text.txt", 200, seed=1)
    prepare(
        PrepareOptions(
            inputs=[folder / "text.txt"], output=folder / "corpus", tokenizer=corpus, max_length=72, workers=1
        )
    )
    return folder / "corpus"


def test_a_second_phase_on_longer_sequences(tiny, continued, long_corpus, capsys):
    """Weights and moments of a run go on in another, of longer sequences; rows of the position table are repeated."""
    first = pretrain(tiny("short", max_position_embeddings=40)).output
    with pytest.raises(ConfigError, match="set max_position_embeddings to at least 72"):
        pretrain(continued("long", data=long_corpus, init=first))
    options = continued("long", data=long_corpus, init=first, init_moments=True, max_position_embeddings=72)
    options = dataclasses.replace(options, batch_size=2, learning_rate=0.0, total_steps=1)
    state, notes = begun(dataclasses.replace(options, eval_every=0))
    assert notes == ["position table: 40 rows extended to 72 by repeating them"]
    table = state.pair.embeddings.position_embeddings.weight
    before = load_pretrained(first / "model" / "discriminator").state_dict()[POSITIONS]
    assert torch.equal(table[:40], before)
    assert torch.equal(table[40:], before[:32])
    ids = torch.randint(5, 100, (2, 40))
    logits = load_pretrained(first / "model" / "discriminator")(ids).logits
    assert torch.equal(state.pair.eval().discriminator(ids).logits, logits)
    moments = state.optimizer.state[table]["exp_avg"]
    assert moments[:40].any()
    assert not moments[40:].any()
    assert all(state.optimizer.state[p]["exp_avg_sq"].any() for p in state.pair.discriminator.parameters())
    result = pretrain(options)
    assert result.step == 1
    assert resolve(options_of(result.output), Manifest.load(long_corpus)).pretraining.sequence_length == 72


def options_of(output):
    from electra_fast.workflows.pretraining import PretrainOptions
    from electra_fast.workflows.pretraining.config_file import read_config

    return PretrainOptions.from_mapping(read_config(output / "config.toml"))


def test_moments_of_other_networks_are_refused(tiny, continued):
    first = pretrain(tiny("first", total_steps=1)).output
    with pytest.raises(CheckpointError, match="use the same embedding_sharing"):
        begun(continued("second", init=first, init_moments=True, embedding_sharing="none"))
    newest = CheckpointDirectory(first / "checkpoints").files()[-1]
    saved = load_checkpoint(newest)
    del saved["optimizer"]
    torch.save(saved, newest)
    with pytest.raises(CheckpointError, match=r"the moments in .* lie in parts"):
        begun(continued("second", init=first, init_moments=True))
    shutil.rmtree(first / "checkpoints")
    with pytest.raises(CheckpointError, match="has no checkpoints"):
        begun(continued("second", init=first, init_moments=True))


@pytest.fixture(scope="module")
def other_corpus(tmp_path_factory):
    """The same text with other words in it, and so another vocabulary."""
    folder = tmp_path_factory.mktemp("other")
    write_text(folder / "text.txt", 200)
    text = (folder / "text.txt").read_text()
    (folder / "text.txt").write_text(text.replace("fox", "zebra").replace("king", "dancing"))
    prepare(
        PrepareOptions(inputs=[folder / "text.txt"], output=folder / "corpus", vocab_size=170, max_length=40, workers=1)
    )
    return folder / "corpus"


def test_another_vocabulary(tiny, continued, corpus, other_corpus):
    first = pretrain(tiny("first", total_steps=1)).output
    with pytest.raises(ConfigError, match=r"prepare the corpus with --tokenizer .*, or move .* with --transplant"):
        begun(continued("second", data=other_corpus, init=first))
    state, notes = begun(continued("second", data=other_corpus, init=first, transplant=True))
    old, new = Tokenizer.load(corpus / "tokenizer.json"), Tokenizer.load(other_corpus / "tokenizer.json")
    assert notes[0].startswith(f"vocabulary of {new.vocab_size}: ")
    before = load_pretrained(first / "model" / "generator")
    table, bias = before.state_dict()[WORDS], before.generator_lm_head.bias
    moved = state.pair.generator
    for token, place in new.backend.get_vocab().items():
        if (index := old.backend.token_to_id(token)) is not None:
            assert torch.equal(moved.state_dict()[WORDS][place], table[index]), token
            assert moved.generator_lm_head.bias[place] == bias[index]
    assert pretrain(continued("second", data=other_corpus, init=first, transplant=True, total_steps=1)).step == 1


def test_no_tokenizer_beside_the_checkpoint(continued, released, other_corpus):
    folder = released()
    for path in folder.glob("*/tokenizer*.json"):
        path.unlink()
    assert "has no tokenizer: its" in begun(continued(init=folder))[1][0]
    with pytest.raises(ConfigError, match=r"there is no tokenizer\.json or vocab\.txt beside the checkpoint"):
        begun(continued(init=folder, data=other_corpus))


def test_nothing_to_transplant_is_said(continued, released):
    assert begun(continued(init=released(), transplant=True))[1] == ["transplant: both vocabularies are the same"]


def test_embeddings_of_no_token_are_left_out(continued, released):
    """Some vocabularies are filled up to a round number."""
    folder = released(spare=5)
    state, notes = begun(continued(init=folder))
    size = state.pair.config.vocab_size
    assert f"{size + 5:,} embeddings for {size:,} tokens: those of no token are left out" in notes[0]
    for network in ("discriminator", "generator"):
        saved = load_pretrained(folder / network).state_dict()[WORDS]
        assert torch.equal(getattr(state.pair, network).state_dict()[WORDS], saved[:size])


def test_a_generator_frozen_untrained_is_said_to_be_a_control(tiny, continued, released):
    frozen = {"freeze_generator": True, "embedding_sharing": "none"}
    for options in (
        tiny(**frozen),
        continued(init_discriminator=released() / "discriminator", generator_hidden_fraction=0.5, **frozen),
    ):
        assert begun(options)[1] == [
            "the generator is frozen as it is initialised, which is a control: init_generator gives a trained one"
        ]


def test_every_size_is_left_out():
    assert set(SIZES) <= set(TINY)
