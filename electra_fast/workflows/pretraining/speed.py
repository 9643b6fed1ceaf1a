"""How fast a run is, and what it could be: tokens a second, MFU, and the time it waits for data."""

from __future__ import annotations

import math

from electra_fast.matrix_peak import MatrixPeak
from electra_fast.models import ElectraConfig
from electra_fast.models.flops import step_flops

from .metrics import RunningMetrics


class Speed:
    """Figures of the steps between two reports.

    MFU is the share of the time that the matrix units would need for the steps' own products (`models.flops`) at the
    peak that was measured when the run began.

    Args:
        waited: seconds that the reader of batches says it has been waited for, so far.
        devices: that share the steps, each with that peak.
    """

    def __init__(self, config: ElectraConfig, peak: MatrixPeak, waited: float, devices: int = 1) -> None:
        self._config, self._peak, self._waited = config, peak.flops * devices, waited

    def compute(self, metrics: RunningMetrics, seconds: float, waited: float) -> dict[str, float]:
        """``tokens_per_second``, ``tflops`` (10¹² products' operations a second), ``mfu`` and ``data_wait`` (shares).

        NaN where there is nothing to divide by: no time, or an unknown peak. ``seconds`` are those of the steps that
        ``metrics`` counted.
        """
        waiting, self._waited = waited - self._waited, waited
        if seconds <= 0:
            return dict.fromkeys(("tokens_per_second", "tflops", "mfu", "data_wait"), math.nan)
        rate = step_flops(self._config, metrics.tokens, metrics.pairs) / seconds
        return {
            "tokens_per_second": metrics.tokens / seconds,
            "tflops": rate / 1e12,
            "mfu": rate / self._peak,
            "data_wait": waiting / seconds,
        }
