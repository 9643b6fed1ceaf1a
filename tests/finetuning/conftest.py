"""A tiny ELECTRA with a tokenizer of its own, and labelled sentences that it can learn in seconds."""

import json
import random

import pytest
import torch

from electra_fast import ElectraConfig, ElectraForPreTraining, _native
from electra_fast.data.tokenizer import Tokenizer, wordpiece
from electra_fast.workflows.finetuning import FinetuneOptions, outcome

GOOD = ("good", "lovely", "fine", "great")
BAD = ("bad", "awful", "poor", "dull")
OTHERS = ("the", "film", "was", "a", "story", "and", "actor", "with", "very", "long", "end", "it")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

TINY = {"precision": "fp32", "device": "cpu", "epochs": 4.0, "batch_size": 8, "learning_rate": 3e-3, "dropout": 0.0}


def sentence(draw, words):
    """Five to twelve words, two of them of ``words``."""
    text = [draw.choice(OTHERS) for _ in range(draw.randint(3, 10))] + [draw.choice(words) for _ in range(2)]
    draw.shuffle(text)
    return " ".join(text)


def rows(count, seed):
    """``(text, label)``, half good, half bad."""
    draw = random.Random(seed)
    return [(sentence(draw, (GOOD, BAD)[i % 2]), ("good", "bad")[i % 2]) for i in range(count)]


def write_tsv(path, header, lines):
    path.write_text("\n".join("\t".join(map(str, line)) for line in [header, *lines]) + "\n")
    return path


def write_jsonl(path, objects):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in objects))
    return path


@pytest.fixture(autouse=True)
def _no_picture(request, monkeypatch):
    """matplotlib takes longer than a tiny run: only a test with "picture" in its name draws one."""
    if "picture" not in request.node.name:
        monkeypatch.setattr(outcome, "draw_curves", lambda records, metric, path: True)


@pytest.fixture(autouse=True)
def _process_as_it_was(monkeypatch):
    """A run sets the number of threads and the allocator of its process, which here is that of all tests."""
    monkeypatch.setattr(_native, "keep_freed_memory", lambda: True)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A pretraining run's directory, as far as fine-tuning looks at it: random weights, 2 layers of 32."""
    folder = tmp_path_factory.mktemp("pretrained")
    words = [
        *SPECIAL,
        *GOOD,
        *BAD,
        *OTHERS,
        *"abcdefghijklmnopqrstuvwxyz",
        *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
    ]
    words = list(dict.fromkeys(words))
    torch.manual_seed(0)
    config = ElectraConfig.small(
        vocab_size=len(words),
        embedding_size=16,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        cls_token_id=2,
        sep_token_id=3,
        mask_token_id=4,
    )
    backend = wordpiece({word: index for index, word in enumerate(words)}, lowercase=True, strip_accents=None)
    Tokenizer(backend).save(folder / "tokenizer")
    target = folder / "model" / "discriminator"
    ElectraForPreTraining(config).save_pretrained(target, tokenizer_dir=folder / "tokenizer")
    return folder


@pytest.fixture(scope="session")
def labelled_rows():
    """``labelled_rows(count, seed)``: as `reviews` has them."""
    return rows


@pytest.fixture(scope="session")
def reviews(tmp_path_factory):
    """``(train, dev)``: tsv files of 96 and 32 sentences."""
    folder = tmp_path_factory.mktemp("reviews")
    return tuple(
        write_tsv(folder / f"{name}.tsv", ("sentence", "label"), rows(count, seed))
        for name, count, seed in (("train", 96, 0), ("dev", 32, 1))
    )


@pytest.fixture
def tiny(checkpoint, reviews, tmp_path):
    """``tiny(name="value", …)``: options of a run of a second in ``tmp_path/run``."""

    def make(output="run", **changes):
        train, dev = reviews
        values = {"model": checkpoint, "train": train, "dev": dev, "output": tmp_path / output, **TINY, **changes}
        return FinetuneOptions(**values)

    return make
