"""Smaller models: what they begin with, what they learn from, and what is said of them."""

import json
import random

import pytest
import torch
from torch.nn import functional

pytest.importorskip("transformers", reason="compresses what transformers has")
pytest.importorskip("datasets", reason="reads task data")

import transformers

from electra_fast import _native
from electra_fast.errors import CheckpointError, ConfigError
from electra_fast.ops.encoder import encoder_missing
from electra_fast.workflows.deployment.compress import CompressOptions, compress
from electra_fast.workflows.deployment.compress.importance import measure_importance
from electra_fast.workflows.deployment.compress.pruning import check_sizes, prune
from electra_fast.workflows.deployment.compress.student import make_student, student_config, teacher_layer
from electra_fast.workflows.deployment.compress.teaching import Lesson, Taught
from electra_fast.workflows.evaluation.predictor import load_task
from electra_fast.workflows.finetuning import FinetuneOptions, finetune
from electra_fast.workflows.finetuning.tasks.classification import Classification

HEADED = {
    "ElectraForSequenceClassification": {"num_labels": 3},
    "ElectraForTokenClassification": {"num_labels": 5},
    "ElectraForQuestionAnswering": {},
    "ElectraForMultipleChoice": {},
}
TASK = Classification(max_length=40, problem="single", labels=("a", "b", "c"))


def load(saved, name="ElectraForSequenceClassification", **options):
    return getattr(transformers, name).from_pretrained(saved(name, **HEADED[name], **options)).eval()


def batch_for(name, rows=4, tokens=9):
    shape = (rows, 2, tokens) if name == "ElectraForMultipleChoice" else (rows, tokens)
    mask = torch.ones(shape, dtype=torch.int64)
    mask[0, ..., 5:] = 0
    targets = {
        "ElectraForSequenceClassification": {"labels": torch.arange(rows) % 3},
        "ElectraForTokenClassification": {"labels": torch.randint(0, 5, shape)},
        "ElectraForQuestionAnswering": {"start_positions": torch.arange(rows), "end_positions": torch.arange(rows)},
        "ElectraForMultipleChoice": {"labels": torch.arange(rows) % 2},
    }[name]  # fmt: skip
    return {"input_ids": torch.randint(5, 60, shape), "attention_mask": mask, **targets}


def model_loss(model, batch):
    return model(**batch).loss


def test_a_student_begins_with_layers_of_its_teacher(saved):
    teacher = load(saved, num_hidden_layers=4)
    assert [teacher_layer(i, 4, 12) for i in range(4)] == [2, 5, 8, 11]
    student, fresh = make_student(teacher, student_config(teacher.config, 2, None, None, None))
    assert fresh == []
    ours, theirs = student.state_dict(), teacher.state_dict()
    for name, tensor in ours.items():
        source = name.replace("layer.0.", "layer.1.") if "layer.0." in name else name.replace("layer.1.", "layer.3.")
        assert torch.equal(tensor, theirs[source])
    narrow, fresh = make_student(teacher, student_config(teacher.config, 2, 24, None, None))
    assert narrow.config.num_attention_heads == 1
    assert narrow.config.intermediate_size == 36
    assert torch.equal(
        narrow.electra.embeddings.word_embeddings.weight, teacher.electra.embeddings.word_embeddings.weight
    )
    assert fresh == ["electra.embeddings_project", "electra.encoder.layer.0", "electra.encoder.layer.1", "classifier"]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((3, None, None, None), "layers must be from 1 to 2, the larger model's, got 3"),
        ((2, None, None, None), "as large as its teacher"),
        ((1, 30, 4, None), "heads must divide the hidden size, 30, got 4"),
        ((1, None, None, 0), "intermediate_size must be from 1 to 48"),
    ],
)
def test_students_that_cannot_be(saved, sizes, message):
    with pytest.raises(ConfigError, match=message):
        student_config(load(saved).config, *sizes)


