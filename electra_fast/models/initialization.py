"""How Google's ELECTRA starts: truncated normal kernels and tables, two Glorot layers, zero biases.

Source: google-research/electra ``modeling.py`` (``create_initializer``) and ``run_pretraining.py``. There
``embeddings_project`` and the discriminator's layer to one logit name no initializer, which in TensorFlow 1 is Glorot's
uniform.
"""

from __future__ import annotations

from torch import nn

GLOROT = ("embeddings_project", "dense_prediction")


def initialize(model: nn.Module, standard_deviation: float, keep: nn.Module | None = None) -> None:
    """Fill the parameters of ``model``, but for those of its submodule ``keep``; a normal is cut at two deviations."""
    kept = set() if keep is None else set(keep.modules())
    for name, module in model.named_modules():
        if module in kept:
            continue
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear | nn.Embedding):
            if name.rpartition(".")[2] in GLOROT:
                nn.init.xavier_uniform_(module.weight)
            else:
                bound = 2 * standard_deviation
                nn.init.trunc_normal_(module.weight, std=standard_deviation, a=-bound, b=bound)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
