"""Pages for people: HTML files that need nothing beside them, all in one dress.

A page is a title, what was found in one coloured line or two (`remark`), then headings, tables and pictures.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

OURS, PALE, WORSE, WARNING = "#0b6e4f", "#8a8f98", "#b3261e", "#e08a1e"

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; color: #1c2330; background: #fff;
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.state { color: #5a6475; margin: .2rem 0 1rem; }
.verdict { border-left: 4px solid #0b6e4f; background: #eef6f2; padding: .6rem 1rem; margin: .5rem 0; }
.remark { border-left-color: #e08a1e; background: #fdf5e8; }
table { border-collapse: collapse; } td, th { text-align: left; padding: .15rem 1.5rem .15rem 0; vertical-align: top;
  border-bottom: 1px solid #e6e9ee; font-weight: normal; } thead th { color: #5a6475; font-size: .85rem; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
code { font-size: .9em; overflow-wrap: anywhere; }
svg { width: 100%; height: auto; } img { max-width: 100%; } .note { color: #5a6475; font-size: .85rem; }
"""


class Html(str):
    """Text of a table's cell that is HTML already; any other is escaped."""

    __slots__ = ()


def document(title: str, parts: Iterable[str], style: str = "") -> str:
    """The whole file.

    Args:
        title: of the window.
        parts: HTML, one below the other.
        style: rules besides those that all pages have.
    """
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    body = "\n".join(part for part in parts if part)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}<style>{_STYLE}{style}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n"
    )


def remark(text: str, *, good: bool = True) -> str:
    """A line that says what was found: on green, or on orange where it should be looked at."""
    return f'<p class="verdict{"" if good else " remark"}">{escape(text)}</p>'


def note(text: str) -> str:
    """A line in small type."""
    return f'<p class="note">{escape(text)}</p>'


def table(rows: Iterable[Sequence[Any]], heads: Sequence[str] = (), numbers: bool = False) -> str:
    """A table; cells are escaped unless they are `Html`.

    Args:
        numbers: all columns but the first are to the right.
    """

    def cell(tag: str, value: Any, column: int) -> str:
        kind = ' class="number"' if numbers and column else ""
        return f"<{tag}{kind}>{value if isinstance(value, Html) else escape(_text(value))}</{tag}>"

    titles = "".join(cell("th", text, column) for column, text in enumerate(heads))
    head = f"<thead><tr>{titles}</tr></thead>" if heads else ""
    lines = ("".join(cell("td", value, column) for column, value in enumerate(row)) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table>{head}<tbody>{body}</tbody></table>"


def png(figure: Any) -> bytes:
    """A matplotlib figure as a PNG, equal for equal figures."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    return stream.getvalue()


def image(picture: bytes, about: str) -> str:
    """A PNG as an element of a page, the picture inside it."""
    data = base64.b64encode(picture).decode("ascii")
    return f'<img alt="{escape(about)}" src="data:image/png;base64,{data}">'


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
