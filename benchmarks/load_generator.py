"""Clients that ask a server over HTTP/1.1, as light as they can be, since they share the machine with it.

    python benchmarks/load_generator.py --port 8000 --bodies bodies.jsonl --clients 8 --seconds 10

Each client has one connection and asks again as soon as it is answered (a closed loop), taking the bodies in turn from
a place of its own. Prints a line of JSON: requests, requests/s, milliseconds (p50, p90, p99, most), answers by status,
and the CPU time that the generator itself took a request.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path


class Lost(Exception):
    """The connection was closed before an answer was complete. ``begun``: whether a part of it had come."""

    def __init__(self, begun: bool) -> None:
        super().__init__("closed within the answer" if begun else "closed without an answer")
        self.begun = begun


class Connection(asyncio.Protocol):
    """One connection: `ask` sends a request and gives the status of its answer."""

    def __init__(self) -> None:
        self.open = False
        self._received = bytearray()
        self._end = 0  # of the answer, once its head has come
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self.open = transport, True

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Lost(bool(self._received)))

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._end:
            head = self._received.find(b"\r\n\r\n")
            if head < 0:
                return
            fields = bytes(self._received[:head]).lower()
            _, there, behind = fields.partition(b"\r\ncontent-length:")
            self._end = head + 4 + (int(behind.partition(b"\r\n")[0]) if there else 0)
            self._closes = b"\r\nconnection: close" in fields
        if len(self._received) >= self._end and self._answer is not None and not self._answer.done():
            self._answer.set_result(int(self._received[9:12]))

    async def ask(self, request: bytes) -> int:
        """The status of the answer. Lost: there was none."""
        self._received.clear()
        self._end = 0
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        status = await self._answer
        if self._closes:
            self.close()
        return status

    def close(self) -> None:
        self.open = False
        self._transport.close()


@dataclass
class Tally:
    """What came of some requests."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter = field(default_factory=Counter)


async def connect(host: str, port: int) -> Connection:
    """OSError: nobody listens there."""
    _, connection = await asyncio.get_running_loop().create_connection(Connection, host, port)
    return connection


def post(body: bytes, path: str = "/predict", kind: str = "application/json") -> bytes:
    """A request with a body, byte for byte."""
    head = f"POST {path} HTTP/1.1\r\nHost: benchmark\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _client(host: str, port: int, requests: list[bytes], first: int, until: float, tally: Tally) -> None:
    connection = await connect(host, port)
    place = first
    while (began := time.perf_counter()) < until:
        if not connection.open:
            connection = await connect(host, port)
        status = await connection.ask(requests[place % len(requests)])
        tally.seconds.append(time.perf_counter() - began)
        tally.statuses[status] += 1
        place += 1
    connection.close()


async def load(host: str, port: int, requests: list[bytes], clients: int, seconds: float) -> Tally:
    """Ask for so many seconds with so many clients at a time."""
    tally = Tally()
    until = time.perf_counter() + seconds
    step = max(1, len(requests) // clients)
    await asyncio.gather(*(_client(host, port, requests, n * step, until, tally) for n in range(clients)))
    return tally


def figures(tally: Tally, seconds: float, cpu: float) -> dict[str, object]:
    """Of all requests: rates and quantiles."""
    times = sorted(tally.seconds)
    count = len(times)

    def quantile(share: float) -> float:
        return 1e3 * times[min(count - 1, int(share * count))]

    return {
        "requests": count,
        "requests_per_second": count / seconds,
        "p50_ms": quantile(0.5),
        "p90_ms": quantile(0.9),
        "p99_ms": quantile(0.99),
        "most_ms": 1e3 * times[-1],
        "statuses": dict(tally.statuses),
        "generator_cpu_us": 1e6 * cpu / count,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--bodies", type=Path, required=True, help="a body a line")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    requests = [post(line) for line in given.bodies.read_bytes().splitlines() if line]
    try:
        import uvloop

        run = uvloop.run
    except ImportError:
        run = asyncio.run
    began = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF)
    tally = run(load(given.host, given.port, requests, given.clients, given.seconds))
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps(figures(tally, time.perf_counter() - began, cpu)))


if __name__ == "__main__":
    main()
