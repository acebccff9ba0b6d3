"""Convolutions without bias that initialise themselves, by one of two schemes.

The paper does not say how weights are initialised; we follow Restormer for restoration (PyTorch's default) and DiT for
latent diffusion (Xavier-uniform). Depthwise kernels count the fans of their own channel only.
"""

from collections.abc import Callable
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iptv2_diffusion.layers.depthwise import depthwise_conv, plain_cpu

Variance = Callable[[float, float], float]  # (fan_in, fan_out) -> variance of a weight

INITS: dict[str, Variance] = {
    "torch": lambda fan_in, fan_out: 1 / (3 * fan_in),
    "xavier": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
}


def uniform_(weight: Tensor, variance: float) -> None:
    """Fill in place from the uniform distribution of mean 0 and this variance."""
    bound = sqrt(3 * variance)
    nn.init.uniform_(weight, -bound, bound)


class Conv(nn.Conv2d):
    """kernel x kernel, stride 1, zero padding that keeps H and W."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, groups: int = 1, init: Variance) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
        area = kernel**2
        uniform_(self.weight, init(area * inputs / groups, area * outputs / groups))


class Pointwise(Conv):
    """1x1: a matrix product of every pixel's channels."""

    def __init__(self, inputs: int, outputs: int, *, init: Variance) -> None:
        super().__init__(inputs, outputs, 1, init=init)

    def forward(self, input: Tensor) -> Tensor:
        return pointwise_conv(input, self.weight)


class Depthwise(Conv):
    def __init__(self, width: int, kernel: int, *, init: Variance) -> None:
        super().__init__(width, width, kernel, groups=width, init=init)

    def forward(self, input: Tensor) -> Tensor:
        return depthwise_conv(input, self.weight)


def pointwise_conv(x: Tensor, weight: Tensor) -> Tensor:
    """x (B, in, H, W), weight (out, in, 1, 1) -> (B, out, H, W), channels-last as x is."""
    if plain_cpu(x):
        return _PointwiseConv.apply(x, weight)
    return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1)).permute(0, 3, 1, 2)


class _PointwiseConv(torch.autograd.Function):
    """On CPUs oneDNN's convolution beats a matrix product, but for the gradient of the weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor]:
        x, weight = ctx.saved_tensors
        if ctx.needs_input_grad[0]:
            return pointwise_gradients(x, weight, grads[0])
        return None, _weight_gradient(x, weight, grads[0])


def pointwise_gradients(x: Tensor, weight: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Of x and of the weight, from the output's gradient."""
    return F.conv2d(grad, weight.transpose(0, 1)), _weight_gradient(x, weight, grad)


def _weight_gradient(x: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
    pixels, slopes = (t.permute(0, 2, 3, 1).flatten(0, 2) for t in (x, grad))
    return (slopes.T @ pixels).view_as(weight)
