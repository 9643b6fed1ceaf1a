"""A toy corpus that a network of a few thousand parameters can learn, and the options of runs that take seconds."""

import random

import pytest
import torch

from electra_fast import _native
from electra_fast.data import PrepareOptions, prepare
from electra_fast.matrix_peak import MatrixPeak
from electra_fast.workflows.pretraining import PretrainOptions, finish, loop, report

SUBJECTS = ("the red fox", "a small bird", "the old king", "my best friend", "every tall tree")
VERBS = {"sees": "with both eyes", "eats": "with a spoon", "hears": "with its ears", "finds": "by pure luck"}
OBJECTS = ("the green apple", "a loud song", "the hidden door", "some fresh bread", "that strange book")

TINY = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "embedding_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "generator_hidden_fraction": 0.5,
    "generator_layers_fraction": 0.5,
    "max_position_embeddings": 48,
    "batch_size": 4,
    "mask_probability": 0.2,
    "learning_rate": 1e-3,
    "total_steps": 8,
    "warmup_steps": 2,
    "precision": "fp32",
    "device": "cpu",
    "threads": 1,
    "log_every": 1,
    "eval_every": 4,
    "eval_batches": 2,
    "checkpoint_every": 3,
    "tensorboard": False,
}


def sentence(draw):
    verb = draw.choice(list(VERBS))
    return f"{draw.choice(SUBJECTS)} {verb} {draw.choice(OBJECTS)} {VERBS[verb]} ."


def write_text(path, documents, seed=0):
    draw = random.Random(seed)
    blocks = ("\n".join(sentence(draw) for _ in range(draw.randint(3, 9))) for _ in range(documents))
    path.write_text("\n\n".join(blocks) + "\n")


@pytest.fixture(autouse=True)
def _no_picture(request, monkeypatch):
    """matplotlib takes longer than a tiny run: only tests that ask for ``picture`` draw the curves."""
    if "picture" not in request.fixturenames:
        monkeypatch.setattr(finish, "draw_curves", lambda records, path: bool(path.write_bytes(b"")) or True)
        monkeypatch.setattr(report, "curves_svg", lambda records: "<svg></svg>")


@pytest.fixture(autouse=True)
def _no_measurement(monkeypatch):
    """Measuring the matrix peak takes longer than a tiny run."""
    monkeypatch.setattr(loop, "matrix_peak", lambda device, dtype: MatrixPeak(1e11, "assumed"))


@pytest.fixture(autouse=True)
def _process_as_it_was(monkeypatch):
    """A run sets the number of threads and the allocator of its process, which here is that of all tests."""
    monkeypatch.setattr(_native, "keep_freed_memory", lambda: True)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def picture():
    """Asks for the curves to be drawn."""


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """About 15,000 tokens, 40 to a sequence, a tenth held out."""
    folder = tmp_path_factory.mktemp("toy")
    write_text(folder / "text.txt", 200)
    prepare(
        PrepareOptions(
            inputs=[folder / "text.txt"],
            output=folder / "corpus",
            vocab_size=160,
            max_length=40,
            validation_fraction=0.1,
            workers=1,
        )
    )
    return folder / "corpus"


@pytest.fixture(scope="session")
def tiny_in(corpus):
    """``tiny_in(folder, name="value", …)``: options of a tiny run."""

    def make(output, **changes):
        return PretrainOptions(data=corpus, output=output, **{**TINY, **changes})

    return make


@pytest.fixture
def tiny(tiny_in, tmp_path):
    """``tiny(name="value", …)``: options of a tiny run in ``tmp_path/run`` (``output`` may name another folder)."""

    def make(output="run", **changes):
        return tiny_in(tmp_path / output, **changes)

    return make
