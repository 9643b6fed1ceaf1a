"""The whole road in five minutes, on text that is already there: corpus, tokenizer, pretraining, held-out evaluation.

The text is what every CPython carries (`electra_fast.data.python_docs`), the network a real if small ELECTRA. What
was tried, and how far five minutes go: docs/notes/demo-recipe.md.
"""

from collections.abc import Callable
from pathlib import Path

from electra_fast.data import PrepareOptions, PrepareProgress, prepare
from electra_fast.data.python_docs import write
from electra_fast.workflows.pretraining import PretrainOptions, PretrainResult, pretrain, resume

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
    "initialization": "local",
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


def prepare_corpus(output: Path, progress: Callable[[PrepareProgress], None] | None = None) -> Path:
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


def demo(
    output: Path,
    minutes: float = 5.0,
    seed: int = 0,
    continue_run: bool = False,
    progress: Callable[[PrepareProgress], None] | None = None,
) -> PretrainResult:
    """Prepare the corpus if need be, then pretrain in ``output/run``, or go on where that run was interrupted.

    Raises:
        ElectraError: ``output`` holds another run already, or the disk is full.
    """
    prepare_corpus(output, progress)
    if continue_run:
        return resume(output / RUN)
    return pretrain(run_options(output, minutes, seed))
