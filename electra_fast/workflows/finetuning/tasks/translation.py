"""Sentences to their translations: an ELECTRA reads, a decoder that starts from nothing writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import tokenizers

from electra_fast.data.hygiene import HygienePolicy, HygieneReport, clean
from electra_fast.data.parallel_text import read_parallel
from electra_fast.data.target_tokenizer import train_target_tokenizer
from electra_fast.data.tokenizer import Tokenizer
from electra_fast.errors import ConfigError
from electra_fast.extras import require
from electra_fast.workflows.finetuning.checkpoint import load_config
from electra_fast.workflows.finetuning.options import FinetuneOptions
from electra_fast.workflows.finetuning.task import Columns, Task

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

TARGET_TOKENIZER = "target_tokenizer"


@dataclass(frozen=True)
class Translation(Task):
    """A sentence to its translation.

    Attributes:
        max_length: most tokens of a source, and of a translation with its end.
        source_column, target_column: what the columns of files are called; None: looked for.
        decoder_layers: of the network. target_vocab_size: entries of the target's tokenizer, at most.
        label_smoothing: in the loss of training.
        beams, length_penalty: of the search for a translation; 1 beam: greedy.
        target_tokenizer: the tokenizer learned from the training data's translations, as its JSON.
        signatures: how sacrebleu says what BLEU and chrF were computed by.
    """

    name: ClassVar[str] = "translation"
    inputs: ClassVar[tuple[str, ...]] = ("source",)
    texts: ClassVar[tuple[str, ...]] = ("source",)
    label: ClassVar[str] = "target"
    metric: ClassVar[str] = "bleu"
    default_epochs: ClassVar[float] = 12.0
    default_batch_size: ClassVar[int] = 128
    default_optimizer: ClassVar[tuple[str, float]] = ("adamw", 0.98)  # docs/translation.md, Learning rates

    source_column: str | None = None
    target_column: str | None = None
    decoder_layers: int = 3
    target_vocab_size: int = 8000
    label_smoothing: float = 0.1
    beams: int = 4
    length_penalty: float = 0.6
    target_tokenizer: str = ""
    signatures: tuple[str, ...] = ()

    @classmethod
    def from_options(cls, options: FinetuneOptions, longest: int) -> Translation:
        if options.backend != "electra_fast":
            raise ConfigError(
                "backend transformers cannot be for translation: its network is this package's own "
                "(transformers.EncoderDecoderModel loads what comes out)"
            )
        names = ("source_column", "target_column", "decoder_layers", "target_vocab_size", "beams", "length_penalty")
        smoothing = 0.1 if options.label_smoothing is None else options.label_smoothing
        return cls(
            max_length=min(options.max_length or longest, longest),
            label_smoothing=smoothing,
            **{name: getattr(options, name) for name in names},
        )

    @property
    def target(self) -> Tokenizer:
        """The target's tokenizer, after `learn`."""
        return _loaded(self.target_tokenizer)

    def read(self, path: str | Path, *, labelled: bool = True) -> Dataset:
        """Columns ``source`` and ``target`` of a table or of two parallel files (`electra_fast.data.parallel_text`)."""
        return read_parallel(path, self.source_column, self.target_column, labelled=labelled)

    def clean(self, examples: Dataset, policy: HygienePolicy) -> tuple[Dataset, HygieneReport]:
        """Both sides are texts; that of the target is what is learned."""
        if "target" in examples.column_names:
            targets = [policy.value(text) for text in examples["target"]]
            examples = examples.remove_columns("target").add_column("target", targets)
        return clean(examples, policy, texts=self.texts, label=self.label)

    def learn(self, train: Dataset) -> Translation:
        """The target's tokenizer."""
        tokenizer = train_target_tokenizer(list(train["target"]), self.target_vocab_size)
        signatures = tuple(signature for _, signature in _measured(["a b c d"], ["a b c d"]).values())
        return dataclasses.replace(self, target_tokenizer=tokenizer.backend.to_str(), signatures=signatures)

    def between_steps(self) -> Translation:
        """Checkpoints are compared by greedy search, which is several times as fast."""
        return dataclasses.replace(self, beams=1)

    def accept(self, item: str | Mapping[str, Any]) -> dict[str, Any]:
        """A text, or an object with ``source``, or with the name that the file's column had."""
        if isinstance(item, Mapping) and "source" not in item and self.source_column in item:
            item = {"source": item[self.source_column]}
        return super().accept(item)

    def model(self, checkpoint: str, *, pretrained: bool = True, dropout: float = 0.1) -> nn.Module:
        """The checkpoint's encoder, and a decoder of its widths, whose weights are drawn."""
        from transformers.utils import cached_file

        from electra_fast.models import ElectraConfig, ElectraForTranslation, TranslationConfig

        config = TranslationConfig.for_encoder(
            ElectraConfig.from_huggingface_dict(load_config(checkpoint).to_dict()),
            self.target.vocab_size,
            self.target.special_tokens,
            layers=self.decoder_layers,
            max_length=self.max_length,
            dropout=dropout,
            label_smoothing=self.label_smoothing,
        )
        if not pretrained:
            return ElectraForTranslation(config)
        directory = Path(cached_file(checkpoint, "config.json", local_files_only=True)).parent
        return ElectraForTranslation.from_encoder(config, directory)

    def load(self, directory: str | Path) -> nn.Module:
        from electra_fast.models import ElectraForTranslation

        return ElectraForTranslation.from_pretrained(directory)

    def save(self, model: nn.Module, directory: str | Path) -> None:
        super().save(model, directory)
        self.target.save(Path(directory) / TARGET_TOKENIZER, model_max_length=self.max_length)

    def features(self, examples: Columns, tokenizer: PreTrainedTokenizerBase, training: bool) -> dict[str, list]:
        encoded = tokenizer(
            list(examples["source"]),
            truncation=True,
            max_length=self.max_length,
            return_token_type_ids=False,
            return_attention_mask=False,
        )
        rows = {
            "example": list(range(len(examples["source"]))),
            "input_ids": encoded["input_ids"],
            "cut": [bool(encoding.overflowing) for encoding in encoded.encodings],
        }
        if training:
            targets = self.target.encode_lines(list(examples["target"]))
            room = self.max_length - 1
            rows["labels"] = [[*ids[:room], self.target.sep_id] for ids in targets]
            rows["cut"] = [cut or len(ids) > room for cut, ids in zip(rows["cut"], targets, strict=True)]
        return rows

    def collate(self, rows: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, Tensor]:
        """Sources, and targets if there are any, end to end, with where each begins: nothing is padded."""
        batch = {}
        for name, prefix in (("input_ids", ""), ("labels", "label_")):
            if name in rows[0]:
                batch[name], batch[f"{prefix}cu_seqlens"] = _packed([row[name] for row in rows])
        return batch

    def infer(self, model: nn.Module, batch: dict[str, Tensor]) -> list[Any]:
        """The best hypothesis of every row."""
        from electra_fast.models.translate import SearchOptions, translate

        options = SearchOptions(beams=self.beams, length_penalty=self.length_penalty)
        return [best for best, *_ in translate(model, batch["input_ids"], batch["cu_seqlens"], options=options)]

    def decode(self, outputs: Sequence[Any], rows: Columns, examples: Columns) -> list[dict[str, Any]]:
        """``{"translation", "score"}``; the score is the search's, a log-probability over the length penalty."""
        return [
            {"translation": self.target.decode(found.tokens, skip_special_tokens=True), "score": found.score}
            for found in outputs
        ]

    def score(self, predictions: Sequence[Mapping[str, Any]], examples: Columns) -> dict[str, float]:
        """BLEU and chrF, 0 to 100, by sacrebleu with its defaults, against one reference a sentence."""
        found = [prediction["translation"] for prediction in predictions]
        return {name: value for name, (value, _) in _measured(found, list(examples["target"])).items()}


def _packed(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    import torch

    ids = torch.tensor([token for row in rows for token in row])
    return ids, torch.tensor([0, *accumulate(map(len, rows))], dtype=torch.int32)


def _measured(found: Sequence[str], references: Sequence[str]) -> dict[str, tuple[float, str]]:
    """Score and signature of each metric."""
    metrics = require("sacrebleu.metrics", "translate", "translation")
    measured = {}
    for name, metric in (("bleu", metrics.BLEU()), ("chrf", metrics.CHRF())):
        score = metric.corpus_score(found, [references]).score
        measured[name] = (score, str(metric.get_signature()))
    return measured


@lru_cache(maxsize=8)
def _loaded(tokenizer: str) -> Tokenizer:
    return Tokenizer(tokenizers.Tokenizer.from_str(tokenizer))
