"""The commands finetune and predict: options, files and streams in, one line an input out, mistakes in one line."""

import dataclasses
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from electra_fast import ElectraConfig, ElectraForPreTraining, _native
from electra_fast.data.tokenizer import Tokenizer, wordpiece
from electra_fast.workflows.finetuning import FinetuneOptions, finetune, outcome

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "the", "a", "was", "and"]


@pytest.fixture(autouse=True)
def _process_as_it_was(monkeypatch):
    """No picture (matplotlib is slow), and threads and allocator of the process left alone."""
    monkeypatch.setattr(outcome, "draw_curves", lambda records, metric, path: True)
    monkeypatch.setattr(_native, "keep_freed_memory", lambda: True)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """``pretrained/``, ``train.tsv``, and ``run/``, a model that was fine-tuned on it for three steps."""
    folder = tmp_path_factory.mktemp("finetune")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    ids = {"cls_token_id": 2, "sep_token_id": 3, "mask_token_id": 4}
    config = ElectraConfig.small(vocab_size=len(WORDS), embedding_size=8, max_position_embeddings=16, **sizes, **ids)
    backend = wordpiece({word: index for index, word in enumerate(WORDS)}, lowercase=True, strip_accents=None)
    Tokenizer(backend).save(folder / "tokenizer")
    ElectraForPreTraining(config).save_pretrained(folder / "pretrained", tokenizer_dir=folder / "tokenizer")
    lines = [("text", "label"), *((f"the film was {x}", x) for x in ("good", "bad") for _ in range(10))]
    (folder / "train.tsv").write_text("\n".join("\t".join(line) for line in lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outcome, "draw_curves", lambda records, metric, path: True)
        patch.setattr(_native, "keep_freed_memory", lambda: True)
        options = {"model": folder / "pretrained", "train": folder / "train.tsv", "output": folder / "run"}
        finetune(FinetuneOptions(max_steps=3, precision="fp32", device="cpu", **options))
    return folder


def test_every_option_is_in_the_help(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert command("finetune", "--help") == 0
    text = capsys.readouterr().out
    for field in dataclasses.fields(FinetuneOptions):
        assert field.name == "task" or f"--{field.name.replace('_', '-')}" in text
    assert "--resume" in text
    assert "regression" in text


def test_finetune_by_options_and_by_file(command, folder, tmp_path, capsys):
    line = ["finetune", "classification", "-m", folder / "pretrained", "--train", folder / "train.tsv"]
    assert command(*line, "-o", tmp_path / "run", "--max-steps", 2, "--precision", "fp32", "--seeds", "3,4") == 0
    told = capsys.readouterr().err
    assert "median of 2 seeds" in told
    assert "18 of 20 rows that were there before" in told
    assert (tmp_path / "run" / "best" / "task.json").exists()
    again = ["finetune", "classification", "--config", tmp_path / "run" / "config.toml", "--output", tmp_path / "again"]
    assert command(*again, "--seeds", 3) == 0
    first, second = (json.loads((tmp_path / name / "seed-3" / "result.json").read_text()) for name in ("run", "again"))
    assert first["figures"] == second["figures"]
    assert command("finetune", "classification", "--output", tmp_path / "run", "--resume") == 0
    assert command("finetune", "ner", "--output", tmp_path / "run", "--resume") == 2
    assert "error: task was 'classification' when this run began" in capsys.readouterr().err


def test_predict_a_stream(command, folder, capsys):
    given = 'the film was good\n\n{"text": "a bad film"}\nthe [SEP] \u200bfilm\r\n'.encode()
    assert command("predict", folder / "run", given=given) == 0
    captured = capsys.readouterr()
    found = [json.loads(line) for line in captured.out.splitlines()]
    assert [sorted(prediction) for prediction in found] == [["label", "probabilities", "probability"]] * 4
    assert captured.err == ""


def test_predict_files(command, folder, tmp_path, capsys):
    (tmp_path / "lines.txt").write_text("a good film\n" * 40)
    (tmp_path / "rows.csv").write_text('text\n"a good film"\n"a bad film, and bad"\n')
    (tmp_path / "objects.jsonl").write_text('{"text": "a good film"}\n\n{"text": "bad"}\n')
    target = tmp_path / "out.jsonl"
    for name, count in (("lines.txt", 40), ("rows.csv", 2), ("objects.jsonl", 2)):
        line = ["predict", folder / "run", "--input", tmp_path / name, "--output", target, "--window", 8]
        assert command(*line, "--with-input", "--precision", "fp32") == 0
        found = [json.loads(line) for line in target.read_text().splitlines()]
        assert len(found) == count
        assert found[0]["input"] == {"text": "a good film"}
    assert found[1]["input"] == {"text": "bad"}
    assert capsys.readouterr().out == ""


def test_mistakes_of_predict(command, folder, tmp_path, capsys):
    (tmp_path / "no.csv").write_text("words\na\n")
    (tmp_path / "no.bin").write_bytes(b"\0")
    mistakes = [
        ([tmp_path / "none"], b"", "there is no directory"),
        ([tmp_path], b"", "holds no fine-tuned model (no task.json)"),
        (
            [folder / "run"],
            b'fine\n{"text": 3}\n',
            "standard input, line 2: an input for classification needs the text",
        ),
        ([folder / "run"], b"fine\n{broken\n", "standard input, line 2: no JSON"),
        ([folder / "run"], b"fine\n\xff\n", "standard input is not UTF-8 (byte 0xff)"),
        ([folder / "run", "--input", tmp_path / "no.csv"], b"", "has no column 'text'"),
        ([folder / "run", "--input", tmp_path / "no.bin"], b"", "is of no known format"),
        ([folder / "run", "--input", tmp_path / "absent"], b"", "there is no file"),
        ([folder / "run", "--precision", "fp16"], b"", "--precision must be auto, fp32, bf16 or int8, got 'fp16'"),
        ([folder / "run", "--device", "tpu"], b"", "device 'tpu' cannot be used"),
    ]
    for words, given, message in mistakes:
        assert command("predict", *words, given=given) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]


def test_mistakes_of_finetune(command, folder, tmp_path, capsys):
    (tmp_path / "bad.tsv").write_text("text\tlabel\nx\n")
    (tmp_path / "damaged").mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "damaged" / name).write_bytes((folder / "pretrained" / name).read_bytes())
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"no weights")
    base = {"--model": folder / "pretrained", "--train": folder / "train.tsv", "--output": tmp_path / "run"}
    mistakes = [
        ({"--train": tmp_path / "bad.tsv"}, "bad.tsv, line 2: 1 fields parted by tabs, expected 2 (text, label)"),
        ({"--train": tmp_path / "absent.tsv"}, "there is no file"),
        ({"--model": tmp_path / "damaged"}, "damaged cannot be loaded"),
        ({"--model": "no/such-model"}, "there is no model no/such-model"),
        ({"--epochs": 0}, "--epochs must be greater than 0, got 0"),
        ({"--seeds": "1,1"}, "--seeds must be different whole numbers"),
        ({"--batch-size": 0}, "--batch-size must be a"),
        ({"--problem": "simple"}, "--problem must be auto, single, multi or regression, got 'simple': did you mean"),
        ({"--label-column": "lable"}, "has no column 'lable': did you mean 'label'"),
        ({"--max-length": 17}, "--max-length must be at most 16"),
        ({"--metric": "f1"}, "--metric must be one of accuracy, "),
    ]
    for changes, message in mistakes:
        words = [word for pair in {**base, **changes}.items() for word in pair]
        assert command("finetune", "classification", *words) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]
        assert not (tmp_path / "run").exists()
    assert command("finetune", "sentiment", "--output", tmp_path / "run") == 2
    assert "TASK must be classification, ner, qa, choice or translation" in capsys.readouterr().err


def test_a_pickle_is_not_read(command, folder, tmp_path, capsys):
    """Of a fine-tuned directory only safetensors are."""
    copy = shutil.copytree(folder / "run" / "best", tmp_path / "copy")
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    assert command("predict", copy, given=b"a\n") == 2
    assert "cannot be loaded" in capsys.readouterr().err
    save_file({}, copy / "model.safetensors")
    (copy / "task.json").write_text("{}")
    assert command("predict", copy, given=b"a\n") == 2
    assert "task.json is damaged" in capsys.readouterr().err
