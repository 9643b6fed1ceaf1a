"""Every kind of answer: its figures, classes, mistakes and probabilities, on predictions that are made up."""

import itertools

import numpy as np
import pytest
import sacrebleu
from sklearn import metrics

from electra_fast.errors import ConfigError
from electra_fast.workflows.evaluation.judgement import judge, shortened
from electra_fast.workflows.evaluation.slices import by_length
from electra_fast.workflows.finetuning.tasks.choice import MultipleChoice
from electra_fast.workflows.finetuning.tasks.classification import Classification
from electra_fast.workflows.finetuning.tasks.questions import QuestionAnswering
from electra_fast.workflows.finetuning.tasks.tokens import TokenClassification
from electra_fast.workflows.finetuning.tasks.translation import Translation

LABELS = ("a", "b", "c")


def decoded(task, logits, examples):
    return task.decode(logits, {"example": list(range(len(logits)))}, examples)


@pytest.fixture
def one_label(draws):
    task = Classification(max_length=8, labels=LABELS, problem="single")
    logits = draws.normal(size=(200, 3))
    truth = (logits + draws.gumbel(size=logits.shape)).argmax(1)
    examples = {"text": [f"text {i} " * (1 + i % 7) for i in range(200)], "label": [LABELS[c] for c in truth]}
    return judge(task, decoded(task, logits, examples), examples), logits, truth


def test_one_label(one_label):
    judged, logits, truth = one_label
    said = logits.argmax(1)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = {
        "accuracy": metrics.accuracy_score(truth, said),
        "f1_macro": metrics.f1_score(truth, said, average="macro"),
        "auc": metrics.roc_auc_score(truth, p, multi_class="ovr"),
        "log_loss": metrics.log_loss(truth, p),
        "brier": ((p - np.eye(3)[truth]) ** 2).sum(1).mean(),
    }
    assert expected.items() <= {name: pytest.approx(value) for name, value in judged.figures.items()}.items()
    assert judged.headline == "accuracy"
    assert judged.is_share
    names, counts = judged.confusion()
    assert names == ["a", "b", "c"]
    assert (counts == metrics.confusion_matrix(truth, said)).all()
    assert judged.classes().support == counts.sum(1).tolist()
    assert judged.classes().auc[1] == pytest.approx(metrics.roc_auc_score(truth == 1, p[:, 1]))
    sure, right = judged.confidence()
    assert sure.tolist() == pytest.approx(p.max(1).tolist())
    assert right.mean() == judged.figures["accuracy"]
    which, share = judged.baseline()
    assert share == np.bincount(truth).max() / 200
    assert which in ("always “a”", "always “b”", "always “c”")


def test_figures_of_all_examples_are_the_figures(one_label):
    judged, _, truth = one_label
    everything = judged.figures_of(np.arange(200))
    assert everything == pytest.approx({name: judged.figures[name] for name in everything})
    assert {"accuracy", "auc", "mcc"} <= everything.keys()
    twice = judged.figures_of(np.array([0, 0, 1, 2]))
    right = judged.values
    assert twice["accuracy"] == (2 * right[0] + right[1] + right[2]) / 4
    assert "auc" not in judged.figures_of(np.flatnonzero(truth == 1))


def test_the_surest_mistakes_come_first(one_label):
    judged, _, truth = one_label
    found = judged.mistakes(7)
    assert len(found) == 7
    assert [m.weight for m in found] == sorted((m.weight for m in found), reverse=True)
    sure, right = judged.confidence()
    assert found[0].weight == sure[right == 0].max()
    assert all(m.expected == LABELS[truth[m.index]] != m.said for m in found)
    assert found[0].remark == f"sure to {found[0].weight:.0%}"
    assert judged.mistakes(0) == []
    assert len(judged.mistakes(500)) == (right == 0).sum()


def test_slices_cover_all_examples_and_have_their_own_figures(one_label):
    judged, _, _ = one_label
    parts = by_length(judged)
    assert sum(part.examples for part in parts) == 200
    assert parts[0].shortest == 2
    assert parts[-1].longest == 14
    assert all(a.longest < b.shortest for a, b in itertools.pairwise(parts))
    lengths = np.array([judged.words(i) for i in range(200)])
    inside = (lengths >= parts[1].shortest) & (lengths <= parts[1].longest)
    assert parts[1].figure == pytest.approx(judged.values[inside].mean())


