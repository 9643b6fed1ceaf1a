"""Pretraining from a prepared corpus to a saved model: data, steps, schedule, checkpoint, export."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from electra_fast.bench.case import Absent, Case, Contender
from electra_fast.bench.peers.masking import choose_masked
from electra_fast.models import ElectraConfig
from electra_fast.optim import polynomial_schedule
from electra_fast.workflows.demo import NETWORK

from .data import BATCH, LENGTH, Corpus, corpus

PRECISIONS = {"float32": "fp32", "bfloat16": "bf16"}


def _ours(steps: int, dtype: str) -> Callable[[Corpus], Callable[[], Tensor]]:
    def make(shared: Corpus) -> Callable[[], Tensor]:
        from electra_fast.workflows.pretraining import PretrainOptions, pretrain

        output = Path(shared.folder.name, "run")

        def run() -> Tensor:
            shutil.rmtree(output, ignore_errors=True)
            options = PretrainOptions(
                data=shared.prepared, output=output, total_steps=steps, batch_size=BATCH, precision=PRECISIONS[dtype],
                device="cpu", tensorboard=False, **NETWORK,
            )  # fmt: skip
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                result = pretrain(options)
            if result.signal is not None:  # it saved and returned; here that means stop
                raise KeyboardInterrupt
            return torch.tensor([float(result.step)])

        return run

    return make


def _theirs(steps: int, dtype: str) -> Callable[[Corpus], Callable[[], Tensor]]:
    """A loop over padded batches, `joint.HuggingFaceJoint` with positions gathered before the head, AdamW."""

    def make(shared: Corpus) -> Callable[[], Tensor]:
        try:
            import transformers

            from electra_fast.bench.peers.joint import HuggingFaceJoint
        except ImportError as error:
            raise Absent(f"transformers is not installed ({error})") from None
        from electra_fast.bench.peers.loading import padded

        transformers.logging.set_verbosity_error()
        special = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "mask_token_id": 4}
        config = ElectraConfig.small(vocab_size=4096, max_position_embeddings=LENGTH, **special, **NETWORK)
        output = Path(shared.folder.name, "theirs")
        pretraining = config.pretraining

        def run() -> Tensor:
            torch.manual_seed(0)
            theirs = [
                transformers.ElectraConfig.from_dict(c.to_huggingface_dict()) for c in (config, config.generator())
            ]
            model = HuggingFaceJoint(*theirs, pretraining.discriminator_weight, gather=True).train()
            optimiser = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0.01)
            forbidden, batches = torch.tensor(sorted(special.values())), padded(shared.shards, BATCH)
            for step in range(steps):
                ids, _ = next(batches)
                masked, positions = choose_masked(
                    ids, forbidden, pretraining.mask_probability, special["mask_token_id"]
                )
                with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
                    loss = model(ids, masked, positions, (ids != special["pad_token_id"]).long())
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                for group in optimiser.param_groups:
                    group["lr"] = polynomial_schedule(step, 5e-4, max(1, steps // 10), steps)
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            model.discriminator.save_pretrained(output / "discriminator")
            return torch.tensor([float(steps)])

        return run

    return make


def _case(steps: int, dtype: str, level: str) -> Case:
    setting = f"{dtype}, {BATCH} x {LENGTH} tokens a step"
    shape: dict[str, Any] = {"steps": steps, "batch": BATCH, "length": LENGTH}
    return Case(
        suite="pretraining",
        name=f"{steps} steps {dtype}",
        dtype=dtype,
        contenders=(
            Contender("transformers loop", _theirs(steps, dtype), f"{setting}, padded, masked positions gathered"),
            Contender("electra-fast", _ours(steps, dtype), f"{setting}, packed", ours=True),
        ),
        setup=lambda: corpus(1_000_000),
        inputs=lambda shared: (),
        shape=shape,
        tokens=steps * BATCH * LENGTH,
        memory=False,
        level=level,
    )


def cases(device: str) -> list[Case]:
    """The network of ``electra-fast demo``, on the CPU whatever the device."""
    return [_case(20, "bfloat16", "quick"), _case(200, "bfloat16", "full")]
