"""Multiple choice: what files hold, rows of several choices, and questions with different numbers of them."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="needs the optional package transformers")

from electra_fast.errors import DataError
from electra_fast.workflows.finetuning import FinetuneOptions
from electra_fast.workflows.finetuning.checkpoint import load_tokenizer, resolve
from electra_fast.workflows.finetuning.tasks.choice import MultipleChoice

TASK = MultipleChoice(max_length=16)
EXAMPLES = {
    "context": ["the film", "a story"],
    "question": ["it was", ""],
    "choices": [["good", "very bad", "long"], ["end", "actor"]],
    "label": [1, 0],
}


@pytest.fixture
def tokenizer(checkpoint):
    return load_tokenizer(resolve(checkpoint))


@pytest.fixture
def write(tmp_path):
    def make(name, *lines):
        path = tmp_path / name
        path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
        return path

    return make


def test_choices_are_a_list_or_columns(write):
    expected = {"context": ["c", "d"], "question": ["q", "r"], "choices": [["x", "y"], ["y", "z"]], "label": [1, 0]}
    rows = [
        {"context": "c", "question": "q", "choices": ["x", "y"], "label": 1},
        {"context": "d", "question": "r", "choices": ["y", "z"], "label": 0},
    ]
    assert TASK.read(write("x.jsonl", *rows))[:] == expected
    assert TASK.read(write("x.csv", "sent1,sent2,ending0,ending1,label", "c,q,x,y,1", "d,r,y,z,0"))[:] == expected
    named = MultipleChoice.from_options(
        FinetuneOptions(task="choice", text_column="a", pair_column="b", label_column="right"), 64
    )
    assert (
        named.read(write("x.tsv", "a\tb\toption_A\toption_B\tright", "c\tq\tx\ty\tB", "d\tr\ty\tz\ty"))[:] == expected
    )


def test_columns_are_counted_as_they_are_numbered(write):
    path = write("x.csv", "premise,choice1,choice2,choice3,label", "c,x,y,,2", "c,x,y,z,3")
    assert TASK.read(path)[:] == {"context": ["c", "c"], "choices": [["x", "y"], ["x", "y", "z"]], "label": [1, 2]}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"context": "c", "choices": ["x"], "label": 0}], "row 1: expected two or more choices"),
        ([{"context": "c", "choices": ["x", ""], "label": 0}], "row 1: expected two or more choices"),
        ([{"context": "c", "choices": "xy", "label": 0}], "row 1: expected two or more choices"),
        ([{"context": "c", "choices": ["x", "y"], "label": 2}], "row 1: the label must be a number from 0 to 1"),
        ([{"context": "c", "choices": ["x", "y"]}], "no column 'label'"),
        ([{"choices": ["x", "y"], "label": 0}], "no column 'context'"),
        ([{"context": "c", "label": 0}], "has no choices"),
        ([{"context": 3, "choices": ["x", "y"], "label": 0}], "row 1: column 'context' must hold text, got 3"),
    ],
)
def test_a_broken_table_is_named_with_the_row(write, lines, message):
    with pytest.raises(DataError, match=message):
        TASK.read(write("x.jsonl", *lines))


def test_labels_of_numbered_columns_are_their_numbers(write):
    with pytest.raises(DataError, match="row 1: the label must be one of 1, 2, a letter, or the right choice"):
        TASK.read(write("x.csv", "premise,choice1,choice2,label", "c,x,y,0"))


def test_every_choice_is_read_with_context_and_question(tokenizer):
    rows = TASK.features(EXAMPLES, tokenizer, training=True)
    tokens = [[" ".join(tokenizer.convert_ids_to_tokens(ids)) for ids in choices] for choices in rows["input_ids"]]
    assert tokens == [
        [
            "[CLS] the film [SEP] it was good [SEP]",
            "[CLS] the film [SEP] it was very bad [SEP]",
            "[CLS] the film [SEP] it was long [SEP]",
        ],
        ["[CLS] a story [SEP] end [SEP]", "[CLS] a story [SEP] actor [SEP]"],
    ]
    assert rows["token_type_ids"][1][0] == [0, 0, 0, 0, 1, 1]
    assert rows["labels"] == [1, 0]
    assert TASK.row_lengths(rows) == [27, 12]


def test_a_question_alone_stands_in_the_place_of_the_context(tokenizer):
    rows = TASK.features({"question": ["it was"], "choices": [["good", "bad"]]}, tokenizer, training=False)
    assert tokenizer.convert_ids_to_tokens(rows["input_ids"][0][0]) == ["[CLS]", "it", "was", "[SEP]", "good", "[SEP]"]


def test_what_is_too_long_loses_the_end_of_its_context(tokenizer):
    examples = {"context": ["the film " * 9], "question": ["it was"], "choices": [["good", "bad " * 30]]}
    rows = TASK.features(examples, tokenizer, training=False)
    first, second = (tokenizer.convert_ids_to_tokens(ids) for ids in rows["input_ids"][0])
    assert first == ["[CLS]", *["the", "film"] * 5, "[SEP]", "it", "was", "good", "[SEP]"]
    assert second == ["[CLS]", "[SEP]", "it", "was", *["bad"] * 11, "[SEP]"]
    assert rows["cut"] == [True]


def test_questions_with_fewer_choices_are_filled_up(tokenizer):
    rows = TASK.features(EXAMPLES, tokenizer, training=True)
    batch = TASK.collate([{name: values[i] for name, values in rows.items()} for i in range(2)], tokenizer.pad_token_id)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, 3, 9)
    assert batch["attention_mask"].sum(2).tolist() == [[8, 9, 8], [6, 6, 2]]
    assert tokenizer.convert_ids_to_tokens(batch["input_ids"][1, 2, :3].tolist()) == ["[CLS]", "[SEP]", "[PAD]"]
    assert batch["labels"].tolist() == [1, 0]


def test_choices_that_filled_up_are_never_chosen():
    outputs = [np.array([0.0, 1.0, 3.0]), np.array([0.0, np.log(3.0), 9.0])]
    first, second = TASK.decode(outputs, {}, EXAMPLES)
    assert (first["label"], first["choice"]) == (2, "long")
    assert second == {
        "label": 1,
        "choice": "actor",
        "probability": pytest.approx(0.75),
        "probabilities": [pytest.approx(0.25), pytest.approx(0.75)],
    }
    assert TASK.score([first, {"label": 0}], EXAMPLES) == {"accuracy": 0.5}


@pytest.mark.parametrize(
    "item",
    [
        "text",
        {"context": "c"},
        {"context": "c", "choices": ["x"]},
        {"choices": ["x", "y"]},
        {"context": " ", "choices": ["x", "y"]},
    ],
)
def test_an_input_that_lacks_something_is_refused(item):
    with pytest.raises(DataError, match="an input for choice needs"):
        TASK.accept(item)


def test_an_input_may_lack_context_or_question():
    assert TASK.accept({"question": "q", "choices": ["x", "y"]}) == {
        "context": "",
        "question": "q",
        "choices": ["x", "y"],
    }


def test_the_loss_falls_and_choices_are_right(checkpoint, tokenizer):
    torch.manual_seed(0)
    model = TASK.model(resolve(checkpoint), dropout=0.0)
    rows = TASK.features(EXAMPLES, tokenizer, training=True)
    batch = TASK.collate([{name: values[i] for name, values in rows.items()} for i in range(2)], tokenizer.pad_token_id)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(30):
        loss = TASK.loss(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.1
    del batch["labels"]
    with torch.no_grad():
        outputs = TASK.infer(model.eval(), batch)
    assert TASK.score(TASK.decode(outputs, rows, EXAMPLES), EXAMPLES) == {"accuracy": 1.0}
