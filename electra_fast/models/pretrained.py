"""``from_pretrained`` and ``save_pretrained`` as methods, where users of `transformers` look for them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

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
        **changes: Any,
    ) -> Model:
        """`electra_fast.load_pretrained` of this class; ``changes`` replace fields of the configuration, as in
        `transformers`: ``from_pretrained(directory, num_labels=3)``."""
        from .huggingface import load_config, load_pretrained

        if "num_labels" in changes:
            changes.setdefault("id2label", None)  # names of other labels are none for these
        if changes:
            config = (load_config(directory) if config is None else config).replace(**changes)
        return load_pretrained(directory, cls, config=config, dtype=dtype)

    def save_pretrained(
        self, directory: str | os.PathLike[str], *, tokenizer_dir: str | os.PathLike[str] | None = None
    ) -> None:
        """`electra_fast.save_pretrained` of this model."""
        from .huggingface import save_pretrained

        save_pretrained(self, directory, tokenizer_dir=tokenizer_dir)
