"""Text to tokens to batches: tokenizer, corpus, token shards, packed batches. Names are loaded when first used."""

from importlib import import_module

_EXPORTS = {
    "Corpus": "manifest",
    "Manifest": "manifest",
    "Mixture": "mixture",
    "mix": "mixture",
    "open_corpus": "manifest",
    "PackedBatch": "batches",
    "PackedBatches": "batches",
    "PrepareOptions": "preparation_options",
    "PrepareProgress": "text_pass",
    "prepare": "preparation",
    "prepare_share": "shared_job",
    "Shard": "shards",
    "Tokenizer": "tokenizer",
    "TokenizerOptions": "tokenizer_training",
    "train_tokenizer": "tokenizer_training",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
