"""The exported model against its source: how far apart, where, and how fast each is."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from electra_fast.errors import ExportError

from .inputs import Case
from .source import INPUTS, Head, Network, Source

Run = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""An exported model: inputs by name to outputs by name."""

_TIMED_RUNS = 7
_UNTIMED_RUNS = 2


@dataclass(frozen=True)
class Difference:
    """The largest difference in one batch: of ``output`` at ``index``, where the source says one thing, the export
    another.
    """

    case: str
    shape: str
    output: str
    index: tuple[int, ...]
    source: float
    exported: float
    largest: float

    def __str__(self) -> str:
        where = ", ".join(map(str, self.index))
        return (
            f"{self.largest:.2g} in {self.output}[{where}] of {self.case!r} ({self.shape}): {self.exported:.7g} "
            f"instead of {self.source:.7g}"
        )


def run_of(network: Network) -> Run:
    """A network under the same signature as an exported model."""

    @torch.no_grad()
    def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return dict(zip(network.outputs, network(*(inputs[name] for name in INPUTS)), strict=True))

    return run


def compare(head: Head, source: Run, exported: Run, cases: Sequence[Case]) -> list[Difference]:
    """The largest difference of every batch, in the outputs at tokens that the mask keeps.

    Raises:
        ExportError: the exported model fails on a batch, or returns another shape.
    """
    found = []
    for case in cases:
        expected = source(case.inputs)
        try:
            given = exported(case.inputs)
        except Exception as error:  # each runtime has errors of its own
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise ExportError(f"the exported model fails on {case.name!r} ({case.shape}): {reason}") from error
        differences = [_largest(head, case, name, expected[name], given[name]) for name in head.outputs]
        found.append(max(differences, key=lambda difference: difference.largest))
    return found


def check(differences: Sequence[Difference], tolerance: float) -> None:
    """ExportError for a difference above ``tolerance``, or one that is not a number."""
    worst = max(differences, key=lambda difference: difference.largest)
    if not worst.largest <= tolerance:
        raise ExportError(
            f"the exported model differs from its source by {worst}; the tolerance is {tolerance:g}. Nothing was "
            "written"
        )


def agreement(source: Source, expected: Run, given: Run, cases: Sequence[Case]) -> float | None:
    """Share of decisions (`Source.decision`) that are the same; None where the outputs are none."""
    if source.decision is None:
        return None
    same = total = 0
    for case in cases:
        outputs = expected(case.inputs), given(case.inputs)
        for name in source.head.outputs:
            a, b = (_decisions(source, case, values[name]) for values in outputs)
            same += int((a == b).sum())
            total += a.numel()
    return same / total


def milliseconds(run: Run, case: Case) -> float:
    """Median time of one batch."""
    times = []
    for _ in range(_UNTIMED_RUNS + _TIMED_RUNS):
        start = time.perf_counter()
        run(case.inputs)
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[_UNTIMED_RUNS:])


def _largest(head: Head, case: Case, name: str, expected: Tensor, given: Tensor) -> Difference:
    if expected.shape != given.shape:
        raise ExportError(
            f"the exported model returns {name} of shape {list(given.shape)} for {case.name!r} ({case.shape}), "
            f"expected {list(expected.shape)}"
        )
    apart = (given - expected).abs()
    apart = torch.where(apart.isnan(), torch.inf, apart)
    if head.per_token:
        mask = case.inputs["attention_mask"].bool()
        apart = apart.masked_fill(~mask.view(*mask.shape, *[1] * (apart.dim() - mask.dim())), 0.0)
    index = tuple(int(i) for i in torch.unravel_index(apart.argmax(), apart.shape))
    return Difference(
        case.name, case.shape, name, index, float(expected[index]), float(given[index]), float(apart[index])
    )


def _decisions(source: Source, case: Case, values: Tensor) -> Tensor:
    mask = case.inputs["attention_mask"].bool()
    if source.decision == "sign":
        chosen = values > 0
    elif source.head.per_token and values.dim() == mask.dim():  # of each row, which token
        return values.masked_fill(~mask, -torch.inf).argmax(-1)
    else:
        chosen = values.argmax(-1)
    return chosen[mask] if source.head.per_token else chosen
