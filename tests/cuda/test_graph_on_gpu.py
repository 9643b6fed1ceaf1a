"""A training step as a CUDA graph: the same bits as kernel by kernel, without waiting for the GPU."""

from __future__ import annotations

import random

import pytest
import torch

from electra_fast.data import PrepareOptions, prepare
from electra_fast.ops import native
from electra_fast.workflows.pretraining import PretrainOptions
from electra_fast.workflows.pretraining.build import build, open_training_corpus, resolve
from electra_fast.workflows.pretraining.graph import GraphedUpdate, changed_by_steps
from electra_fast.workflows.pretraining.step import training_step


def why_not() -> str | None:
    return None if torch.cuda.is_available() and native.cuda_error is None else native.cuda_error or "there is no GPU"


pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graph")
    draw = random.Random(0)
    words = ["alpha", "beta", "gamma", "delta", "omega", "kappa"]
    lines = (" ".join(draw.choice(words) for _ in range(draw.randint(5, 60))) for _ in range(4000))
    (folder / "text.txt").write_text("\n\n".join(lines))
    prepare(PrepareOptions([folder / "text.txt"], folder / "corpus", vocab_size=80, max_length=128, workers=1))
    return folder / "corpus"


def begin(corpus, **changes):
    options = PretrainOptions(
        data=corpus, output=corpus.parent / "run", device="cuda", precision="bf16", total_steps=100, warmup_steps=5,
        batch_size=32, num_hidden_layers=3, **changes,
    )  # fmt: skip
    opened = open_training_corpus(options.data_paths)
    return build(options, resolve(options, opened.manifest), opened, torch.device("cuda"))


@pytest.mark.parametrize("options", [{}, {"accumulation": 2}, {"activation_checkpointing": 1}])
def test_ten_steps_are_the_same_to_the_last_bit(corpus, options):
    plain, graphed = begin(corpus, cuda_graph="off", **options), begin(corpus, cuda_graph="on", **options)
    assert isinstance(graphed.update, GraphedUpdate)
    with plain.batches, graphed.batches:
        for _ in range(10):
            assert torch.equal(torch.stack(training_step(plain)), torch.stack(training_step(graphed)))
        for a, b in zip(changed_by_steps(plain), changed_by_steps(graphed), strict=True):
            assert torch.equal(a, b)


def test_a_replay_never_waits(corpus):
    state = begin(corpus, cuda_graph="on")
    with state.batches:
        training_step(state)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(3):
                training_step(state)
        finally:
            torch.cuda.set_sync_debug_mode("default")
