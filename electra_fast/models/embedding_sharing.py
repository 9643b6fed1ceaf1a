"""What generator and discriminator share of their embeddings: all, nothing, or the tables but not their gradients.

Gradient-disentangled embedding sharing (GDES) is DeBERTaV3's: He, Gao and Chen, arXiv:2111.09543, section 3.3, and
microsoft/DeBERTa ``rtd_task.py``. The discriminator's loss pulls embeddings of words that are told apart away from each
other, the generator's pulls embeddings of words that can stand in the same places together. Sharing the values while
the gradients stay apart keeps both losses from working against each other.
"""

from __future__ import annotations

import torch
from torch import Tensor

from electra_fast import nn as fast
from electra_fast.nn.embeddings import TABLES

from .config import ElectraConfig
from .heads import ElectraForPreTraining


class DisentangledEmbeddings(fast.Embeddings):
    """``dropout(LN(E[ids] + …))`` with every table ``E = stop_gradient(E_generator) + Δ``; Δ starts at zero.

    State dict of `Embeddings`, whose tables are the differences Δ here; the layer norm is the discriminator's own.
    DeBERTaV3 has word and position tables; the segment table is treated alike.

    Args:
        config: sizes. generator: the embeddings whose tables are read, at every call; not a submodule.
    """

    def __init__(self, config: ElectraConfig, generator: fast.Embeddings) -> None:
        super().__init__(config)
        self._generator = (generator,)  # in a tuple, so that its parameters are not this module's
        with torch.no_grad():
            for name in TABLES:
                getattr(self, name).weight.zero_()

    def table(self, name: str) -> Tensor:
        """``stop_gradient(E_generator) + Δ``, what `Embeddings.forward` looks up."""
        (generator,) = self._generator
        return getattr(generator, name).weight.detach() + getattr(self, name).weight


def plain_discriminator(discriminator: ElectraForPreTraining) -> ElectraForPreTraining:
    """The discriminator as others load it: under GDES a copy whose tables are the sums, else the one given."""
    embeddings = discriminator.electra.embeddings
    if not isinstance(embeddings, DisentangledEmbeddings):
        return discriminator
    with torch.device("meta"):
        plain = ElectraForPreTraining(discriminator.config)
    sums = {f"electra.embeddings.{name}.weight": embeddings.table(name).detach() for name in TABLES}
    plain.load_state_dict(discriminator.state_dict() | sums, assign=True)
    return plain.train(discriminator.training)


def differences(weights: dict[str, Tensor], generator: dict[str, Tensor]) -> dict[str, Tensor]:
    """A plain discriminator's weights as GDES has them: each table less the generator's."""
    names = [f"electra.embeddings.{name}.weight" for name in TABLES]
    return weights | {name: weights[name] - generator[name].to(weights[name]) for name in names}
