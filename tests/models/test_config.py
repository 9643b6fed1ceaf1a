"""ElectraConfig: presets, the generator's sizes, validation, dicts."""

from __future__ import annotations

import dataclasses

import pytest

from electra_fast.errors import ConfigError
from electra_fast.models import ElectraConfig, PretrainingConfig


@pytest.mark.parametrize(
    ("size", "architecture", "generator", "training"),
    [
        ("small", (128, 256, 12, 4, 1024), (64, 12, 1, 256), (128, 5e-4, 128, 0.15, 1_000_000)),
        ("base", (768, 768, 12, 12, 3072), (256, 12, 4, 1024), (512, 2e-4, 256, 0.15, 766_000)),
        ("large", (1024, 1024, 24, 16, 4096), (256, 24, 4, 1024), (512, 2e-4, 2048, 0.25, 400_000)),
    ],
)
def test_presets_carry_everything_of_a_size(size, architecture, generator, training):
    config = getattr(ElectraConfig, size)()
    assert architecture == (
        config.embedding_size,
        config.hidden_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.intermediate_size,
    )
    small = config.generator()
    assert generator == (
        small.hidden_size,
        small.num_hidden_layers,
        small.num_attention_heads,
        small.intermediate_size,
    )
    assert (small.vocab_size, small.embedding_size) == (config.vocab_size, config.embedding_size)
    options = config.pretraining
    assert training == (
        options.sequence_length,
        options.learning_rate,
        options.batch_size,
        options.mask_probability,
        options.total_steps,
    )
    assert (options.warmup_steps, options.discriminator_weight, options.generator_weight) == (10_000, 50, 1)
    assert (options.adam_beta1, options.adam_beta2, options.adam_epsilon, options.weight_decay) == (
        0.9,
        0.999,
        1e-6,
        0.01,
    )
    assert (options.replace_probability, options.temperature, options.disallow_correct) == (0.85, 1, False)
    config.check_pretraining()


def test_defaults_are_hugging_faces():
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    theirs, ours = transformers.ElectraConfig(), ElectraConfig()
    fields = [f.name for f in dataclasses.fields(ours)]
    shared = [name for name in fields if hasattr(theirs, name) and name != "id2label"]
    assert len(shared) >= 20
    assert {name: getattr(ours, name) for name in shared} == {name: getattr(theirs, name) for name in shared}


@pytest.mark.parametrize(("length", "probability", "expected"), [(128, 0.15, 19), (512, 0.15, 79), (512, 0.25, 130)])
def test_googles_cap_on_predictions(length, probability, expected):
    options = PretrainingConfig(sequence_length=length, mask_probability=probability)
    assert options.max_predictions_per_sequence == expected


def test_overrides_reach_both_halves():
    config = ElectraConfig.small(num_hidden_layers=3, mask_probability=0.25, generator_layers_fraction=0.34)
    assert config.num_hidden_layers == 3
    assert config.pretraining.mask_probability == 0.25
    assert config.pretraining.total_steps == 1_000_000
    assert config.generator().num_hidden_layers == 1


def test_another_vocabulary_forgets_berts_special_tokens():
    assert ElectraConfig.small().mask_token_id == 103
    config = ElectraConfig.small(vocab_size=4096)
    assert config.mask_token_id is None
    with pytest.raises(ConfigError, match="pretraining needs cls_token_id"):
        config.check_pretraining()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hiden_size": 256}, "no option 'hiden_size': did you mean 'hidden_size'"),
        ({"learning_rat": 1e-4}, "did you mean 'learning_rate'"),
        ({"qqqqq": 1}, "no option 'qqqqq': known are"),
        ({"hidden_size": 250}, "multiple of num_attention_heads, got 250 and 4"),
        ({"hidden_size": "256"}, r"hidden_size must be int, got '256' \(str\)"),
        ({"num_hidden_layers": True}, r"num_hidden_layers must be int, got True \(bool\)"),
        ({"google_exact": 1}, r"google_exact must be bool, got 1 \(int\)"),
        ({"classifier_dropout": "x"}, "classifier_dropout must be float or none"),
        ({"hidden_dropout_prob": 1.0}, r"hidden_dropout_prob must be in \[0, 1\), got 1.0"),
        ({"mask_probability": 1.5}, r"mask_probability must be in \[0, 1\], got 1.5"),
        ({"vocab_size": 0, "pad_token_id": None}, "vocab_size must be at least 1, got 0"),
        ({"hidden_act": "relu"}, "hidden_act must be 'gelu', got 'relu'"),
        ({"problem_type": "guess"}, "problem_type must be"),
        ({"mask_token_id": 30522}, r"mask_token_id must be in \[0, 30522\)"),
        ({"id2label": {0: "a"}, "num_labels": 2}, "id2label must name the labels 0 to 1"),
        ({"temperature": 0.0}, "temperature must be greater than 0"),
        ({"sequence_length": 2}, "sequence_length must be at least 3"),
        ({"learning_rate": float("nan")}, "learning_rate must be at least 0"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(ConfigError, match=message) as error:
        ElectraConfig.small().replace(**changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sequence_length": 513}, "at most max_position_embeddings"),
        ({"generator_hidden_fraction": 0.001}, "generator would have hidden_size 0"),
        ({"generator_hidden_fraction": 0.78}, "hidden_size 200, 12 layers and 3 attention heads"),
        ({"pad_token_id": None}, "pretraining needs pad_token_id"),
    ],
)
def test_what_cannot_be_pretrained_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        ElectraConfig.small(**changes).check_pretraining()


def test_dict_round_trip():
    config = ElectraConfig.base(num_labels=2, id2label={0: "no", 1: "yes"}, disallow_correct=True)
    assert ElectraConfig.from_dict(config.to_dict()) == config
    values = config.to_dict()
    values["id2label"] = {"0": "no", "1": "yes"}  # as JSON and TOML have it
    assert ElectraConfig.from_dict(values) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"pretraining": {"learning_rte": 1}},
            "PretrainingConfig has no option 'learning_rte': did you mean 'learning_rate'",
        ),
        ({"pretraining": 3}, "PretrainingConfig must be a table of options, got 3"),
        ([1], "ElectraConfig must be a table of options"),
    ],
)
def test_bad_dicts_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        ElectraConfig.from_dict(values)


def test_huggingface_dict_round_trip():
    config = ElectraConfig.base(
        num_labels=3, id2label={0: "a", 1: "b", 2: "c"}, problem_type="single_label_classification"
    )
    values = config.to_huggingface_dict("ElectraForSequenceClassification")
    assert values["architectures"] == ["ElectraForSequenceClassification"]
    assert values["label2id"] == {"a": 0, "b": 1, "c": 2}
    assert "pretraining" not in values
    back = ElectraConfig.from_huggingface_dict(values)
    assert back.replace(pretraining=config.pretraining) == config


def test_unnamed_labels_get_hugging_faces_names():
    values = ElectraConfig(num_labels=3).to_huggingface_dict()
    assert values["id2label"] == {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "bert"}, "type 'bert'"),
        ({"is_decoder": True}, "is_decoder = True"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type = 'relative_key'"),
    ],
)
def test_unsupported_huggingface_configs_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        ElectraConfig.from_huggingface_dict(values)
