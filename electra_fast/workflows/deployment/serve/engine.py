"""A predictor in the steps that a server takes at different times: encode, compute, answer."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from electra_fast.workflows.evaluation.predictor import Encoded, Predictor


class Request(NamedTuple):
    """A request made into rows of tokens: all that is known of them, row by row, and the tokens of each."""

    encoded: Encoded
    rows: list[dict[str, Any]]
    lengths: list[int]


class Engine:
    """The model of a server. `encode` is for the event loop, `encode_aside` for one other thread at a time, `compute`
    and `answer` for the batcher's."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._aside = copy.copy(predictor)
        self._aside.tokenizer = copy.deepcopy(predictor.tokenizer)  # two threads must not set up the same one

    def encode(self, inputs: Sequence[str | Mapping[str, Any]]) -> Request:
        """Rows of some inputs. DataError: the task cannot take one."""
        encoded = self._predictor.encode(inputs)
        return Request(encoded, rows_of(encoded), encoded.lengths)

    def encode_aside(self, inputs: Sequence[str | Mapping[str, Any]]) -> Request:
        """`encode`, at the same time."""
        encoded = self._aside.encode(inputs)
        return Request(encoded, rows_of(encoded), encoded.lengths)

    def compute(self, rows: list[dict[str, Any]]) -> list[Any]:
        """The model's output for each of some rows, in one batch."""
        return self._predictor.run(rows)

    def answer(self, requests: list[tuple[Request, list[Any]]]) -> list[list[dict[str, Any]]]:
        """The predictions for each of some requests, made together."""
        examples: dict[str, list] = {name: [] for name in requests[0][0].encoded.examples}
        rows: dict[str, list] = {name: [] for name in requests[0][0].encoded.rows}
        outputs: list[Any] = []
        ends = [0]
        for request, of_rows in requests:
            first = ends[-1]
            for name, values in request.encoded.rows.items():
                rows[name] += [first + index for index in values] if name == "example" else values
            for name, values in request.encoded.examples.items():
                examples[name] += values
            outputs += of_rows
            ends.append(len(next(iter(examples.values()))))
        predictions = self._predictor.decode(outputs, Encoded(examples, rows, []))
        return [predictions[first:end] for first, end in itertools.pairwise(ends)]


def rows_of(encoded: Encoded) -> list[dict[str, Any]]:
    """The rows one by one."""
    names, columns = list(encoded.rows), list(encoded.rows.values())
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
