"""An explanation as one HTML file: the verdict, the words in colour, and the heads to look at."""

from __future__ import annotations

import base64
import json
from html import escape
from importlib.resources import files
from pathlib import Path

from torch import Tensor

from electra_fast import page
from electra_fast.files import write_text

from .run import MOST_DRAWN, Explanation, Reason
from .tokens import SPECIAL, Tokens

FOR, AGAINST, SUSPECT = "11,110,79", "179,38,30", "224,138,30"
_FAINT = 1e-2  # of the number: a score that is less leaves a word white
COMPLETE_ENOUGH = 0.01  # of the difference: what may be missing before the page warns
_STYLE = """
.text { font-size: 1.15rem; line-height: 2.1; margin: .4rem 0; overflow-wrap: anywhere; }
.text span { border-radius: 3px; padding: .1rem .15rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .2rem; }
#attend { display: flex; gap: 2rem; align-items: flex-start; flex-wrap: wrap; } #attend > div { flex: 1 1 20rem; }
#heads { border-collapse: separate; border-spacing: 3px; margin: .5rem 0; } #heads td, #heads th { padding: 0;
  border: 0; font-size: .75rem; color: #5a6475; text-align: center; vertical-align: middle; }
#heads canvas { width: 44px; height: 44px; cursor: pointer; outline: 1px solid #d5dae2; image-rendering: pixelated;
  display: block; } #heads canvas.chosen { outline: 3px solid #0b6e4f; }
#map { image-rendering: pixelated; outline: 1px solid #d5dae2; cursor: crosshair; } #sentence { cursor: default; }
#sentence .from { outline: 2px solid #0b6e4f; } #said { min-height: 1.5em; }
"""


def write_page(explanation: Explanation, path: str | Path) -> Path:
    """Write the page; returns its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, document(explanation))
    return path


def document(explanation: Explanation) -> str:
    """The page as text."""
    tokens = explanation.tokens
    parts = ["<h1>Why it says so</h1>", f'<p class="state">{escape(explanation.model)}</p>']
    parts.append(page.remark(explanation.verdict))
    if tokens.cut:
        parts.append(page.remark(f"The last {tokens.cut:,} tokens were left out: the model reads no more.", good=False))
    if explanation.probabilities is not None:
        parts.append("<h2>How likely each word is to have been replaced</h2>")
        parts.append(_suspicions(tokens, explanation.probabilities))
    if explanation.reasons:
        parts.append("<h2>What each word did for it</h2>")
        parts.append(
            f"<p class='note'>Integrated gradients against a text of {escape(explanation.baseline)} alone. "
            f"<span style='background:rgba({FOR},.5)'>Green</span> words speak for it, "
            f"<span style='background:rgba({AGAINST},.5)'>red</span> ones against; point at one for its figure.</p>"
        )
        parts += [_reason(reason, tokens, explanation.baseline) for reason in explanation.reasons]
    if explanation.attention is not None:
        parts.append(_attention(explanation.attention, tokens))
    elif len(tokens.ids) > MOST_DRAWN:
        parts.append(page.note(f"No pictures of attention: the text has {len(tokens.ids)} tokens, over {MOST_DRAWN}."))
    return page.document("electra-fast: why it says so", parts, _STYLE)


def _suspicions(tokens: Tokens, probabilities: list[float]) -> str:
    shares = [max(probabilities[p] for p in tokens.positions(word)) for word in range(tokens.word_count)]
    return _words(tokens, [(SUSPECT, share / max(0.5, *shares), f"replaced: {share:.1%}") for share in shares])


def _reason(reason: Reason, tokens: Tokens, baseline: str) -> str:
    found = reason.attribution
    largest = max(_FAINT * max(1.0, abs(found.at_input)), *map(abs, reason.words))
    colours = [
        (FOR if score > 0 else AGAINST, abs(score) / largest, f"{score:+.3f}{_by_pieces(reason, tokens, word)}")
        for word, score in enumerate(reason.words)
    ]
    unit = reason.unit[0].upper() + reason.unit[1:]
    total = sum(found.scores)
    sums = (
        f"{unit}: {found.at_baseline:+.3f} for {baseline} alone, {total:+.3f} by the words, together "
        f"{found.at_baseline + total:+.3f}; the model says {found.at_input:+.3f}. "
        f"Not accounted for: {found.residual:+.1e} ({found.steps} points of the integral)."
    )
    text = f"<h3>{escape(reason.title)}</h3>{_words(tokens, colours)}{page.note(sums)}"
    if not found.is_complete(COMPLETE_ENOUGH):
        text += page.remark(
            "The words' figures do not add up to the difference they should explain: use more --steps.", good=False
        )
    return text


def _by_pieces(reason: Reason, tokens: Tokens, word: int) -> str:
    """Of a word that the tokenizer cut up, what each piece did."""
    positions = tokens.positions(word)
    if len(positions) == 1:
        return ""
    return ": " + ", ".join(f"{tokens.pieces[p]} {reason.attribution.scores[p]:+.3f}" for p in positions)


def _words(tokens: Tokens, colours: list[tuple[str, float, str]]) -> str:
    """The text, each word on its colour ``(rgb, strength 0 to 1, what pointing at it shows)``."""
    parts, segment = [], 0
    for word, (colour, strength, about) in enumerate(colours):
        first = tokens.positions(word)[0]
        if tokens.segments[first] != segment:
            segment = tokens.segments[first]
            parts.append("<br>")
        elif tokens.spaces[first] and parts:
            parts.append(" ")
        style = f"background:rgba({colour},{0.75 * strength:.2f})"
        parts.append(f'<span style="{style}" title="{escape(about)}">{escape(tokens.word(word))}</span>')
    return f'<p class="text">{"".join(parts)}</p>'


def _attention(probabilities: Tensor, tokens: Tokens) -> str:
    """A small picture for each head, a large one of the chosen head, and the sentence to point at."""
    layers, heads = probabilities.shape[:2]
    values = (probabilities * 255).round().byte().numpy().tobytes()
    data = {
        "layers": layers,
        "heads": heads,
        "tokens": tokens.pieces,
        "spaces": [space or word == SPECIAL for space, word in zip(tokens.spaces, tokens.words, strict=True)],
        "values": base64.b64encode(values).decode("ascii"),
    }
    script = files(__package__).joinpath("attention.js").read_text(encoding="utf-8")
    as_text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    return (
        "<h2>Where its heads look</h2>"
        "<p class='note'>One picture for each head of each layer: a row for the token that looks, a column for the one "
        "it looks at. Click one to have it large; point into it, or at a word under it. Attention says where "
        "information comes from, not what it does to the answer: that is what the figures above are for.</p>"
        '<div id="attend"><table id="heads"></table><div><p id="said" class="state"></p><canvas id="map"></canvas>'
        '<p id="sentence" class="text"></p></div></div>'
        f'<script type="application/json" id="attention">{as_text}</script>'
        f"<script>{script}</script>"
    )
