"""A run on several corpora with weights: options in every form, exact resumption, and what is refused."""

import dataclasses
import json

import pytest

from electra_fast.data import Mixture, PrepareOptions, prepare
from electra_fast.errors import CheckpointError, ConfigError
from electra_fast.workflows.pretraining import PretrainOptions, loop, pretrain, resume
from electra_fast.workflows.pretraining.build import corpus_fingerprint, open_training_corpus
from electra_fast.workflows.pretraining.config_file import read_config, write_config

CLOCK = ("seconds", "tokens_per_second", "tflops", "mfu", "data_wait", "memory_mb")


@pytest.fixture
def other(corpus, tmp_path):
    """A second corpus, of the first one's tokenizer."""
    lines = "\n\n".join("every tall tree hears a loud song .\nthe old king eats the green apple ." for _ in range(60))
    (tmp_path / "more.txt").write_text(lines)
    prepare(PrepareOptions([tmp_path / "more.txt"], tmp_path / "more", tokenizer=corpus, max_length=40, workers=1))
    return tmp_path / "more"


def figures(output):
    records = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k not in CLOCK} for record in records]


def test_a_run_goes_on_exactly_and_only_as_it_was(tiny, monkeypatch, corpus, other):
    def mixed(name):
        return dataclasses.replace(tiny(name), data=[corpus, other], data_weights="0.25,0.75")

    whole = pretrain(mixed("whole")).output
    taken = loop.training_step

    def interrupted(state):
        if state.step == 5:
            raise KeyboardInterrupt
        return taken(state)

    monkeypatch.setattr(loop, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretrain(mixed("parts"))
    monkeypatch.undo()
    parts = resume(mixed("parts").output_path).output
    assert figures(parts) == figures(whole)
    assert read_config(parts / "config.toml")["data"] == [str(corpus), str(other)]
    with pytest.raises(ConfigError, match=r"data_weights was \[0.25, 0.75\] when this run began"):
        resume(parts, {"data_weights": "0.5,0.5"})
    with pytest.raises(CheckpointError, match="is not the corpus this run began with"):
        resume(parts, {"data": [str(other), str(corpus)]})


def test_one_corpus_in_a_list_is_that_corpus(corpus):
    options = PretrainOptions(data=[corpus])
    assert options.data == str(corpus)
    alone = open_training_corpus(options.data_paths)
    assert not isinstance(alone, Mixture)
    assert corpus_fingerprint(alone) == corpus_fingerprint(open_training_corpus((corpus,)))


def test_the_weights_are_part_of_what_a_checkpoint_is_checked_against(corpus, other):
    mixtures = [open_training_corpus((corpus, other), weights) for weights in (None, (1, 2), (2, 4), (2, 1))]
    prints = [corpus_fingerprint(mixture) for mixture in mixtures]
    assert prints[1] == prints[2]
    assert len(set(prints)) == 3


def test_config_file_round_trip(tmp_path):
    options = PretrainOptions(data=[tmp_path / "a", tmp_path / "b"], data_weights=(1, 2.5))
    assert options.data_weights == [1.0, 2.5]
    write_config(tmp_path / "config.toml", options.to_dict())
    assert PretrainOptions.from_mapping(read_config(tmp_path / "config.toml")) == options


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"data": "a", "data_weights": "1"}, "data_weights are for several corpora"),
        ({"data": ["a", "b"], "data_weights": "1;2"}, "data_weights must be numbers such as 0.7,0.3.*got '1;2'"),
        ({"data": []}, "data must be a directory or a list of directories"),
        ({"data": ["a", 3]}, "data must be a directory or a list of directories"),
        ({"data": 3}, "data must be str or PathLike or tuple or list or none, got 3"),
    ],
)
def test_mistakes(given, message):
    with pytest.raises(ConfigError, match=message):
        PretrainOptions(**given)
