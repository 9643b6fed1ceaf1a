"""The suites of whole models on networks of toy size: both sides compute the same, and every contender runs."""

import functools
from dataclasses import replace

import pytest
import torch

from electra_fast.bench import rounds, runner, suites
from electra_fast.bench.case import Absent
from electra_fast.bench.peers import huggingface, onnx_encoder, sdpa
from electra_fast.bench.suites import data, encoder, pretraining, training_step
from electra_fast.models import ElectraConfig, ElectraModel

pytest.importorskip("transformers", reason="the peers are of transformers")

TINY = {"vocab_size": 1200, "embedding_size": 16, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 48, "max_position_embeddings": 128}  # fmt: skip
SETTINGS = runner.Settings(rounds.Plan(), memory=False)


@pytest.fixture(autouse=True)
def _once(monkeypatch):
    """Nothing is timed: what counts is that outputs agree."""
    monkeypatch.setattr(rounds, "measure", lambda ready, *rest: {name: rounds.Timing.of([1.0]) for name in ready})


def statuses(case) -> dict[str, str]:
    elsewhere = ("system", "kept")  # a process of its own would not know the toys
    here = tuple(replace(c, allocator="") if c.allocator in elsewhere else c for c in case.contenders)
    rows = runner.run_case(replace(case, contenders=here), "r", None, SETTINGS)
    return {row.contender: f"{row.status}{': ' * bool(row.reason)}{row.reason}" for row in rows}


def test_a_training_step_is_the_same_on_both_sides(monkeypatch):
    def config(size: str, dropout: float) -> ElectraConfig:
        rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        return ElectraConfig(**TINY, **training_step.SPECIAL, **rates)

    monkeypatch.setattr(training_step, "config", config)
    monkeypatch.setattr(torch, "compile", lambda module, **options: module)
    for dtype in ("float32", "bfloat16"):
        case = training_step._case(training_step.Shape("small", 2, 40, dtype, "cpu"), "quick")
        found = statuses(case)
        assert {name for name, status in found.items() if status != "measured"} == {
            name for name in found if name.endswith("tcmalloc")
        }, found


@pytest.fixture
def shared() -> tuple:
    torch.manual_seed(0)
    config = ElectraConfig(**TINY)
    return ElectraModel(config).eval().state_dict(), config


LENGTHS = [20, 7, 1, 13]


def test_an_encoder_on_real_lengths(monkeypatch, shared):
    monkeypatch.setattr(encoder, "_config", lambda size: shared[1])
    monkeypatch.setattr(torch, "compile", lambda module, **options: module)
    for dtype in encoder.TOLERANCE:
        case = encoder._case("small", 4, "toy", LENGTHS, dtype, "cpu", "quick")
        for name, status in statuses(case).items():
            may_be_absent = "ONNX" in name or "tcmalloc" in name or "torchao" in name or dtype == "int8"
            assert status == "measured" or (may_be_absent and status.split(":")[0] in ("absent", "failed")), status


@pytest.mark.parametrize("int8", [False, True])
def test_onnx_runtime_computes_an_encoder(shared, int8):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    ids, mask = torch.randint(1200, (4, 20)), torch.arange(20) < torch.tensor(LENGTHS)[:, None]
    expected = huggingface.run(huggingface.model(*shared))(ids, mask.long())
    out = onnx_encoder.session(*shared, int8=int8)(ids, mask.long())
    assert (out - expected)[mask].norm() / expected[mask].norm() < (0.05 if int8 else 1e-5)


def test_attention_of_unequal_lengths_through_padding():
    q, k, v = (torch.randn(sum(LENGTHS), 2, 8) for _ in range(3))
    expected = [
        torch.nn.functional.scaled_dot_product_attention(*(x.transpose(0, 1) for x in part)).transpose(0, 1)
        for part in zip(*(x.split(LENGTHS) for x in (q, k, v)), strict=True)
    ]
    peer = sdpa.peers("cpu", 0.0)[0]
    torch.testing.assert_close(peer.build(LENGTHS, "cpu", 0.0)(q, k, v), torch.cat(expected))
    assert "not its flash kernel" in sdpa.peers("cpu", 0.1)[0].setting


def test_peers_of_a_gpu_say_what_is_missing():
    with pytest.raises(Absent, match="flash-attn is not installed"):
        sdpa._flash(LENGTHS, "cpu", 0.0)
    with pytest.raises(Absent, match="flex attention has no dropout"):
        sdpa._flex(LENGTHS, "cpu", 0.1)
    from electra_fast.bench.peers import norms, vocabulary

    for peer in (*norms.peers("cuda", 0.1, 1e-12), *vocabulary.peers("cuda")):
        with pytest.raises(Absent, match="is not installed"):
            peer.build(0.0)


@pytest.fixture
def corpus(monkeypatch):
    """A little text, so that nothing has to be read from the standard library."""
    text = "\n".join(f"The number {i} is followed by the number {i + 1}, and so on.\n" * 3 for i in range(400))
    monkeypatch.setattr(data, "_documentation", lambda: text)
    monkeypatch.setattr(data, "TOKENS", 3000)


def test_the_corpus_side(corpus, monkeypatch):
    monkeypatch.setattr(data, "prepare", functools.partial(_prepare_alone, data.prepare))
    found = {case.name: statuses(case) for case in suites.cases("data", "cpu")}
    assert set(found["batches"].values()) == {"measured"}, found
    assert found["prepare"]["tokenizers"] == "measured"


def _prepare_alone(prepare, options):
    """In this process: a test's own main module cannot be started again by workers."""
    import dataclasses

    return prepare(dataclasses.replace(options, workers=1))


def test_pretraining_from_corpus_to_model(corpus):
    found = statuses(pretraining._case(2, "float32", "quick"))
    assert set(found.values()) == {"measured"}, found
