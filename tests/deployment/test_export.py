"""Exported models: the same outputs without this package, checked before they are written."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("onnxruntime", reason="exports to ONNX")
pytest.importorskip("onnxscript", reason="exports to ONNX")

import transformers
from safetensors.torch import load_file, save_file

from electra_fast.errors import CheckpointError, ConfigError, DataError, ExportError
from electra_fast.workflows.deployment.export import export, formats
from electra_fast.workflows.deployment.export.formats import Format
from electra_fast.workflows.deployment.export.source import HEADS
from electra_fast.workflows.evaluation.calibration import (
    TEMPERATURE_NAME,
    Temperature,
    read_temperature,
    write_temperature,
)

LABELS = {0: "bad", 1: "fair", 2: "good"}
# What none of them may import, and the README's program behind that, which is made to print its outputs.
WITHOUT = {
    "hf": ("electra_fast",),
    "onnx": ("electra_fast", "torch", "transformers"),
    "torch-export": ("electra_fast", "transformers"),
    "aoti": ("electra_fast", "transformers"),
}


def readme_outputs(folder: Path, format: str) -> dict[str, torch.Tensor]:
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)
    program = (
        f"import sys\nfor name in {WITHOUT[format]}:\n    sys.modules[name] = None\n{code}\n"
        "import json\nprint(json.dumps({name: values.tolist() for name, values in outputs.items()}))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {name: torch.tensor(values) for name, values in json.loads(done.stdout.splitlines()[-1]).items()}


@torch.no_grad()
def expected_outputs(model: str, name: str, tokenizer) -> dict[str, torch.Tensor]:
    """Of `transformers`, for the texts in the README."""
    pairs = ["Where does the sun rise?"] * 2, ["In the east.", "In the west."]
    choices = name == "ElectraForMultipleChoice"
    texts = pairs if choices else (["One text.", "Another, longer one."],)
    batch = tokenizer(*texts, padding=True, truncation=True, max_length=40, return_tensors="pt")
    if choices:
        batch = {key: rows.unsqueeze(0) for key, rows in batch.items()}
    outputs = getattr(transformers, name).from_pretrained(model)(**batch)
    return {key: outputs[key] for key in HEADS[name].outputs}


@pytest.mark.parametrize(
    ("format", "name"),
    [
        ("hf", "ElectraForTokenClassification"),
        ("onnx", "ElectraForMultipleChoice"),
        ("torch-export", "ElectraForQuestionAnswering"),
        ("aoti", "ElectraModel"),
    ],
)
def test_the_page_beside_it_runs_without_this_package(saved, tokenizer, tmp_path, format, name):
    model = saved(name, num_hidden_layers=1 if format == "aoti" else 2)  # what is compiled takes its time
    report = export(model, format, tmp_path / "out")
    assert report.largest <= 1e-4
    shapes = {difference.shape.count("×") for difference in report.differences}
    assert shapes == {len(HEADS[name].dimensions) - 1}
    found, expected = readme_outputs(tmp_path / "out", format), expected_outputs(model, name, tokenizer)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        torch.testing.assert_close(found[key], values, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", HEADS)
def test_every_class_is_written_for_transformers(saved, tmp_path, name):
    model = saved(name, embedding_size=32)
    report = export(model, "hf", tmp_path / "out")
    assert report.largest <= 1e-4
    before, after = load_file(f"{model}/model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_onnx_by_its_tools_and_what_is_said_of_it(saved, tmp_path):
    model = Path(saved("ElectraForSequenceClassification", num_labels=3, id2label=LABELS))
    (model / "task.json").write_text(json.dumps({"task": "classification", "state": {"max_length": 24}}))
    samples = tmp_path / "samples.txt"
    samples.write_text("the red fox sees\nthe rain\ta green apple\none text\n")
    report = export(model, "onnx", tmp_path / "out", samples=samples, optimize=True, int8=True)
    assert report.largest <= 1e-4 < report.int8.largest < 1
    assert 0.5 < report.int8.agreement <= 1
    assert report.int8.bytes < report.bytes
    real = [difference.case for difference in report.differences if "random" not in difference.case]
    assert real == ["the longest", "sentences 1 to 2", "pairs 1 to 1"]
    assert max(int(d.shape.split(" × ")[1]) for d in report.differences) == 24
    said = json.loads((tmp_path / "out" / "export.json").read_text())
    assert said["labels"] == ["bad", "fair", "good"]
    assert said["inputs"]["input_ids"] == ["int64", "batch", "tokens"]
    assert said["max_length"] == 24
    assert said["int8"]["agreement"] == report.int8.agreement
    assert said["task"]["task"] == "classification"
    assert {node.op_type for node in _graph(tmp_path / "out" / "model.onnx")} >= {"SkipLayerNormalization"}
    assert "MatMulInteger" in {node.op_type for node in _graph(tmp_path / "out" / "model.int8.onnx")}


@pytest.mark.parametrize("format", ["hf", "onnx"])
def test_a_fitted_temperature_is_told(saved, tmp_path, format):
    model = Path(saved("ElectraForSequenceClassification", num_labels=3, id2label=LABELS))
    export(model, format, tmp_path / "before")
    write_temperature(model, Temperature(1.75, "dev.tsv", 40, 0.9, 0.8))
    export(model, format, tmp_path / "after")
    for folder, value in (("before", None), ("after", 1.75)):
        assert json.loads((tmp_path / folder / "export.json").read_text())["temperature"] == value
        assert ("divide the logits by 1.75" in (tmp_path / folder / "README.md").read_text()) == (value is not None)
    kept = tmp_path / "after" / TEMPERATURE_NAME
    assert kept.is_file() == (format == "hf")
    assert format != "hf" or read_temperature(kept.parent).value == 1.75
    assert not (tmp_path / "before" / TEMPERATURE_NAME).exists()


def _graph(path: Path) -> list:
    import onnx

    return list(onnx.load(path).graph.node)


def test_a_model_that_differs_is_not_written(saved, tmp_path, monkeypatch):
    honest = formats.FORMATS["hf"]

    def spoilt(source, folder):
        honest.write(source, folder)
        weights = load_file(folder / "model.safetensors")
        weights["qa_outputs.bias"][1] += 0.5
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setitem(formats.FORMATS, "hf", Format(spoilt, honest.open, honest.file))
    where = r"differs from its source by 0\.5 in end_logits\[\d+, \d+\] of '.*' \(\d+ × \d+\)"
    with pytest.raises(ExportError, match=where):
        export(saved("ElectraForQuestionAnswering"), "hf", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_padding_counts_for_nothing(saved, tmp_path, monkeypatch):
    """A format may say anything at tokens that the mask leaves out, as long as it says the same at all others."""
    from electra_fast.workflows.deployment.export import run

    model = saved("ElectraForPreTraining")

    def careless(source, folder):
        honest = formats.FORMATS["hf"].open(source, folder)

        def call(inputs):
            outputs = honest(inputs)
            return {key: torch.where(inputs["attention_mask"].bool(), x, 99.0) for key, x in outputs.items()}

        return call

    made = Format(formats.FORMATS["hf"].write, careless, "model.safetensors")
    monkeypatch.setitem(run.FORMATS, "careless", made)
    monkeypatch.setattr(run, "readme", lambda *args: "")
    assert export(model, "careless", tmp_path / "out").largest <= 1e-4


def test_what_is_in_the_way_stays(saved, tmp_path):
    model = saved("ElectraModel")
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match=r"holds something else \(no export\.json\)"):
            export(model, "hf", out, overwrite=overwrite)
    (out / "thesis.tex").unlink()
    export(model, "hf", out)
    with pytest.raises(ConfigError, match=r"was written before: .* --overwrite"):
        export(model, "hf", out)
    (out / "old").touch()
    export(model, "hf", out, overwrite=True)
    assert not (out / "old").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"format": "onxx"}, ConfigError, "format must be hf, onnx, torch-export or aoti, got 'onxx'"),
        ({"int8": True}, ConfigError, "int8 is for format onnx"),
        ({"optimize": True}, ConfigError, "optimize is for format onnx"),
        ({"tolerance": 0.0}, ConfigError, "tolerance must be a number above 0, got 0.0"),
        ({"tolerance": float("nan")}, ConfigError, "tolerance must be a number above 0, got nan"),
        ({"model": "nowhere"}, CheckpointError, "there is no model nowhere"),
        ({"samples": "nowhere.txt"}, DataError, "samples: there is no file nowhere.txt"),
    ],
)
def test_mistakes(saved, tmp_path, changes, kind, message):
    call = {"model": saved("ElectraModel"), "format": "hf", "output": tmp_path / "out", **changes}
    with pytest.raises(kind, match=message):
        export(**call)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty: expected a text a line"),
        (b"a\n\xff", "is not UTF-8: byte 2 cannot be read"),
        (b"a\tb\nc\td\te\n", "line 2: expected a text, or two apart by a tab, got 3"),
    ],
)
def test_bad_samples(saved, tmp_path, content, message):
    (tmp_path / "samples.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        export(saved("ElectraModel"), "hf", tmp_path / "out", samples=tmp_path / "samples.txt")


def test_models_that_cannot_be_exported(saved, tmp_path):
    encoder = Path(saved("ElectraModel"))
    values = json.loads((encoder / "config.json").read_text())
    (encoder / "config.json").write_text(json.dumps(values | {"architectures": ["ElectraForTokenClassification"]}))
    with pytest.raises(CheckpointError, match=r"has no weights for classifier\.bias of ElectraForTokenClassification"):
        export(encoder, "hf", tmp_path / "out")
    (encoder / "config.json").write_text(json.dumps(values | {"architectures": ["ElectraForCausalLM"]}))
    with pytest.raises(ConfigError, match="holds a ElectraForCausalLM: what can be exported is ElectraModel"):
        export(encoder, "hf", tmp_path / "out")
    (encoder / "task.json").write_text(json.dumps({"task": "translation", "state": {"max_length": 40}}))
    with pytest.raises(ConfigError, match="translates: an encoder with a decoder, which is not exported"):
        export(encoder, "hf", tmp_path / "out")
    (encoder / "task.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"task\.json is damaged"):
        export(encoder, "hf", tmp_path / "out")
