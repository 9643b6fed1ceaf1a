"""accelerate: a Hugging Face ELECTRA on our ops is the same model, inside transformers and out."""

from __future__ import annotations

import copy
import io
import sys
import warnings

import pytest
import torch
from torch import nn

from electra_fast import accelerate
from electra_fast.models import ElectraConfig, ElectraModel, huggingface
from electra_fast.ops import encoder_missing, native

transformers = pytest.importorskip("transformers", reason="accelerates models of transformers")

from electra_fast.models import accelerated  # noqa: E402  (imports transformers)


@pytest.fixture
def two(make_huggingface):
    """A model and its accelerated copy."""

    def make(name: str = "ElectraModel", padding: str = "drop", **options):
        theirs = make_huggingface(name, **options)
        return theirs, accelerate(copy.deepcopy(theirs), padding=padding)

    return make


@pytest.fixture(autouse=True)
def _nothing_warned_yet(monkeypatch):
    monkeypatch.setattr(accelerated, "_warned", set())


@pytest.mark.parametrize("padding", ["drop", "keep"])
@pytest.mark.parametrize("name", huggingface.CLASSES)
def test_outputs_and_gradients(two, make_batch, relative_error, name, padding):
    theirs, ours = two(name, padding)
    assert isinstance(ours, getattr(transformers, name))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    batch = make_batch()
    inputs = batch.choices() if name == "ElectraForMultipleChoice" else batch.inputs()
    expected, actual = (model(**inputs) for model in (theirs, ours))
    assert type(actual) is type(expected)
    assert list(actual.keys()) == list(expected.keys())
    real, losses = batch.attention_mask != 0, []
    for key in expected:
        a, b = actual[key], expected[key]
        if a.shape[:2] == real.shape and padding == "drop":
            if key == "last_hidden_state":
                assert not a[~real].any()
            a, b = a[real], b[real]
        assert relative_error(a, b) < 1e-5, key
        torch.manual_seed(0)
        weight = torch.randn_like(a)
        losses.append(((a * weight).sum(), (b * weight).sum()))
    ours_loss, theirs_loss = (sum(side) for side in zip(*losses, strict=True))
    ours_loss.backward()
    theirs_loss.backward()
    gradients = dict(theirs.named_parameters())
    for key, p in ours.named_parameters():
        if ".key.bias" not in key:
            assert relative_error(p.grad, gradients[key].grad) < 1e-4, key


def test_return_tuple_and_hidden_states(two, make_batch):
    theirs, ours = two("ElectraForTokenClassification")
    batch = make_batch()
    real = batch.attention_mask != 0
    for tuples in (True, False):
        expected, actual = (
            model(**batch.inputs(), output_hidden_states=True, return_dict=not tuples) for model in (theirs, ours)
        )
        assert isinstance(actual, tuple) == tuples
        hidden, expected_hidden = actual[1], expected[1]
        assert len(hidden) == len(expected_hidden) == 3
        for a, b in zip(hidden, expected_hidden, strict=True):
            torch.testing.assert_close(a[real], b[real], rtol=1e-4, atol=1e-5)
    theirs.config.output_hidden_states = ours.config.output_hidden_states = True
    assert len(ours(**batch.inputs()).hidden_states) == 3
    encoder = ours.electra(**batch.inputs(), return_dict=False)
    assert isinstance(encoder, tuple)
    assert len(encoder) == 2


def test_embeddings_may_be_given(two, make_batch):
    theirs, ours = two()
    batch, real = make_batch(), make_batch().attention_mask != 0
    vectors = torch.randn(*batch.input_ids.shape, 128)
    inputs = {"inputs_embeds": vectors, "attention_mask": batch.attention_mask, "token_type_ids": batch.token_type_ids}
    expected, actual = (model(**inputs).last_hidden_state[real] for model in (theirs, ours))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="inputs_embeds"):
        ours(input_ids=batch.input_ids, inputs_embeds=vectors)
    with pytest.raises(ValueError, match="inputs_embeds"):
        ours()


def test_what_is_not_covered_runs_the_original_and_says_so_once(two, make_batch):
    theirs, ours = two(attn_implementation="eager")
    batch = make_batch()
    with pytest.warns(UserWarning, match="does not cover output_attentions: running transformers' own forward"):
        actual = ours(**batch.inputs(), output_attentions=True)
    expected = theirs(**batch.inputs(), output_attentions=True)
    assert len(actual.attentions) == 2
    assert torch.equal(actual.attentions[1], expected.attentions[1])
    assert torch.equal(actual.last_hidden_state, expected.last_hidden_state)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours(**batch.inputs(), output_attentions=True)
    mask = (batch.attention_mask[:, None, :] != 0).expand(-1, 40, -1)
    if int(transformers.__version__.split(".")[0]) > 4:
        mask = mask.unsqueeze(1)
    with pytest.warns(UserWarning, match=f"an attention mask of {mask.ndim} dimensions"):
        ours(batch.input_ids, attention_mask=mask.float() if mask.ndim == 3 else mask)
    ours.config.output_attentions = True
    assert len(ours(**batch.inputs()).attentions) == 2


