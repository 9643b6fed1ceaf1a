"""What a pretrained pair does with a sentence: the generator fills in words, the discriminator looks for them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from electra_fast import ops, rng
from electra_fast.errors import CheckpointError, ConfigError
from electra_fast.models import ElectraForMaskedLM, ElectraForPreTraining, ElectraPretrainingPair

if TYPE_CHECKING:
    from rich.text import Text

    from electra_fast.data.tokenizer import Tokenizer

_STYLES = {"found": "bold green", "missed": "bold yellow", "false alarm": "bold red", "": ""}
_SIGNS = {"found": "✓", "missed": "✗", "false alarm": "?", "": ""}


@dataclass(frozen=True)
class ReplacedTokens:
    """A sentence after the generator has been at it, and what the discriminator makes of it.

    Attributes:
        tokens: what the discriminator read, [CLS] and [SEP] left out; originals: what stood there.
        probabilities: of being replaced, as the discriminator sees it.
        suspected: the tokens of the highest probability, as many as were replaced: with few fakes among many originals
            hardly any probability is above one half, but a discriminator that has learned ranks the fakes first.
    """

    tokens: list[str]
    originals: list[str]
    probabilities: list[float]
    suspected: list[bool]

    @property
    def replaced(self) -> list[bool]:
        """Where the generator wrote something else than what stood there."""
        return [token != original for token, original in zip(self.tokens, self.originals, strict=True)]

    @property
    def found(self) -> int:
        """How many of the replaced tokens are suspected."""
        return sum(a and b for a, b in zip(self.replaced, self.suspected, strict=True))

    def verdicts(self) -> list[str]:
        """For each token: "found" or "missed" if it was replaced, else "false alarm" or ""."""
        names = {(True, True): "found", (True, False): "missed", (False, True): "false alarm", (False, False): ""}
        return [names[pair] for pair in zip(self.replaced, self.suspected, strict=True)]

    def _pieces(self) -> Iterator[tuple[str, str, str]]:
        """Space before, text and verdict of each token; a replaced one is followed by the original in brackets."""
        for index, (token, original, verdict) in enumerate(
            zip(self.tokens, self.originals, self.verdicts(), strict=True)
        ):
            word = token.removeprefix("##")
            space = "" if index == 0 or word != token else " "
            text = f"{_SIGNS[verdict]}{word}" + (f"({original.removeprefix('##')})" if token != original else "")
            yield space, text, verdict

    def __str__(self) -> str:
        return "".join(space + text for space, text, _ in self._pieces())

    def __rich__(self) -> Text:
        from rich.text import Text

        parts = ((space + text, _STYLES[verdict]) for space, text, verdict in self._pieces())
        return Text.assemble(*parts)


@torch.no_grad()
def find_replaced(
    model: ElectraPretrainingPair | str | os.PathLike[str],
    sentences: str | Sequence[str],
    *,
    tokenizer: Tokenizer | None = None,
    probability: float = 0.15,
    seed: int = 0,
) -> list[ReplacedTokens]:
    """Let the generator replace words of each sentence, and ask the discriminator which they are.

    Args:
        model: a pair with its ``tokenizer``, or the ``model`` directory of a run, which has one.
        sentences: one or several; cut off at the position table's length.
        probability: share of the tokens that the generator fills in (at least one a sentence). Where it happens to
            write what stood there, nothing is replaced.
        seed: of which tokens, and of what the generator writes.

    Raises:
        ConfigError: a pair without tokenizer; CheckpointError: a directory that holds no generator.
    """
    generator, discriminator, tokenizer = _networks(model, tokenizer)
    modes = [(network, network.training) for network in (generator, discriminator)]
    device = discriminator.discriminator_predictions.dense.weight.device
    special = torch.tensor(tokenizer.special_ids, device=device)
    results = []
    try:
        for network, _ in modes:
            network.eval()
        for number, sentence in enumerate([sentences] if isinstance(sentences, str) else sentences):
            text = tokenizer.encode_lines([sentence])[0][: discriminator.config.max_position_embeddings - 2]
            ids = torch.tensor([tokenizer.cls_id, *text, tokenizer.sep_id], device=device)
            state = rng.make(seed, number, device)
            masked = ops.mask_tokens(
                ids,
                torch.tensor([0, len(ids)], dtype=torch.int32, device=device),
                special,
                mask_id=tokenizer.mask_id,
                probability=probability,
                max_predictions=ops.max_predictions_bound(len(ids), 1, probability),
                replace_probability=1.0,
                rng=state,
            )
            corrupted, labels = _replace(generator, ids, masked, state)
            logits = discriminator(corrupted.unsqueeze(0)).logits[0].float()
            results.append(_result(tokenizer, ids, corrupted, labels, logits))
    finally:
        for network, mode in modes:
            network.train(mode)
    return results


def _networks(
    model: ElectraPretrainingPair | str | os.PathLike[str], tokenizer: Tokenizer | None
) -> tuple[ElectraForMaskedLM, ElectraForPreTraining, Tokenizer]:
    if isinstance(model, ElectraPretrainingPair):
        if tokenizer is None or model.discriminator is None or not isinstance(model.generator, ElectraForMaskedLM):
            raise ConfigError(
                "find_replaced: a pair needs its tokenizer, a discriminator, and a masked language model as generator"
            )
        return model.generator, model.discriminator, tokenizer
    from electra_fast.data.tokenizer import Tokenizer as Loader

    directory = Path(model)
    if not (directory / "generator").is_dir():
        raise CheckpointError(f'{directory} holds no generator: give the directory "model" of a finished run')
    generator = ElectraForMaskedLM.from_pretrained(directory / "generator")
    discriminator = ElectraForPreTraining.from_pretrained(directory / "discriminator")
    return generator, discriminator, tokenizer or Loader.load(directory / "discriminator")


def _replace(
    generator: ElectraForMaskedLM, ids: Tensor, masked: ops.MaskedTokens, state: Tensor
) -> tuple[Tensor, Tensor]:
    """The ids with the generator's samples in the masked places, and where they differ from the original."""
    hidden = generator.electra(masked.input_ids.unsqueeze(0))[0].index_select(0, masked.positions)
    head = generator.generator_lm_head
    generated = ops.generator_head(
        generator.generator_predictions(hidden), head.weight, head.bias, masked.targets, rng=state, site=1
    )
    return ops.replace_tokens(ids, masked.positions, masked.targets, generated.sampled)


def _result(tokenizer: Tokenizer, ids: Tensor, corrupted: Tensor, labels: Tensor, logits: Tensor) -> ReplacedTokens:
    inside = slice(1, -1)
    logits, labels = logits[inside], labels[inside]
    suspected = torch.zeros_like(labels)
    suspected[logits.topk(int(labels.sum())).indices] = True
    return ReplacedTokens(
        tokens=[tokenizer.token(i) for i in corrupted[inside].tolist()],
        originals=[tokenizer.token(i) for i in ids[inside].tolist()],
        probabilities=torch.sigmoid(logits).tolist(),
        suspected=suspected.tolist(),
    )
