"""The whole joint pretraining step on Triton's kernels alone: every op of it, forward, backward and update."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from electra_fast import ops, rng
from electra_fast.models import ElectraConfig, ElectraPretrainingPair
from electra_fast.optim import ElectraAdam, clip_factor, global_norm, parameter_groups

LENGTHS, TAIL, VOCABULARY = (20, 0, 7), 3, 90


def make_pair(device: str) -> ElectraPretrainingPair:
    torch.manual_seed(1)
    config = ElectraConfig.small(
        vocab_size=VOCABULARY, num_hidden_layers=1, max_position_embeddings=32, sequence_length=32,
        initializer_range=0.1, cls_token_id=1, sep_token_id=2, mask_token_id=3,
    )  # fmt: skip
    return ElectraPretrainingPair(config).to(device)


def step(backend: str, device: str) -> tuple[object, dict[str, Tensor], dict[str, Tensor]]:
    """What the step returns, the gradients, and the parameters after an update."""
    pair = make_pair(device)
    ids = torch.randint(4, VOCABULARY, (sum(LENGTHS) + TAIL,), generator=torch.Generator().manual_seed(2)).to(device)
    cu_seqlens = torch.tensor([0, *LENGTHS], device=device).cumsum(0).int()
    optimiser = ElectraAdam(parameter_groups(pair), lr=1e-3)
    with ops.use_backend(backend):
        out = pair(ids, cu_seqlens=cu_seqlens, rng=rng.make(5, 1, device))
        out.loss.backward()
        gradients = {name: p.grad.clone() for name, p in pair.named_parameters()}
        optimiser.step(grad_scale=clip_factor(global_norm(optimiser.gradients()), 1.0))
    return out, gradients, {name: p.detach() for name, p in pair.named_parameters()}


def test_the_same_step_as_the_reference(device: str) -> None:
    """Masks, samples and labels equal; loss and gradients to rounding; and the updated parameters."""
    if reason := next((r["triton"] for op, r in ops.backends(device).items() if r["triton"] and op != "encoder"), None):
        pytest.skip(reason)
    (ours, gradients, updated), (theirs, wanted, expected) = (step(name, device) for name in ("triton", "reference"))
    for name in ("positions", "targets", "sampled", "labels"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-5, atol=0)
    for name, gradient in gradients.items():
        if ".key.bias" not in name:  # zero but for rounding
            assert (gradient - wanted[name]).norm() <= 2e-5 * wanted[name].norm(), name
            torch.testing.assert_close(updated[name], expected[name], rtol=1e-5, atol=2e-5)
