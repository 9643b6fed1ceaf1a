"""Token classification: what is learned from tags, which sub-token answers for a word, and where entities are."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="needs the optional package transformers")

from electra_fast.data.hygiene import HygienePolicy
from electra_fast.errors import ConfigError, DataError
from electra_fast.workflows.finetuning import FinetuneOptions
from electra_fast.workflows.finetuning.checkpoint import load_tokenizer, resolve
from electra_fast.workflows.finetuning.task import task_class
from electra_fast.workflows.finetuning.tasks.tokens import TokenClassification

LONG = "x" * 7  # the tiny tokenizer makes as many sub-tokens of it


@pytest.fixture
def tokenizer(checkpoint):
    return load_tokenizer(resolve(checkpoint))


@pytest.fixture
def write(tmp_path):
    def make(text, name="x.conll"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return make


def learned(*tags, max_length=64):
    return TokenClassification(max_length=max_length).learn({"tags": [list(tags)]})


def certain(task, rows, tag_of):
    """Logits of a model that is sure of ``tag_of(characters where the word begins)`` at the judged positions."""
    outputs = []
    for ids, positions, starts in zip(rows["input_ids"], rows["positions"], rows["starts"], strict=True):
        logits = np.full((len(ids), len(task.labels)), -5.0, np.float32)
        for position, start in zip(positions, starts, strict=True):
            logits[position, task.labels.index(tag_of(start))] = 5.0
        outputs.append(logits)
    return outputs


def test_labels_are_iob2_whatever_the_scheme():
    expected = ("O", "B-x", "I-x", "B-y", "I-y")
    for tags in (["O", "I-x", "I-y"], ["O", "B-x", "S-y", "E-x"], ["B-y", "U-x"]):
        assert learned(*tags).labels == expected
        assert learned(*tags).metric == "f1"


def test_other_tags_are_learned_as_they_are_and_scored_by_accuracy():
    task = learned("VERB", "NOUN")
    assert (task.labels, task.metric) == (("NOUN", "VERB"), "accuracy")
    assert task.score([{"tags": ["NOUN", "NOUN"]}], {"tags": [["NOUN", "VERB"]], "tokens": [["a", "b"]]}) == {
        "accuracy": 0.5
    }


def test_one_tag_is_nothing_to_learn():
    with pytest.raises(DataError, match="all tokens of the training data have the tag 'O'"):
        learned("O", "O")


def test_tags_are_all_of_entities_or_none_is(write):
    path = write("a\tO\n\nb\tB-x\nc\tx_B\n")
    message = r"x\.conll, sentence 2: the tag 'x_B' is none of an entity, as others are"
    with pytest.raises(DataError, match=message):
        TokenClassification(max_length=64).read(path)
    plain = write("a\tO\n\nb\tX\n", "y.conll")
    assert TokenClassification(max_length=64).read(plain)["tags"] == [["O"], ["X"]]
    with pytest.raises(DataError, match=r"y\.conll, sentence 2: the tag 'X'"):
        learned("O", "B-x").read(plain)
    assert learned("O", "B-x").read(plain, labelled=False)["tokens"] == [["a"], ["b"]]
    assert learned("NOUN", "X").read(path)["tags"] == [["O"], ["B-x", "x_B"]]


def test_the_task_survives_json():
    task = learned("O", "B-x")
    assert TokenClassification.from_state(json.loads(json.dumps(task.state()))) == task


def test_the_first_sub_token_of_a_word_has_its_label(tokenizer):
    task = learned("O", "B-x", "I-x")
    rows = task.features(
        {"tokens": [["the", LONG, "\u200b", "end"]], "tags": [["O", "I-x", "I-x", "B-x"]]}, tokenizer, True
    )
    (ids,), (labels,) = rows["input_ids"], rows["labels"]
    words = ["[CLS]", "the", "x", *["##x"] * 6, "[UNK]", "end", "[SEP]"]  # of \u200b the tokenizer leaves nothing
    assert tokenizer.convert_ids_to_tokens(ids) == words
    names = [None if label == -100 else task.labels[label] for label in labels]
    assert names == [None, "O", "B-x", *[None] * 6, "I-x", "B-x", None]


def test_a_tag_that_training_data_lacks_is_not_learned(tokenizer):
    rows = learned("O", "B-x").features({"tokens": [["the", "end"]], "tags": [["B-z", "O"]]}, tokenizer, True)
    assert rows["labels"] == [[-100, -100, 0, -100]]


def test_of_a_long_sentence_every_word_is_judged_once(tokenizer):
    task = learned("O", "B-x", max_length=16)
    words = ["the", LONG, "end"] * 9
    training = task.features({"tokens": [words], "tags": [["B-x", "O", "O"] * 9]}, tokenizer, True)
    assert all(len(ids) <= 16 for ids in training["input_ids"])
    assert sum(label != -100 for labels in training["labels"] for label in labels) == 27
    rows = task.features({"tokens": [words]}, tokenizer, False)
    assert len(rows["example"]) > 4
    found = [start for starts in rows["starts"] for start in starts]
    text = " ".join(words)
    assert [text[start:].split(" ")[0] for start in found] == words
    (prediction,) = task.decode(
        certain(task, rows, lambda start: "B-x" if text[start:].startswith("the") else "O"), rows, {"tokens": [words]}
    )
    assert prediction["tags"] == ["B-x", "O", "O"] * 9


def test_entities_are_characters_of_a_raw_text(tokenizer):
    task = learned("O", "B-x", "I-x")
    text = "  The\tlong story,with «an» END. "
    examples = {"text": [text], "tokens": [None]}
    rows = task.features(examples, tokenizer, False)
    tags = {text.index("long"): "B-x", text.index("story"): "I-x", text.index("END"): "I-x"}
    (prediction,) = task.decode(certain(task, rows, lambda start: tags.get(start, "O")), rows, examples)
    assert [(entity["text"], entity["type"]) for entity in prediction["entities"]] == [
        ("long story", "x"),
        ("END", "x"),
    ]
    for entity in prediction["entities"]:
        assert text[entity["start"] : entity["end"]] == entity["text"]
        assert set(entity) == {"type", "text", "start", "end", "probability"}
        assert entity["probability"] == pytest.approx(1 / (1 + 2 * np.exp(-10)))


def test_entities_of_given_tokens_have_characters_and_token_numbers(tokenizer):
    task = learned("O", "B-x", "I-x")
    examples = {"text": [None, "end"], "tokens": [["a", "long", "story", "with-end"], None]}
    rows = task.features(examples, tokenizer, False)
    tags = {2: "B-x", 7: "I-x"}
    first, second = task.decode(certain(task, rows, lambda start: tags.get(start, "O")), rows, examples)
    (entity,) = first["entities"]
    assert (entity["text"], entity["start"], entity["end"]) == ("long story", 2, 12)
    assert (entity["first_token"], entity["last_token"]) == (1, 2)
    assert first["tags"] == ["O", "B-x", "I-x", "O"]
    assert second == {"entities": []}


def test_predictions_of_other_tags_name_every_token(tokenizer):
    task = learned("NOUN", "VERB")
    examples = {"text": ["Film was"], "tokens": [None]}
    rows = task.features(examples, tokenizer, False)
    (prediction,) = task.decode(certain(task, rows, lambda start: "VERB" if start else "NOUN"), rows, examples)
    assert [(t["text"], t["start"], t["end"], t["tag"]) for t in prediction["tokens"]] == [
        ("Film", 0, 4, "NOUN"),
        ("was", 5, 8, "VERB"),
    ]


def test_a_text_without_words_has_no_entities(tokenizer):
    task = learned("O", "B-x")
    examples = {"text": ["", " \n"], "tokens": [None, None]}
    rows = task.features(examples, tokenizer, False)
    assert task.decode(certain(task, rows, None), rows, examples) == [{"entities": []}] * 2


def test_figures_are_those_of_conll():
    task = learned("O", "B-x", "I-x", "B-y")
    tokens = ["a", "b", "c", "d", "e"]
    gold = {"tokens": [tokens], "tags": [["I-x", "I-x", "O", "S-y", "S-y"]]}
    scores = task.score([{"tags": ["B-x", "I-x", "O", "B-y", "I-y"]}], gold)
    assert scores == {
        "precision": 0.5,
        "recall": pytest.approx(1 / 3),
        "f1": pytest.approx(0.4),
        "surface_f1": pytest.approx(0.4),
        "accuracy": 0.8,
    }


@pytest.mark.parametrize("item", [3, {"tokens": "a b"}, {"tokens": ["a", 1]}, {"words": ["a"]}, {"text": None}])
def test_an_input_that_is_no_text_is_refused(item):
    with pytest.raises(DataError, match="an input for ner needs"):
        learned("O", "B-x").accept(item)


def test_tables_hold_lists(write, tmp_path):
    datasets = pytest.importorskip("datasets")
    task = TokenClassification(max_length=64)
    lines = '{"words": ["a", "b"], "ner_tags": ["O", "B-x"]}\n{"words": ["c"], "ner_tags": null}\n'
    read = task.read(write(lines, "x.jsonl"))
    assert read[:] == {"tokens": [["a", "b"], ["c"]], "tags": [["O", "B-x"], None]}
    names = datasets.Sequence(datasets.ClassLabel(names=["O", "B-x"]))
    saved = datasets.Dataset.from_dict(
        {"tokens": [["a", "b"]], "ner_tags": [[0, 1]]},
        features=datasets.Features({"tokens": datasets.Sequence(datasets.Value("string")), "ner_tags": names}),
    )
    saved.save_to_disk(tmp_path / "saved")
    assert task.read(tmp_path / "saved")[:] == {"tokens": [["a", "b"]], "tags": [["O", "B-x"]]}
    assert task.read(write('{"text": "a b"}\n', "y.jsonl"), labelled=False)[:] == {"text": ["a b"]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"tokens": ["a", "b"], "tags": ["O"]}', "row 1: 2 tokens and 1 tags"),
        ('{"tokens": "a b", "tags": ["O"]}', "row 1: column 'tokens' must be a list of texts, got 'a b'"),
        ('{"tokens": ["a"]}', "has no column 'tags'"),
        ('{"tokens": ["a"], "tags": [1]}', "row 1: column 'tags' must be a list of texts, got \\[1\\]"),
        ("{", "line 1"),
        (
            '{"tokens": ["a", "\\ud83d"], "tags": ["O", "O"]}',
            "row 1, column 'tokens': an escape stands for half a character",
        ),
    ],
)
def test_a_broken_table_is_named_with_the_row(write, line, message):
    with pytest.raises(DataError, match=rf"x\.jsonl.*{message}"):
        TokenClassification(max_length=64).read(write(line + "\n", "x.jsonl"))


def test_columns_of_a_conll_file_are_numbers(write):
    options = FinetuneOptions(task="ner", text_column="2", label_column="1")
    task = TokenClassification.from_options(options, 64)
    assert task.read(write("O\ta\n"))[:] == {"tokens": [["a"]], "tags": [["O"]]}
    with pytest.raises(ConfigError, match="label_column must be the number of a column of the CoNLL file"):
        TokenClassification.from_options(FinetuneOptions(task="ner", label_column="tag"), 64).read(write("a\tO\n"))


@pytest.mark.parametrize("task", ["ner", "qa", "choice"])
def test_labels_that_are_no_words_cannot_be_filled(task):
    with pytest.raises(ConfigError, match="fill_label is for labels that are words or numbers"):
        task_class(task).from_options(FinetuneOptions(task=task, fill_label="O"), 64)


def test_sentences_without_tags_are_left_out(write):
    path = write('{"tokens": ["a"], "tags": ["O"]}\n{"tokens": ["b"]}\n{"tags": ["O"]}\n', "x.jsonl")
    task = TokenClassification(max_length=64)
    cleaned, report = task.clean(task.read(path), HygienePolicy())
    assert cleaned[:] == {"tokens": [["a"]], "tags": [["O"]]}
    assert (report.missing_texts, report.missing_labels) == (1, 1)


def test_the_model_knows_its_labels_and_its_loss_falls(checkpoint, tokenizer):
    task = learned("O", "B-x", "I-x")
    examples = {"tokens": [["the", "good", "film"], ["bad", "end"]], "tags": [["O", "B-x", "I-x"], ["B-x", "O"]]}
    torch.manual_seed(0)
    model = task.model(resolve(checkpoint), dropout=0.0)
    assert model.config.id2label == dict(enumerate(task.labels))
    rows = task.features(examples, tokenizer, True)
    batch = task.collate([{name: values[i] for name, values in rows.items()} for i in range(2)], 0)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(30):
        loss = task.loss(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.1
    rows = task.features(examples, tokenizer, False)
    batch = task.collate([{name: values[i] for name, values in rows.items()} for i in range(2)], 0)
    with torch.no_grad():
        outputs = task.infer(model.eval(), batch)
    assert task.score(task.decode(outputs, rows, examples), examples)["f1"] == 1.0
