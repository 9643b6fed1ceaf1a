"""Small Hugging Face models with weights that are not nearly zero, and padded batches for them."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

VOCABULARY = 500


class Batch(NamedTuple):
    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor

    def inputs(self) -> dict[str, Tensor]:
        return self._asdict()

    def choices(self) -> dict[str, Tensor]:
        """The same rows as pairs of choices, ``[B/2, 2, S]``."""
        return {name: x.unflatten(0, (-1, 2)) for name, x in self._asdict().items()}


@pytest.fixture
def make_batch():
    def make(lengths: tuple[int, ...] = (7, 40, 23, 1), vocabulary: int = VOCABULARY) -> Batch:
        length = max(lengths)
        shape = (len(lengths), length)
        mask = (torch.arange(length) < torch.tensor(lengths).unsqueeze(1)).long()
        return Batch(torch.randint(5, vocabulary, shape), mask, torch.randint(0, 2, shape))

    return make


@pytest.fixture
def make_huggingface():
    """A `transformers` model in evaluation mode, initialised so that every parameter matters to the outputs."""
    transformers = pytest.importorskip("transformers", reason="compares with transformers")

    def make(name: str = "ElectraModel", **options: object):
        options = {"vocab_size": VOCABULARY, "num_hidden_layers": 2, "max_position_embeddings": 64} | options
        torch.manual_seed(1)
        model = getattr(transformers, name)(transformers.ElectraConfig(**options)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=0.05)
                else:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        return model

    return make


@pytest.fixture
def relative_error():
    def error(actual: Tensor, expected: Tensor) -> float:
        """Root mean square of the difference over that of the expected, in float64."""
        difference = (actual.double() - expected.double()).norm()
        return (difference / expected.double().norm().clamp(min=1e-30)).item()

    return error
