from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from iptv2_diffusion.layers.conv import INITS
from iptv2_diffusion.layers.resample import down, up

INIT = INITS["torch"]


def weight_of(module: nn.Module) -> torch.Tensor:
    (weight,) = module.parameters()
    return weight


@torch.no_grad()
@pytest.mark.parametrize("kernel", [1, 3])
def test_down_is_a_convolution_then_pixel_unshuffle(kernel: int) -> None:
    module, x = down(4, kernel, init=INIT), torch.randn(2, 4, 6, 8)
    assert weight_of(module).shape == (2, 4, kernel, kernel)
    features = F.conv2d(x, weight_of(module), padding=kernel // 2)
    out = module(x)
    assert out.shape == (2, 8, 3, 4)
    for channel, i, j in product(range(2), range(2), range(2)):
        torch.testing.assert_close(out[:, 4 * channel + 2 * i + j], features[:, channel, i::2, j::2])


@torch.no_grad()
@pytest.mark.parametrize("kernel", [1, 3])
def test_up_is_a_convolution_then_pixel_shuffle(kernel: int) -> None:
    module, x = up(4, kernel, init=INIT), torch.randn(2, 4, 3, 5)
    assert weight_of(module).shape == (8, 4, kernel, kernel)
    features = F.conv2d(x, weight_of(module), padding=kernel // 2)
    out = module(x)
    assert out.shape == (2, 2, 6, 10)
    for channel, i, j in product(range(2), range(2), range(2)):
        torch.testing.assert_close(out[:, channel, i::2, j::2], features[:, 4 * channel + 2 * i + j])
