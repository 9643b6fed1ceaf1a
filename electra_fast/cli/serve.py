"""``electra-fast serve``: a fine-tuned model over HTTP."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Precision(str, Enum):
    """What a model is computed in."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    int8 = "int8"


def serve(
    model: Annotated[
        Path, typer.Argument(help="Fine-tuned directory: the output of finetune, or best/ in it.", show_default=False)
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; the default is reached from this machine only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: a free one, which is printed.", min=0, max=65535)] = 8000,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="File with a key a line, of which a request needs one. Default: none.", show_default=False),
    ] = None,
    precision: Annotated[
        Precision,
        typer.Option(help="auto: the faster of fp32 and bf16, measured at the start. int8 costs some accuracy."),
    ] = Precision.auto,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, … or auto: a GPU if there is one.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of the model. Default: torch's.", min=1, show_default=False)
    ] = None,
    max_batch_tokens: Annotated[
        int, typer.Option(help="Tokens computed at a time: more raise throughput, and each batch's time.", min=1)
    ] = 2048,
    max_wait_ms: Annotated[
        float, typer.Option(help="Longest wait of a request for others to be computed with it.", min=0.0)
    ] = 2.0,
    queue: Annotated[int, typer.Option(help="Sequences that may wait; beyond that: 429.", min=1)] = 1024,
    timeout: Annotated[float, typer.Option(help="Seconds from a request to its answer; then: 504.")] = 30.0,
    max_inputs: Annotated[int, typer.Option(help="Inputs of a request; beyond that: 413.", min=1)] = 64,
    max_tokens: Annotated[int, typer.Option(help="Tokens of a request; beyond that: 413.", min=1)] = 32768,
    max_body: Annotated[int, typer.Option(help="Bytes of a request; beyond that: 413.", min=1)] = 1 << 20,
    trust: Annotated[
        bool, typer.Option("--trust", help="Read weights that are only there as a pickle (pytorch_model.bin).")
    ] = False,
) -> None:
    """Serve a fine-tuned model over HTTP.

    POST /predict answers {"inputs": …}, one or several; /docs shows how, with examples of the model's task. Requests
    that come at the same time are computed together. /health, /ready, /metrics (Prometheus) and /model tell the rest.
    SIGTERM or Ctrl-C: what was taken is answered, then the server ends.

    Examples: electra-fast serve runs/sentiment · electra-fast serve runs/ner --host 0.0.0.0 --api-key-file keys.txt
    """
    from electra_fast.workflows.deployment.serve import ServeOptions
    from electra_fast.workflows.deployment.serve import serve as run

    options = ServeOptions(
        model=model,
        precision=precision.value,
        device=device,
        threads=threads,
        trust=trust,
        host=host,
        port=port,
        api_key_file=api_key_file,
        max_batch_tokens=max_batch_tokens,
        max_wait_ms=max_wait_ms,
        queue=queue,
        timeout=timeout,
        max_inputs=max_inputs,
        max_tokens=max_tokens,
        max_body=max_body,
    )
    run(options, typer.echo)
