"""One joint pretraining step: masking, sampling, both losses, all gradients, clipping, optimiser update."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from electra_fast import rng
from electra_fast.bench.case import Absent, Case, Contender
from electra_fast.bench.peers.masking import choose_masked
from electra_fast.models import ElectraConfig, ElectraPretrainingPair
from electra_fast.models.flops import step_flops
from electra_fast.optim import ElectraAdam, clip_factor, global_norm, parameter_groups

SPECIAL = {"pad_token_id": 0, "cls_token_id": 101, "sep_token_id": 102, "mask_token_id": 103}
DROPOUT = 0.1
LEARNING_RATE = 5e-4
TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-2}

Step = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Shape:
    """A step's size, and where and in which precision it runs."""

    size: str
    batch: int
    length: int
    dtype: str
    device: str

    @property
    def autocast(self) -> Any:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.dtype == "bfloat16")


def config(size: str, dropout: float) -> ElectraConfig:
    """Of a size, with BERT's special tokens."""
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return getattr(ElectraConfig, size)(**SPECIAL, **rates)


def pair(shape: Shape, dropout: float = DROPOUT) -> ElectraPretrainingPair:
    """The two networks; the same weights at every call."""
    torch.manual_seed(0)
    return ElectraPretrainingPair(config(shape.size, dropout)).to(shape.device)


def random_batch(shape: Shape) -> tuple[Tensor]:
    """Ids as text has them: [CLS] first, [SEP] last, no padding."""
    ids = torch.randint(1000, config(shape.size, 0.0).vocab_size, (shape.batch, shape.length), device=shape.device)
    ids[:, 0], ids[:, -1] = SPECIAL["cls_token_id"], SPECIAL["sep_token_id"]
    return (ids,)


def _cu_seqlens(ids: Tensor) -> Tensor:
    return torch.arange(ids.shape[0] + 1, dtype=torch.int32, device=ids.device) * ids.shape[1]


def our_step(shape: Shape, shared: object) -> Step:
    """Ours, packed."""
    network = pair(shape).train()
    optimiser = ElectraAdam(parameter_groups(network), lr=LEARNING_RATE)
    state = rng.make(0, device=shape.device)

    def run(ids: Tensor) -> None:
        rng.advance_(state)
        with shape.autocast:
            loss = network(ids.flatten(), cu_seqlens=_cu_seqlens(ids), rng=state, max_seqlen=shape.length).loss
        loss.backward()
        optimiser.step(grad_scale=clip_factor(global_norm(optimiser.gradients()), 1.0))
        optimiser.zero_grad(set_to_none=True)

    return run


def our_loss(shape: Shape, shared: object) -> Step:
    """The loss without dropout."""
    network = pair(shape, dropout=0.0)

    def run(ids: Tensor) -> Tensor:
        with torch.no_grad(), shape.autocast:
            state = rng.make(1, device=shape.device)
            return network(ids.flatten(), cu_seqlens=_cu_seqlens(ids), rng=state, max_seqlen=shape.length).loss

    return run


def _peer(shape: Shape, dropout: float, gather: bool) -> Any:
    """`joint.HuggingFaceJoint` with our weights."""
    try:
        import transformers

        from electra_fast.bench.peers.joint import HuggingFaceJoint
    except ImportError as error:
        raise Absent(f"transformers is not installed ({error})") from None
    transformers.logging.set_verbosity_error()
    network = pair(shape, dropout)
    configs = (network.config, network.config.generator())
    theirs = [transformers.ElectraConfig.from_dict(c.to_huggingface_dict()) for c in configs]
    weight = network.config.pretraining.discriminator_weight
    peer = HuggingFaceJoint(*theirs, discriminator_weight=weight, gather=gather).to(shape.device)
    peer.generator.load_state_dict(network.generator.state_dict())
    peer.discriminator.load_state_dict(network.discriminator.state_dict())
    return peer


def their_step(shape: Shape, shared: object, gather: bool = False, compiled: bool = False, fused: bool = False) -> Step:
    """Theirs, padded (there is no padding here)."""
    peer = _peer(shape, DROPOUT, gather).train()
    optimiser = torch.optim.AdamW(peer.parameters(), lr=LEARNING_RATE, weight_decay=0.01, fused=fused or None)
    special = torch.tensor(sorted(SPECIAL.values()), device=shape.device)
    probability = config(shape.size, 0.0).pretraining.mask_probability
    if compiled:
        torch._dynamo.reset()
    forward = torch.compile(peer, dynamic=False) if compiled else peer

    def run(ids: Tensor) -> None:
        masked, positions = choose_masked(ids, special, probability, SPECIAL["mask_token_id"])
        with shape.autocast:
            loss = forward(ids, masked, positions, torch.ones_like(ids))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return run


