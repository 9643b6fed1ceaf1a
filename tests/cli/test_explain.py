"""The explain command."""

import pytest

from electra_fast.data.tokenizer import Tokenizer, wordpiece
from electra_fast.models import ElectraConfig, ElectraForSequenceClassification

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] a film good".split()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    config = ElectraConfig(
        vocab_size=len(WORDS), embedding_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=32, max_position_embeddings=16, cls_token_id=2, sep_token_id=3, mask_token_id=4,
    )  # fmt: skip
    ElectraForSequenceClassification(config.replace(id2label={0: "bad", 1: "good"})).save_pretrained(folder)
    words = {word: index for index, word in enumerate(WORDS)}
    Tokenizer(wordpiece(words, lowercase=True, strip_accents=None)).save(folder)
    return folder


def run(command, capsys, *arguments):
    """(exit code, standard output, standard error) of the command."""
    code = command("explain", *arguments)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_words_and_the_page(model, command, capsys, tmp_path):
    page = tmp_path / "page.html"
    code, said, _ = run(command, capsys, model, "a good film", "--output", page, "--label", "good")
    assert code == 0
    lines = said.splitlines()
    assert lines[0].startswith(("good (", "bad ("))
    assert lines[1].startswith("good: ")
    assert "film" in lines[1]
    assert lines[2].startswith("  not accounted for: ")
    assert lines[3] == str(page)
    assert page.is_file()


def test_a_mistake_is_one_line_in_the_words_of_the_command(model, command, capsys, tmp_path):
    code, _, said = run(command, capsys, model, "a film", "--label", "fine")
    assert (code, said) == (2, "error: --label must be one of 'bad', 'good', got 'fine'\n")
    code, _, said = run(command, capsys, tmp_path, "a film")
    assert code == 2
    assert said.startswith(f"error: {tmp_path} holds no model")
