"""The residual branch, which owns all conditioning: plain (Eq. 1) or AdaLN-Zero (as in DiT).

`body` maps (B, C, H, W) to the same shape and knows nothing of conditions. With shift = bias, scale = weight - 1 and
gate = 1 the conditioned branch is the plain one.
"""

from collections.abc import Callable

import torch
from torch import nn

from iptv2_diffusion.layers.norm import NORMS, BareNorm
from iptv2_diffusion.layers.recompute import recomputed


class PlainResidual(nn.Module):
    """x + body(LN(x))."""

    def __init__(self, width: int, body: nn.Module, norm: str) -> None:
        super().__init__()
        self.norm = NORMS[norm](width)
        self.body = body

    def forward(self, x: torch.Tensor, cond: torch.Tensor | None = None) -> torch.Tensor:
        return _in_bands_of(self.body, lambda x: x + self.body(self.norm(x)), x)


class AdaLNZeroResidual(nn.Module):
    """x + gate * body(LN(x) * (1 + scale) + shift), the identity at initialisation.

    `cond` is (B, cond_dim), the SiLU already applied.
    """

    def __init__(self, width: int, body: nn.Module, cond_dim: int) -> None:
        super().__init__()
        self.norm = BareNorm()
        self.modulation = zero_linear(cond_dim, 3 * width)
        self.body = body

    def forward(self, x: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        shift, scale, gate = self.modulation(cond)[:, :, None, None].chunk(3, dim=1)

        def branch(x: torch.Tensor) -> torch.Tensor:
            return torch.addcmul(x, gate, self.body(recomputed(self._modulated, x, shift, scale)))

        return _in_bands_of(self.body, branch, x)

    def _modulated(self, x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return modulate(self.norm(x), shift, scale)


def _in_bands_of(body: nn.Module, branch: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """`branch(x)`, on large maps in bands of rows where the body inside it is local: norm and sum are in them as well."""
    in_bands = getattr(body, "in_bands", None)
    return branch(x) if in_bands is None else in_bands(branch, x)


ResidualFactory = Callable[[int, nn.Module], nn.Module]


def make_residual(cond_dim: int | None, norm: str) -> ResidualFactory:
    """The one place where a configuration becomes a kind of residual."""
    if cond_dim is None:
        return lambda width, body: PlainResidual(width, body, norm)
    return lambda width, body: AdaLNZeroResidual(width, body, cond_dim)


def modulate(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return torch.addcmul(shift, x, 1 + scale)


def zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer, with bias, that starts as the constant zero."""
    linear = nn.Linear(inputs, outputs)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
