"""GELU against torch.nn.GELU, with and without the bias it adds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from electra_fast.nn import GELU


def test_is_torchs_exact_form():
    x, bias = torch.linspace(-6, 6, 120).view(4, 30), torch.randn(30)
    torch.testing.assert_close(GELU()(x), nn.GELU()(x))
    torch.testing.assert_close(GELU()(x, bias), nn.GELU()(x + bias))


def test_the_tanh_form_is_refused():
    with pytest.raises(ValueError, match="approximate must be 'none'"):
        GELU(approximate="tanh")
