"""Rain streaks: gray light, added to the picture in several directions."""

import math

import torch

from iptv2_diffusion.data.kernels import convolve_valid

# All drawn uniformly. They follow from drops of 1 to 5 mm, which fall at 4 to 9 m/s, and from how photographs are taken:
# no data set had a part in choosing them.
MOST_LAYERS = 4  # distances of drops, each with a shape and a direction of its own
SLANT = 40.0  # degrees from the vertical, either way, common to all layers: winds of up to 7 m/s
SPREAD = 10.0  # degrees from the common slant: a wind of 4 m/s slants large drops by 24 degrees, small ones by 45
WIDTH = (1.0, 4.0)  # pixels: drops of 3 mm, 3 to 0.75 m away, through a lens of 1000 pixels' focal length
ASPECT = (8.0, 50.0)  # length over width: the same drops, exposed for 1/300 to 1/50 s
BRIGHTNESS = (0.02, 0.5)  # of a streak, white being 1: the drop shows up to 4 times that for 1 / ASPECT of the exposure


def rain(image: torch.Tensor, amount: float, generator: torch.Generator) -> torch.Tensor:
    """(C, H, W) -> (C, H, W), saturating at 1; `amount` is the mean light that the streaks bring, where white is 1.

    0.02 is a shower, 0.3 a cloudburst that hides much of the picture.
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
    width = _uniform(*WIDTH, generator)
    shape = streak(width * _uniform(*ASPECT, generator), width, angle)
    canvas = [side + shape.shape[-1] - 1 for side in size]
    density = amount / (float(shape.sum()) * sum(BRIGHTNESS) / 2)
    drops = (torch.rand(canvas, generator=generator) < density).float()
    low, high = BRIGHTNESS
    drops *= low + (high - low) * torch.rand(canvas, generator=generator)
    return convolve_valid(drops, shape).clamp(min=0)  # below zero are rounding errors only


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))