def test_several_labels(draws):
    task = Classification(max_length=8, labels=LABELS, problem="multi")
    logits = draws.normal(size=(80, 3))
    truth = logits + draws.logistic(size=logits.shape) > 0
    examples = {
        "text": ["t"] * 80,
        "label": [[name for name, yes in zip(LABELS, row, strict=True) if yes] for row in truth],
    }
    judged = judge(task, decoded(task, logits, examples), examples)
    assert judged.headline == "f1_micro"
    assert not judged.is_share
    assert judged.figures["f1_micro"] == pytest.approx(metrics.f1_score(truth, logits >= 0, average="micro"))
    assert judged.figures["auc_macro"] == pytest.approx(metrics.roc_auc_score(truth, logits))
    assert judged.figures_of(np.arange(80))["recall_macro"] == pytest.approx(judged.figures["recall_macro"])
    assert judged.classes().precision[2] == pytest.approx(metrics.precision_score(truth[:, 2], logits[:, 2] >= 0))
    mistake = judged.mistakes(1)[0]
    row, wrong = logits[mistake.index], truth[mistake.index] != (logits[mistake.index] >= 0)
    assert mistake.weight == pytest.approx((1 / (1 + np.exp(-np.abs(row))))[wrong].max())
    evidence, right = judged.evidence()
    np.testing.assert_allclose(evidence, logits, atol=1e-6)
    assert (right == truth).all()


def test_a_number(draws):
    task = Classification(max_length=8, problem="regression")
    truth = draws.normal(size=50)
    said = truth + 0.3 * draws.normal(size=50)
    examples = {"text": ["t"] * 50, "label": truth.tolist()}
    judged = judge(task, decoded(task, said[:, None], examples), examples)
    assert judged.figures["mse"] == pytest.approx(metrics.mean_squared_error(truth, said))
    assert judged.figures["r2"] == pytest.approx(metrics.r2_score(truth, said))
    assert judged.headline == "spearman"
    worst = judged.mistakes(50)
    assert len(worst) == 50
    assert worst[0].index == np.abs(truth - said).argmax()
    assert worst[0].remark.startswith("off by ")
    assert judged.confidence() is judged.confusion() is judged.classes() is judged.evidence() is None


@pytest.fixture
def tagged():
    task = TokenClassification(max_length=8, labels=("O", "B-per", "I-per", "B-loc", "I-loc"))
    examples = {
        "tokens": [["Ann", "Lee", "sees", "Rome"], ["Bob", "runs"], ["it", "rains"]],
        "tags": [["B-per", "I-per", "O", "B-loc"], ["B-per", "O"], ["O", "O"]],
    }
    predictions = [
        {"tags": ["B-per", "I-per", "O", "B-per"], "entities": [
            {"type": "per", "probability": 0.9, "first_token": 0, "last_token": 1},
            {"type": "per", "probability": 0.7, "first_token": 3, "last_token": 3},
        ]},
        {"tags": ["O", "O"], "entities": []},
        {"tags": ["O", "O"], "entities": []},
    ]  # fmt: skip
    return judge(task, predictions, examples)


def test_entities(tagged):
    assert tagged.figures["f1"] == pytest.approx(2 * 1 / (2 + 3))
    assert tagged.figures_of(np.arange(3))["f1"] == tagged.figures["f1"]
    assert tagged.figures_of(np.array([0, 0]))["recall"] == 0.5
    assert tagged.values.tolist() == [0, 0, 1]
    assert not tagged.is_share
    first, second = tagged.mistakes(9)
    assert (first.expected, first.said, first.remark) == ("Rome (loc)", "Rome (per)", "sure to 70%")
    assert (second.expected, second.said, second.remark) == ("Bob (per)", "nothing", "missed")
    classes = tagged.classes()
    assert (classes.names, classes.support) == (["loc", "per"], [1, 2])
    assert classes.recall == [0, 0.5]
    names, counts = tagged.confusion()
    assert names == ["loc", "per", "O"]
    assert counts.tolist() == [[0, 1, 0], [0, 2, 1], [0, 0, 4]]
    sure, right = tagged.confidence()
    assert (sure.tolist(), right.tolist()) == ([0.9, 0.7], [1, 0])


