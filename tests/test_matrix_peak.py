"""The measured roof of products."""

import math

import pytest
import torch

from electra_fast import matrix_peak as module
from electra_fast.matrix_peak import MatrixPeak, matrix_peak, square_product

CPU = torch.device("cpu")


def test_the_best_product_is_the_peak(monkeypatch):
    monkeypatch.setattr(module, "_SIZES", (16, 256))
    found = matrix_peak(CPU, torch.float32, seconds=1.0)
    assert found.flops > 1e8
    assert found.how == "torch's float32 product of 256³, measured"
    assert str(MatrixPeak(4.2e11, found.how)) == f"matrix peak 0.42 TFLOP/s ({found.how})"


def test_a_product_that_would_take_too_long_is_left_out(monkeypatch):
    monkeypatch.setattr(module, "_SIZES", (64, 1 << 20))  # the second would not fit into any memory
    assert "64³" in matrix_peak(CPU, torch.float32, seconds=0.2).how


def test_a_product_that_cannot_be_is_said_to_be_unknown(monkeypatch):
    def refuse(*_):
        raise NotImplementedError("not for this device\nat all")

    monkeypatch.setattr(module, "square_product", refuse)
    found = matrix_peak(CPU, torch.bfloat16)
    assert math.isnan(found.flops)
    assert str(found) == "the matrix peak is unknown (no bfloat16 product: not for this device)"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_products(dtype):
    assert square_product(CPU, dtype, 32)().shape == (32, 32)
