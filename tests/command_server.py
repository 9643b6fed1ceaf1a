"""The command line for shell scripts of tests, ready at once: a process that has imported all forks for each call.

    python command_server.py FOLDER     writes FOLDER/electra-fast, for PATH, says "ready" and serves

The client hands over its arguments, directory, stdin, stdout and stderr, and takes the exit code.
"""

import json
import os
import signal
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path

CLIENT = """#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect({socket!r})
    said = json.dumps([sys.argv[1:], os.getcwd()]).encode()
    socket.send_fds(connection, [len(said).to_bytes(4, "big") + said], [0, 1, 2])
    sys.exit(int.from_bytes(connection.recv(1) or b"\\x01", "big"))
"""


def serve(folder: Path) -> None:
    """Put the client into a folder, and answer its calls, one after the other, until the process is ended."""
    import accelerate  # noqa: F401
    import datasets  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import transformers

    from electra_fast.cli.app import main
    from electra_fast.workflows.finetuning import train  # noqa: F401

    transformers.Trainer  # noqa: B018  (transformers loads it when it is named)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket"))
        server.listen()
        client = folder / "electra-fast"
        client.write_text(CLIENT.format(python=sys.executable, socket=str(folder / "socket")))
        client.chmod(0o755)
        print("ready", flush=True)
        while True:
            connection, _ = server.accept()
            child = os.fork()
            if child == 0:
                server.close()
                _run(connection, main)
            os.waitpid(child, 0)
            connection.close()


def _run(connection: socket.socket, main) -> None:
    """The child's life: a call, its exit code to the client, the end."""
    said, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 3)
    arguments, directory = json.loads(said[4:])
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    os.chdir(directory)
    sys.argv = ["electra-fast", *arguments]
    code = 1
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        with suppress(BrokenPipeError):
            stream.flush()
    connection.send(bytes([code]))
    os._exit(code)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    serve(Path(sys.argv[1]))
