"""A server under bursts for long: no crash, memory flat, every malformed request a 4xx, nothing lost at the end.

    python benchmarks/soak_serving.py --model runs/sentiment --texts sentences.txt --requests 100000

64 clients send bursts with pauses between them; one request of a hundred is malformed (MALFORMED below), and one of a
thousand is abandoned by its client. At the end SIGTERM comes in the middle of a burst. Asserted:

- the answer to every good request is 200, and to every malformed one a status that is named for it;
- in the second half of the run the resident memory grows by less than ``--growth`` MiB (the slope of a line through
  it, times its length);
- after SIGTERM as many answers have arrived as the server says that it gave, no answer is cut off, the exit code is 0.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from bench_serving import command, make_classifier, resident, running
from load_generator import Connection, Lost, connect, post

_INPUTS = b'{"inputs": "%s"}'
MALFORMED: dict[str, tuple] = {  # a request, and the statuses that are right for it
    "no JSON": (post(b'{"inputs": "a tex'), 400),
    "nothing": (post(b""), 400),
    "no UTF-8": (post(_INPUTS % b"caf\xe9 \xff\xfe"), 400),
    "half a surrogate": (post(_INPUTS % rb"\ud83d"), 400),
    "not a number": (post(b'{"inputs": NaN}'), 400),
    "too deep": (post(b"[" * 5000 + b"]" * 5000), 400),
    "a number": (post(b'{"inputs": 5}'), 422),
    "numbers": (post(b'{"inputs": ["a", 5]}'), 422),
    "null": (post(b'{"inputs": [null]}'), 422),
    "no inputs": (post(b'{"inputs": []}'), 422),
    "another field": (post(b'{"inputs": "a", "input": "b"}'), 422),
    "a list": (post(b'["a"]'), 422),
    "too many": (post(json.dumps({"inputs": ["a"] * 1000}).encode()), 413),
    "too long": (post(_INPUTS % (b"long " * 400_000)), 413),
    "another type": (post(b"inputs=a", kind="application/x-www-form-urlencoded"), 415),
    "another method": (b"GET /predict HTTP/1.1\r\nHost: soak\r\n\r\n", 405),
    "an unknown method": (b"BREW /predict HTTP/1.1\r\nHost: soak\r\n\r\n", 400, 405),  # by the HTTP parser installed
    "another path": (post(_INPUTS % b"a", path="/prediction"), 404),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
}


class Soak:
    """What was sent to a server and what came of it."""

    def __init__(self, port: int, good: list[bytes], seed: int = 0) -> None:
        self._port, self._good, self._random = port, good, random.Random(seed)
        self.answers: Counter[tuple[str, int]] = Counter()
        self.abandoned = self.cut_off = self.unanswered = 0

    async def burst(self, connections: list[Connection | None], each: int) -> None:
        """Every client sends so many requests, one after the other."""
        await asyncio.gather(*(self._client(connections, n, each) for n in range(len(connections))))

    async def _client(self, connections: list[Connection | None], number: int, count: int) -> None:
        for _ in range(count):
            connection = connections[number]
            if connection is None or not connection.open:
                connection = connections[number] = await connect("127.0.0.1", self._port)
            draw = self._random.random()
            if draw < 0.001:
                await self._abandon(connection)
            elif draw < 0.011:
                name = self._random.choice(list(MALFORMED))
                await self._ask(connection, name, MALFORMED[name][0])
            else:
                await self._ask(connection, "good", self._random.choice(self._good))

    async def _ask(self, connection: Connection, name: str, request: bytes) -> None:
        self.answers[name, await connection.ask(request)] += 1

    async def _abandon(self, connection: Connection) -> None:
        """Send a request, or a part of one, and go away."""
        request = self._random.choice(self._good)
        asking = asyncio.ensure_future(connection.ask(request[: self._random.randrange(10, len(request) + 1)]))
        await asyncio.sleep(0.001)
        connection.close()
        await asyncio.gather(asking, return_exceptions=True)
        self.abandoned += 1

    async def until_the_end(self, clients: int, process: subprocess.Popen, after: float) -> None:
        """Ask with all clients; SIGTERM comes after some seconds; each client ends when nobody takes its request."""
        asking = asyncio.gather(*(self._until_refused() for _ in range(clients)))
        await asyncio.sleep(after)
        process.send_signal(signal.SIGTERM)
        await asking

    async def _until_refused(self) -> None:
        connection: Connection | None = None
        while True:
            try:
                if connection is None or not connection.open:
                    connection = await connect("127.0.0.1", self._port)
                await self._ask(connection, "good", self._random.choice(self._good))
            except Lost as lost:
                self.cut_off += lost.begun
                self.unanswered += not lost.begun
                return
            except OSError:
                return

    def wrong(self) -> list[str]:
        """Answers that should have been others."""
        right = {"good": (200,), **{name: statuses for name, (_, *statuses) in MALFORMED.items()}}
        return [
            f"{count} × {name}: {status} instead of {' or '.join(map(str, right[name]))}"
            for (name, status), count in self.answers.items()
            if status not in right[name]
        ]


async def soak(port: int, good: list[bytes], process: subprocess.Popen, given: argparse.Namespace) -> tuple[Soak, list]:
    """The whole run; also the resident memory after each burst, with the requests until then."""
    state = Soak(port, good)
    connections: list[Connection | None] = [None] * given.clients
    memory: list[tuple[int, float]] = []
    sent = 0
    while sent < given.requests:
        each = state._random.randint(1, 2 * given.burst)
        await state.burst(connections, each)
        sent += each * given.clients
        memory.append((sent, resident(process.pid)))
        await asyncio.sleep(state._random.random() * given.pause)
    for connection in connections:
        if connection is not None:
            connection.close()
    await state.until_the_end(given.clients, process, after=1.0)
    return state, memory


def growth(memory: list[tuple[int, float]]) -> float:
    """MiB by which a line through the second half of the measurements rises."""
    later = np.array(memory[len(memory) // 2 :])
    slope = np.polyfit(later[:, 0], later[:, 1], 1)[0]
    return float(slope * (later[-1, 0] - later[0, 0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="fine-tuned directory of a classification")
    parser.add_argument("--checkpoint", help="instead: any ELECTRA, which gets a random head")
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--burst", type=int, default=20, help="requests of a client in a burst, on average")
    parser.add_argument("--pause", type=float, default=0.2, help="longest pause between bursts, in seconds")
    parser.add_argument("--growth", type=float, default=16.0, help="MiB that the second half may add")
    parser.add_argument("--port", type=int, default=8124)
    parser.add_argument("--records", type=Path, help="file of JSON lines to append to")
    given = parser.parse_args()
    if (given.model is None) == (given.checkpoint is None):
        parser.error("give either --model or --checkpoint")
    texts = [line for line in given.texts.read_text(encoding="utf-8").splitlines() if line.strip()]
    good = [post(json.dumps({"inputs": text}).encode()) for text in texts]
    with tempfile.TemporaryDirectory() as scratch:
        model = given.model or Path(scratch) / "model"
        if given.model is None:
            make_classifier(given.checkpoint, model)
        log = Path(scratch) / "log"
        with open(log, "wb") as said, running(command("ours", model, given.port), given.port, said) as process:
            began = time.perf_counter()
            state, memory = asyncio.run(soak(given.port, good, process, given))
            seconds = time.perf_counter() - began
            code = process.wait(60)
        last = log.read_text().splitlines()[-1]
    answered = int(last.split()[1].replace(",", ""))
    received = sum(count for (_, status), count in state.answers.items() if status == 200)
    found = {
        "requests": sum(state.answers.values()),
        "seconds": round(seconds, 1),
        "malformed": sum(count for (name, _), count in state.answers.items() if name != "good"),
        "abandoned": state.abandoned,
        "wrong": state.wrong(),
        "resident_mib": [round(memory[i][1], 1) for i in (0, len(memory) // 2, -1)],
        "growth_mib": round(growth(memory), 2),
        "answered_200": answered,
        "received_200": received,
        "cut_off": state.cut_off,
        "refused_at_the_end": state.unanswered,
        "exit_code": code,
    }
    print(json.dumps(found, indent=2))
    if given.records is not None:
        with open(given.records, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(found) + "\n")
    good_run = not found["wrong"] and not state.cut_off and code == 0 and found["growth_mib"] < given.growth
    # An abandoned request may have been answered before its client was seen to be gone.
    sys.exit(0 if good_run and received <= answered <= received + state.abandoned else 1)


if __name__ == "__main__":
    main()
