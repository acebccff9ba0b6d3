"""Rain streaks as the synthetic deraining sets have them: gray light, added to the picture in several directions."""

import math

import torch

from iptv2_diffusion.data.kernels import convolve_valid

# Drawn uniformly, chosen so that amounts of 0.1 to 0.35 have the mean, deviation and PSNR of Rain100H's rain.
MOST_LAYERS = 5  # directions of streaks in one picture
SLANT = 20.0  # degrees from the vertical, either way, common to all layers
SPREAD = 8.0  # degrees between a layer and the common slant, either way
LENGTH = (30.0, 90.0)  # pixels
WIDTH = (1.0, 3.0)  # pixels
BRIGHTNESS = (0.05, 0.2)  # of one streak, where white is 1; drawn for each


def rain(image: torch.Tensor, amount: float, generator: torch.Generator) -> torch.Tensor:
    """(C, H, W) -> (C, H, W), saturating at 1; `amount` is the mean light that the streaks bring, where white is 1.

    Rain100H has amounts of about 0.1 to 0.35.
    """
    layers = int(torch.randint(1, MOST_LAYERS + 1, (), generator=generator))
    slant = _uniform(-SLANT, SLANT, generator)
    light = torch.zeros(image.shape[-2:])
    for _ in range(layers):
        light += _layer(image.shape[-2:], amount / layers, slant, generator)
    return (image + light).clamp(max=1)


def streak(length: float, width: float, degrees: float) -> torch.Tensor:
    """(k, k), k odd, in [0, 1]: an anti-aliased bar through the centre, so many degrees from the vertical."""
    reach = math.ceil((length + width) / 2)
    offsets, angle = torch.arange(-reach, reach + 1.0), math.radians(degrees)
    y, x = offsets[:, None], offsets
    along = (y * math.cos(angle) + x * math.sin(angle)).abs()
    across = (x * math.cos(angle) - y * math.sin(angle)).abs()
    return (length / 2 + 0.5 - along).clamp(0, 1) * (width / 2 + 0.5 - across).clamp(0, 1)


def _layer(size: torch.Size, amount: float, slant: float, generator: torch.Generator) -> torch.Tensor:
    """(H, W): streaks of one shape that start anywhere, beyond the border too, their light `amount` in the mean."""
    angle = slant + _uniform(-SPREAD, SPREAD, generator)
    shape = streak(_uniform(*LENGTH, generator), _uniform(*WIDTH, generator), angle)
    canvas = [side + shape.shape[-1] - 1 for side in size]
    density = amount / (float(shape.sum()) * sum(BRIGHTNESS) / 2)
    drops = (torch.rand(canvas, generator=generator) < density).float()
    low, high = BRIGHTNESS
    drops *= low + (high - low) * torch.rand(canvas, generator=generator)
    return convolve_valid(drops, shape).clamp(min=0)  # below zero are rounding errors only


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))
