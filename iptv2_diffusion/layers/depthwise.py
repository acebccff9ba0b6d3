"""Depthwise convolution whose weight gradient does not stall on small maps.

oneDNN computes the weight gradient of a depthwise convolution on a map smaller than its kernel up to 50 times slower than
the forward pass. That gradient is itself a depthwise correlation of the input with the output's gradient, the batch
folded into the channels, which runs at the speed of a forward pass.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def depthwise_conv(x: Tensor, weight: Tensor) -> Tensor:
    """x (B, C, H, W), weight (C, 1, k, k), odd k, stride 1, zeros around the map -> (B, C, H, W)."""
    if _slow(x, weight):
        return _SmallMaps.apply(x, weight)
    return _conv(x, weight)


def _slow(x: Tensor, weight: Tensor) -> bool:
    """Whether the library's weight gradient would be the slow one; autocast needs the usual operator."""
    small = x.shape[-2] * x.shape[-1] <= weight.shape[-2] * weight.shape[-1]
    return small and x.device.type == "cpu" and torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


def _conv(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=len(weight))


class _SmallMaps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _conv(x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        (grad,) = grads
        grad_x = _conv(grad, weight.flip(-2, -1)) if ctx.needs_input_grad[0] else None
        return grad_x, weight_gradient(x, grad, weight.shape[-1]) if ctx.needs_input_grad[1] else None


def weight_gradient(x: Tensor, grad: Tensor, kernel: int) -> Tensor:
    """Input and output gradient, both (B, C, H, W), -> (C, 1, k, k)."""
    batch, channels, height, width = x.shape
    folded = [t.permute(2, 3, 0, 1).reshape(height, width, batch * channels) for t in (x, grad)]
    maps, kernels = folded[0].permute(2, 0, 1)[None], folded[1].permute(2, 0, 1)[:, None]
    correlated = F.conv2d(maps, kernels, padding=kernel // 2, groups=batch * channels)
    return correlated.unflatten(1, (batch, channels)).sum(1).transpose(0, 1)
