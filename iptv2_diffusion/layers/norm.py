"""Layer normalisation over the channels of a (B, C, H, W) map, at every pixel by itself."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

EPS = 1e-5


class CentredNorm(nn.Module):
    """The usual LayerNorm, with weight and bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return _over_channels(x, self.weight, self.bias)


class BiasFreeNorm(nn.Module):
    """x / sqrt(var(x) + eps) * weight: x is *not* centred, so that a denoiser scales with its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return _BiasFree.apply(_fp32_under_autocast(x).permute(0, 2, 3, 1), self.weight).permute(0, 3, 1, 2)


class BareNorm(nn.Module):
    """Without parameters: what AdaLN modulates."""

    def forward(self, x: Tensor) -> Tensor:
        return _over_channels(x, None, None)


NORMS: dict[str, type[CentredNorm] | type[BiasFreeNorm]] = {"centred": CentredNorm, "bias_free": BiasFreeNorm}


def _over_channels(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = _fp32_under_autocast(x).permute(0, 2, 3, 1)
    return F.layer_norm(x, x.shape[-1:], weight, bias, EPS).permute(0, 3, 1, 2)


def _fp32_under_autocast(x: Tensor) -> Tensor:
    """As autocast has it on a GPU. On a CPU it would leave norm and statistics in half precision."""
    return x.float() if autocasts(x.device.type) else x


def autocasts(device: str) -> bool:
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


class _BiasFree(torch.autograd.Function):
    """x (..., C) times r * weight, r = 1 / sqrt(var(x) + eps).

    PyTorch's variance takes many times as long as its layer normalisation, which has r as a second output, without
    a gradient: hence the gradient here.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        centred, _, r = torch.native_layer_norm(x, x.shape[-1:], None, None, EPS)
        ctx.save_for_backward(x, r, weight)
        return torch.mul(x, r, out=centred).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, r, weight = ctx.saved_tensors
        scaled = x * r
        grad_weight = (grads[0] * scaled).flatten(0, -2).sum(0)
        grad = grads[0] * weight
        # d r / d x = -r^3 (x - mean) / C
        slope = (grad * scaled).mean(-1, keepdim=True)
        centred = scaled.sub_(scaled.mean(-1, keepdim=True))
        return grad.addcmul_(centred, slope, value=-1).mul_(r), grad_weight
