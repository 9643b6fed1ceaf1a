"""Several processes train as one with accumulation does."""

import sys
from pathlib import Path

import pytest
import torch

from electra_fast.errors import ConfigError
from electra_fast.models import ElectraForPreTraining
from electra_fast.workflows.pretraining import pretrain
from electra_fast.workflows.pretraining.build import accumulation_of, choose_device
from electra_fast.workflows.pretraining.ranks import Ranks, joined

sys.path.insert(0, str(Path(__file__).parent))
import processes

TWENTY = {"total_steps": 20, "warmup_steps": 4, "eval_every": 10, "checkpoint_every": 100}


@pytest.fixture(scope="module")
def alone(tiny_in, tmp_path_factory):
    """Directory of a run of 20 steps by one process that accumulates over 4 batches, with dropout."""
    folder = tmp_path_factory.mktemp("alone")
    options = tiny_in(folder / "run", accumulation=4, **TWENTY)
    processes.run(1, folder / "log", pretrain, options)
    return options.output_path


@pytest.mark.parametrize("parallel", ["ddp", "fsdp", "zero"])
@pytest.mark.parametrize("size", [2, 4])
def test_the_same_losses_as_one_process_with_accumulation(alone, tiny, tmp_path, size, parallel):
    """Every figure of 20 steps and two evaluations: losses to 1e-6, what is counted exactly."""
    options = tiny(accumulation=4 // size, parallel=parallel, **TWENTY)
    processes.run(size, tmp_path / "log", pretrain, options)
    expected, found = processes.records(alone), processes.records(options.output_path)
    assert [(r["step"], r["split"]) for r in found] == [(r["step"], r["split"]) for r in expected]
    for ours, theirs in zip(found, expected, strict=True):
        for name in ("fake_rate", "sampled_accuracy", "padding"):
            assert ours[name] == theirs[name]
        for name in ("loss", "generator_loss", "discriminator_loss"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-6)
        if ours["split"] == "train":
            assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-5)
    trained = [
        ElectraForPreTraining.from_pretrained(run / "model" / "discriminator") for run in (options.output_path, alone)
    ]
    for (name, p), q in zip(trained[0].named_parameters(), trained[1].parameters(), strict=True):
        if ".key.bias" not in name:  # has no gradient but rounding, which Adam makes as large as any other
            torch.testing.assert_close(p, q, rtol=0, atol=1e-6)
    assert (tmp_path / "log").read_text().count("20 steps in") == 1, "one process speaks for all"


def test_parts_that_cannot_be_shared_evenly(tiny):
    options = tiny(accumulation=2, ranks=2)
    assert [accumulation_of(options, Ranks(0, size)) for size in (1, 2, 4)] == [4, 2, 1]
    with pytest.raises(
        ConfigError, match=r"has 4 parts .*, which 3 processes cannot share evenly: start one of 1, 2, 4"
    ):
        accumulation_of(options, Ranks(0, 3))


def test_each_process_has_a_gpu_of_its_own_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "empty", lambda *_, device: None)
    assert choose_device("auto", Ranks(5, 8, local=1)) == torch.device("cuda:1")
    with pytest.raises(ConfigError, match=r"device must be cuda with several processes, .* got 'cuda:1'"):
        choose_device("cuda:1", Ranks(0, 2))
    with pytest.raises(ConfigError, match="cuda:2 of process 6 does not exist, this machine has 2"):
        choose_device("cuda", Ranks(6, 8, local=2))


def test_an_incomplete_environment(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ConfigError, match="WORLD_SIZE is 2, but RANK or LOCAL_RANK is missing"), joined():
        pass


def test_a_mistake_is_told_by_all_and_leaves_nothing(tiny, tmp_path):
    options = tiny(accumulation=3)
    codes = processes.finished(processes.start(2, tmp_path / "log", pretrain, options))
    assert codes == [1, 1]
    said = (tmp_path / "log").read_text()
    assert said.count("ConfigError: accumulation must divide batch_size, got 3 on 2 processes and batch_size 4") == 2
    assert not options.output_path.exists()


def test_one_that_fails_ends_the_others(tiny, tmp_path):
    codes = processes.finished(processes.start(2, tmp_path / "log", processes.fail_in_step, tiny(), 2, 1))
    assert codes == [1, 1]
    said = (tmp_path / "log").read_text()
    assert "ZeroDivisionError: a bug" in said
    assert "RankError: another process of this run has ended or cannot be reached" in said