def test_importance_is_the_change_of_the_loss(saved):
    """Against the loss with a neuron's, a head's and a coordinate's output a little smaller and larger."""
    model = load(saved).double()
    batch = batch_for("ElectraForSequenceClassification", rows=1)
    found = measure_importance(model, model_loss, [batch])
    layer = model.electra.encoder.layer[1]
    eps = 1e-4

    def slope(module, columns):
        losses = []
        for factor in (1 + eps, 1 - eps):
            hook = module.register_forward_pre_hook(
                lambda m, args, f=factor: (args[0].index_copy(-1, columns, args[0].index_select(-1, columns) * f),)
            )
            losses.append(model_loss(model, batch).item())
            hook.remove()
        return abs(losses[0] - losses[1]) / (2 * eps)

    assert found.neurons[1][7].item() == pytest.approx(slope(layer.output.dense, torch.tensor([7])), rel=1e-5)
    assert found.heads[1][1].item() == pytest.approx(
        slope(layer.attention.output.dense, torch.arange(16, 32)), rel=1e-5
    )
    assert found.head_neurons[3].item() == pytest.approx(slope(model.classifier.out_proj, torch.tensor([3])), rel=1e-5)
    assert found.width.shape == (32,)
    assert (found.width > 0).all()


def test_neurons_that_do_nothing_go_without_a_trace(saved):
    model = load(saved)
    with torch.no_grad():
        for layer in model.electra.encoder.layer:
            layer.output.dense.weight[:, 3:21] = 0
    batch = batch_for("ElectraForSequenceClassification")
    pruned = prune(model, measure_importance(model, model_loss, [batch]), heads=2, neurons=30).eval()
    assert pruned.config.intermediate_size == 30
    assert pruned.config.hidden_size == 32
    assert model.electra.encoder.layer[0].intermediate.dense.weight.grad is None
    torch.testing.assert_close(pruned(**batch).logits, model(**batch).logits, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", HEADED)
@pytest.mark.parametrize("embedding_size", [24, 32])
def test_fewer_heads_are_a_narrower_electra(saved, tmp_path, name, embedding_size):
    model = load(saved, name, embedding_size=embedding_size)
    batch = batch_for(name)
    importance = measure_importance(model, model_loss, [batch, batch])
    pruned = prune(model, importance, heads=1, neurons=20)
    width = importance.width.topk(16).indices.sort().values
    columns = int(importance.heads[0].argmax()) * 16 + torch.arange(16)
    theirs = model.electra.encoder.layer[0].attention.self.query.weight
    assert torch.equal(pruned.electra.encoder.layer[0].attention.self.query.weight, theirs[columns][:, width])
    hidden = torch.randn(3, embedding_size)
    whole = model.electra.embeddings_project(hidden) if embedding_size == 24 else hidden
    torch.testing.assert_close(pruned.electra.embeddings_project(hidden), whole[:, width])
    pruned.save_pretrained(tmp_path)
    again, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert torch.isfinite(again(**batch).loss)


def test_what_pruning_may_not_do(saved):
    config = load(saved).config
    assert check_sizes(config, None, None) == (2, 24)
    with pytest.raises(ConfigError, match="heads must be from 1 to 2, what the model has, got 3"):
        check_sizes(config, 3, None)
    with pytest.raises(ConfigError, match=r"heads must be another number than 1: .* as wide as its embeddings \(16\)"):
        check_sizes(config, 1, None)
    with pytest.raises(ConfigError, match="nothing would be pruned"):
        check_sizes(config, 2, 48)


@pytest.mark.parametrize("name", HEADED)
def test_a_student_that_is_its_teacher_has_nothing_to_learn(saved, name):
    teacher, student = load(saved, name), load(saved, name)
    batch = batch_for(name)

    class OwnLoss:
        problem = None
        loss = staticmethod(model_loss)

    taught = Taught(OwnLoss(), teacher, Lesson(temperature=2.0, soft_weight=1.0, hidden_weight=1.0))
    assert taught.loss(student, batch).item() == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        student.electra.encoder.layer[1].output.dense.bias[0] += 1
    loss = taught.loss(student, batch)
    assert loss.item() > 1e-4
    loss.backward()
    assert student.electra.embeddings.word_embeddings.weight.grad.abs().sum() > 0
    narrow, _ = make_student(teacher, student_config(teacher.config, 1, 16, None, None))
    assert torch.isfinite(taught.loss(narrow, batch))


def test_the_loss_is_hintons(saved):
    teacher, student = load(saved), load(saved, num_hidden_layers=1)
    batch = batch_for("ElectraForSequenceClassification")
    taught = Taught(TASK, teacher, Lesson(temperature=3.0, soft_weight=0.25, hidden_weight=0.0))
    with torch.no_grad():
        a, b = student(**batch).logits, teacher(**batch).logits
        p, q = functional.softmax(b / 3, -1), functional.softmax(a / 3, -1)
        soft = 9 * (p * (p / q).log()).sum(-1).mean()
        expected = 0.75 * functional.cross_entropy(a, batch["labels"]) + 0.25 * soft
        assert taught.loss(student, batch).item() == pytest.approx(expected.item(), rel=1e-5)
    assert taught.name == "classification"


@pytest.fixture(scope="module")
def trained(saved, tmp_path_factory):
    """``(model, train, dev)``: a model that tells foxes from apples, and the files that it learned that from."""
    folder = tmp_path_factory.mktemp("trained")
    draw = random.Random(0)
    for name, count in (("train", 64), ("dev", 32)):
        rows = [
            (draw.sample("the red green rain one text in a".split(), 5), ("fox", "apple")[i % 2]) for i in range(count)
        ]
        lines = [f"{' '.join([*words, kind])}\t{kind}" for words, kind in rows]
        (folder / f"{name}.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n")
    options = FinetuneOptions(
        model=saved("ElectraModel", embedding_size=24),
        train=folder / "train.tsv",
        dev=folder / "dev.tsv",
        output=folder / "run",
        epochs=4.0,
        batch_size=8,
        learning_rate=3e-3,
        dropout=0.0,
        precision="fp32",
        device="cpu",
    )
    finetune(options)
    return folder / "run", folder / "train.tsv", folder / "dev.tsv"


@pytest.fixture
def call(trained, tmp_path, monkeypatch):
    """``call("distill", name="value", …)``: compress in a second, to ``tmp_path/small``."""
    monkeypatch.setattr(_native, "keep_freed_memory", lambda: True)
    model, train, dev = trained

    def run(method, **changes):
        values = {"model": model, "train": train, "dev": dev, "max_steps": 24, "batch_size": 8, "learning_rate": 3e-3}
        values |= {"dropout": 0.0, "precision": "fp32", "device": "cpu", "output": tmp_path / "small"} | changes
        return compress(CompressOptions(method=method, **{k: v for k, v in values.items() if v is not None}))

    return run


@pytest.mark.parametrize(
    ("method", "sizes", "left"),
    [("distill", {"layers": 1}, (1, 32, 48)), ("prune", {"heads": 1, "intermediate_size": 16}, (2, 16, 16))],
)
def test_smaller_models_learn_what_the_large_one_knows(call, tmp_path, method, sizes, left):
    report = call(method, **sizes)
    assert report.before.figures["accuracy"] == 1
    assert report.after.figures["accuracy"] >= 0.9
    assert report.after.parameters < report.before.parameters
    assert report.after.bytes < report.before.bytes
    assert [path.name for path in tmp_path.iterdir()] == ["small"]
    config = transformers.AutoConfig.from_pretrained(tmp_path / "small")
    assert (config.num_hidden_layers, config.hidden_size, config.intermediate_size) == left
    (prediction,) = load_task(tmp_path / "small", precision="fp32").predict(["one red fox"])
    assert prediction["label"] == "fox"
    said = json.loads((tmp_path / "small" / "compress.json").read_text())
    assert said["method"] == method
    assert said["after"]["figures"] == report.after.figures
    assert not (tmp_path / "small" / "training").exists()


@pytest.mark.skipif(encoder_missing("cpu", torch.bfloat16, torch.int8) is not None, reason="no 8-bit products here")
def test_int8_is_what_it_is_loaded_as(call, tmp_path):
    report = call("int8", train=None)
    assert (report.before.precision, report.after.precision) == ("fp32", "int8")
    assert report.after.figures["accuracy"] >= 0.9
    assert load_task(tmp_path / "small", device="cpu").precision == "int8"
    assert load_task(tmp_path / "small", device="cpu", precision="fp32").precision == "fp32"
    transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "small")


def test_mistakes(call, trained, saved, tmp_path):
    for method, changes, message in (
        ("squeeze", {}, "method must be distill, int8 or prune, got 'squeeze'"),
        ("distill", {"train": None}, "train is missing: method distill needs training data"),
        ("int8", {}, "train is for method distill or prune"),
        ("prune", {"layers": 1}, "layers is for method distill, got it with method prune"),
        ("distill", {"temperature": 0.0}, "temperature must be greater than 0"),
        ("distill", {"soft_weight": 1.5}, "soft_weight must be from 0 to 1, got 1.5"),
        ("distill", {"layers": 9}, "layers must be from 1 to 2"),
    ):
        with pytest.raises(ConfigError, match=message):
            call(method, **changes)
    with pytest.raises(CheckpointError, match="holds no fine-tuned model"):
        call("distill", model=saved("ElectraModel"))
    assert list(tmp_path.iterdir()) == []
