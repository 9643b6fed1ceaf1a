"""Every CUDA kernel once or twice on small tensors, for compute-sanitizer: no check of numbers, no large launch.

    compute-sanitizer --tool memcheck python tests/cuda/small_calls.py

Shapes are ragged on purpose: rows that vectors do not fit, empty and one-token sequences, padding, a vocabulary that no
tile divides. Prints what it called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from electra_fast import ops, rng

DEVICE = "cuda"
BOTH = (torch.bfloat16, torch.float16)


def random(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(shape, device=DEVICE, dtype=dtype, requires_grad=True)


def ids(count: int, below: int) -> Tensor:
    return torch.randint(below, (count,), device=DEVICE)


def lengths(*counts: int) -> Tensor:
    return torch.tensor([0, *counts], device=DEVICE).cumsum(0).to(torch.int32)


def attention(counts: tuple[int, ...], width: int, dtype: torch.dtype, **options) -> Callable[[], Tensor]:
    tokens, longest = sum(counts) + 3, max(counts)
    q, k, v = (random(tokens, 2, width, dtype=dtype) for _ in range(3))
    bounds = {"max_seqlen_q": longest, "max_seqlen_k": longest}
    return lambda: ops.attention(q, k, v, lengths(*counts), **bounds, **options)


def calls() -> Iterator[tuple[str, Callable]]:
    state = rng.make(1, device=DEVICE)
    drop = {"dropout_p": 0.1, "rng": state}
    for dtype in BOTH:
        for counts in ((5, 0, 1, 33), (128, 70), (200, 1, 129), (512, 40), (700, 9)):
            yield f"attention {counts} {dtype}", attention(counts, 64, dtype, **drop)
        for width in (32, 96, 128):
            yield f"attention of {width} {dtype}", attention((40, 130), width, dtype)
        yield f"causal attention {dtype}", attention((40, 700), 64, dtype, causal=True, **drop)
    q, kv = random(7, 2, 64), random(19, 2, 64)
    yield "cross-attention", lambda: ops.attention(q, kv, kv, lengths(3, 0, 4), lengths(9, 5, 5))
    for dtype in (torch.float32, *BOTH):
        for n in (5, 256, 768, 1000, 1024, 2050):
            x, residual, bias = random(37, n, dtype=dtype), random(37, n, dtype=dtype), random(n, dtype=dtype)
            weight = random(n, dtype=torch.float32)
            yield (
                f"layer_norm of {n} {dtype}",
                lambda x=x, r=residual, w=weight, b=bias: ops.layer_norm(x, w, b, x_bias=b, residual=r, **drop),
            )
            yield f"gelu of {n} {dtype}", lambda x=x, b=bias: ops.gelu(x, b)
            yield f"gelu of {n} {dtype} without bias", lambda x=x: ops.gelu(x)
        hidden, weight, bias = random(301, 77, dtype=dtype), random(1, 77, dtype=dtype), random(1, dtype=dtype)
        seen = torch.rand(301, device=DEVICE) < 0.8
        yield (
            f"discriminator_loss {dtype}",
            lambda h=hidden, w=weight, b=bias, s=seen: ops.discriminator_loss(h, w, b, s, s),
        )
    tables = [random(rows, 72, dtype=torch.float32) for rows in (501, 64, 2)]
    norm = [random(72, dtype=torch.float32) for _ in range(2)]
    yield (
        "embedding",
        lambda: ops.embedding(
            ids(333, 501), ids(333, 64), ids(333, 2), *tables, *norm, padding_idx=0, out_dtype=torch.bfloat16, **drop
        ),
    )
    for again in (False, True):
        yield f"mask_tokens, replacing {again}", lambda again=again: ops.mask_tokens(
            ids(300, 501), lengths(128, 0, 1, 150), ids(3, 5), mask_id=4, probability=0.15, max_predictions=60,
            with_replacement=again, rng=state,
        )  # fmt: skip
    for width in (64, 128, 768):
        hidden, weight, bias = random(67, width), random(1031, width), random(1031)
        targets = ids(67, 1031)
        targets[50:] = -100
        yield (
            f"generator_head of {width}",
            lambda h=hidden, w=weight, b=bias, t=targets: ops.generator_head(h, w, b, t, rng=state),
        )
    yield "replace_tokens", lambda: ops.replace_tokens(ids(300, 99), ids(40, 300), ids(40, 99), ids(40, 99))
    shapes = [(301, 7), (64,), (1,)]
    lists = [[torch.rand(s, device=DEVICE) for s in shapes] for _ in range(4)]
    scalars = {n: torch.tensor(v, device=DEVICE) for n, v in (("learning_rate", 1e-3), ("grad_scale", 0.5))}
    yield "adam", lambda: ops.adam_(*lists, weight_decay=[0.01] * 3, **scalars)


def main() -> None:
    torch.manual_seed(0)
    with ops.use_backend("native"):
        for name, call in calls():
            result = call()
            first = result[0] if isinstance(result, tuple) else result
            if isinstance(first, Tensor) and first.requires_grad:
                first.backward(torch.ones_like(first))
            torch.cuda.synchronize()
            print(name, flush=True)


if __name__ == "__main__":
    main()
