"""A model, its queue and its application put together; what is left is a socket (`server`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .app import State, build
from .batcher import Batcher
from .endpoint import Predict
from .engine import Engine, Request
from .keys import Keys
from .metrics import Metrics
from .model import Loaded, facts
from .options import ServeOptions
from .schemas import Schemas


class Service:
    """A model that can be asked: ``with Service(…) as service: … service.app …``.

    Attributes:
        app: the application, as ASGI has it.
        state: to be set when the server is about to end.
        facts: of the model (`model.facts`).
        metrics: what has been answered.
        batcher: the queue.
    """

    def __init__(self, loaded: Loaded, options: ServeOptions, keys: Sequence[str] = ()) -> None:
        predictor = loaded.predictor
        self.facts = facts(loaded, options)
        self.state = State()
        self.metrics = Metrics(lambda: self.batcher.waiting)
        engine = Engine(predictor)
        self.batcher: Batcher[Request] = Batcher(
            engine,
            max_tokens=options.max_batch_tokens,
            max_wait=options.max_wait_ms / 1e3,
            capacity=options.queue,
            observe=self.metrics.computed,
        )
        schemas = Schemas(predictor.task, options.max_inputs)
        self.app: Callable = build(
            Predict(
                engine,
                self.batcher,
                schemas,
                timeout=options.timeout,
                max_tokens=options.max_tokens,
                max_body=options.max_body,
            ),
            schemas,
            Keys(keys),
            self.metrics,
            self.state,
            facts=self.facts,
            example={"predictions": predictor.predict(schemas.example["inputs"])},
            healthy=lambda: self.batcher.alive,
            ready=lambda: self.batcher.waiting < self.batcher.capacity,
        )
        self._timeout = options.timeout

    def __enter__(self) -> Service:
        self.batcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Compute what is queued, but for no longer than anybody waits for it."""
        self.batcher.close()
        self.batcher.join(self._timeout)
