"""Every example's run.sh runs to its end at small size, and leaves what its last line says."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from electra_fast import ElectraConfig, ElectraForPreTraining
from electra_fast.data.tokenizer import Tokenizer, wordpiece

pytest.importorskip("transformers")

EXAMPLES = Path(__file__).parents[1] / "examples"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = "abcdefghijklmnopqrstuvwxyzäöüß0123456789"
SIGNS = ".,;:!?'\"()-%$&/"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """An ELECTRA of two layers that spells."""
    folder = tmp_path_factory.mktemp("pretrained")
    words = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), *SIGNS]
    torch.manual_seed(0)
    config = ElectraConfig.small(
        vocab_size=len(words),
        embedding_size=16,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        cls_token_id=2,
        sep_token_id=3,
        mask_token_id=4,
    )
    backend = wordpiece({word: index for index, word in enumerate(words)}, lowercase=True, strip_accents=None)
    Tokenizer(backend).save(folder / "tokenizer")
    ElectraForPreTraining(config).save_pretrained(folder / "model", tokenizer_dir=folder / "tokenizer")
    return folder / "model"


@pytest.fixture(scope="module")
def commands():
    """A folder with an ``electra-fast`` that starts in no time."""
    with tempfile.TemporaryDirectory() as folder:  # of a short name, as a socket's has to be
        server = Path(__file__).with_name("command_server.py")
        process = subprocess.Popen([sys.executable, server, folder], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        yield folder
        process.terminate()
        process.wait()


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*/run.sh")), ids=lambda path: path.parent.name)
def test_example(script, checkpoint, commands, tmp_path):
    environment = {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}", "MODEL": str(checkpoint)}
    done = subprocess.run(
        ["bash", script, tmp_path / "out", "--quick"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    left = re.search(r"^# leaves: (.+)$", script.read_text(), re.MULTILINE)[1].split()
    assert left
    for name in left:
        assert (tmp_path / "out" / name).stat().st_size, name
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_every_example_is_listed():
    listed = re.findall(r"^\| \[([\w-]+)\]\(\1/\)", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert set(listed) == {path.parent.name for path in EXAMPLES.glob("*/README.md")}
    assert set(listed) == {path.parent.name for path in EXAMPLES.glob("*/run.sh")}
