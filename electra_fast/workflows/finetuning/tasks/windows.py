"""A text longer than what the model reads, as windows that overlap; each of its tokens is judged in one of them."""

from __future__ import annotations

from typing import NamedTuple


class Window(NamedTuple):
    """Tokens ``start … end - 1``, of which ``own_start … own_end - 1`` are judged here: the context is widest there."""

    start: int
    end: int
    own_start: int
    own_end: int


def windows(length: int, size: int, overlap: int) -> list[Window]:
    """Windows of at most ``size`` tokens over a text of ``length`` tokens, neighbours sharing ``overlap`` of them.

    Tokens up to the middle of what two neighbours share belong to the earlier one, the others to the later one: each
    belongs to the window in which it is further from the edge. An empty text has one empty window.

    Raises:
        ValueError: not ``0 <= overlap < size``.
    """
    if not 0 <= overlap < size:
        raise ValueError(f"windows: overlap must be from 0 to size - 1 = {size - 1}, got {overlap}")
    starts = [0]
    while starts[-1] + size < length:
        starts.append(starts[-1] + size - overlap)
    ends = [min(start + size, length) for start in starts]
    middles = [(end + start) // 2 for end, start in zip(ends, starts[1:], strict=False)]
    return [Window(*of) for of in zip(starts, ends, [0, *middles], [*middles, length], strict=True)]
