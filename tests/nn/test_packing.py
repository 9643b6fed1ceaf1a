"""Padded batches packed and unpacked: any mask, in eager mode and with static shapes."""

from __future__ import annotations

import pytest
import torch

from electra_fast.nn import pack_mask
from electra_fast.nn.packing import without_padding

MASKS = {
    "right": [[1, 1, 1, 0], [1, 0, 0, 0]],
    "left": [[0, 0, 1, 1], [0, 1, 1, 1]],
    "holes": [[1, 0, 1, 0], [0, 1, 0, 1]],
    "an empty row": [[0, 0, 0, 0], [1, 1, 0, 1]],
    "nothing": [[0, 0, 0, 0], [0, 0, 0, 0]],
    "no padding": [[1, 1, 1, 1], [1, 1, 1, 1]],
}


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("name", MASKS)
def test_there_and_back(name, static):
    mask = torch.tensor(MASKS[name])
    x = torch.arange(1, 9).view(2, 4)

    def pack(mask, x):
        packing = pack_mask(mask)
        return packing.pack(x), packing.cu_seqlens, packing.unpack(packing.pack(x.unsqueeze(-1)).expand(-1, 3) * 1.0)

    if static:
        pack = torch.compile(pack, backend="eager", fullgraph=True)
    packed, cu_seqlens, back = pack(mask, x)
    real = int(mask.sum())
    assert cu_seqlens.dtype == torch.int32
    assert cu_seqlens.tolist() == [0, int(mask[0].sum()), real]
    assert packed[:real].tolist() == x[mask != 0].tolist()
    assert packed.shape[0] == (8 if static else real)
    assert torch.equal(back, (x * mask).unsqueeze(-1).expand(-1, -1, 3) * 1.0)


def test_gradients_stop_at_padding():
    packing = pack_mask(torch.tensor(MASKS["holes"]))
    x = torch.randn(2, 4, 3, requires_grad=True)
    packing.unpack(packing.pack(x)).sum().backward()
    assert torch.equal(x.grad, torch.tensor(MASKS["holes"]).unsqueeze(-1).expand(-1, -1, 3) * 1.0)


def test_without_padding_nothing_moves():
    packing = without_padding(2, 4, torch.device("cpu"))
    x = torch.randn(2, 4, 3)
    assert packing.pack(x).data_ptr() == x.data_ptr()
    assert torch.equal(packing.unpack(packing.pack(x)), x)
    assert packing.cu_seqlens.tolist() == [0, 4, 8]
