"""The averages of the weights."""

import torch
from torch import nn

from iptv2_diffusion.engine.decay import gamma
from iptv2_diffusion.engine.ema import EMA


def test_equals_the_closed_form():
    """Weights 1, 2, ..., n from 0: average = sum of (1 - d) d^(n-i) i."""
    model = nn.Linear(3, 2, bias=False)
    nn.init.zeros_(model.weight)
    ema = EMA(model, "0.9")
    for value in range(1, 21):
        nn.init.constant_(model.weight, value)
        ema.update(model)
    expected = sum(0.1 * 0.9 ** (20 - i) * i for i in range(1, 21))
    torch.testing.assert_close(ema.module.weight.data, torch.full((2, 3), expected))


def test_starts_as_a_frozen_float32_copy_in_evaluation_mode():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).to(torch.bfloat16)
    ema = EMA(model, "0.9999")
    assert not ema.module.training
    assert model.training
    for average, weight in zip(ema.module.parameters(), model.parameters(), strict=True):
        assert average.dtype == torch.float32
        assert not average.requires_grad
        torch.testing.assert_close(average, weight.detach().float(), rtol=0, atol=0)


def test_buffers_are_copied():
    model = nn.BatchNorm1d(2)
    ema = EMA(model, "0.9")
    model(torch.randn(8, 2, generator=torch.Generator().manual_seed(0)))
    ema.update(model)
    torch.testing.assert_close(dict(ema.module.named_buffers()), dict(model.named_buffers()), rtol=0, atol=0)
    assert int(ema.module.num_batches_tracked) == 1


def test_a_power_function_average_equals_its_closed_form():
    """Update i of n counts (i^(g + 1) - (i - 1)^(g + 1)) / n^(g + 1), the integral of the profile over its time."""
    model = nn.Linear(3, 2, bias=False)
    ema = EMA(model, "power-0.1")
    for value in range(1, 21):
        nn.init.constant_(model.weight, value**2)
        ema.update(model)
    power = gamma(0.1) + 1
    expected = sum((i**power - (i - 1) ** power) / 20**power * i**2 for i in range(1, 21))
    torch.testing.assert_close(ema.module.weight.data, torch.full((2, 3), expected))
