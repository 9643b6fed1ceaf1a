"""POST /predict, from bytes to bytes.

An application of ASGI by itself, so that a request goes through none of the layers that a web framework puts around a
function: beside a small model these take as long as the computation.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
from pydantic_core import to_json

from electra_fast.errors import DataError

from .batcher import Batcher, ClosedError, QueueFullError
from .body import ClientGoneError, read_json
from .engine import Engine, Request
from .refusal import Refusal
from .schemas import Schemas

CLIENT_GONE = 499  # what proxies write into their logs for it; nobody is there to read this answer
_SHORT = 4096  # characters that are made into tokens at once, in about a millisecond; more go to a thread

_log = logging.getLogger(__name__)


class Predict:
    """The endpoint.

    Args:
        timeout: seconds from a request's headers to its answer.
        max_tokens, max_body: of a request, the latter in bytes.
    """

    def __init__(
        self,
        engine: Engine,
        batcher: Batcher[Request],
        schemas: Schemas,
        *,
        timeout: float,
        max_tokens: int,
        max_body: int,
    ) -> None:
        self._engine, self._batcher, self._schemas = engine, batcher, schemas
        self._timeout, self._max_tokens, self._max_body = timeout, max_tokens, max_body
        self._tokeniser = ThreadPoolExecutor(1, "tokeniser")

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        """As ASGI has it."""
        headers: dict[str, str] = {}
        try:
            status, body = 200, await self._answer(scope["headers"], receive)
        except Refusal as refusal:
            status, headers, body = refusal.status, refusal.headers, to_json({"detail": refusal.detail})
        except Exception as error:
            _log.error("a request failed", exc_info=error)
            status, body = 500, to_json({"detail": "this request could not be computed; the server's log says why"})
        sent = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        sent += [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": sent})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, headers: list[tuple[bytes, bytes]], receive: Callable[[], Awaitable[dict]]) -> bytes:
        """The body of the answer; Refusal for everything that is not the model's fault."""
        was_read = False
        try:
            with anyio.fail_after(self._timeout):
                value = await read_json(headers, receive, self._max_body)
                was_read = True
                request = await self._encode(self._schemas.inputs(value))
                predictions = await self._predict(request, receive)
        except TimeoutError:
            if was_read:
                raise Refusal(504, f"not computed within {self._timeout:g} s: the server is busy") from None
            raise Refusal(408, f"the body did not arrive within {self._timeout:g} s") from None
        except ClientGoneError:
            raise Refusal(CLIENT_GONE, "the client closed the connection") from None
        except DataError as error:
            raise Refusal(422, str(error)) from None
        except QueueFullError as full:
            raise Refusal(429, str(full), {"Retry-After": str(math.ceil(full.retry_after))}) from None
        except ClosedError:
            raise Refusal(503, "the server is about to end", {"Retry-After": "1"}) from None
        return to_json({"predictions": predictions}, inf_nan_mode="null")

    async def _encode(self, items: list[Any]) -> Request:
        """Tokens of a request; the event loop does not wait for those of a long one."""
        if sum(map(_characters, items)) <= _SHORT:
            request = self._engine.encode(items)
        else:
            loop = asyncio.get_running_loop()
            request = await loop.run_in_executor(self._tokeniser, self._engine.encode_aside, items)
        sequences, tokens = len(request.lengths), sum(request.lengths)
        if tokens > self._max_tokens:
            raise Refusal(413, f"a request may have {self._max_tokens:,} tokens, got {tokens:,}: send several, or less")
        if sequences > self._batcher.capacity:
            raise Refusal(413, f"the inputs make {sequences:,} sequences, of which {self._batcher.capacity:,} may wait")
        return request

    async def _predict(self, request: Request, receive: Callable[[], Awaitable[dict]]) -> list[dict[str, Any]]:
        """The predictions; ClientGoneError as soon as nobody waits for them."""
        predictions = self._batcher.submit(request)
        watch = asyncio.ensure_future(_watch(receive, predictions))
        try:
            return await predictions
        finally:
            watch.cancel()


async def _watch(receive: Callable[[], Awaitable[dict]], answer: asyncio.Future) -> None:
    """Give up waiting for an answer when the client closes the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
    if not answer.done():
        answer.set_exception(ClientGoneError())


def _characters(item: Any) -> int:
    """How long the texts in a value are, all together."""
    if isinstance(item, str):
        return len(item)
    return sum(map(_characters, item.values() if isinstance(item, dict) else item)) if item else 0
