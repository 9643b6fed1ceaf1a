"""The page about an evaluation: how good, how sure one can be of that, and where it goes wrong."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from html import escape

from electra_fast import page
from electra_fast.page import Html

from .results import CONFUSION_NAME, RELIABILITY_NAME, Evaluation, ModelResult
from .significance import Comparison

# What figures are called, and how they are written, in this order; others come behind under their own names.
_FIGURES = {
    "accuracy": ("Accuracy", "{:.1%}"),
    "exact_match": ("Exact match", "{:.1%}"),
    "f1": ("F1", "{:.1%}"),
    "precision": ("Precision", "{:.1%}"),
    "recall": ("Recall", "{:.1%}"),
    "f1_micro": ("F1, micro", "{:.1%}"),
    "precision_micro": ("Precision, micro", "{:.1%}"),
    "recall_micro": ("Recall, micro", "{:.1%}"),
    "f1_macro": ("F1, macro", "{:.1%}"),
    "precision_macro": ("Precision, macro", "{:.1%}"),
    "recall_macro": ("Recall, macro (balanced accuracy)", "{:.1%}"),
    "mcc": ("Matthews correlation", "{:.3f}"),
    "auc": ("AUC (ROC)", "{:.3f}"),
    "auc_macro": ("AUC (ROC), mean over labels", "{:.3f}"),
    "surface_f1": ("F1 of different forms (WNUT)", "{:.1%}"),
    "has_answer_exact_match": ("Exact match, questions with an answer", "{:.1%}"),
    "has_answer_f1": ("F1, questions with an answer", "{:.1%}"),
    "no_answer_exact_match": ("Right of the questions without an answer", "{:.1%}"),
    "best_exact_match": ("Exact match, best threshold for these questions", "{:.1%}"),
    "best_f1": ("F1, best threshold for these questions", "{:.1%}"),
    "spearman": ("Spearman's correlation", "{:.3f}"),
    "pearson": ("Pearson's correlation", "{:.3f}"),
    "mse": ("Mean squared error", "{:.4g}"),
    "mae": ("Mean absolute error", "{:.4g}"),
    "r2": ("R²", "{:.3f}"),
    "bleu": ("BLEU", "{:.1f}"),
    "chrf": ("chrF", "{:.1f}"),
    "log_loss": ("Log loss (nats)", "{:.3f}"),
    "brier": ("Brier score", "{:.3f}"),
}
_SURE = 0.05  # p-value below which a difference is called one
_STYLE = """
.headline { font-size: 2.4rem; font-weight: 600; margin: .6rem 0 0; line-height: 1.1; }
.headline small { font-size: 1rem; font-weight: normal; color: #5a6475; }
.beside { display: flex; gap: 2.5rem; flex-wrap: wrap; align-items: flex-start; } .beside > * { flex: 0 1 auto; }
.bar { display: inline-block; height: .7em; background: #0b6e4f; vertical-align: middle; }
.beside img { max-height: 21rem; }
td.mistake { white-space: pre-line; font-size: .85rem; overflow-wrap: break-word; min-width: 4rem; }
td.mistake:nth-child(2) { width: 45%; }
td.mistake:first-child, td.mistake:last-child { white-space: nowrap; min-width: 0; }
mark { background: #f6d5d2; } mark.good { background: #d5ebe2; }
"""


def document(evaluation: Evaluation, pictures: Mapping[str, Mapping[str, bytes]]) -> str:
    """The page as text.

    Args:
        pictures: of each model by its name, as `pictures.of` returns them.
    """
    models = evaluation.models
    parts = [f"<h1>{escape(models[0].name if len(models) == 1 else f'{len(models)} models')}</h1>"]
    parts.append(f'<p class="state">{escape(_state(evaluation))}</p>')
    if len(models) > 1:
        parts += _side_by_side(evaluation)
    for found in models:
        if len(models) > 1:
            parts.append(f"<h1 style='margin-top:3rem' id='{escape(found.name)}'>{escape(found.name)}</h1>")
        parts += _model(found, evaluation, pictures[found.name])
    parts.append("<h2>Environment</h2>")
    rows = [("model" if len(models) == 1 else found.name, f"{found.model} ({found.precision})") for found in models]
    parts.append(page.table([*rows, ("data", evaluation.data), *evaluation.environment.items()]))
    return page.document("electra-fast: evaluation", parts, _STYLE)


def title(figure: str) -> str:
    """What a figure is called."""
    return _FIGURES.get(figure, (figure.replace("_", " "), ""))[0]


def _within(figure: str) -> str:
    """What a figure is called inside a sentence."""
    name = title(figure)
    return name[0].lower() + name[1:] if name[1:2].islower() else name


def written(figure: str, value: float) -> str:
    """A figure's value."""
    return _FIGURES.get(figure, ("", "{:.4g}"))[1].format(value)


def _state(evaluation: Evaluation) -> str:
    first = evaluation.models[0]
    parts = [first.task, f"{first.examples:,} examples of {evaluation.data}"]
    if evaluation.resamples:
        parts.append(f"95 % intervals from {evaluation.resamples:,} resamples")
    return " · ".join(parts)


def _side_by_side(evaluation: Evaluation) -> Iterable[str]:
    """The ten seconds of several models: the figures, and which differences are more than chance."""
    headline = evaluation.models[0].headline
    ranked = sorted(evaluation.models, key=lambda found: -found.figures[headline])
    most = max(abs(found.figures[headline]) for found in ranked) or 1.0
    for comparison in evaluation.comparisons:
        yield page.remark(verdict(comparison), good=comparison.p_value < _SURE)
    rows = []
    for found in ranked:
        value = found.figures[headline]
        bar = Html(f"<span class='bar' style='width:{max(0.0, 14 * value / most):.2f}rem'></span>")
        name = Html(f"<a href='#{escape(found.name)}'>{escape(found.name)}</a>")
        rows.append([name, written(headline, value), interval(found, headline), bar])
    yield page.table(rows, ["model", title(headline), "95 % interval", ""])
    names = [name for name in ordered(ranked[0]) if all(name in found.figures for found in ranked)]
    lines = [[title(name), *(written(name, found.figures[name]) for found in ranked)] for name in names]
    yield "<h2>Figures</h2>"
    yield page.table(lines, ["", *(found.name for found in ranked)], numbers=True)


def verdict(found: Comparison) -> str:
    """A comparison in words."""
    better, worse = (found.second, found.first) if found.difference > 0 else (found.first, found.second)
    percent = _FIGURES.get(found.figure, ("", ""))[1].endswith("%}")
    scale, unit, digits = (100, " points", 1) if percent else (1, "", 3)
    low, high = (scale * end for end in (found.low, found.high))
    low, high = (low, high) if found.difference > 0 else (-high, -low)
    said = f"{abs(found.difference) * scale:.{digits}f}{unit} (95 %: {low:+.{digits}f} to {high:+.{digits}f})"
    how = f"{found.test}: p = {found.p_value:.3g}"
    if found.only_first is not None:
        how += f"; only {found.first} is right in {found.only_first:,}, only {found.second} in {found.only_second:,}"
    what = _within(found.figure)
    if found.difference == 0:
        return f"{found.first} and {found.second} are equal in {what}. {how}"
    if found.p_value < _SURE:
        return f"{better} is better than {worse} in {what} by {said}. {how}"
    return f"{better} leads {worse} in {what} by {said}, which chance may explain. {how}"


def _model(found: ModelResult, evaluation: Evaluation, pictures: Mapping[str, bytes]) -> Iterable[str]:
    yield _headline(found)
    yield from (page.remark(text, good=good) for good, text in _remarks(found))
    yield "<h2>Figures</h2>"
    rows = [[title(name), written(name, found.figures[name]), interval(found, name)] for name in ordered(found)]
    yield page.table(rows, ["", "", "95 % interval" if evaluation.resamples else ""], numbers=True)
    if found.classes is not None:
        yield "<h2>Class by class</h2>"
        beside = ""
        if CONFUSION_NAME in pictures:
            beside = f"<div>{page.image(pictures[CONFUSION_NAME], 'confusion matrix')}</div>"
        yield f"<div class='beside'><div>{_classes(found)}</div>{beside}</div>"
    if found.calibration is not None:
        yield "<h2>Do its probabilities mean what they say?</h2>"
        yield f"<div class='beside'><div>{_calibration(found)}</div>"
        yield f"<div>{page.image(pictures[RELIABILITY_NAME], 'reliability diagram')}</div></div>"
    if len(found.slices) > 1:
        yield "<h2>Short and long texts</h2>"
        yield _slices(found)
    if found.mistakes:
        yield "<h2>Mistakes, the surest first</h2>"
        yield _mistakes(found)


def _headline(found: ModelResult) -> str:
    value, between = written(found.headline, found.figures[found.headline]), interval(found, found.headline)
    small = f" <small>{escape(title(found.headline))}{f', 95 %: {between}' if between else ''}</small>"
    return f'<p class="headline">{escape(value)}{small}</p>'


def _remarks(found: ModelResult) -> Iterable[tuple[bool, str]]:
    """Sentences, each with whether it is good news."""
    if found.baseline is not None:
        which, value = found.baseline
        low = found.intervals.get(found.headline, (found.figures[found.headline],))[0]
        beats = low > value
        more = "more than" if beats else "not surely more than"
        yield beats, f"That is {more} {which} would get without looking at the text: {written(found.headline, value)}."
    if found.calibration is not None and abs(found.calibration.confidence - found.calibration.accuracy) >= 0.05:
        mends = found.takes_temperature and found.temperature is None
        mend = ". A temperature mends that: --temperature-from FILE" if mends else ""
        yield False, f"{found.calibration.verdict}{mend}."
    weakest = min(found.slices, key=lambda s: s.figure, default=None)
    least = found.intervals.get(found.headline, (-math.inf,))[0]
    if weakest is not None and weakest.figure < least:
        length = _length(weakest.shortest, weakest.longest)
        figure = written(found.headline, weakest.figure)
        yield False, f"It is weakest on texts of {length}: {_within(found.headline)} {figure}."
    for text in found.hygiene:
        yield False, f"{text}."


def ordered(found: ModelResult) -> list[str]:
    """Names of a model's figures, the most telling first."""
    known = [name for name in _FIGURES if name in found.figures and name != found.headline]
    return [found.headline, *known, *(name for name in found.figures if name not in _FIGURES)]


def interval(found: ModelResult, figure: str) -> str:
    """The ends of a figure's interval; empty where it has none."""
    if figure not in found.intervals:
        return ""
    low, high = found.intervals[figure]
    return f"{written(figure, low)} – {written(figure, high)}"


def _classes(found: ModelResult) -> str:
    classes = found.classes
    columns = [classes.precision, classes.recall, classes.f1]
    rows = []
    for index, name in enumerate(classes.names):
        row = [name, *(f"{column[index]:.1%}" for column in columns), f"{classes.support[index]:,}"]
        if classes.auc is not None:
            area = classes.auc[index]
            row.append("–" if area is None else f"{area:.3f}")
        rows.append(row)
    heads = ["", "precision", "recall", "F1", "there are", *(["AUC"] if classes.auc is not None else [])]
    return page.table(rows, heads, numbers=True)


def _calibration(found: ModelResult) -> str:
    measured = found.calibration
    rows = [
        ["Expected calibration error", f"{measured.error:.1%}"],
        ["Brier score of the answer's probability", f"{measured.brier:.3f}"],
        ["Mean probability of what it says", f"{measured.confidence:.1%}"],
        ["Share that is right", f"{measured.accuracy:.1%}"],
    ]
    text = page.note(f"{measured.verdict}.") + page.table(rows, numbers=True)
    if found.temperature is not None:
        t = found.temperature
        text += page.note(
            f"With a temperature of {t.value:.3f}, fitted on {t.examples:,} examples of {t.data}, where the log loss "
            f"fell from {t.loss_before:.4f} to {t.loss_after:.4f}."
        )
    return text


def _slices(found: ModelResult) -> str:
    most = max(abs(part.figure) for part in found.slices) or 1.0
    rows = []
    for part in found.slices:
        bar = Html(f"<span class='bar' style='width:{max(0.0, 14 * part.figure / most):.2f}rem'></span>")
        figure = written(found.headline, part.figure)
        rows.append([_length(part.shortest, part.longest), f"{part.examples:,}", figure, bar])
    return page.table(rows, ["", "examples", title(found.headline), ""])


def _length(shortest: int, longest: int) -> str:
    return f"{shortest:,} words" if shortest == longest else f"{shortest:,} to {longest:,} words"


def _mistakes(found: ModelResult) -> str:
    rows = []
    for mistake in found.mistakes:
        expected, said = (Html(f"<mark{kind}>{escape(text)}</mark>") for kind, text in (
            (" class='good'", mistake.expected), ("", mistake.said),
        ))  # fmt: skip
        rows.append([f"{mistake.index + 1}", mistake.text, expected, said, mistake.remark])
    table = page.table(rows, ["example", "text", "true", "it says", ""])
    return table.replace("<td>", '<td class="mistake">')