def test_decoders_and_relative_positions_run_the_original(two, make_batch):
    theirs, ours = two(is_decoder=True)
    batch = make_batch((5, 5))
    with pytest.warns(UserWarning, match="does not cover is_decoder"):
        actual = ours(batch.input_ids).last_hidden_state
    assert torch.equal(actual, theirs(batch.input_ids).last_hidden_state)
    _, ours = two()
    ours.config.position_embedding_type = "relative_key"
    with pytest.warns(UserWarning, match="does not cover position_embedding_type"):
        ours(batch.input_ids)
    ours.config.position_embedding_type = "absolute"
    with pytest.warns(UserWarning, match="positional arguments after position_ids"):
        ours(batch.input_ids, None, None, None, None)


def test_left_padding(two):
    """A head that reads the first token gets what transformers computes there, masked or not."""
    theirs, ours = two("ElectraForSequenceClassification")
    ids = torch.randint(5, 500, (2, 6))
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])
    expected, actual = (model(ids, attention_mask=mask).logits for model in (theirs, ours))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{"hidden_act": "relu"}, {"embedding_size": 256}, {"position_ids": True}])
def test_other_shapes_of_the_network(two, make_batch, options):
    positions = {"position_ids": torch.arange(3, 43).unsqueeze(0)} if options.pop("position_ids", False) else {}
    theirs, ours = two(**options)
    batch, real = make_batch(), make_batch().attention_mask != 0
    expected, actual = (model(**batch.inputs(), **positions).last_hidden_state[real] for model in (theirs, ours))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_replaced_parts_are_called(two, make_batch):
    """Hooks and other classes for embeddings, norms and linear layers, as adapters and quantisation put in."""

    class ScaledNorm(nn.LayerNorm):
        def forward(self, x):
            return 1.5 * super().forward(x)

    class ScaledLinear(nn.Linear):
        def forward(self, x):
            return 0.5 * super().forward(x)

    theirs, ours = two()
    for model in (theirs, ours):
        layer = model.encoder.layer[0]
        for owner, name, kind in (
            (layer.attention.output, "LayerNorm", ScaledNorm),
            (layer.attention.self, "value", ScaledLinear),
            (layer.intermediate, "dense", ScaledLinear),
            (layer.output, "dense", ScaledLinear),
        ):
            getattr(owner, name).__class__ = kind
        model.embeddings.word_embeddings.register_forward_hook(lambda module, args, output: output * 2)
    batch, real = make_batch(), make_batch().attention_mask != 0
    expected, actual = (model(**batch.inputs()).last_hidden_state[real] for model in (theirs, ours))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_copies_and_files(two, make_batch, tmp_path):
    theirs, ours = two("ElectraForPreTraining")
    batch = make_batch()
    expected = ours(**batch.inputs()).logits
    stream = io.BytesIO()
    torch.save(ours, stream)
    stream.seek(0)
    for other in (copy.deepcopy(ours), torch.load(stream, weights_only=False)):
        assert type(other.electra) is accelerated.ElectraModel
        assert torch.equal(other(**batch.inputs()).logits, expected)
    ours.save_pretrained(tmp_path)
    back = transformers.AutoModelForPreTraining.from_pretrained(tmp_path)
    assert type(back) is transformers.ElectraForPreTraining
    assert type(back.electra) is transformers.ElectraModel
    assert all(torch.equal(a, b) for a, b in zip(back.state_dict().values(), theirs.state_dict().values(), strict=True))
    ours.electra.save_pretrained(tmp_path / "encoder")
    assert transformers.ElectraConfig.from_pretrained(tmp_path / "encoder").architectures == ["ElectraModel"]


