"""The whole road in five minutes, on text that is already there: corpus, tokenizer, pretraining, held-out evaluation.

The text is what every CPython carries (`electra_fast.data.python_docs`), the network a real if small ELECTRA. What
was tried, and how far five minutes go: docs/notes/demo-recipe.md.
"""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from electra_fast.data import PrepareOptions, PrepareProgress, prepare
from electra_fast.data.python_docs import write
from electra_fast.errors import ConfigError
from electra_fast.workflows.pretraining import PretrainOptions, PretrainResult, pretrain, resume
from electra_fast.workflows.pretraining.layout import SUMMARY_NAME

Listener = Callable[[PrepareProgress], None]

MINUTES = 5.0
CORPUS_TEXT, CORPUS, RUN = "corpus.txt", "corpus", "run"

NETWORK = {
    "embedding_size": 128,
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "generator_hidden_fraction": 0.5,
    "generator_layers_fraction": 1 / 3,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initialization": "local-glorot",
}
RECIPE = {
    "batch_size": 8,
    "mask_probability": 0.25,
    "learning_rate": 5e-4,
    "discriminator_weight": 20.0,
}
VOCABULARY = 4096
VALIDATION_FRACTION = 0.05

# Sentences of the kind the network has read; the generator rewrites some words, the discriminator says which.
SENTENCES = (
    "Return the number of items in the list, or raise an exception if the argument is not a sequence.",
    "The function opens the file for reading and returns its contents as a string.",
    "If the value is not given, the default is used and a new object is created for each call.",
)


def prepare_corpus(output: Path, progress: Listener | None = None) -> Path:
    """Write the text, train a tokenizer on it and turn it into token shards; returns the corpus directory."""
    output.mkdir(parents=True, exist_ok=True)
    text = output / CORPUS_TEXT
    if not text.exists():
        write(text)
    options = PrepareOptions(
        inputs=[text],
        output=output / CORPUS,
        vocab_size=VOCABULARY,
        max_length=128,
        validation_fraction=VALIDATION_FRACTION,
    )
    prepare(options, progress)
    return output / CORPUS


def run_options(output: Path, minutes: float, seed: int) -> PretrainOptions:
    """What `demo` trains with; also an example of the options of a small run."""
    return PretrainOptions(
        data=output / CORPUS,
        output=output / RUN,
        model="small",
        max_time=f"{minutes}m",
        seed=seed,
        log_every=100,
        eval_every=1000,
        checkpoint_every=1000,
        **NETWORK,
        **RECIPE,
    )


def summary(output: Path) -> dict[str, Any] | None:
    """What a demo in ``output`` came to (its summary.json); None if it has not been finished."""
    path = output / RUN / SUMMARY_NAME
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def demo(
    output: Path,
    minutes: float | None = None,
    seed: int | None = None,
    continue_run: bool = False,
    preparing: Callable[[], AbstractContextManager[Listener | None]] = nullcontext,
) -> PretrainResult:
    """Prepare the corpus if need be and pretrain in ``output/run``; or go on where that run was interrupted.

    Args:
        output: directory for the text, the corpus and the run.
        minutes: how long to train; None: `MINUTES`.
        seed: of everything random; None: 0.
        continue_run: go on with the run that is there.
        preparing: open while the corpus is prepared, whose progress is told to what it gives.

    Raises:
        ConfigError: ``minutes`` or ``seed`` for a run that goes on, which has its own.
        ElectraError: ``output`` holds another run already, or the disk is full.
    """
    if continue_run:
        for name, value in (("minutes", minutes), ("seed", seed)):
            if value is not None:
                raise ConfigError(f"{name} was settled when the run began: leave it out to resume, got {value}")
        return resume(output / RUN)
    with preparing() as progress:
        prepare_corpus(output, progress)
    return pretrain(run_options(output, MINUTES if minutes is None else minutes, seed or 0))
