"""Changes of resolution between the levels of the U (Section 3.2).

The text says pointwise convolutions; only 3x3 ones give the FLOPs of any table, so 3 is the default kernel. The text
also shuffles before the convolution on the way up; the counts need the convolution first.
"""

from torch import nn

from iptv2_diffusion.layers.conv import Conv, Variance


def down(width: int, kernel: int, *, init: Variance) -> nn.Sequential:
    """(B, c, H, W) -> (B, 2c, H/2, W/2)."""
    return nn.Sequential(Conv(width, width // 2, kernel, init=init), nn.PixelUnshuffle(2))


def up(width: int, kernel: int, *, init: Variance) -> nn.Sequential:
    """(B, c, H, W) -> (B, c/2, 2H, 2W)."""
    return nn.Sequential(Conv(width, 2 * width, kernel, init=init), nn.PixelShuffle(2))
