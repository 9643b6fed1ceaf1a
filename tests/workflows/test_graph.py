"""The recorded step, on the CPU with a recording that is the step itself: buffers that stay, a warm-up that leaves
nothing behind, and reasons. tests/cuda/test_graph_on_gpu.py has the graph."""

from __future__ import annotations

import pytest
import torch

from electra_fast.errors import ConfigError
from electra_fast.workflows.pretraining.build import build, open_training_corpus, resolve
from electra_fast.workflows.pretraining.graph import GraphedUpdate, changed_by_steps, choose_update, why_no_graph
from electra_fast.workflows.pretraining.ranks import ALONE, Ranks
from electra_fast.workflows.pretraining.step import eager_update, training_step

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


class AtOnce:
    """`Work` without a device of its own: a recording is the function itself."""

    def __init__(self, failure=None):
        self.failure = failure
        self.warmed, self.seen = 0, set()

    def warm_up(self, run):
        for _ in range(3):
            run()
            self.warmed += 1

    def record(self, run):
        if self.failure is not None:
            raise self.failure
        return run

    def fill(self, static, batches):
        for mine, batch in zip(static, batches, strict=True):
            mine.copy_(batch)
            self.seen.add(mine.input_ids.data_ptr())


@pytest.fixture
def start(tiny):
    """``start(name="value", …)``: a run of these options before its first step."""
    opened = []

    def make(**changes):
        options = tiny(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1, **changes)
        corpus = open_training_corpus(options.data_paths)
        state = build(options, resolve(options, corpus.manifest), corpus, CPU)
        opened.append(state.batches)
        return state

    yield make
    for batches in opened:
        batches.close()


def assert_same(first, second):
    assert first.step == second.step
    for a, b in zip(changed_by_steps(first), changed_by_steps(second), strict=True):
        assert torch.equal(a, b)
    assert str(first.metrics.compute()) == str(second.metrics.compute())  # NaN is equal to NaN in words only


@pytest.mark.parametrize("options", [{}, {"accumulation": 2, "precision": "bf16", "activation_checkpointing": 1}])
@pytest.mark.parametrize("before", [0, 2])
def test_buffers_that_stay_and_a_warm_up_change_nothing(start, options, before):
    """Begun at the first step, and, as after a resumption, at a later one."""
    plain, recorded = start(**options), start(**options)
    for _ in range(before):
        training_step(plain)
        training_step(recorded)
    work = AtOnce()
    recorded.update = GraphedUpdate(work)
    for _ in range(5):
        assert torch.equal(torch.stack(training_step(plain)), torch.stack(training_step(recorded)))
    assert_same(plain, recorded)
    assert work.warmed == 3
    assert len(work.seen) == options.get("accumulation", 1)


def test_a_recording_that_fails_is_said_and_done_without(start):
    plain, recorded = start(), start()
    failure = RuntimeError("operation not permitted when stream is capturing\nand more")
    said = []
    recorded.update = GraphedUpdate(AtOnce(failure))
    recorded.update.say = said.append
    for _ in range(3):
        assert torch.equal(torch.stack(training_step(plain)), torch.stack(training_step(recorded)))
    assert_same(plain, recorded)
    assert said == [
        "steps are taken without a CUDA graph: recording one failed (operation not permitted when stream is capturing)"
    ]
    recorded.update = GraphedUpdate(AtOnce(failure), required=True)
    with pytest.raises(ConfigError, match=r"cuda_graph cannot be on: recording a step failed \(operation not"):
        training_step(recorded)


def test_where_and_why_not(tiny):
    assert why_no_graph(tiny(), CUDA, ALONE) is None
    assert "the device is cpu" in why_no_graph(tiny(), CPU, ALONE)
    assert "torch.compile" in why_no_graph(tiny(compile=True), CUDA, ALONE)
    assert "several processes" in why_no_graph(tiny(), CUDA, Ranks(0, 2))
    assert choose_update(tiny(), CPU, ALONE) is eager_update
    assert choose_update(tiny(cuda_graph="off"), CUDA, ALONE) is eager_update
    with pytest.raises(ConfigError, match="cuda_graph cannot be on: the device is cpu"):
        choose_update(tiny(cuda_graph="on"), CPU, ALONE)
