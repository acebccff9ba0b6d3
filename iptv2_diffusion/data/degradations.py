"""Degradations made on the fly, for those who have clean photographs only.

A degradation is a pure function of a clean image, (C, H, W) float32 in [0, 1], and a CPU generator, its only randomness.
Blurs keep what the image alone determines ("valid" convolution): they cut their `margin` in pixels from every side.

    degradations = parse_degradations("motion:9-31,awgn:0-10,jpeg:30-95")
    degraded, clean = degradations(patch, generator)  # patch (C, H + 2m, W + 2m), both results (C, H, W)
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from iptv2_diffusion.data.kernels import (
    bent_motion,
    camera_shake,
    convolve_valid,
    disc,
    disc_reach,
    linear_motion,
    load_kernels,
    shake_reach,
)
from iptv2_diffusion.data.rain import rain

KERNEL_FILE = "kernels"  # the item that takes the path of a file instead of a range
_RANGE = re.compile(r"(\d+(?:\.\d+)?)(?:-(\d+(?:\.\d+)?))?")


def awgn(image: torch.Tensor, sigma: float, generator: torch.Generator) -> torch.Tensor:
    """Additive white Gaussian noise, sigma in units of 1/255; neither clipped nor quantised."""
    return image + torch.randn(image.shape, generator=generator) * (sigma / 255)


def poisson(image: torch.Tensor, peak: float, generator: torch.Generator) -> torch.Tensor:
    """Photon noise: white is `peak` photons on average, so that the variance is image / peak; not clipped."""
    return torch.poisson(image.clamp(min=0) * peak, generator=generator) / peak


def jpeg(image: torch.Tensor, quality: float, generator: torch.Generator) -> torch.Tensor:
    """Through Pillow's JPEG, chroma halved, at the nearest whole quality; 8 bits before and after, nothing is drawn."""
    if image.shape[0] not in (1, 3):
        raise ValueError(f"expected 1 or 3 channels for JPEG, got {image.shape[0]}")
    pixels = _levels(image).to(torch.uint8).permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1) if image.shape[0] == 1 else pixels).save(buffer, "JPEG", quality=round(quality))
    with Image.open(buffer) as picture:
        decoded = torch.from_numpy(np.array(picture)).reshape(pixels.shape)
    return decoded.permute(2, 0, 1).float() / 255


def motion(image: torch.Tensor, size: float, generator: torch.Generator) -> torch.Tensor:
    """Camera shake within a square of `size` pixels; cuts (size - 1) / 2, rounded up, from every side."""
    return convolve_valid(image, camera_shake(size, generator))


def linear(image: torch.Tensor, size: float, generator: torch.Generator) -> torch.Tensor:
    """Straight and even motion across a square of `size` pixels; cuts as much as `motion`."""
    return convolve_valid(image, linear_motion(size, generator))


def bent(image: torch.Tensor, size: float, generator: torch.Generator) -> torch.Tensor:
    """Motion between `linear` and `motion`, no nearer to the latter; cuts as much."""
    return convolve_valid(image, bent_motion(size, generator))


def defocus(image: torch.Tensor, radius: float, generator: torch.Generator) -> torch.Tensor:
    """A disc of `radius` pixels; cuts radius - 0.5, rounded up, from every side. Nothing is drawn."""
    return convolve_valid(image, disc(radius))


def quantize(image: torch.Tensor, _: float, generator: torch.Generator) -> torch.Tensor:
    """Rounds to 8 bits and clamps to [0, 1]; nothing is drawn."""
    return _levels(image) / 255


def _levels(image: torch.Tensor) -> torch.Tensor:
    return (image * 255).round().clamp(0, 255)


class Kind(NamedTuple):
    """A function of (image, parameter, generator), and what its parameter is."""

    function: Callable[[torch.Tensor, float, torch.Generator], torch.Tensor]
    parameter: str  # name and unit; empty where there is none
    lowest: float = 0
    highest: float = 0
    margin: Callable[[float], int] = lambda _: 0  # pixels that the function cuts from every side


KINDS = {
    "awgn": Kind(awgn, "sigma, of 255 levels", 0, 255),
    "poisson": Kind(poisson, "photons for white", 0.1, 1e6),
    "jpeg": Kind(jpeg, "quality", 1, 100),
    "motion": Kind(motion, "size, pixels", 1, 255, shake_reach),
    "linear": Kind(linear, "size, pixels", 1, 255, shake_reach),
    "bent": Kind(bent, "size, pixels", 1, 255, shake_reach),
    "defocus": Kind(defocus, "radius, pixels", 0, 100, disc_reach),
    "rain": Kind(rain, "mean light, of white", 0, 1),
    "quantize": Kind(quantize, ""),
}


