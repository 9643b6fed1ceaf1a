"""A job begun again: a finished one is left alone, and one that was another needs --overwrite."""

import pytest

from electra_fast.data import open_corpus, prepare
from electra_fast.errors import ConfigError, ShardError


def test_a_finished_job_is_left_alone(tmp_path, options):
    first = prepare(options())
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    notes = []
    again = prepare(options(), lambda event: notes.append(event.message))
    assert again == first
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()} == before
    assert any("already prepared" in note for note in notes)


def test_a_finished_job_that_lost_a_shard_says_so(tmp_path, options):
    prepare(options())
    (tmp_path / "out" / "train-00001.shard").unlink()
    with pytest.raises(ShardError, match=r"train-00001\.shard is missing.*--overwrite"):
        prepare(options())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"max_length": 64}, "max_length = 32, asked for is 64"),
        ({"seed": 3}, "seed = 0, asked for is 3"),
        ({"tokenizer": None}, "tokenizer = "),
        ({"validation_fraction": 0.2}, "validation_every = 10, asked for is 5"),
    ],
)
def test_other_options_need_overwrite(tmp_path, options, files, change, named):
    prepare(options())
    before = files(tmp_path / "out")
    with pytest.raises(ConfigError, match=f"{named}.*--overwrite") as error:
        prepare(options(**change))
    assert "\n" not in str(error.value)
    assert files(tmp_path / "out") == before
    prepare(options(**change, overwrite=True))
    open_corpus(tmp_path / "out")


def test_other_text_needs_overwrite(tmp_path, options, text, files, corpus_text):
    prepare(options())
    text.write_text(corpus_text(20, seed=1))
    with pytest.raises(ConfigError, match="input files are not those"):
        prepare(options())
    prepare(options(overwrite=True))
    prepare(options("fresh"))
    assert files(tmp_path / "out") == files(tmp_path / "fresh")


def test_a_corpus_without_its_job(tmp_path, options):
    prepare(options())
    (tmp_path / "out" / "job.json").unlink()
    with pytest.raises(ConfigError, match="prepared elsewhere"):
        prepare(options())
    prepare(options(overwrite=True))


@pytest.mark.parametrize(
    ("content", "error"),
    [("{", ShardError), ("{}", ConfigError), ('{"format": "electra-fast prepare job", "version": 0}', ShardError)],
)
def test_a_damaged_job(tmp_path, options, content, error):
    prepare(options())
    (tmp_path / "out" / "job.json").write_text(content)
    with pytest.raises(error, match="--overwrite"):
        prepare(options())
    prepare(options(overwrite=True))
