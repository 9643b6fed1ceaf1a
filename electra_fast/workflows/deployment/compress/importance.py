"""What a head, a neuron or a coordinate of the hidden states is worth: what the loss would change without it.

Each is multiplied by a gate of 1, and the first-order estimate of what leaving it out does to the loss is the gate's
gradient: for a head ``E_x |Att_h(x)ᵀ ∂L/∂Att_h(x)|``, over examples the mean size of the sum over tokens; for neurons
of the feed-forward part and for the hidden size it is the same sum. Source: Michel, Levy and Neubig, "Are Sixteen
Heads Really Better than One?" (NeurIPS 2019), after Molchanov et al. (ICLR 2017).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Importance:
    """Larger is more.

    Attributes:
        heads: of each layer, [heads]. neurons: of each layer's feed-forward part, [intermediate size].
        width: of the coordinates of the hidden states, through all layers, [hidden size].
        head_neurons: of what the task's last matrix reads, [width of that]; None if it reads the hidden states.
    """

    heads: list[Tensor]
    neurons: list[Tensor]
    width: Tensor
    head_neurons: Tensor | None


def measure_importance(
    model: nn.Module, loss: Callable[[nn.Module, dict[str, Tensor]], Tensor], batches: Iterable[dict[str, Tensor]]
) -> Importance:
    """Importance of everything that can be pruned, over some batches; the model is left as it was.

    Args:
        model: `transformers`' own, not accelerated, whose parts are called one by one.
        loss: the mean over a batch's rows.
    """
    was_training = model.training
    model.eval()
    gates = _Gates()
    with gates.on(model):
        for batch in batches:
            gates.begin()
            loss(model, batch).backward()
            gates.collect()
    model.zero_grad()
    model.train(was_training)
    layers = range(len(model.electra.encoder.layer))
    return Importance(
        heads=[gates.sums["heads", i] for i in layers],
        neurons=[gates.sums["neurons", i] for i in layers],
        width=gates.sums["width", 0],
        head_neurons=gates.sums.get(("head neurons", 0)),
    )


def last_matrix(model: nn.Module) -> nn.Linear | None:
    """The task's last matrix, where there is a layer of neurons between it and the hidden states."""
    classifier = getattr(model, "classifier", None)
    if hasattr(classifier, "out_proj"):
        return classifier.out_proj
    summary = getattr(model, "sequence_summary", None)
    return classifier if isinstance(getattr(summary, "summary", None), nn.Linear) else None


class _Gates:
    """Factors of 1, one for each row of the batch and each thing that they are multiplied with."""

    def __init__(self) -> None:
        self.sums: dict[tuple[str, int], Tensor] = {}
        self._gates: dict[tuple[str, int], Tensor] = {}

    def begin(self) -> None:
        """A new batch."""
        self._gates = {}

    def collect(self) -> None:
        """Add the sizes of this batch's gradients."""
        for key, gate in self._gates.items():
            size = gate.grad.abs().flatten(0, -2).sum(0)
            self.sums[key] = self.sums.get(key, 0) + size

    @contextlib.contextmanager
    def on(self, model: nn.Module) -> Iterator[None]:
        """Multiply with gates while the block runs."""
        hooks = []
        electra = model.electra
        first = electra.embeddings_project if hasattr(electra, "embeddings_project") else electra.embeddings
        hooks.append(first.register_forward_hook(self._output(("width", 0))))
        for i, layer in enumerate(electra.encoder.layer):
            heads = layer.attention.self.num_attention_heads
            hooks += [
                layer.attention.output.dense.register_forward_pre_hook(self._input(("heads", i), heads)),
                layer.attention.output.LayerNorm.register_forward_hook(self._output(("width", 0))),
                layer.output.dense.register_forward_pre_hook(self._input(("neurons", i))),
                layer.output.LayerNorm.register_forward_hook(self._output(("width", 0))),
            ]
        if (matrix := last_matrix(model)) is not None:
            hooks.append(matrix.register_forward_pre_hook(self._input(("head neurons", 0))))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _input(self, key: tuple[str, int], groups: int | None = None) -> Callable:
        return lambda module, args: (self._times(key, args[0], groups), *args[1:])

    def _output(self, key: tuple[str, int]) -> Callable:
        return lambda module, args, output: self._times(key, output)

    def _times(self, key: tuple[str, int], x: Tensor, groups: int | None = None) -> Tensor:
        """``x`` [rows, …, n] times a gate for each of ``groups`` neighbouring parts of its last dimension."""
        groups = x.shape[-1] if groups is None else groups
        if key not in self._gates:
            shape = (x.shape[0], *[1] * (x.dim() - 2), groups)
            self._gates[key] = x.new_ones(shape).requires_grad_()
        return x * self._gates[key].repeat_interleave(x.shape[-1] // groups, -1)
