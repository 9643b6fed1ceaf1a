"""Scaled dot-product attention over packed sequences (Vaswani et al. 2017, section 3.2.1), all scores in memory."""

from __future__ import annotations

import torch
from torch import Tensor

from .packed import check_cu_seqlens, padded_index, sequence_of, values_readable
from .philox import attention_dropout_mask, keep_scale
from .precision import accumulation


def _longest(name: str, cu_seqlens: Tensor, bound: int, total: int) -> int:
    """Rows of the padded view: the bound, tightened to the longest sequence where its length can be read."""
    if values_readable(cu_seqlens):
        longest = int((cu_seqlens[1:] - cu_seqlens[:-1]).max())
        if longest > bound:
            raise ValueError(
                f"attention: max_seqlen_{name} must be at least {longest}, the length of a sequence, got {bound}"
            )
        return longest
    return min(bound, total)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    scale: float,
    causal: bool,
    dropout_p: float,
    rng: Tensor | None,
    site: int,
) -> tuple[Tensor, Tensor]:
    """``softmax(q kᵀ · scale + mask)``, dropout, times ``v``; returns out ``[Tq, H, D]`` and lse ``[H, Tq]``."""
    total_q, heads, _ = q.shape
    total_k = k.shape[0]
    check_cu_seqlens("attention", "cu_seqlens_q", cu_seqlens_q, total_q)
    check_cu_seqlens("attention", "cu_seqlens_k", cu_seqlens_k, total_k)
    dtype = accumulation(q.dtype)
    batch = cu_seqlens_q.shape[0] - 1
    nq = _longest("q", cu_seqlens_q, max_seqlen_q, total_q) if batch and total_q else 0
    nk = _longest("k", cu_seqlens_k, max_seqlen_k, total_k) if batch and total_k else 0
    if nq == 0 or nk == 0:
        nothing = q[:0].sum() + k[:0].sum() + v[:0].sum()  # 0, and connected to the inputs for autograd
        return q.new_zeros(q.shape) + nothing, q.new_full((heads, total_q), float("-inf"), dtype=dtype)

    query, real_query = padded_index(cu_seqlens_q, nq, total_q)  # [B, nq]
    key, real_key = padded_index(cu_seqlens_k, nk, total_k)  # [B, nk]

    def padded(x: Tensor, index: Tensor, real: Tensor) -> Tensor:
        """[B, H, n, D] in the accumulation dtype; places that are not real hold zeros whatever lies in memory there."""
        rows = torch.where(real[..., None, None], x[index], torch.zeros((), dtype=x.dtype, device=x.device))
        return rows.to(dtype).transpose(1, 2)

    visible = real_query.unsqueeze(2) & real_key.unsqueeze(1)  # [B, nq, nk]
    if causal:
        length_q, length_k = real_query.sum(1), real_key.sum(1)
        last = torch.arange(nq, device=q.device) + (length_k - length_q).unsqueeze(1)
        visible = visible & (torch.arange(nk, device=q.device) <= last.unsqueeze(2))
    visible = visible.unsqueeze(1)  # [B, 1, nq, nk]

    scores = padded(q, query, real_query) @ padded(k, key, real_key).transpose(-1, -2) * scale
    scores = scores.masked_fill(~visible, float("-inf"))
    largest = scores.detach().amax(-1, keepdim=True)
    largest = torch.where(largest == float("-inf"), torch.zeros_like(largest), largest)
    weights = torch.exp(scores - largest)
    mass = weights.sum(-1, keepdim=True)
    lse = (largest + torch.log(mass)).detach()
    probabilities = weights / torch.where(mass == 0, torch.ones_like(mass), mass)
    if dropout_p > 0.0:
        keep = attention_dropout_mask(query, heads, nk, dropout_p, rng, site).transpose(1, 2)
        probabilities = torch.where(keep, probabilities * keep_scale(dropout_p), torch.zeros_like(probabilities))
    out = (probabilities @ padded(v, key, real_key)).transpose(1, 2)  # [B, nq, H, D]

    sequence, real = sequence_of(cu_seqlens_q, total_q)
    place = (torch.arange(total_q, device=q.device) - cu_seqlens_q[sequence]).clamp(max=nq - 1)
    out = torch.where(real[:, None, None], out[sequence, place], torch.zeros((), dtype=dtype, device=q.device))
    lse = lse.squeeze(-1).transpose(1, 2)[sequence, place].masked_fill(~real.unsqueeze(1), float("-inf"))
    return out.to(q.dtype), lse.transpose(0, 1).contiguous()
