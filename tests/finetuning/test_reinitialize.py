"""Layers that start anew: the uppermost ones, all of them, nothing else; for every task, and on both backends."""

import pytest
import torch
from safetensors.torch import load_file

from electra_fast.errors import ConfigError
from electra_fast.models import ElectraConfig, ElectraForTranslation, TranslationConfig
from electra_fast.workflows.finetuning import finetune
from electra_fast.workflows.finetuning.reinitialize import reinitialize_top

SPECIAL = {"pad": 0, "cls": 1, "sep": 2, "mask": 3}


def changed(before, after):
    """Names of what is not as it was."""
    return {name for name, value in after.items() if name in before and not torch.allclose(value, before[name])}


@pytest.mark.parametrize("backend", ["electra_fast", "transformers"])
def test_only_the_last_layer_starts_anew(tiny, checkpoint, backend):
    result = finetune(tiny(reinit_layers=1, backend=backend, max_steps=1, epochs=None, learning_rate=1e-9))
    before = load_file(checkpoint / "model" / "discriminator" / "model.safetensors")
    after = load_file(result.model / "model.safetensors")
    anew = changed(before, after)
    assert {name.split(".")[:4][-1] for name in anew} == {"1"}
    assert {name for name in after if ".layer.1." in name and name.endswith("dense.weight")} <= anew
    query = after["electra.encoder.layer.1.attention.self.query.weight"]
    assert query.std().item() == pytest.approx(0.0176, abs=0.002)  # a normal of 0.02, cut at two deviations


def test_seeds_draw_different_layers_and_a_seed_the_same(tiny):
    options = {"reinit_layers": 2, "max_steps": 1, "epochs": None, "learning_rate": 1e-9}
    runs = [finetune(tiny(name, seeds=seed, **options)) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    name = "electra.encoder.layer.0.output.dense.weight"
    first, again, other = (load_file(run.model / "model.safetensors")[name] for run in runs)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=0.01)


def test_a_decoder_is_left_alone():
    encoder = ElectraConfig.small(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2)
    model = ElectraForTranslation(TranslationConfig.for_encoder(encoder, 40, SPECIAL, layers=2, max_length=16))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    reinitialize_top(model, 2, 0.02)
    anew = changed(before, model.state_dict())
    assert anew
    assert all(name.startswith("encoder.encoder.layer.") for name in anew)


def test_more_layers_than_there_are(tiny):
    options = tiny(reinit_layers=3)
    with pytest.raises(ConfigError, match=r"reinit_layers must be at most 2, the layers of .*, got 3"):
        finetune(options)
    assert not options.output_path.exists()
    with pytest.raises(ConfigError, match="reinit_layers must be at least 0, got -1"):
        tiny(reinit_layers=-1)
