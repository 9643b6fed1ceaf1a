"""An encoder that is read and not trained: the head alone learns from its states (feature extraction)."""

from __future__ import annotations

from torch import nn

from electra_fast.models import ElectraForTranslation


def freeze_encoder(model: nn.Module) -> None:
    """Take embeddings and encoder out of training; autograd then stops above them. Their dropout stays on.

    Args:
        model: one of `transformers`' ELECTRA heads, or an ElectraForTranslation, whose decoder goes on learning.
    """
    encoder = model.encoder if isinstance(model, ElectraForTranslation) else model.electra
    encoder.requires_grad_(False)
