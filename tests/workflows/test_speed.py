"""Tokens a second, MFU and waiting, from counts and clocks given."""

import math

import pytest

from electra_fast.matrix_peak import MatrixPeak
from electra_fast.models import ElectraConfig
from electra_fast.models.flops import step_flops
from electra_fast.workflows.pretraining.metrics import RunningMetrics
from electra_fast.workflows.pretraining.speed import Speed

CONFIG = ElectraConfig.small()


@pytest.fixture
def metrics():
    counted = RunningMetrics()
    counted.tokens, counted.pairs = 1280, 10 * 128**2
    return counted


def test_shares_of_the_peak_and_of_the_time(metrics):
    speed = Speed(CONFIG, MatrixPeak(1e12, "assumed"), waited=5.0)
    found = speed.compute(metrics, 2.0, waited=5.5)
    flops = step_flops(CONFIG, 1280, 10 * 128**2)
    assert found == pytest.approx(
        {"tokens_per_second": 640.0, "tflops": flops / 2e12, "mfu": flops / 2e12, "data_wait": 0.25}
    )
    assert speed.compute(metrics, 2.0, waited=5.5)["data_wait"] == 0.0


def test_an_unknown_peak_leaves_the_share_unknown(metrics):
    found = Speed(CONFIG, MatrixPeak(math.nan, "no products"), 0.0).compute(metrics, 2.0, 0.0)
    assert math.isnan(found["mfu"])
    assert found["tflops"] > 0


def test_no_time_gives_no_figures(metrics):
    found = Speed(CONFIG, MatrixPeak(1e12, "assumed"), 0.0).compute(metrics, 0.0, 0.0)
    assert all(math.isnan(value) for value in found.values())
