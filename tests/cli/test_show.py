"""The show command."""

import pytest
import typer
from typer.testing import CliRunner

from electra_fast.cli.show import show
from electra_fast.data import PrepareOptions, Tokenizer, prepare
from electra_fast.models import ElectraConfig, ElectraPretrainingPair


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The directory of a run whose networks know nothing."""
    folder = tmp_path_factory.mktemp("show")
    (folder / "text.txt").write_text("\n\n".join(f"the fox number {i} sees the green apple" for i in range(40)))
    options = PrepareOptions(
        [folder / "text.txt"], folder / "corpus", vocab_size=90, max_length=32, validation_fraction=0, workers=1
    )
    prepare(options)
    tokenizer = Tokenizer.load(folder / "corpus")
    special = {f"{role}_token_id": index for role, index in tokenizer.special_tokens.items() if role != "unk"}
    config = ElectraConfig(
        vocab_size=tokenizer.vocab_size, embedding_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=32, max_position_embeddings=32, **special,
    ).replace(sequence_length=32, generator_hidden_fraction=1.0)  # fmt: skip
    ElectraPretrainingPair(config).save_pretrained(folder / "model", folder / "corpus")
    return folder


@pytest.mark.parametrize("inside", ["", "model"])
def test_show(run, inside):
    app = typer.Typer()
    app.command()(show)
    words = [str(run / inside), "the fox sees the apple", "the green apple", "--probability", "0.4"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert len(lines) == 4
    assert "(" in lines[0]
    assert lines[1].endswith("found")
