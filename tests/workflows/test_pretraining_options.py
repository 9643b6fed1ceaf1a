"""Options of pretraining: one table for Python, command line and TOML, every mistake a line that says what to do."""

import dataclasses

import pytest

from electra_fast.data import Manifest
from electra_fast.errors import ConfigError
from electra_fast.models import ElectraConfig, PretrainingConfig
from electra_fast.workflows.pretraining import PretrainOptions
from electra_fast.workflows.pretraining.build import resolve, resolved
from electra_fast.workflows.pretraining.config_file import read_config, write_config
from electra_fast.workflows.pretraining.options import parse_duration


def test_every_hyperparameter_of_the_recipe_is_an_option():
    options = {field.name for field in dataclasses.fields(PretrainOptions)}
    assert {field.name for field in dataclasses.fields(PretrainingConfig)} <= options


def test_every_option_has_help_and_a_panel():
    for field in dataclasses.fields(PretrainOptions):
        assert field.metadata["help"].endswith((".", ")"))
        assert field.metadata["panel"]


def test_config_file_round_trip(tmp_path):
    options = PretrainOptions(
        data=tmp_path / "a corpus", output=tmp_path, adam_epsilon=1e-12, compile=True, total_steps=7, learning_rate=3e-4
    )
    path = tmp_path / "config.toml"
    write_config(path, options.to_dict(), "why\nand how")
    assert path.read_text().startswith("# why\n# and how\n")
    assert PretrainOptions.from_mapping(read_config(path)) == options


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("leraning_rate = 1e-3", "no option 'leraning_rate': did you mean 'learning_rate'"),
        ("hidden_size = 'wide'", "hidden_size must be int or none, got 'wide'"),
        ("batch_size = 2.5", "batch_size must be int"),
        ("seed = true", "seed must be int"),
        ("model = 'huge'", "model must be small, base or large, got 'huge'"),
        ("precision = 'fp16'", "precision must be auto, fp32 or bf16"),
        ("max_time = 'soon'", r"max_time must be a duration such as 90 \(seconds\), 5m or 1h30m, got 'soon'"),
        ("max_time = 10\ntotal_steps = 3", "exclude each other"),
        ("keep = 0", "keep must be at least 1"),
        (f"seed = {2**63 - 1 + 1}", "seed must be below"),
        ("a = = 1", "not a TOML file"),
    ],
)
def test_config_file_mistakes_name_the_file(tmp_path, text, message):
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as raised:
        read_config(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_missing_config_file(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*No such file"):
        read_config(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("given", "seconds"), [(90, 90), (0.5, 0.5), ("90", 90), ("45s", 45), ("5m", 300), ("1.5h", 5400), ("1h2m3s", 3723)]
)
def test_durations(given, seconds):
    assert parse_duration(given) == seconds


@pytest.mark.parametrize("given", ["", "m", "-3", 0, "5 minutes", "1m1h", "1h30"])
def test_no_durations(given):
    with pytest.raises(ConfigError, match="max_time must be a duration"):
        parse_duration(given)


@pytest.mark.parametrize(("name", "path"), [("data", "data_paths"), ("output", "output_path")])
def test_missing_paths_are_asked_for(name, path):
    with pytest.raises(ConfigError, match=f"{name} is missing.*--{name}"):
        getattr(PretrainOptions(), path)


def test_size_brings_all_its_values_and_the_corpus_its_vocabulary(corpus):
    manifest = Manifest.load(corpus)
    config = resolve(PretrainOptions(data=corpus, model="base", total_steps=500_000), manifest)
    base = ElectraConfig.base()
    assert config.hidden_size == base.hidden_size
    assert config.vocab_size == manifest.vocab_size
    assert config.mask_token_id == manifest.special_tokens["mask"]
    expected = dataclasses.replace(base.pretraining, sequence_length=40, total_steps=500_000)
    assert config.pretraining == expected


def test_warm_up_is_at_most_a_tenth_unless_given(corpus):
    manifest = Manifest.load(corpus)
    assert resolve(PretrainOptions(total_steps=1000), manifest).pretraining.warmup_steps == 100
    assert resolve(PretrainOptions(), manifest).pretraining.warmup_steps == 10_000
    assert resolve(PretrainOptions(total_steps=1000, warmup_steps=500), manifest).pretraining.warmup_steps == 500


def test_resolved_options_repeat_themselves(corpus, tiny):
    import torch

    manifest = Manifest.load(corpus)
    options = dataclasses.replace(tiny(), threads=None)
    config = resolve(options, manifest)
    spelled_out = resolved(options, config, torch.device("cpu"))
    assert resolve(spelled_out, manifest) == config
    assert spelled_out.threads == torch.get_num_threads()
    assert None not in [getattr(spelled_out, f.name) for f in dataclasses.fields(PretrainingConfig)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sequence_length": 39}, "sequence_length must be at least 40, the longest example.*--max-length 39"),
        (
            {"max_position_embeddings": 32},
            "longer than the position table of 32: set max_position_embeddings to at least 40",
        ),
        ({"hidden_size": 30, "num_attention_heads": 4}, "hidden_size must be a multiple of num_attention_heads"),
        ({"accumulation": 3}, "accumulation must divide batch_size, got 3 and batch_size 4"),
        ({"mask_probability": 1.5}, "mask_probability must be in"),
        ({"generator_layers_fraction": 0.1}, "generator_layers_fraction"),
    ],
)
def test_values_that_do_not_go_together(corpus, tiny, changes, message):
    with pytest.raises(ConfigError, match=message):
        resolve(tiny(**changes), Manifest.load(corpus))
