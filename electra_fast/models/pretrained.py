"""``from_pretrained`` and ``save_pretrained`` as methods, where users of `transformers` look for them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

    from .config import ElectraConfig

Model = TypeVar("Model", bound="Pretrained")


class Pretrained:
    """What every class that can be saved on its own has (imported late, since the functions know all the classes)."""

    @classmethod
    def from_pretrained(
        cls: type[Model],
        directory: str | os.PathLike[str],
        *,
        config: ElectraConfig | None = None,
        dtype: torch.dtype | None = None,
    ) -> Model:
        """`electra_fast.load_pretrained` of this class."""
        from .huggingface import load_pretrained

        return load_pretrained(directory, cls, config=config, dtype=dtype)

    def save_pretrained(
        self, directory: str | os.PathLike[str], *, tokenizer_dir: str | os.PathLike[str] | None = None
    ) -> None:
        """`electra_fast.save_pretrained` of this model."""
        from .huggingface import save_pretrained

        save_pretrained(self, directory, tokenizer_dir=tokenizer_dir)
