"""The uppermost layers of an encoder drawn anew before fine-tuning: what they hold is about pretraining's own question.

Source: Zhang et al. 2021, "Revisiting Few-sample BERT Fine-tuning" (ICLR), section 5. An ELECTRA's answer one bit a
token, and after a short pretraining their states may be nearly alike (docs/notes/fine-tuning-a-short-run.md).
"""

from __future__ import annotations

import re

from torch import nn

from electra_fast.models.initialization import initialize

# Of `transformers`' heads and of ElectraForTranslation; not of a decoder, which is never pretrained.
_LAYER = re.compile(r"(?!decoder\.)(?:.+\.)?encoder\.layer\.\d+")


def reinitialize_top(model: nn.Module, count: int, standard_deviation: float) -> None:
    """Draw the last ``count`` layers of a network's encoder as at the start of pretraining, from torch's generator.

    Args:
        count: from 0 to the number of layers. standard_deviation: of linear layers (``initializer_range``).
    """
    layers = [module for name, module in model.named_modules() if _LAYER.fullmatch(name)]
    for layer in layers[len(layers) - count :]:
        initialize(layer, standard_deviation)
