"""Writing the generator's samples into the text, and the discriminator's labels."""

from __future__ import annotations

import torch
from torch import Tensor

from . import backend, checks


def replace_tokens(input_ids: Tensor, positions: Tensor, targets: Tensor, sampled: Tensor) -> tuple[Tensor, Tensor]:
    """Write ``sampled`` at ``positions`` and label what changed.

    Args:
        input_ids: int64 ``[T]``, the original ids, unmasked.
        positions, targets, sampled: int64 ``[P]``; slots whose target is -100 are unused.

    Returns: corrupted ids ``[T]``, and labels bool ``[T]``, True where the id differs from the original: a sample that
    hits the original counts as real. Where several slots share a position the new id is the floor of the mean of their
    samples, as in google-research/electra (``scatter_update``); with distinct positions this is plain assignment.

    Raises: TypeError for a wrong dtype; ValueError for a wrong shape or device and, on the CPU, a position outside.

    Source: Clark et al. 2020, section 2.
    """
    op = "replace_tokens"
    checks.check(op, "input_ids", input_ids, checks.INT64, (None,))
    checks.check(op, "positions", positions, checks.INT64, (None,), input_ids)
    checks.check(op, "targets", targets, checks.INT64, positions.shape, input_ids)
    checks.check(op, "sampled", sampled, checks.INT64, positions.shape, input_ids)
    return backend.run(op, (input_ids, positions, targets, sampled), input_ids.device)


def _fake(input_ids: Tensor, positions: Tensor, targets: Tensor, sampled: Tensor) -> tuple[Tensor, Tensor]:
    return input_ids.new_empty(input_ids.shape), input_ids.new_empty(input_ids.shape, dtype=torch.bool)


backend.register("replace_tokens", _fake)