def test_training_drops_what_our_encoder_drops(two, make_batch):
    """Same places, same numbers: an accelerated model and `ElectraModel` in training agree."""
    _, theirs = two()
    ours = ElectraModel(ElectraConfig.from_huggingface_dict(theirs.config.to_dict()))
    ours.load_state_dict(theirs.state_dict())
    theirs.train()
    batch = make_batch()
    torch.manual_seed(4)
    actual = theirs(**batch.inputs()).last_hidden_state
    torch.manual_seed(4)
    torch.testing.assert_close(actual, ours(**batch.inputs()), rtol=1e-5, atol=1e-5)
    torch.manual_seed(5)
    assert not torch.equal(theirs(**batch.inputs()).last_hidden_state, actual)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_nothing(two, make_batch, reentrant):
    _, ours = two("ElectraForSequenceClassification")
    ours.train()
    ours.enable_input_require_grads()  # as transformers does for adapters
    inputs = make_batch().inputs()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            ours.gradient_checkpointing_enable({"use_reentrant": reentrant})
        ours.zero_grad()
        torch.manual_seed(4)
        ours(**inputs, labels=torch.tensor([0, 1, 1, 0])).loss.backward()
        gradients.append([p.grad.clone() for p in ours.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_frozen_models_pass_gradients_to_what_needs_them(two, make_batch):
    """As adapters need: nothing is trainable but what they add, and checkpointing wants inputs with gradients."""
    _, ours = two("ElectraForSequenceClassification")
    ours.requires_grad_(False)
    ours.enable_input_require_grads()
    states = ours(**make_batch().inputs(), output_hidden_states=True).hidden_states
    assert all(state.requires_grad for state in states)


def tokenizer_of(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"a good bad film it was very not".split()]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    return transformers.ElectraTokenizerFast(str(tmp_path / "vocab.txt"))


def test_pipeline(two, tmp_path):
    tokenizer = tokenizer_of(tmp_path)
    theirs, ours = two("ElectraForSequenceClassification", vocab_size=13)
    texts = ["a good film", "it was very very bad", "not"]
    expected, actual = (
        transformers.pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")(
            texts, batch_size=3
        )
        for model in (theirs, ours)
    )
    for a, b in zip(actual, expected, strict=True):
        assert a["label"] == b["label"]
        assert a["score"] == pytest.approx(b["score"], rel=1e-4)


def test_trainer(two, make_batch, tmp_path):
    """Two steps of `transformers.Trainer` without dropout end where the original's do."""
    pytest.importorskip("accelerate", reason="transformers.Trainer needs it")
    options = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    models = two("ElectraForSequenceClassification", **options)
    batch = make_batch()
    rows = [
        {"input_ids": i, "attention_mask": m, "labels": torch.tensor(n % 2)}
        for n, (i, m) in enumerate(zip(batch.input_ids, batch.attention_mask, strict=True))
    ]
    for model in models:
        arguments = transformers.TrainingArguments(
            str(tmp_path), max_steps=2, per_device_train_batch_size=4, report_to=[], save_strategy="no", use_cpu=True
        )
        transformers.Trainer(model, arguments, train_dataset=rows).train()
    for (name, a), b in zip(models[1].named_parameters(), models[0].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-5, msg=name)


@pytest.mark.parametrize("padding", ["drop", "keep"])
def test_compiles_without_a_break(two, make_batch, padding):
    _, ours = two(padding=padding, num_hidden_layers=1)
    batch = make_batch()
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    expected = ours(**batch.inputs()).last_hidden_state
    torch.testing.assert_close(compiled(**batch.inputs()).last_hidden_state, expected, rtol=1e-4, atol=1e-5)


def test_again_changes_padding_only(two, make_batch):
    _, ours = two("ElectraForPreTraining")
    batch = make_batch()
    dropped = ours.electra(**batch.inputs()).last_hidden_state
    assert accelerate(ours, padding="keep") is ours
    kept = ours.electra(**batch.inputs()).last_hidden_state
    assert kept[batch.attention_mask == 0].any()
    torch.testing.assert_close(kept * (batch.attention_mask != 0).unsqueeze(-1), dropped, rtol=1e-4, atol=1e-5)


def test_inside_another_model(make_huggingface, make_batch):
    class Mine(nn.Module):
        def __init__(self, encoder):
            super().__init__()
            self.encoder = encoder

    model = accelerate(Mine(make_huggingface()))
    assert type(model.encoder) is accelerated.ElectraModel


def test_mistakes_are_named(make_huggingface):
    with pytest.raises(ValueError, match="padding must be 'drop' or 'keep', got 'skip'"):
        accelerate(make_huggingface(), padding="skip")
    with pytest.raises(TypeError, match="must be a Hugging Face ELECTRA, got str"):
        accelerate("google/electra-small-discriminator")
    with pytest.raises(TypeError, match="must be, or contain, a Hugging Face ELECTRA, got Linear"):
        accelerate(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="ElectraForMultipleChoice has a summary_type that reads padding"):
        accelerate(make_huggingface("ElectraForMultipleChoice", summary_type="mean"))
    accelerate(make_huggingface("ElectraForMultipleChoice", summary_type="mean"), padding="keep")

    wrapped = make_huggingface()
    wrapped.encoder.layer[0].forward = wrapped.encoder.layer[0].forward
    with pytest.raises(TypeError, match="forward pass of ElectraLayer is not transformers' own"):
        accelerate(wrapped)
    assert type(wrapped) is transformers.ElectraModel


def test_without_transformers(monkeypatch):
    """The package does not need it; accelerate says that it does."""
    import sys

    monkeypatch.delitem(sys.modules, "electra_fast.models.accelerated")
    monkeypatch.delattr("electra_fast.models.accelerated", raising=False)
    for name in [name for name in sys.modules if name == "transformers" or name.startswith("transformers.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match="accelerate needs transformers: pip install"):
        accelerate(nn.Linear(2, 2))


needs_native = pytest.mark.skipif(native.error is not None, reason=f"{native.error}")


@needs_native
@pytest.mark.parametrize("padding", ["drop", "keep"])
def test_inference_runs_packed(two, make_batch, relative_error, padding, monkeypatch):
    """With a mask as without one; layer by layer where hidden states are wanted, masked rows are computed or a part is
    hooked."""
    packed = []
    encode = accelerated.encode_packed

    def recorded(*arguments, **options):
        out = encode(*arguments, **options)
        packed.append(out is not None)
        return out

    monkeypatch.setattr(accelerated, "encode_packed", recorded)
    theirs, ours = two(padding=padding)
    inputs = make_batch().inputs()
    real = inputs["attention_mask"] != 0
    with torch.no_grad():
        expected, actual = (model(**inputs).last_hidden_state for model in (theirs, ours))
        assert relative_error(actual[real], expected[real]) < 1e-5
        inputs["attention_mask"] = None
        expected, actual = (model(**inputs).last_hidden_state for model in (theirs, ours))
        assert relative_error(actual, expected) < 1e-5
        assert packed == ([True, True] if padding == "drop" else [True])
        packed.clear()
        ours(**inputs, output_hidden_states=True)
        hook = ours.encoder.register_forward_hook(lambda *_: None)
        ours(**inputs)
        hook.remove()
        assert not packed


@needs_native
def test_dtypes(two, make_batch, relative_error):
    inputs = make_batch().inputs()
    real = inputs["attention_mask"] != 0
    with torch.no_grad():
        theirs, ours = two()
        expected = theirs(**inputs).last_hidden_state
        if encoder_missing("cpu", torch.bfloat16, torch.int8) is None:
            actual = accelerate(ours, dtype=torch.int8)(**inputs).last_hidden_state
            assert actual.dtype == torch.float32
            assert 1e-4 < relative_error(actual[real], expected[real]) < 0.05
            actual = accelerate(ours)(**inputs).last_hidden_state
            assert relative_error(actual[real], expected[real]) < 1e-5
        actual = accelerate(ours, dtype=torch.bfloat16)(**inputs).last_hidden_state
        assert actual.dtype == torch.bfloat16
        assert relative_error(actual[real], expected[real]) < 0.02
    with pytest.raises(ValueError, match=r"dtype must be a floating dtype, torch\.int8 or None, got torch\.int64"):
        accelerate(theirs, dtype=torch.int64)


def test_int8_where_it_cannot_be(make_huggingface, monkeypatch):
    module = sys.modules["electra_fast.models.accelerate"]
    monkeypatch.setattr(module, "encoder_missing", lambda *_: "no such instruction")
    with pytest.raises(RuntimeError, match=r"accelerate: dtype=torch\.int8 cannot be: no such instruction"):
        accelerate(make_huggingface(), dtype=torch.int8)


def test_low_precision_compiles_few_shapes(two, make_batch, monkeypatch):
    """oneDNN keeps a kernel for each number of rows: in a server, whose batches all differ, that would be many.

    Where the layers run one by one, as with padding kept; where they are packed the projection is too.
    """
    _, ours = two("ElectraModel", padding="keep", embedding_size=16, hidden_size=32)
    ours.to(torch.bfloat16)
    rows, linear = [], nn.functional.linear

    def recorded(x, weight, bias=None):
        if weight is ours.embeddings_project.weight:
            rows.append(len(x))
        return linear(x, weight, bias)

    monkeypatch.setattr(nn.functional, "linear", recorded)
    batch = make_batch((7, 40, 23))
    with torch.no_grad():
        few = ours(**batch.inputs()).last_hidden_state
    assert rows == [128]
    whole = ours(**batch.inputs()).last_hidden_state
    assert rows == [128, 120]
    real = batch.inputs()["attention_mask"] != 0
    torch.testing.assert_close(few[real], whole[real], rtol=0.05, atol=0.1)
