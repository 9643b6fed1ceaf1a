"""What a server tells Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from .batcher import Batch

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_PATHS = frozenset(("/predict", "/health", "/ready", "/metrics", "/model", "/docs", "/openapi.json"))


class Metrics:
    """Counters of one server, in a registry of their own.

    Tokens a second are ``rate(electra_tokens_total[1m])``; the share of time that the model computes is
    ``rate(electra_batch_seconds_sum[1m])``.

    Args:
        waiting: sequences in the queue, asked when the metrics are.
    """

    def __init__(self, waiting: Callable[[], float]) -> None:
        self.predicted = 0  # requests to /predict that were answered with predictions
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "electra_requests", "Requests by path and status.", ("path", "status"), registry=registry
        )
        self._seconds = Histogram(
            "electra_request_seconds", "From a request to /predict to its answer.", buckets=_SECONDS, registry=registry
        )
        queue = Gauge("electra_queue_sequences", "Sequences that wait to be computed.", registry=registry)
        queue.set_function(waiting)
        self._tokens = Counter("electra_tokens", "Tokens computed.", registry=registry)
        self._batch_tokens = Histogram("electra_batch_tokens", "Tokens a batch.", buckets=_TOKENS, registry=registry)
        self._batch_requests = Histogram(
            "electra_batch_requests", "Requests a batch.", buckets=(1, 2, 4, 8, 16, 32, 64, 128), registry=registry
        )
        self._batch_seconds = Histogram(
            "electra_batch_seconds", "Seconds a batch took to compute.", buckets=_SECONDS, registry=registry
        )

    def answered(self, path: str, status: int, seconds: float) -> None:
        """A request was answered. (499: its client went away before.)"""
        self._requests.labels(path if path in _PATHS else "other", str(status)).inc()
        if path == "/predict":
            self._seconds.observe(seconds)
            self.predicted += status == 200

    def computed(self, batch: Batch) -> None:
        """A batch was computed."""
        self._tokens.inc(batch.tokens)
        self._batch_tokens.observe(batch.tokens)
        self._batch_requests.observe(batch.requests)
        self._batch_seconds.observe(batch.seconds)

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry)
