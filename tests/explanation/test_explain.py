"""Explanations of every kind of head: what they say, whether the figures add up, and what is wrong input."""

import base64
import json
import math
import re
import shutil
from dataclasses import asdict
from html.parser import HTMLParser

import pytest
import torch

from electra_fast.data.hygiene import HygienePolicy
from electra_fast.errors import CheckpointError, ConfigError, DataError
from electra_fast.models import load_pretrained
from electra_fast.workflows.evaluation import load_task
from electra_fast.workflows.evaluation.calibration import Temperature, write_temperature
from electra_fast.workflows.explanation import explain, run, view, write_page
from electra_fast.workflows.finetuning.tasks.classification import Classification

TEXT = "The older cat sat on the mat."


class Page(HTMLParser):
    """An unclosed tag is an error; texts by the tag that they stand in."""

    def __init__(self):
        super().__init__()
        self.open, self.texts = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))


@pytest.mark.parametrize(
    ("kind", "second", "verdict", "reasons"),
    [
        ("labels", None, r"^(bad|good|neither) \(\d", 1),
        ("labels", "It is wild.", r"^(bad|good|neither) \(\d", 1),
        ("several", None, "^Labels: ", 1),
        ("number", None, r"^Value: -?\d", 1),
        ("tags", None, "animal|No word is tagged", 2),
        ("answers", TEXT, "^Answer: “", 1),
        ("replaced", None, "eplaced", 2),
    ],
)
def test_every_head(directory, kind, second, verdict, reasons, tmp_path):
    first = "Who is it?" if kind == "answers" else TEXT
    found = explain(directory(kind), first, second, most=2)
    assert re.search(verdict, found.verdict)
    assert 1 <= len(found.reasons) <= reasons
    for reason in found.reasons:
        assert abs(reason.attribution.residual) <= 1e-3 * max(1, abs(reason.attribution.difference))
        assert sum(reason.words) == pytest.approx(sum(reason.attribution.scores))
    size = len(found.tokens.ids)
    assert found.attention.shape == (2, 2, size, size)
    assert (found.probabilities is not None) == (kind == "replaced")
    page = Page()
    text = write_page(found, tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    page.feed(text)
    assert page.open == []
    assert found.verdict in [data for _, data in page.texts]
    assert not re.search(r"(src|href)=['\"]", text)  # nothing beside it
    data = json.loads(next(data for tag, data in page.texts if tag == "script"))
    assert data["tokens"] == found.tokens.pieces
    assert len(base64.b64decode(data["values"])) == 2 * 2 * size * size
    for reason in found.reasons:
        assert f"Not accounted for: {reason.attribution.residual:+.1e}" in text


def test_the_number_explained_is_the_models_own(directory):
    network = load_pretrained(directory("labels"))
    found = explain(directory("labels"), TEXT, label="good", attention=False)
    with torch.no_grad():
        p = torch.softmax(network(found.tokens.ids[None])[1][0], -1)[1]
    assert found.reasons[0].attribution.at_input == pytest.approx(torch.log(p / (1 - p)).item(), abs=1e-4)
    assert found.reasons[0].title == f"good: {p:.1%}"
    assert found.attention is None
    assert "Where its heads look" not in view.document(found)


def test_words_are_as_they_were_written(directory):
    found = explain(directory("labels"), "The OLDER  cat<.", attention=False)
    tokens = found.tokens
    assert tokens.pieces == ["[CLS]", "The", "OLD", "ER", "cat", "<", ".", "[SEP]"]
    assert [tokens.word(i) for i in range(tokens.word_count)] == ["The", "OLDER", "cat", "<", "."]
    text = view.document(found)
    assert ">OLDER</span> <span" in text
    assert ">cat</span><span" in text
    assert "OLD +" in text or "OLD -" in text
    assert ">&lt;</span>" in text


def test_a_mask_is_another_baseline_than_padding(directory):
    pad, mask = (explain(directory("labels"), TEXT, baseline=b, attention=False) for b in ("pad", "mask"))
    assert pad.reasons[0].attribution.at_input == mask.reasons[0].attribution.at_input
    assert pad.reasons[0].attribution.at_baseline != mask.reasons[0].attribution.at_baseline
    assert (pad.baseline, mask.baseline) == ("[PAD]", "[MASK]")


def test_a_long_text_is_cut_and_the_page_says_so(directory):
    found = explain(directory("labels"), "the cat sat on the mat " * 4)
    assert len(found.tokens.ids) == 16
    assert found.tokens.cut == 10
    assert "The last 10 tokens were left out" in view.document(found)


def test_attention_of_a_very_long_text_is_not_drawn(directory, monkeypatch):
    for module in (run, view):
        monkeypatch.setattr(module, "MOST_DRAWN", 8)
    found = explain(directory("labels"), TEXT, most=1)
    assert found.attention is None
    assert "No pictures of attention: the text has 11 tokens, over 8." in view.document(found)


def test_an_answer_is_looked_for_in_the_second_text_alone(directory):
    found = explain(directory("answers"), "who is it ? the cat", "the dog sat on the mat " * 5, attention=False)
    answer = re.search("“(.*?)”", found.verdict)[1]
    assert answer in "the dog sat on the mat " * 5
    assert found.tokens.pieces[1:7] == ["who", "is", "it", "?", "the", "cat"]


def test_a_run_is_as_good_as_the_model_in_it(directory, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "discriminator").symlink_to(directory("replaced"))
    assert explain(tmp_path, TEXT, most=1, attention=False).probabilities


@pytest.mark.parametrize(
    ("kind", "options", "error", "message"),
    [
        ("labels", {"baseline": "zero"}, ConfigError, "baseline must be pad or mask, got 'zero'"),
        ("labels", {"steps": 0}, ConfigError, "steps must be at least 1, got 0"),
        ("labels", {"most": 0}, ConfigError, "most must be at least 1, got 0"),
        ("labels", {"tolerance": 0.0}, ConfigError, "tolerance must be greater than 0"),
        ("labels", {"label": "fine"}, ConfigError, "label must be one of 'bad', 'good', 'neither', got 'fine'"),
        ("labels", {"text": " \n"}, DataError, "text must have at least one word"),
        ("replaced", {"label": "O"}, ConfigError, "label goes with a model that has labels"),
        ("answers", {}, ConfigError, "second is needed: the text that the question is about"),
        ("answers", {"text": "who is it ? " * 9, "second": "it"}, ConfigError, "text is too long: the model reads 16"),
        ("generator", {}, ConfigError, "model is a ElectraForMaskedLM: explained can be"),
    ],
)
def test_what_cannot_be(directory, kind, options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        explain(directory(kind), **{"text": TEXT} | options)


def test_no_model(tmp_path):
    with pytest.raises(CheckpointError, match="holds no model"):
        explain(tmp_path, TEXT)


def test_what_is_explained_is_what_is_predicted(directory, tmp_path):
    """With the task's length and hygiene, and a temperature."""
    model = shutil.copytree(directory("labels"), tmp_path / "best")
    task = Classification(max_length=8, labels=("bad", "good", "neither"), problem="single")
    values = {"format": 1, "task": "classification", "state": task.state(), "hygiene": asdict(HygienePolicy())}
    (model / "task.json").write_text(json.dumps(values))
    text = "the cat\tsat on\u200b the mat of the old dog"
    for temperature in (None, 3.0):
        if temperature is not None:
            write_temperature(model, Temperature(temperature, "dev.tsv", 9, 1.0, 0.9))
        expected = load_task(tmp_path, precision="fp32", device="cpu").predict([text])[0]
        found = explain(tmp_path, text, attention=False)
        odds = found.reasons[0].attribution.at_input
        assert found.verdict.startswith(expected["label"])
        assert 1 / (1 + math.exp(-odds)) == pytest.approx(expected["probability"], abs=1e-5)
        assert len(found.tokens.ids) == 8


def test_a_translation_cannot_be_explained(directory, tmp_path):
    model = shutil.copytree(directory("labels"), tmp_path / "model")
    values = {"format": 1, "task": "translation", "state": {"max_length": 8}, "hygiene": asdict(HygienePolicy())}
    (model / "task.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match="translates, which cannot be explained"):
        explain(model, TEXT)
