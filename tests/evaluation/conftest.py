"""Tasks with labelled examples and predictions made up for them, and a tiny fine-tuned model of a classifier."""

import numpy as np
import pytest
import torch

from electra_fast.data.hygiene import HygienePolicy
from electra_fast.data.tokenizer import Tokenizer, wordpiece
from electra_fast.models import ElectraConfig, ElectraForPreTraining
from electra_fast.workflows.finetuning.checkpoint import load_tokenizer
from electra_fast.workflows.finetuning.model_directory import save_model
from electra_fast.workflows.finetuning.tasks.classification import Classification

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] a b c film good bad plain".split()
LABELS = ("bad", "good", "plain")


@pytest.fixture
def draws():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    config = ElectraConfig(
        vocab_size=len(WORDS), embedding_size=16, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=32, cls_token_id=2, sep_token_id=3, mask_token_id=4,
    )  # fmt: skip
    ElectraForPreTraining(config).save_pretrained(folder)
    backend = wordpiece({word: index for index, word in enumerate(WORDS)}, lowercase=True, strip_accents=None)
    Tokenizer(backend).save(folder)
    return folder


@pytest.fixture(scope="session")
def make_model(checkpoint, tmp_path_factory):
    """``make_model(seed)``: a fine-tuned directory whose classifier was never trained."""

    def make(seed, **options):
        folder = tmp_path_factory.mktemp(f"model{seed}") / f"run{seed}" / "best"
        task = Classification(max_length=16, labels=LABELS, problem="single", **options)
        torch.manual_seed(seed)
        network = task.model(str(checkpoint))
        with torch.no_grad():
            network.classifier.out_proj.weight.mul_(40)
        save_model(folder, task, network, load_tokenizer(checkpoint), HygienePolicy(), {})
        return folder

    return make


@pytest.fixture(scope="session")
def models(make_model):
    return [make_model(seed) for seed in (0, 1)]


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """60 sentences of 1 to 12 words."""
    draw = np.random.default_rng(3)
    path = tmp_path_factory.mktemp("data") / "test.tsv"
    lines = (f"{' '.join(draw.choice(WORDS[5:], i % 12 + 1))}\t{LABELS[i % 3]}" for i in range(60))
    path.write_text("sentence\tlabel\n" + "\n".join(lines) + "\n")
    return path
