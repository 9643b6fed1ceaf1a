"""Losses that jump are said once, whenever they are looked at."""

import pytest
import torch

from electra_fast.workflows.pretraining.watch import LossWatch

NORM = torch.tensor(1.0)


def watch():
    return LossWatch(torch.device("cpu"), "stop", lambda: None)


def noise(steps, seed=0):
    return (30 + torch.randn(steps, generator=torch.Generator().manual_seed(seed)) * 0.5).tolist()


def feed(watched, losses, first=1):
    said = []
    for step, loss in enumerate(losses, first):
        watched.add(step, torch.tensor(loss), NORM)
        said += watched.check()
    return said


def test_noise_and_a_loss_that_falls_are_no_jump():
    assert feed(watch(), noise(2000)) == []
    assert feed(watch(), [60 - 0.01 * step + e - 30 for step, e in enumerate(noise(2000, 1))]) == []


def test_a_jump_is_said_once_and_again_after_it_came_down():
    losses = noise(60)
    losses[40:44] = [36.0, 40.0, 39.0, 38.0]
    losses[50] = 37.0
    watched = watch()
    said = feed(watched, losses)
    assert len(said) == 2
    assert said[0].startswith("the loss jumped to 36.000 in step 41 from 30.")
    assert said[1].startswith("the loss jumped to 37.000 in step 51 from")
    assert watched.spikes() == 2
    assert watched.spikes() == 0


def test_too_few_losses_to_tell():
    assert feed(watch(), [30.0] * 20 + [90.0]) == []


def test_a_loss_that_hardly_varies_may_vary_a_little():
    assert feed(watch(), [30.0] * 50 + [30.5]) == []
    assert len(feed(watch(), [30.0] * 50 + [31.0])) == 1


@pytest.mark.parametrize("split", [35, 41, 45])
def test_goes_on_from_a_checkpoint(split):
    losses = noise(60)
    losses[40:44] = [36.0, 40.0, 39.0, 38.0]
    whole, first, second = watch(), watch(), watch()
    said = feed(whole, losses)
    parts = feed(first, losses[:split])
    second.load_state_dict(first.state_dict())
    assert parts + feed(second, losses[split:], split + 1) == said
    assert second.state_dict() == whole.state_dict()
