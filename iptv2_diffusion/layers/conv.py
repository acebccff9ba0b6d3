"""Convolutions without bias that initialise themselves, by one of two schemes.

The paper does not say how weights are initialised; we follow Restormer for restoration (PyTorch's default) and DiT for
latent diffusion (Xavier-uniform). Depthwise kernels count the fans of their own channel only.
"""

from collections.abc import Callable
from math import sqrt

import torch
from torch import nn

Variance = Callable[[float, float], float]  # (fan_in, fan_out) -> variance of a weight

INITS: dict[str, Variance] = {
    "torch": lambda fan_in, fan_out: 1 / (3 * fan_in),
    "xavier": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
}


def uniform_(weight: torch.Tensor, variance: float) -> None:
    """Fill in place from the uniform distribution of mean 0 and this variance."""
    bound = sqrt(3 * variance)
    nn.init.uniform_(weight, -bound, bound)


class Conv(nn.Conv2d):
    """kernel x kernel, stride 1, zero padding that keeps H and W."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, groups: int = 1, init: Variance) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
        area = kernel**2
        uniform_(self.weight, init(area * inputs / groups, area * outputs / groups))


def pointwise(inputs: int, outputs: int, *, init: Variance) -> Conv:
    return Conv(inputs, outputs, 1, init=init)


def depthwise(width: int, kernel: int, *, init: Variance) -> Conv:
    return Conv(width, width, kernel, groups=width, init=init)
