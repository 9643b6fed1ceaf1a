"""The count of operations against Google's script, torch's counter, and what it has to be proportional to."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from electra_fast import ops
from electra_fast.models import ElectraConfig, ElectraPretrainingPair
from electra_fast.models.flops import encoder_flops, step_flops

TOKENS = {"cls_token_id": 2, "sep_token_id": 3, "mask_token_id": 4}


@pytest.mark.parametrize(
    ("size", "length", "script"),
    [
        ("small", 128, 9.16e9),
        ("small", 512, 4.64e10),
        ("base", 128, 7.89e10),
        ("base", 512, 3.47e11),
        ("large", 512, 1.11e12),
    ],
)
def test_it_is_that_of_googles_script_but_for_what_is_no_product(size, length, script):
    """``flops_computation.py`` for one sequence, lookups not counted and the backward pass as twice the forward; its
    15.625 % of the tokens reach the vocabulary."""
    config = getattr(ElectraConfig, size)(mask_probability=0.15625)
    assert 0.965 < step_flops(config, length, length**2) / script < 1.0


def test_torch_counts_the_same_products():
    """Of the forward pass on the reference, with sequences of equal length."""
    config = ElectraConfig(
        100, 16, 32, 2, 2, 64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **TOKENS
    ).replace(mask_probability=0.25, generator_hidden_fraction=0.5)
    pair = ElectraPretrainingPair(config)
    cu_seqlens = torch.arange(5, dtype=torch.int32) * 20
    ids = torch.randint(5, 100, (80,))
    with ops.use_backend("reference"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        pair(ids, cu_seqlens=cu_seqlens, rng=torch.tensor([0, 0]), max_seqlen=20)
    slots = ops.max_predictions_bound(80, 4, 0.25)
    config = config.replace(mask_probability=slots / 80)  # slots that stay unused are multiplied, too
    one_logit = 2 * 80 * 32  # a matrix times a vector, which torch does not count
    assert counter.get_total_flops() + one_logit == pytest.approx(step_flops(config, 80, 4 * 20**2) / 3)


def test_attention_grows_with_the_squares_of_the_lengths():
    config = ElectraConfig(100, 32, 32, 2, 2, 64)
    one = encoder_flops(config, 10, 10**2)
    assert encoder_flops(config, 20, 2 * 10**2) == 2 * one
    assert encoder_flops(config, 20, 20**2) - 2 * one == 2 * 4.0 * 32 * (400 - 200)


def test_without_a_generator_only_the_discriminator_counts():
    config = ElectraConfig(100, 32, 32, 2, 2, 64)
    alone = config.replace(uniform_generator=True)
    assert step_flops(alone, 10, 100) == 3 * (encoder_flops(config, 10, 100) + 2 * 10 * 32 * 33)
    assert step_flops(config, 10, 100) > step_flops(alone, 10, 100)


@pytest.mark.parametrize(
    ("changes", "uncounted"),
    [
        ({"objective": "mlm"}, 0),
        ({"embedding_sharing": "none", "freeze_generator": True}, 3 * 2 * 80 * 32),  # the one logit again
        # The reference multiplies the hidden half of both causal towers, of two layers each, too.
        ({"objective": "electric"}, -3 * 4 * 16 * (4 * 20**2 / 2) * 2 * 2),
    ],
    ids=["mlm", "frozen", "electric"],
)
def test_torch_counts_the_same_products_of_other_objectives(changes, uncounted):
    """Forward and backward, on the reference."""
    config = ElectraConfig(
        100, 16, 32, 2, 2, 64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **TOKENS
    ).replace(mask_probability=0.25, generator_hidden_fraction=0.5, **changes)
    pair = ElectraPretrainingPair(config)
    cu_seqlens = torch.arange(5, dtype=torch.int32) * 20
    ids = torch.randint(5, 100, (80,))
    with ops.use_backend("reference"), FlopCounterMode(display=False) as counter:
        pair(ids, cu_seqlens=cu_seqlens, rng=torch.tensor([0, 0]), max_seqlen=20).loss.backward()
    config = config.replace(mask_probability=ops.max_predictions_bound(80, 4, 0.25) / 80)
    assert counter.get_total_flops() + uncounted == pytest.approx(step_flops(config, 80, 4 * 20**2))
