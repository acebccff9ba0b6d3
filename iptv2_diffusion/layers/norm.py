"""Layer normalisation over the channels of a (B, C, H, W) map, at every pixel by itself."""

import torch
import torch.nn.functional as F
from torch import nn

EPS = 1e-5


class CentredNorm(nn.Module):
    """The usual LayerNorm, with weight and bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _over_channels(x, self.weight, self.bias)


class BiasFreeNorm(nn.Module):
    """x / sqrt(var(x) + eps) * weight: x is *not* centred, so that a denoiser scales with its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        variance = x.var(1, correction=0, keepdim=True)
        return x * torch.rsqrt(variance + EPS) * self.weight[:, None, None]


class BareNorm(nn.Module):
    """Without parameters: what AdaLN modulates."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _over_channels(x, None, None)


NORMS: dict[str, type[CentredNorm] | type[BiasFreeNorm]] = {"centred": CentredNorm, "bias_free": BiasFreeNorm}


def _over_channels(x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None) -> torch.Tensor:
    return F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), weight, bias, EPS).permute(0, 3, 1, 2)
