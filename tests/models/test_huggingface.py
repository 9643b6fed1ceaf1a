"""Hugging Face directories: every class loaded and saved, bit for bit; old files, shards, bad files."""

from __future__ import annotations

import json

import pytest
import torch

import electra_fast
from electra_fast.errors import CheckpointError, ConfigError
from electra_fast.models import (
    ElectraConfig,
    ElectraForMaskedLM,
    ElectraForSequenceClassification,
    ElectraForTokenClassification,
    ElectraModel,
    ElectraPretrainingPair,
    huggingface,
    load_config,
    load_pretrained,
    save_pretrained,
)

TINY = {
    "vocab_size": 60,
    "embedding_size": 16,
    "hidden_size": 24,
    "num_attention_heads": 2,
    "intermediate_size": 40,
    "max_position_embeddings": 32,
}


@pytest.fixture
def saved(make_huggingface, tmp_path):
    """Save a tiny `transformers` model; returns it and its directory."""

    def save(name: str = "ElectraForPreTraining", **options):
        model = make_huggingface(name, **(TINY | options))
        model.save_pretrained(tmp_path / "theirs")
        return model, tmp_path / "theirs"

    return save


def assert_same_weights(ours, theirs):
    expected = theirs.state_dict()
    assert list(ours) == list(expected)
    for name, tensor in ours.items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", huggingface.CLASSES)
def test_round_trip_to_the_bit(saved, tmp_path, name, dtype):
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    theirs, _ = saved(name)
    theirs.to(dtype).save_pretrained(tmp_path / "theirs")
    ours = load_pretrained(tmp_path / "theirs")
    assert type(ours).__name__ == name
    assert not ours.training
    assert_same_weights(ours.state_dict(), theirs)
    save_pretrained(ours, tmp_path / "ours")
    back, info = getattr(transformers, name).from_pretrained(tmp_path / "ours", output_loading_info=True, dtype=dtype)
    assert not any(info.values()), info
    assert_same_weights(back.state_dict(), theirs)
    assert back.config.to_diff_dict().keys() == theirs.config.to_diff_dict().keys() - {"pad_token_id"} | (
        back.config.to_diff_dict().keys() & {"pad_token_id"}
    )


@pytest.mark.parametrize("name", huggingface.CLASSES)
def test_what_we_make_transformers_loads(tmp_path, name):
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    labels = 2 if name == "ElectraForQuestionAnswering" else 3
    ours = huggingface.CLASSES[name](ElectraConfig(num_hidden_layers=1, num_labels=labels, **TINY))
    ours.save_pretrained(tmp_path)
    back, info = getattr(transformers, name).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    assert back.config.num_labels == labels
    assert back.config.architectures == [name]


def test_fields_of_the_config_are_changed_by_name(saved):
    _, directory = saved("ElectraForSequenceClassification", id2label={0: "no", 1: "yes"}, label2id={"no": 0, "yes": 1})
    weights = directory / "model.safetensors"
    assert ElectraForSequenceClassification.from_pretrained(directory, hidden_dropout_prob=0.0).config.num_labels == 2
    with pytest.raises(CheckpointError, match=r"must have shape \[3, 24\]"):  # there is a head, for two labels
        ElectraForSequenceClassification.from_pretrained(directory, num_labels=3)
    ElectraModel.from_pretrained(directory).save_pretrained(directory)
    assert weights.exists()
    with pytest.warns(UserWarning, match="newly initialised"):
        model = ElectraForSequenceClassification.from_pretrained(directory, num_labels=3)
    assert model.classifier.out_proj.weight.shape == (3, 24)
    with pytest.raises(ConfigError, match="num_label"):
        ElectraForSequenceClassification.from_pretrained(directory, num_label=3)


def test_an_untied_projection_is_refused(saved):
    model, directory = saved("ElectraForMaskedLM", tie_word_embeddings=False)
    with torch.no_grad():
        model.generator_lm_head.weight.add_(1.0)
    model.save_pretrained(directory)
    with pytest.raises(CheckpointError, match="tie_word_embeddings=False"):
        ElectraForMaskedLM.from_pretrained(directory)


