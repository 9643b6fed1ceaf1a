"""Tiny models of every kind with a tokenizer, saved as directories."""

import pytest
import torch

from electra_fast.data.tokenizer import Tokenizer, wordpiece
from electra_fast.models import (
    ElectraConfig,
    ElectraForMaskedLM,
    ElectraForPreTraining,
    ElectraForQuestionAnswering,
    ElectraForSequenceClassification,
    ElectraForTokenClassification,
)

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] the cat sat on mat dog is it who old ##er wild ? . <".split()
KINDS = {
    "labels": (ElectraForSequenceClassification, {"id2label": {0: "bad", 1: "good", 2: "neither"}}),
    "several": (
        ElectraForSequenceClassification,
        {"id2label": {0: "a", 1: "b"}, "problem_type": "multi_label_classification"},
    ),
    "number": (ElectraForSequenceClassification, {"num_labels": 1, "problem_type": "regression"}),
    "tags": (ElectraForTokenClassification, {"id2label": {0: "O", 1: "B-animal", 2: "I-animal"}}),
    "answers": (ElectraForQuestionAnswering, {}),
    "replaced": (ElectraForPreTraining, {}),
    "generator": (ElectraForMaskedLM, {}),
}


@pytest.fixture(scope="session")
def directory(tmp_path_factory):
    """The directory of a model of one of `KINDS`, whose weights say something."""
    made = {}

    def make(kind):
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind)
            cls, options = KINDS[kind]
            torch.manual_seed(0)
            config = ElectraConfig(
                vocab_size=len(WORDS), embedding_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                intermediate_size=64, max_position_embeddings=16, cls_token_id=2, sep_token_id=3, mask_token_id=4,
            )  # fmt: skip
            if "id2label" in options:
                options = {"num_labels": len(options["id2label"]), **options}
            model = cls(config.replace(**options))
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.ndim > 1:
                        parameter.normal_(std=0.3)
            model.save_pretrained(made[kind])
            words = {word: index for index, word in enumerate(WORDS)}
            Tokenizer(wordpiece(words, lowercase=True, strip_accents=None)).save(made[kind])
        return made[kind]

    return make
