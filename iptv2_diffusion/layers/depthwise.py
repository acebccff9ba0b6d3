"""Depthwise convolution with a weight gradient that keeps up with the forward pass on CPUs.

oneDNN computes the weight gradient of a depthwise 5x5 kernel many times slower than the forward pass: its kernels
are made for three columns, and for maps larger than the kernel. So we ask for the three columns in the middle and for
the outer ones by themselves, each a gradient of a narrower kernel; on small maps we compute the gradient as what it
is, a correlation of the input with the output's gradient.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight


def depthwise_conv(x: Tensor, weight: Tensor) -> Tensor:
    """x (B, C, H, W), weight (C, 1, k, k), odd k, stride 1, zeros around the map -> (B, C, H, W)."""
    if weight.shape[-1] > 3 and torch.is_grad_enabled() and x.device.type == "cpu":
        return _Depthwise.apply(*_as_autocast_has_it(x, weight))
    return _conv(x, weight)


def plain_cpu(x: Tensor) -> bool:
    """Where gradients of our own may stand in: on a CPU, but not under autocast, which needs the usual operators."""
    return x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def _as_autocast_has_it(*tensors: Tensor) -> list[Tensor]:
    """Of one type, which autocast would see to for an operator, but not for a function of our own."""
    if not torch.is_autocast_enabled("cpu"):
        return list(tensors)
    return [tensor.to(torch.get_autocast_dtype("cpu")) for tensor in tensors]


def _conv(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=len(weight))


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _conv(x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return depthwise_gradients(x, weight, grads[0])


def depthwise_gradients(x: Tensor, weight: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Of x and of the weight, from the output's gradient."""
    return _conv(grad, weight.flip(-2, -1)), weight_gradient(x, grad, weight.shape[-1])


def weight_gradient(x: Tensor, grad: Tensor, kernel: int) -> Tensor:
    """Input and output gradient, both (B, C, H, W), -> (C, 1, kernel, kernel), odd kernel."""
    if min(x.shape[-2:]) <= kernel:
        return _correlation(x, grad, kernel)
    columns = [_gradient(x, grad, kernel, min(kernel, 3))]
    for shift in range(2, kernel // 2 + 1):
        left = _gradient(x[..., :-shift], grad[..., shift:], kernel, 1)
        right = _gradient(x[..., shift:], grad[..., :-shift], kernel, 1)
        columns = [left, *columns, right]
    return torch.cat(columns, dim=-1)


def _gradient(x: Tensor, grad: Tensor, rows: int, columns: int) -> Tensor:
    """Of the weight of a depthwise rows x columns kernel."""
    shape, padding = (x.shape[1], 1, rows, columns), (rows // 2, columns // 2)
    return conv2d_weight(x, shape, grad, padding=cast(Any, padding), groups=x.shape[1])


def _correlation(x: Tensor, grad: Tensor, kernel: int) -> Tensor:
    """The batch folded into the channels: one depthwise convolution whose kernels are the output's gradient."""
    batch, channels, height, width = x.shape
    maps, kernels = (t.permute(2, 3, 0, 1).reshape(height, width, -1).permute(2, 0, 1) for t in (x, grad))
    correlated = F.conv2d(maps[None], kernels[:, None], padding=kernel // 2, groups=batch * channels)
    return correlated.unflatten(1, (batch, channels)).sum(1).transpose(0, 1)