def test_the_tied_weight_is_tied_again(saved):
    theirs, directory = saved("ElectraForMaskedLM")
    ours = load_pretrained(directory)
    assert ours.generator_lm_head.weight is ours.electra.embeddings.word_embeddings.weight
    assert torch.equal(ours.generator_lm_head.bias, theirs.generator_lm_head.bias)


def test_loaded_models_train(saved, make_batch):
    _, directory = saved()
    model = load_pretrained(directory).train()
    batch = make_batch(vocabulary=60, lengths=(9, 4))
    model(**batch.inputs(), labels=torch.ones_like(batch.input_ids)).loss.backward()
    assert all(p.grad is not None and p.is_leaf for p in model.parameters())


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_every_file_layout(saved, kind, sharded):
    theirs, directory = saved()
    if kind == "safetensors":
        theirs.save_pretrained(directory, max_shard_size="20KB" if sharded else "1GB")
        if sharded:
            (directory / "model.safetensors").unlink()
            assert len(list(directory.glob("model-*.safetensors"))) > 1
    else:
        (directory / "model.safetensors").unlink()
        weights = theirs.state_dict()
        if sharded:
            names = list(weights)
            parts = {"a.bin": names[::2], "b.bin": names[1::2]}
            for file, part in parts.items():
                torch.save({name: weights[name] for name in part}, directory / file)
            index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
            (directory / "pytorch_model.bin.index.json").write_text(json.dumps(index))
        else:
            torch.save(weights, directory / "pytorch_model.bin")
    assert_same_weights(load_pretrained(directory).state_dict(), theirs)


def test_old_names_and_buffers(saved):
    theirs, directory = saved()
    weights = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): x
        for name, x in theirs.state_dict().items()
    }
    weights["electra.embeddings.position_ids"] = torch.arange(32).unsqueeze(0)
    weights["electra.embeddings.token_type_ids"] = torch.zeros(1, 32, dtype=torch.long)
    (directory / "model.safetensors").unlink()
    torch.save(weights, directory / "pytorch_model.bin")
    assert_same_weights(load_pretrained(directory).state_dict(), theirs)


def test_encoder_of_a_task_model_and_the_other_way(saved, tmp_path):
    theirs, directory = saved()
    encoder = ElectraModel.from_pretrained(directory)
    assert_same_weights(encoder.state_dict(), theirs.electra)
    encoder.save_pretrained(tmp_path / "encoder")
    with pytest.warns(UserWarning, match=r"no weights for classifier\.dense\.weight.*newly initialised"):
        task = ElectraForSequenceClassification.from_pretrained(tmp_path / "encoder")
    assert_same_weights(task.electra.state_dict(), theirs.electra)
    assert task.classifier.out_proj.weight.abs().max() <= 0.04
    assert task.classifier.out_proj.weight.any()
    assert not task.classifier.dense.bias.any()


def test_a_discriminator_becomes_a_classifier(saved):
    theirs, directory = saved()
    config = load_config(directory).replace(num_labels=5)
    with pytest.warns(UserWarning, match=r"no weights for classifier\.weight, classifier\.bias"):
        task = load_pretrained(directory, ElectraForTokenClassification, config=config)
    assert task.classifier.weight.shape == (5, 24)
    assert_same_weights(task.electra.state_dict(), theirs.electra)


def test_a_discriminator_becomes_a_generator_with_its_own_tables(saved):
    _, directory = saved()
    with pytest.warns(UserWarning, match=r"generator_predictions\.LayerNorm\.weight.*generator_lm_head\.bias"):
        model = ElectraForMaskedLM.from_pretrained(directory)
    assert model.generator_lm_head.weight is model.electra.embeddings.word_embeddings.weight
    assert not model.generator_lm_head.bias.any()
    assert (model.generator_predictions.LayerNorm.weight == 1).all()


def test_dtype_on_loading(saved):
    _, directory = saved()
    assert {p.dtype for p in load_pretrained(directory, dtype=torch.float64).parameters()} == {torch.float64}


