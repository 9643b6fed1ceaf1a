"""Reading a request's body: JSON, of a bounded size, in UTF-8."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pydantic_core import from_json

from .refusal import Refusal

# A refused body up to so many times the limit is read and thrown away, for a client reads the answer when it has sent.
_DISCARD = 16


class ClientGoneError(Exception):
    """The client closed the connection before it was answered."""


async def read_json(
    headers: Sequence[tuple[bytes, bytes]], receive: Callable[[], Awaitable[dict[str, Any]]], limit: int
) -> Any:
    """The value that a request's body is.

    Args:
        headers: names in lower case, and values.
        receive: of ASGI.
        limit: most bytes of a body.

    Raises:
        Refusal: 415 for what is not ``application/json`` (which also keeps web pages of others from asking, as a
            browser has to seek leave to send that), 413 for too long a body, 400 for one that is no JSON.
        ClientGoneError: the client went away.
    """
    _check_type(headers)
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunk = message.get("body", b"")
        size += len(chunk)
        if size <= limit:
            chunks.append(chunk)
        else:
            chunks.clear()
        if not message.get("more_body", False) or size > _DISCARD * limit:
            break
    if size > limit:
        raise Refusal(413, f"the body may have {limit:,} bytes, this one is longer: send fewer or shorter inputs")
    try:
        return from_json(chunks[0] if len(chunks) == 1 else b"".join(chunks), allow_inf_nan=False)
    except ValueError as error:
        raise Refusal(400, f"the body is no JSON: {error}") from None


def _check_type(headers: Sequence[tuple[bytes, bytes]]) -> None:
    kind = b""
    for name, value in headers:
        if name == b"content-type":
            kind = value.partition(b";")[0].strip().lower()
        elif name == b"content-encoding" and value.strip().lower() != b"identity":
            raise Refusal(415, "the body must not be compressed: leave Content-Encoding out")
    if kind != b"application/json":
        given = kind.decode("latin-1") or "nothing"
        raise Refusal(415, f"Content-Type must be application/json, got {given}")
