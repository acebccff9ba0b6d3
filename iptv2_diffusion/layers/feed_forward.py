"""Feed-forward networks (Section 3.5): Rep-LeFFN of IPT-V2, and FFN, LeFFN and GDFN for the ablation of Table 7c.

Each maps (B, C, H, W) to the same shape; no convolution has a bias.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from iptv2_diffusion.layers.bands import in_bands
from iptv2_diffusion.layers.conv import Depthwise, Pointwise, Variance, pointwise_conv
from iptv2_diffusion.layers.recompute import local_product
from iptv2_diffusion.layers.reparam import RepDepthwise, RepPointwise

EXPANSION = 4  # hidden width over width
GDFN_EXPANSION = 2.66  # Restormer's


class FFN(nn.Sequential):
    """PW-Conv(GELU(PW-Conv(x))) (Eq. 5)."""

    def __init__(self, width: int, *, init: Variance) -> None:
        hidden = EXPANSION * width
        super().__init__(Pointwise(width, hidden, init=init), nn.GELU(), Pointwise(hidden, width, init=init))


class LeFFN(nn.Sequential):
    """PW-Conv(DW-Conv(GELU(PW-Conv(x)))) (Eq. 5), a depthwise kernel of 5."""

    def __init__(self, width: int, *, init: Variance) -> None:
        hidden = EXPANSION * width
        expand, reduce = Pointwise(width, hidden, init=init), Pointwise(hidden, width, init=init)
        super().__init__(expand, nn.GELU(), Depthwise(hidden, 5, init=init), reduce)


class RepLeFFN(nn.Module):
    """LeFFN whose convolutions are re-parameterised in training (Eq. 6).

    `inner_ratio` is the inner width of the stacked 1x1 over the hidden width.
    """

    def __init__(self, width: int, *, init: Variance, inner_ratio: float = 0.5, fused: bool = False) -> None:
        super().__init__()
        hidden = EXPANSION * width
        inner = round(hidden * inner_ratio)
        self.expand = RepPointwise(width, hidden, inner, init=init, fused=fused)
        self.local = RepDepthwise(hidden, init=init, fused=fused)
        self.reduce = RepPointwise(hidden, width, inner, init=init, fused=fused)

    def in_bands(self, branch: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        """`branch(x)`, which does nothing but this that is not pointwise."""
        return in_bands(branch, x, widest=self.local.width, reach=RepDepthwise.REACH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.expand(x)
        first, *second = self.reduce.weights(hidden)
        if self.local.literal:
            out = pointwise_conv(self.local(F.gelu(hidden)), first)
        else:
            out = local_product(hidden, self.local.weight(), first)
        return pointwise_conv(out, *second) if second else out


class GDFN(nn.Module):
    """Restormer's gated-Dconv feed-forward network."""

    def __init__(self, width: int, *, init: Variance) -> None:
        super().__init__()
        hidden = int(width * GDFN_EXPANSION)
        self.expand = Pointwise(width, 2 * hidden, init=init)
        self.local = Depthwise(2 * hidden, 3, init=init)
        self.reduce = Pointwise(hidden, width, init=init)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, value = self.local(self.expand(x)).chunk(2, dim=1)
        return self.reduce(F.gelu(gate) * value)
