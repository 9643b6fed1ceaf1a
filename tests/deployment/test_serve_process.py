"""A server in a process of its own: it ends well on SIGTERM in a burst, and says what is wrong at the start."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from electra_fast.errors import ConfigError
from electra_fast.workflows.deployment.serve.server import bind

sys.path.insert(0, str(Path(__file__).parent))
from tiny_models import write_model

PROGRAM = "import sys; from electra_fast.cli import main; sys.argv[0] = 'electra-fast'; main()"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("served"))


def command(*arguments):
    return [sys.executable, "-c", PROGRAM, "serve", *map(str, arguments)]


async def ask_until_the_end(port, text):
    """Statuses of the answers that a client gets until nobody listens any more; "cut" for half an answer."""
    statuses = []
    body = b'{"inputs": "%s"}' % text.encode()
    head = f"POST /predict HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            while True:
                writer.write(head.encode() + body)
                first = await reader.readline()
                if not first:
                    return statuses
                statuses.append("cut")
                answer = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(re.search(rb"content-length: (\d+)", answer)[1]))
                statuses[-1] = int(first.split()[1])
                if b"connection: close" in answer:
                    writer.close()
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            return statuses


def test_sigterm_in_a_burst_loses_nothing_that_was_taken(model):
    process = subprocess.Popen(
        command(model, "--port", 0, "--precision", "fp32", "--max-batch-tokens", 64, "--max-wait-ms", 1),
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert "classification model" in process.stdout.readline()
        port = int(re.search(r"http://127.0.0.1:(\d+)/predict", process.stdout.readline())[1])

        async def burst():
            clients = [asyncio.ensure_future(ask_until_the_end(port, "a film " * (1 + n % 5))) for n in range(12)]
            await asyncio.sleep(1.0)
            process.send_signal(signal.SIGTERM)
            return await asyncio.gather(*clients)

        statuses = [status for client in asyncio.run(burst()) for status in client]
        code = process.wait(20)
        said = process.stdout.read()
    finally:
        process.kill()
    assert code == 0
    assert set(statuses) == {200}
    assert said.splitlines()[-1] == f"ended: {len(statuses):,} requests answered with predictions"


def test_an_address_that_is_taken_is_one_line(model):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(command(model, "--port", port), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    where = f"host 127.0.0.1, port {port}"
    assert done.stderr == f"error: cannot listen on {where}: Address already in use; try another port\n"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_answers_are_sent_without_delay(host):
    with bind(host, 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP  # else asyncio leaves Nagle's algorithm on


@pytest.mark.parametrize("host", ["no such host", "203.0.113.7"])
def test_an_address_that_is_not_here(host):
    with pytest.raises(ConfigError, match="cannot listen on host"):
        bind(host, 0)
