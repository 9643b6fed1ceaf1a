"""A frozen encoder keeps its weights to the bit while the head learns: on both backends, and below a decoder."""

import pytest
import torch
from safetensors.torch import load_file

from electra_fast.workflows.finetuning import finetune

from .conftest import write_jsonl


def weights(path):
    return load_file(path / "model.safetensors")


@pytest.mark.parametrize("backend", ["electra_fast", "transformers"])
def test_only_the_head_learns(tiny, checkpoint, backend):
    result = finetune(tiny(freeze_encoder=True, backend=backend, epochs=1.0))
    before, after = weights(checkpoint / "model" / "discriminator"), weights(result.model)
    kept = {name for name in after if name.startswith("electra.")}
    assert kept == {name for name in before if name.startswith("electra.")}
    assert all(torch.equal(after[name], before[name]) for name in kept)
    unlearned = weights(finetune(tiny("other", freeze_encoder=True, backend=backend, learning_rate=1e-9)).model)
    head = {name for name in after if name.startswith("classifier.")}
    assert head
    assert not any(torch.allclose(after[name], unlearned[name]) for name in head)


def test_a_decoder_learns_on_a_frozen_encoder(tiny, checkpoint, tmp_path):
    pytest.importorskip("sacrebleu")
    rows = [{"en": f"the good film {word}", "de": f"Der Film {word}"} for word in ("was", "and", "with", "very")] * 8
    train = write_jsonl(tmp_path / "pairs.jsonl", rows)
    options = {"source_column": "en", "target_column": "de", "target_vocab_size": 600, "decoder_layers": 1}
    options |= {"task": "translation", "train": train, "dev": train, "freeze_encoder": True}
    result = finetune(tiny(**options, epochs=2.0))
    before, after = weights(checkpoint / "model" / "discriminator"), weights(result.model)
    names = {name: name.replace("electra.", "encoder.", 1) for name in before if name.startswith("electra.")}
    assert all(torch.equal(after[now], before[name]) for name, now in names.items())
    slow = tiny("other", **options, epochs=2.0, learning_rate=1e-9, decoder_learning_rate=1e-9)
    unlearned = weights(finetune(slow).model)
    decoder = {name for name in after if name.startswith("decoder.") and name.endswith("dense.weight")}
    assert decoder
    assert not any(torch.allclose(after[name], unlearned[name], atol=1e-4) for name in decoder)
