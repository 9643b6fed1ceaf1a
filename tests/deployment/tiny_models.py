"""Fine-tuned directories of two layers of 32, with weights that nobody trained."""

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from electra_fast.data.hygiene import HygienePolicy
from electra_fast.workflows.finetuning.model_directory import save_model
from electra_fast.workflows.finetuning.task import task_class

LABELS = {"classification": ("bad", "good", "so-so"), "ner": ("O", "B-person", "I-person")}
LONGEST = 40
_HEADS = {
    "classification": transformers.ElectraForSequenceClassification,
    "ner": transformers.ElectraForTokenClassification,
    "qa": transformers.ElectraForQuestionAnswering,
    "choice": transformers.ElectraForMultipleChoice,
}


def tiny_tokenizer():
    """Single characters, lower-cased: every text has as many tokens as letters, and two."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    characters = "abcdefghijklmnopqrstuvwxyz0123456789.,!?"
    pieces = [*special, *characters, *(f"##{c}" for c in characters)]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return transformers.ElectraTokenizerFast(tokenizer_object=tokenizer, **names)


def write_model(folder: Path, name: str = "classification", **fields) -> Path:
    """The directory of a model for a task, whose every weight matters; ``fields`` are the task's."""
    tokenizer = tiny_tokenizer()
    labels = LABELS.get(name, ())
    config = transformers.ElectraConfig(
        vocab_size=len(tokenizer),
        embedding_size=16,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=LONGEST,
        **({"id2label": dict(enumerate(labels))} if labels else {}),
    )
    torch.manual_seed(0)
    model = _HEADS[name](config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    if labels:
        fields["labels"] = labels
    if name == "classification":
        fields["problem"] = "single"
    task = task_class(name)(max_length=LONGEST, **fields)
    save_model(folder, task, model, tokenizer, HygienePolicy(), {})
    return folder