def test_other_tags():
    task = TokenClassification(max_length=8, labels=("DET", "NOUN", "VERB"), entities=False)
    examples = {"tokens": [["a", "dog"], ["a", "run"]], "tags": [["DET", "NOUN"], ["DET", "NOUN"]]}
    predictions = [
        {"tags": tags, "tokens": [{"tag": tag, "probability": 0.8} for tag in tags]}
        for tags in (["DET", "NOUN"], ["DET", "VERB"])
    ]
    judged = judge(task, predictions, examples)
    assert judged.figures["accuracy"] == judged.figures_of(np.arange(2))["accuracy"] == 0.75
    assert judged.values.tolist() == [1, 0.5]
    mistake = judged.mistakes(2)[0]
    assert (mistake.text, mistake.expected, mistake.said) == ("a run", "run NOUN", "run VERB")
    assert judged.classes().names == ["DET", "NOUN", "VERB"]
    assert judged.classes().recall == [1, 0.5, 0]
    assert judged.confidence()[1].tolist() == [1, 1, 1, 0]


def test_answers():
    task = QuestionAnswering(max_length=64)
    examples = {
        "question": ["who?", "where?"],
        "context": ["Ann Lee sees Rome", "in the old town of York"],
        "answers": [{"text": ["Ann Lee"], "answer_start": [0]}, {"text": ["York"], "answer_start": [19]}],
    }
    predictions = [
        {"answer": "Ann", "probability": 0.9, "n_best": []},
        {"answer": "the York", "probability": 0.6, "n_best": []},
    ]
    judged = judge(task, predictions, examples)
    assert judged.headline == "f1"
    assert (
        judged.figures == judged.figures_of(np.arange(2)) == {"exact_match": 0.5, "f1": pytest.approx((2 / 3 + 1) / 2)}
    )
    mistake = judged.mistakes(3)[0]
    assert mistake.text == "who?\nAnn Lee sees Rome"
    assert (mistake.expected, mistake.said, mistake.weight) == ("Ann Lee", "Ann", 0.9)
    assert judged.words(1) == 7
    assert judged.confidence()[1].tolist() == [0, 1]


def test_choices():
    task = MultipleChoice(max_length=64)
    examples = {
        "context": ["It rains.", "It snows."], "question": ["", "What now?"],
        "choices": [["x", "y"], ["u", "v", "w"]], "label": [1, 0],
    }  # fmt: skip
    predictions = [
        {"label": 1, "choice": "y", "probability": 0.8, "probabilities": [0.2, 0.8]},
        {"label": 2, "choice": "w", "probability": 0.5, "probabilities": [0.3, 0.2, 0.5]},
    ]
    judged = judge(task, predictions, examples)
    assert judged.figures == judged.figures_of(np.arange(2)) == {"accuracy": 0.5}
    mistake = judged.mistakes(2)[0]
    assert (mistake.text, mistake.expected, mistake.said) == ("It snows.\nWhat now?", "u", "w")
    assert judged.baseline() == ("a guess", pytest.approx((1 / 2 + 1 / 3) / 2))
    logits, truth = judged.evidence()
    np.testing.assert_allclose(np.exp(logits), [[0.2, 0.8, 0], [0.3, 0.2, 0.5]], atol=1e-9)
    assert truth.tolist() == [1, 0]


def test_a_task_of_another_kind_is_refused():
    class Other:
        name = "summaries"

    with pytest.raises(ConfigError, match="there is no evaluation for the task 'summaries'"):
        judge(Other(), [], {})


def test_shortened():
    assert shortened("x" * 400) == "x" * 400
    assert len(shortened("x" * 401)) == 400


def test_translations(draws):
    class Task:
        """What of `tasks.translation.Translation` does not need a tokenizer."""

        name, metric, inputs, label, score = "translation", "bleu", ("source",), "target", Translation.score

    words = "a red dog runs over the old bridge in the town and sleeps".split()
    target = [" ".join(draws.choice(words, draws.integers(4, 12))) for _ in range(60)]
    said = [" ".join(w if draws.random() < 0.8 else "cat" for w in text.split()) for text in target]
    said[7], said[8] = "", target[8]
    examples = {"source": ["x y"] * 60, "target": target}
    judged = judge(Task(), [{"translation": text, "score": -1.0} for text in said], examples)
    assert 20 < judged.figures["bleu"] < 90
    assert judged.figures_of(np.arange(60))["bleu"] == pytest.approx(judged.figures["bleu"])
    some = draws.integers(0, 60, 60)
    bleu = sacrebleu.corpus_bleu([said[i] for i in some], [[target[i] for i in some]]).score
    assert judged.figures_of(some)["bleu"] == pytest.approx(bleu)
    assert judged.values[8] == 1
    worst = judged.mistakes(60)
    assert worst[0].index == 7
    assert (worst[0].said, worst[0].remark) == ("nothing", "chrF 0")
    assert 8 not in [mistake.index for mistake in worst]
    assert judged.confidence() is judged.classes() is None
