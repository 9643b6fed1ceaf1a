"""From options to a server that ends well: binds, loads, serves, and on SIGTERM or Ctrl-C answers what it has taken."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from electra_fast.errors import ConfigError

from .app import State
from .model import load
from .options import ServeOptions
from .service import Service

_BACKLOG = 2048  # connections that the system keeps until they are accepted
_KEEP_ALIVE = 60  # seconds that an idle connection stays open
_LAST_REQUESTS = 0.25  # seconds at the end in which open connections may still send a request


def serve(options: ServeOptions, say: Callable[[str], None] = print) -> None:
    """Serve a model until SIGTERM or SIGINT; returns when every request that was taken has been answered.

    Args:
        say: is told what is served, where, and of what to beware.

    Raises:
        ConfigError: the address cannot be listened on, or the key file be used. CheckpointError: no model there.
    """
    keys = options.api_keys()
    with bind(options.host, options.port) as listener:
        service = Service(load(options), options, keys)

        def greet() -> None:
            for line in _greeting(listener, service.facts, bool(keys)):
                say(line)

        gc.collect()
        gc.freeze()  # the model's objects are never garbage: searching them would only stall answers
        gc.collect()  # old objects are searched when there are a quarter more of them: from now on, those of requests
        try:
            with service:
                _Server(_config(service.app, options.timeout), service.state, greet).run(sockets=[listener])
        finally:
            gc.unfreeze()
        say(f"ended: {service.metrics.predicted:,} requests answered with predictions")


def bind(host: str, port: int) -> socket.socket:
    """A socket on the address, before a model is loaded for nothing."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        # Only where it is told that this is TCP does asyncio send without delay: an answer is written in two parts, and
        # the second would wait 40 ms for the client to acknowledge the first.
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ConfigError(f"cannot listen on host {host}, port {port}: {error.strerror}; try another port") from None
    return listener


def _config(app: Callable, timeout: float) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        log_config=None,
        log_level="error",  # nobody could do anything about a client that speaks no HTTP
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=int(timeout) + 1,
    )


class _Server(uvicorn.Server):
    """uvicorn's, but for its end: nothing that a client has sent on an open connection is dropped, and exit code 0."""

    def __init__(self, config: uvicorn.Config, state: State, greet: Callable[[], None]) -> None:
        super().__init__(config)
        self._state, self._greet = state, greet

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As the parent's, which at the end would raise the signals anew and have the process die of them."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self.handle_exit) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As the parent's; then it says that it listens."""
        await super().startup(sockets)
        self._greet()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let nobody in any more; answer what comes on open connections for a moment, each then closed; then end."""
        self._state.draining = True
        for server in self.servers:
            server.close()
        if not self.force_exit:
            await asyncio.sleep(_LAST_REQUESTS)
        await super().shutdown(sockets)


def _greeting(listener: socket.socket, about: dict[str, Any], keys: bool) -> Iterator[str]:
    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    how = f"{about['precision']} on {about['device']}: {about['precision_why']}"
    yield f"{about['task']} model {about['model']} in {how}"
    yield f"POST {address}/predict; how, with examples: {address}/docs"
    if not keys and not ipaddress.ip_address(host).is_loopback:
        yield (
            f"warning: anybody who reaches {address} may use this model: give --api-key-file, or bind to 127.0.0.1 "
            "behind a proxy that checks who asks"
        )