def test_pair_becomes_two_directories(tmp_path):
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    tokens = {"cls_token_id": 1, "sep_token_id": 2, "mask_token_id": 3}
    config = ElectraConfig(num_hidden_layers=2, **TINY, **tokens).replace(sequence_length=32)
    pair = ElectraPretrainingPair(config)
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "vocab.txt").write_text("[PAD]\n")
    (tokenizer / "tokenizer_config.json").write_text('{"model_max_length": 4, "mask_token": "[MASK]"}')
    (tokenizer / "manifest.json").write_text("{}")
    pair.save_pretrained(tmp_path / "out", tokenizer_dir=tokenizer)
    for name, cls, width in (("generator", "ElectraForMaskedLM", 6), ("discriminator", "ElectraForPreTraining", 24)):
        directory = tmp_path / "out" / name
        expected = ["config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt"]
        assert sorted(path.name for path in directory.iterdir()) == expected
        settings = json.loads((directory / "tokenizer_config.json").read_text())
        assert settings == {"model_max_length": config.max_position_embeddings, "mask_token": "[MASK]"}
        back, info = getattr(transformers, cls).from_pretrained(directory, output_loading_info=True)
        assert not any(info.values()), info
        assert back.config.hidden_size == width
        assert back.config.mask_token_id == 3
        assert_same_weights(getattr(pair, name).state_dict(), back)


def test_names_at_the_top():
    assert electra_fast.load_pretrained is load_pretrained
    assert electra_fast.save_pretrained is save_pretrained


def edit_config(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_mistakes_are_named(saved, tmp_path):
    _, directory = saved()
    with pytest.raises(
        CheckpointError, match=r"config\.json does not exist: give a directory that save_pretrained wrote"
    ):
        load_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"cls must be one of ElectraModel, .* got Linear"):
        load_pretrained(directory, torch.nn.Linear)
    with pytest.raises(ConfigError, match=r"model must be one of ElectraModel, .* got Linear"):
        save_pretrained(torch.nn.Linear(2, 2), tmp_path / "x")
    edit_config(directory, architectures=["ElectraForCausalLM"])
    with pytest.raises(ConfigError, match="holds a ElectraForCausalLM: give cls"):
        load_pretrained(directory)
    edit_config(directory, architectures=["ElectraForPreTraining"], embedding_size=20)
    shape = r"electra.embeddings.word_embeddings.weight must have shape \[60, 20\] by the config, got \[60, 16\]"
    with pytest.raises(CheckpointError, match=shape):
        load_pretrained(directory)
    edit_config(directory, embedding_size=16, num_hidden_layers=3)
    with pytest.raises(CheckpointError, match=r"lacks electra\.encoder\.layer\.2\..* which its config promises"):
        load_pretrained(directory)
    edit_config(directory, num_hidden_layers=1)
    with pytest.raises(CheckpointError, match=r"holds electra\.encoder\.layer\.1\..* does not have"):
        load_pretrained(directory)
    edit_config(directory, model_type="bert")
    with pytest.raises(ConfigError, match="type 'bert'"):
        load_pretrained(directory)
    for content, message in (("{", "is damaged"), ("[]", "expected a JSON object")):
        (directory / "config.json").write_text(content)
        with pytest.raises(CheckpointError, match=message):
            load_pretrained(directory)


def test_bad_weight_files_are_named(saved):
    theirs, directory = saved()
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        load_pretrained(directory)
    file.unlink()
    with pytest.raises(CheckpointError, match=r"holds neither model\.safetensors nor pytorch_model\.bin"):
        load_pretrained(directory)
    index = directory / "model.safetensors.index.json"
    index.write_text("{}")
    with pytest.raises(CheckpointError, match="has no weight_map"):
        load_pretrained(directory)
    index.write_text(json.dumps({"weight_map": {"electra.x": "gone.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"gone\.safetensors does not exist, though the index names it"):
        load_pretrained(directory)
    index.unlink()
    torch.save({"a": torch.zeros(1)}, directory / "part.bin")
    index = directory / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"b": "part.bin"}}))
    with pytest.raises(CheckpointError, match=r"promises b in part\.bin, which does not hold it"):
        load_pretrained(directory)
    index.unlink()
    torch.save(theirs, directory / "pytorch_model.bin")  # a pickled module could run anything
    with pytest.raises(CheckpointError, match="is damaged, or holds more than tensors"):
        load_pretrained(directory)
    weights = theirs.state_dict()
    del weights["discriminator_predictions.dense.bias"]
    torch.save(weights, directory / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"a part of discriminator_predictions only: .*dense\.bias is missing"):
        load_pretrained(directory)
