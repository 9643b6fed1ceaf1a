"""Runs that shuffle a few shards at a time, of data in a directory and behind a URL: the same losses, resumable."""

import dataclasses
import json

import pytest

from electra_fast.errors import ConfigError, ShardError
from electra_fast.workflows.pretraining import PretrainOptions, pretrain, resume
from electra_fast.workflows.pretraining.checkpoint import CheckpointDirectory


@pytest.fixture
def url(corpus):
    fsspec = pytest.importorskip("fsspec", reason="needs the optional package fsspec")
    memory = fsspec.filesystem("memory")
    for path in corpus.iterdir():
        memory.pipe_file(f"/runs/corpus/{path.name}", path.read_bytes())
    yield "memory://runs/corpus"
    memory.rm("/runs", recursive=True)


def losses(output):
    records = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [(record["step"], record["split"], record["loss"]) for record in records]


def test_data_at_a_url(tiny, url, tmp_path):
    """The same losses as of the local copy read in the same order, and the same again when resumed."""
    near = pretrain(dataclasses.replace(tiny("near"), shuffle="shards", shuffle_shards=2)).output
    cache = tmp_path / "cache"
    options = dataclasses.replace(tiny("far"), data=url, shuffle="shards", shuffle_shards=2, data_cache=cache)
    far = pretrain(options).output
    assert losses(far) == losses(near)
    assert not (far / "data-cache").exists()
    assert (far / "model" / "discriminator" / "tokenizer.json").exists()
    checkpoints = CheckpointDirectory(far / "checkpoints")
    for path in checkpoints.files()[1:]:
        path.unlink()
    resume(far)
    assert losses(far) == losses(near)
    with pytest.raises(ConfigError, match="shuffle was 'shards' when this run began"):
        resume(far, {"shuffle": "global"})


def test_what_a_url_cannot_do(tiny, url, corpus):
    with pytest.raises(ConfigError, match=r"shuffle must be shards for data at a URL .*: use --shuffle shards"):
        pretrain(dataclasses.replace(tiny(), data=url))
    with pytest.raises(ConfigError, match="cannot be mixed with other corpora"):
        pretrain(dataclasses.replace(tiny(), data=[url, corpus], shuffle="shards"))
    with pytest.raises(ShardError, match="memory://nothing is not a prepared corpus"):
        pretrain(dataclasses.replace(tiny(), data="memory://nothing", shuffle="shards"))


def test_a_url_is_kept_as_it_is():
    options = PretrainOptions(data="s3://bucket//corpus", output="run")
    assert options.data_paths == ("s3://bucket//corpus",)
    assert options.data_cache_path == options.output_path / "data-cache"
