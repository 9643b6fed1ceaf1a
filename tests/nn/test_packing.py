"""Padded batches packed and unpacked: any mask, in eager mode and with static shapes."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from electra_fast.nn import pack_mask
from electra_fast.nn.packing import whole_batch, without_padding

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


def test_a_whole_batch_is_made_once_in_inference_and_fit_for_training_elsewhere():
    tokens = torch.zeros(2, 3, dtype=torch.int64)
    with torch.inference_mode():
        first, again = whole_batch(tokens), whole_batch(tokens + 1)
        assert first[1] is again[1]
    with torch.no_grad():
        outside = whole_batch(tokens)
    training = whole_batch(tokens)
    compiled = torch.compile(lambda t: whole_batch(t)[1] + t.flatten(), backend="eager", fullgraph=True)
    for packing, positions, types in (first, outside, training):
        assert packing.cu_seqlens.tolist() == [0, 3, 6]
        assert positions.tolist() == [0, 1, 2, 0, 1, 2]
        assert types.tolist() == [0] * 6
    assert not any(t.is_inference() for t in (*outside[1:], *training[1:], outside[0].cu_seqlens))
    assert compiled(tokens).tolist() == [0, 1, 2, 0, 1, 2]
    weight = torch.ones(3, 4, requires_grad=True)
    weight[outside[1]].sum().backward()  # saved for backward, which a tensor of inference mode cannot be
    assert weight.grad.sum() == 24


def test_fake_tensors_do_not_outlive_their_mode():
    tokens = torch.zeros(3, 5, dtype=torch.int64)
    with torch.no_grad():
        with FakeTensorMode(allow_non_fake_inputs=True):
            assert isinstance(whole_batch(tokens)[1], FakeTensor)
        assert whole_batch(tokens)[1].tolist() == [0, 1, 2, 3, 4] * 3
