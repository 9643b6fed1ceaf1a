"""``electra-fast predict``: texts in, predictions out, a line each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from electra_fast.cli.choices import Precision


def predict(
    model: Annotated[Path, typer.Argument(help="Directory that finetune wrote.", show_default=False)],
    input: Annotated[
        str,
        typer.Option(
            "--input", "-i", help="tsv, csv, jsonl, parquet, the task's format, lines of text, or - for stdin."
        ),
    ] = "-",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File for the predictions. [dim]\\[default: stdout][/]")
    ] = None,
    precision: Annotated[
        Precision, typer.Option(help="auto: bf16 where the hardware multiplies it faster.")
    ] = Precision.auto,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, … or auto: a GPU if there is one.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads. [dim]\\[default: torch's][/]", show_default=False)
    ] = None,
    batch_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of a batch.")] = 8192,
    window: Annotated[
        int, typer.Option(min=1, help="Most inputs that are read ahead and batched by length; 1: answer each at once.")
    ] = 1024,
    with_input: Annotated[bool, typer.Option("--with-input", help="Repeat the input in each line.")] = False,
) -> None:
    """Predict with a fine-tuned model: one JSON object a line, in the order of the inputs.

    A line of text is an input as it is; a line that begins with { is an object with the columns of the task (text and
    text_pair, question and context, …). Tables and the task's own formats are read as in finetune, labels ignored.

    Examples: echo "A film to remember." | electra-fast predict runs/sentiment, or electra-fast predict runs/sentiment
    --input reviews.jsonl --output predictions.jsonl
    """
    from electra_fast.workflows.evaluation import load_task
    from electra_fast.workflows.evaluation.prediction import predict_file

    predictor = load_task(model, precision=precision.value, device=device, threads=threads, batch_tokens=batch_tokens)
    predict_file(predictor, input, output, window=window, with_input=with_input)
