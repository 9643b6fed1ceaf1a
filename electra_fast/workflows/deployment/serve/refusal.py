"""What a request that is not answered is told."""

from __future__ import annotations

from typing import Any


class Refusal(Exception):
    """A request that is refused, with the status and the message of its answer.

    Attributes:
        status: of HTTP, 400 or more.
        detail: a sentence, or a list of ``{loc, msg, type}`` for fields.
        headers: to be added to the answer.
    """

    def __init__(self, status: int, detail: str | list[dict[str, Any]], headers: dict[str, str] | None = None) -> None:
        super().__init__(f"{status}: {detail}")
        self.status, self.detail = status, detail
        self.headers = headers or {}