def their_loss(shape: Shape, shared: object, gather: bool = False) -> Step:
    """The loss without dropout, on the masks and samples that ours draws."""
    ours, peer = pair(shape, dropout=0.0), _peer(shape, 0.0, gather)

    def run(ids: Tensor) -> Tensor:
        state, cu_seqlens = rng.make(1, device=shape.device), _cu_seqlens(ids)
        with torch.no_grad():
            drawn = ours(ids.flatten(), cu_seqlens=cu_seqlens, rng=state, max_seqlen=shape.length)
            masked = ours.mask(ids.flatten(), cu_seqlens, state)
            used = drawn.targets != -100
            positions = drawn.positions[used].view(len(ids), -1) % shape.length
            sampled = drawn.sampled[used].view(len(ids), -1)
            with shape.autocast:
                return peer(ids, masked.input_ids.view_as(ids), positions, torch.ones_like(ids), sampled=sampled)

    return run


def _contenders(shape: Shape) -> tuple[Contender, ...]:
    setting = "bfloat16 autocast" if shape.dtype == "bfloat16" else "float32"
    fused = shape.device == "cuda"
    # A step allocates hundreds of megabytes: in a shared process, what others have freed decides how fast it gets them.
    alone = "system" if shape.device == "cpu" else ""

    def theirs(name: str, text: str, level: str, allocator: str = alone, gather: bool = False, compiled: bool = False):
        make = partial(their_step, shape, gather=gather, compiled=compiled, fused=fused)
        comparable = partial(their_loss, shape, gather=gather)
        return Contender(name, make, f"{setting}, sdpa, AdamW{text}", comparable, False, allocator, level=level)

    found = [
        theirs("transformers", "", "quick"),
        Contender("electra-fast", partial(our_step, shape), setting, partial(our_loss, shape), True, alone),
        theirs("torch.compile", ", torch.compile", "full", compiled=True),
        theirs("gathered", ", masked positions before the head", "default", gather=True),
        theirs("gathered, torch.compile", ", masked positions before the head, torch.compile", "full",
               gather=True, compiled=True),
    ]  # fmt: skip
    if shape.device == "cpu":
        found += [
            Contender("electra-fast, memory kept", partial(our_step, shape), f"{setting}, as pretrain runs",
                      partial(our_loss, shape), ours=True, allocator="kept", level="default"),
            theirs("transformers, memory kept", "", "default", "kept"),
            theirs("transformers, tcmalloc", "", "full", "tcmalloc"),
            theirs("gathered, torch.compile, tcmalloc", ", masked positions before the head, torch.compile", "full",
                   "tcmalloc", gather=True, compiled=True),
        ]  # fmt: skip
    return tuple(found)


def _case(shape: Shape, level: str) -> Case:
    return Case(
        suite="training_step",
        name=f"{shape.size} {shape.batch}x{shape.length} {shape.dtype}",
        dtype=shape.dtype,
        contenders=_contenders(shape),
        inputs=lambda shared: random_batch(shape),
        device=shape.device,
        shape={"size": shape.size, "batch": shape.batch, "length": shape.length, "tokens": shape.batch * shape.length},
        flops=step_flops(config(shape.size, 0.0), shape.batch * shape.length, shape.batch * shape.length**2),
        tokens=shape.batch * shape.length,
        tolerance=TOLERANCE[shape.dtype],
        level=level,
    )


def cases(device: str) -> list[Case]:
    """Small, 16 and 128 sequences of 128; on a GPU 128 of 128 and base at 512."""
    if device.startswith("cuda"):
        shapes = (("small", 128, 128, "default"), ("base", 64, 512, "default"), ("small", 8, 128, "quick"))
        return [_case(Shape(*shape, "bfloat16", device), level) for *shape, level in shapes]
    return [
        _case(Shape("small", 2, 128, "float32", device), "quick"),
        _case(Shape("small", 16, 128, "bfloat16", device), "default"),
        _case(Shape("small", 16, 128, "float32", device), "full"),
        _case(Shape("small", 128, 128, "bfloat16", device), "full"),
        _case(Shape("base", 4, 512, "bfloat16", device), "full"),
    ]
