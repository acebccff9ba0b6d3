"""Products of tensors element by element, which the paper's FLOPs include beside those of convolutions and matrices.

A formula per layer, at the shape it meets: what the function needs, so that a faster implementation of the same function
costs the same. Counted are norm weights, modulation, gates, temperatures, token and merge weights and the scale of the
attention map; additions, divisions, softmax, GELU, statistics and padding are free. Inputs are (B, c, H, W).
"""

from collections.abc import Callable, Mapping
from math import prod

import torch
from torch import nn

from iptv2_diffusion.layers.attention import FCSA, GGSA, MDTA, WindowBranch
from iptv2_diffusion.layers.feed_forward import GDFN
from iptv2_diffusion.layers.norm import BareNorm, BiasFreeNorm, CentredNorm
from iptv2_diffusion.layers.residual import AdaLNZeroResidual


def _once(layer: nn.Module, shape: torch.Size) -> int:
    return shape.numel()


def _branch(branch: WindowBranch, shape: torch.Size) -> int:
    """w_t on q and k, and the temperature on every window's d x d maps; the input holds q, k and v."""
    batch, channels, height, width = shape
    channels //= 3
    pixels = batch * height * width
    return 2 * channels * pixels + pixels // branch.window**2 * channels * (channels // branch.heads)


def _fcsa(layer: FCSA, shape: torch.Size) -> int:
    """The weights of the merge; the branches count themselves."""
    batch, channels, *sides = shape
    pixels = batch * prod(-(-side // layer.window) * layer.window for side in sides)
    return (1 if layer.bottom is None else 2) * channels * pixels


def _ggsa(layer: GGSA, shape: torch.Size) -> int:
    """1 / sqrt(d) on the attention maps, among real tokens only."""
    batch, _, height, width = shape
    return batch * layer.heads * _pairs(height, layer.grid) * _pairs(width, layer.grid)


def _pairs(side: int, grid: int) -> int:
    """Pairs of tokens that attend to each other along one side, summed over the places of a cubby."""
    cubby = -(-side // grid)
    return sum(len(range(place, side, cubby)) ** 2 for place in range(cubby))


def _mdta(layer: MDTA, shape: torch.Size) -> int:
    """The temperature on the d x d maps."""
    batch, channels = shape[:2]
    return batch * channels * (channels // layer.heads)


def _gdfn(layer: GDFN, shape: torch.Size) -> int:
    batch, _, height, width = shape
    return batch * layer.reduce.in_channels * height * width


PRODUCTS: Mapping[type[nn.Module], Callable[..., int]] = {
    CentredNorm: _once,
    BiasFreeNorm: _once,
    BareNorm: _once,  # 1 + scale, which follows it everywhere
    AdaLNZeroResidual: _once,  # the gate
    WindowBranch: _branch,
    FCSA: _fcsa,
    GGSA: _ggsa,
    MDTA: _mdta,
    GDFN: _gdfn,
}