@dataclass(frozen=True)
class Degradation:
    """One of KINDS, its parameter drawn uniformly from [low, high] for each image. Prints as what it is parsed from."""

    name: str
    low: float = 0
    high: float = 0

    def __post_init__(self) -> None:
        if self.name not in KINDS:
            raise ValueError(f"unknown degradation {self.name!r}; there are {known()}")
        kind = KINDS[self.name]
        if not kind.lowest <= self.low <= self.high <= kind.highest:
            raise ValueError(f"expected low-high for {_usage(self.name)}, got {self.low:g}-{self.high:g}")

    @property
    def margin(self) -> int:
        """Pixels cut from every side, whatever is drawn."""
        return KINDS[self.name].margin(self.high)

    def __call__(self, image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """(C, H + 2 margin, W + 2 margin) -> (C, H, W)."""
        drawn = float(torch.rand((), generator=generator, dtype=torch.float64))
        value = self.low + (self.high - self.low) * drawn
        kind = KINDS[self.name]
        return cut(kind.function(image, value, generator), self.margin - kind.margin(value))

    def __str__(self) -> str:
        low, high = (np.format_float_positional(value, trim="-") for value in (self.low, self.high))
        if not KINDS[self.name].parameter:
            return self.name
        return f"{self.name}:{low}" if low == high else f"{self.name}:{low}-{high}"


@dataclass(frozen=True)
class KernelFile:
    """Blur with one of the kernels of a file, drawn for each image. Prints as what it is parsed from."""

    path: str
    kernels: tuple[torch.Tensor, ...] = field(repr=False, compare=False)

    @property
    def margin(self) -> int:
        """Pixels cut from every side, whatever is drawn."""
        return max(len(kernel) for kernel in self.kernels) // 2

    def __call__(self, image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """(C, H + 2 margin, W + 2 margin) -> (C, H, W)."""
        kernel = self.kernels[int(torch.randint(len(self.kernels), (), generator=generator))]
        return cut(convolve_valid(image, kernel), self.margin - len(kernel) // 2)

    def __str__(self) -> str:
        return f"{KERNEL_FILE}:{self.path}"


@dataclass(frozen=True)
class Compose:
    """Degradations one after the other. Prints as the text that gives it back, for the record of a run."""

    steps: tuple[Degradation | KernelFile, ...]

    @property
    def margin(self) -> int:
        """Pixels that an image needs on every side beyond what is wanted of it."""
        return sum(step.margin for step in self.steps)

    def __call__(self, clean: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """(C, H + 2 margin, W + 2 margin) float32 in [0, 1] -> degraded and clean, both (C, H, W)."""
        least = 2 * self.margin + 1
        if clean.ndim != 3 or clean.dtype != torch.float32 or min(clean.shape[-2:]) < least:
            raise ValueError(
                f"expected a float32 image (C, H, W) of {least} pixels at least for {self}, "
                f"got {clean.dtype} {tuple(clean.shape)}"
            )
        degraded = clean
        for step in self.steps:
            degraded = step(degraded, generator)
        return degraded, cut(clean, self.margin)

    def __str__(self) -> str:
        return ",".join(map(str, self.steps))


def parse_degradations(text: str) -> Compose:
    """From a list such as "motion:9-31,awgn:0-10,jpeg:30-95"; items are name:low-high, name:value, name or kernels:path.

    ValueError for an empty list, an unknown name or a wrong range, saying what there is; as load_kernels for files.
    """
    return Compose(tuple(_parse_item(item.strip()) for item in text.split(",")))


def degrade_picture(text: str, picture: np.ndarray, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (H, W) or (H, W, C) and a list as of `parse_degradations` -> degraded and clean, both float32 (H', W', C) in [0, 1].

    Blurs cut their margin; noise may leave the range.
    """
    pixels = torch.tensor(picture.reshape(*picture.shape[:2], -1)).permute(2, 0, 1).float() / 255
    degraded, clean = parse_degradations(text)(pixels, generator)
    return degraded.permute(1, 2, 0).numpy(), clean.permute(1, 2, 0).numpy()


def known() -> str:
    """All kinds with their parameters and limits, in one line."""
    return "; ".join([*map(_usage, KINDS), f"{KERNEL_FILE} (path of a .mat file)"])


def cut(image: torch.Tensor, margin: int) -> torch.Tensor:
    """(C, H, W) without `margin` pixels on every side."""
    height, width = image.shape[-2:]
    return image[..., margin : height - margin, margin : width - margin]


def _parse_item(item: str) -> Degradation | KernelFile:
    name, colon, argument = item.partition(":")
    if name == KERNEL_FILE and argument:
        return KernelFile(argument, load_kernels(argument))
    bare = name in KINDS and not KINDS[name].parameter
    if bare and not colon:
        return Degradation(name)
    match = None if bare else _RANGE.fullmatch(argument)
    if name in KINDS and match is None:
        raise ValueError(f"expected {_usage(name)}, got {item!r}")
    low, high = match.groups() if match else ("0", None)
    return Degradation(name, float(low), float(high or low))


def _usage(name: str) -> str:
    kind = KINDS[name]
    if not kind.parameter:
        return f"{name} (nothing to set)"
    return f"{name}:low-high ({kind.parameter}; from {kind.lowest:g} to {kind.highest:g})"
