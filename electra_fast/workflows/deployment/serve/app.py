"""The application: what is answered on which path, and the page that describes it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Response, Security
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader
from fastapi_offline import FastAPIOffline

import electra_fast

from .endpoint import Predict
from .keys import Keys
from .metrics import Metrics
from .refusal import Refusal
from .schemas import Schemas

_ASSETS = "/docs/assets"  # what the page is drawn by; from here, so that it needs no other server
_OPEN = frozenset(("/health", "/ready", "/docs", "/openapi.json"))  # without a key: probes, and how to ask
_ERRORS = {
    400: "The body is no JSON.",
    401: "No API key was sent.",
    403: "The API key is not known.",
    408: "The body did not arrive in time.",
    413: "The body is too long, or there are too many inputs.",
    415: "The body is not application/json.",
    422: "A field is missing, unknown or of another type.",
    429: "The queue is full; Retry-After says in how many seconds to try again.",
    503: "The server is about to end.",
    504: "Not computed in time.",
}


@dataclass
class State:
    """Whether the server takes requests (`draining`: it is about to end, and closes each connection it answers)."""

    draining: bool = False


def build(
    predict: Predict,
    schemas: Schemas,
    keys: Keys,
    metrics: Metrics,
    state: State,
    *,
    facts: dict[str, Any],
    example: dict[str, Any],
    healthy: Callable[[], bool],
    ready: Callable[[], bool],
) -> Callable:
    """The application, as ASGI has it.

    Args:
        facts: of the model, for /model; ``task`` and ``labels`` are among them.
        example: an answer of the model to `Schemas.example`.
        healthy: whether the model's thread lives. ready: whether a request would be queued now.
    """
    app = FastAPIOffline(
        title=f"ELECTRA: {facts['task']}",
        version=electra_fast.__version__,
        description=f"Served by electra-fast from `{facts['model']}`, in {facts['precision']} on {facts['device']}.",
        redoc_url=None,
        redirect_slashes=False,
        static_url=_ASSETS,
    )

    @app.get("/health", summary="Whether the process works")
    async def health() -> Response:
        return _state(healthy(), "ok", "the model's thread has ended")

    @app.get("/ready", summary="Whether a request would be taken now")
    async def may_ask() -> Response:
        return _state(healthy() and ready() and not state.draining, "ready", "busy, or about to end")

    @app.get("/metrics", summary="Figures for Prometheus")
    async def figures() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/model", summary="The model, and how it is computed")
    async def model() -> dict[str, Any]:
        return facts

    _add_predict(app, predict, schemas, example, bool(keys))
    return _Observed(app, keys, metrics, state)


def _add_predict(app: FastAPI, predict: Predict, schemas: Schemas, example: dict[str, Any], keys: bool) -> None:
    """Describe /predict to FastAPI, and have `Predict` answer it; what is declared here is for the page."""

    async def described(request: Any) -> Any:
        """One input or several; they are computed together with those of other requests."""

    described.__annotations__ = {"request": schemas.Request, "return": schemas.Answer}
    answers: dict[int | str, dict[str, Any]] = {
        status: {"description": about, "content": {"application/json": {"example": {"detail": about}}}}
        for status, about in _ERRORS.items()
    }
    answers[200] = {"content": {"application/json": {"example": example}}}
    route = APIRoute(
        "/predict",
        described,
        methods=["POST"],
        name="predict",
        summary="Predict",
        responses=answers,
        dependencies=[Security(APIKeyHeader(name="X-API-Key"))] if keys else [],
        openapi_extra={"requestBody": {"content": {"application/json": {"example": schemas.example}}}},
    )
    route.app = predict
    app.router.routes.insert(0, route)


def _state(good: bool, word: str, otherwise: str) -> Response:
    return JSONResponse({"status": word if good else otherwise}, 200 if good else 503)


class _Observed:
    """Around the application: keys, counts, and the end of connections when the server is about to end."""

    def __init__(self, app: Callable, keys: Keys, metrics: Metrics, state: State) -> None:
        self._app, self._keys, self._metrics, self._state = app, keys, metrics, state

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500

        async def observed(message: dict) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._state.draining:
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        try:
            if scope["path"] not in _OPEN and not scope["path"].startswith(f"{_ASSETS}/"):
                self._keys.check(scope["headers"])
        except Refusal as refusal:
            await JSONResponse({"detail": refusal.detail}, refusal.status, refusal.headers)(scope, receive, observed)
        else:
            await self._app(scope, receive, observed)
        finally:
            self._metrics.answered(scope["path"], status, time.perf_counter() - began)
