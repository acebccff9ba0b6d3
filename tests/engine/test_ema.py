"""The average of the weights."""

import torch
from torch import nn

from iptv2_diffusion.engine.ema import EMA


def test_equals_the_closed_form():
    """Weights 1, 2, ..., n from 0: average = sum of (1 - d) d^(n-i) i."""
    model = nn.Linear(3, 2, bias=False)
    nn.init.zeros_(model.weight)
    ema = EMA(model, decay=0.9)
    for value in range(1, 21):
        nn.init.constant_(model.weight, value)
        ema.update(model)
    expected = sum(0.1 * 0.9 ** (20 - i) * i for i in range(1, 21))
    torch.testing.assert_close(ema.module.weight.data, torch.full((2, 3), expected))


def test_starts_as_a_frozen_float32_copy_in_evaluation_mode():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).to(torch.bfloat16)
    ema = EMA(model, decay=0.9999)
    assert not ema.module.training
    assert model.training
    for average, weight in zip(ema.module.parameters(), model.parameters(), strict=True):
        assert average.dtype == torch.float32
        assert not average.requires_grad
        torch.testing.assert_close(average, weight.detach().float(), rtol=0, atol=0)


def test_buffers_are_copied():
    model = nn.BatchNorm1d(2)
    ema = EMA(model, decay=0.9)
    model(torch.randn(8, 2, generator=torch.Generator().manual_seed(0)))
    ema.update(model)
    torch.testing.assert_close(dict(ema.module.named_buffers()), dict(model.named_buffers()), rtol=0, atol=0)
    assert int(ema.module.num_batches_tracked) == 1
