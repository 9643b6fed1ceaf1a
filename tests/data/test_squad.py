"""Reading SQuAD's json: both versions, and every way a file can be broken, with the record that is."""

import json

import pytest

from electra_fast.data.squad import read_squad
from electra_fast.errors import DataError

pytest.importorskip("datasets", reason="needs the optional package datasets")

CONTEXT = "The \U0001f682 left Łódź at noon."


def question(answer="noon", start=19, **more):
    answers = [] if answer is None else [{"text": answer, "answer_start": start}]
    return {"id": "q1", "question": "When?", "answers": answers, **more}


@pytest.fixture
def write(tmp_path):
    def make(*questions, content=None, context=CONTEXT):
        path = tmp_path / "x.json"
        content = (
            content
            if content is not None
            else {"data": [{"title": "t", "paragraphs": [{"context": context, "qas": list(questions)}]}]}
        )
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return make


def test_questions_come_with_context_and_all_answers(write):
    first = question()
    first["answers"].append({"text": "at noon", "answer_start": 16})
    read = read_squad(write(first, question("Łódź", 11, id=7)))
    assert read[:] == {
        "id": ["q1", "7"],
        "question": ["When?", "When?"],
        "context": [CONTEXT, CONTEXT],
        "answers": [
            {"text": ["noon", "at noon"], "answer_start": [19, 16]},
            {"text": ["Łódź"], "answer_start": [11]},
        ],
    }


def test_questions_without_an_answer_are_those_marked_as_impossible(write):
    plausible = [{"text": "noon", "answer_start": 19}]
    read = read_squad(write(question(None, is_impossible=True, plausible_answers=plausible)))
    assert read["answers"][0] == {"text": [], "answer_start": []}
    with pytest.raises(DataError, match=r"qas\[0\] \(id q1\): no answers; .* marked by \"is_impossible\": true"):
        read_squad(write(question(None)))
    with pytest.raises(DataError, match=r"qas\[0\] \(id q1\): is_impossible, and yet there are answers"):
        read_squad(write(question(is_impossible=True)))


def test_answers_may_be_missing_where_none_are_needed(write):
    path = write({"question": "When?"})
    assert read_squad(path, labelled=False)["answers"][0] == {"text": [], "answer_start": []}
    with pytest.raises(DataError, match=r"paragraphs\[0\]\.qas\[0\]: expected an object with a list 'answers'"):
        read_squad(path)


@pytest.mark.parametrize(
    ("answer", "start", "message"),
    [
        ("noon", 22, "the answer 'noon' is not at character 22 of the context: it begins at 19"),
        ("noon", -4, "is not at character -4 of the context: it begins at 19"),
        ("midnight", 3, "it is not in the context"),
        ("noon", "19", "answer_start must be a whole number, got '19'"),
        ("", 0, "an answer must have a text, got ''"),
    ],
)
def test_an_answer_has_to_be_where_it_says(write, answer, start, message):
    with pytest.raises(DataError) as error:
        read_squad(write(question(), question(answer, start, id="q2")))
    assert str(error.value).endswith(message)
    assert "x.json, data[0].paragraphs[0].qas[1] (id q2): " in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"data": [\n{"paragraphs" []}]}', r"x\.json, line 2: not JSON \(Expecting ':' delimiter, column 15\)"),
        ("", r"x\.json, line 1: not JSON"),
        ("[1]", r"x\.json: expected SQuAD's form, an object with 'data'"),
        ({"data": {}}, r"x\.json: expected an object with a list 'data'"),
        ({"data": ["x"]}, r"x\.json, data\[0\]: expected an object with a list 'paragraphs', got 'x'"),
        ({"data": [{"paragraphs": [{"qas": []}]}]}, r"data\[0\]\.paragraphs\[0\]: .* a text 'context'"),
        ({"data": []}, r"x\.json holds no question"),
        (
            {"data": [{"paragraphs": [{"context": "\ud83d", "qas": []}]}]},
            r"data\[0\]\.paragraphs\[0\]: .* lone surrogate",
        ),
    ],
)
def test_a_broken_file_is_named_with_the_place(write, content, message):
    with pytest.raises(DataError, match=message) as error:
        read_squad(write(content=content))
    assert "\n" not in str(error.value)


def test_a_question_has_to_be_a_text(write):
    with pytest.raises(DataError, match=r"qas\[0\]: expected an object with a text 'question'"):
        read_squad(write(question() | {"question": " "}))
