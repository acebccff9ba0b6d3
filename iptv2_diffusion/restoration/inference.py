"""Restoring an image of any kind and size with a trained restorer.

Images are Pillow's (modes L, LA, RGB, RGBA, I;16), arrays (H, W) or (H, W, C) of uint8, uint16 or floats, or float
tensors (C, H, W) or (B, C, H, W), and come out as what they went in: kind, type, range, device. Floats are in [0, 1];
inputs may exceed that, as noise does. Outputs are clamped, and rounded where they are integers.

Pillow's are turned upright by their EXIF orientation, if they have one, and keep their `info` (EXIF, ICC profile) and
their transparency: a transparent colour becomes an alpha channel. EXIF of TIFF is not in `info` and therefore lost.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import singledispatch
from math import lcm
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from iptv2_diffusion.restoration.local import local_attention
from iptv2_diffusion.restoration.tiling import OVERLAP, Layout, Progress, Run, free_memory, tile_for_memory, tiled

T = TypeVar("T")
FULL = {"uint8": 255.0, "uint16": 65535.0, "float16": 1.0, "float32": 1.0, "float64": 1.0}  # white, by NumPy's type
MODES = {"L": "L", "LA": "L", "RGB": "RGB", "RGBA": "RGB", "I;16": "I;16"}  # Pillow's, and what is restored of them
LARGEST_FLOAT = 16.0  # more cannot be an image in [0, 1] with noise
VALUES_PER_PIXEL = (
    40  # of the largest working set of a restorer, over its width; 29 to 35 at 512 pixels a side, on a CPU
)


def restore(
    model: Any,
    image: T,
    *,
    tile: int | Literal["auto"] | None = "auto",
    overlap: int = OVERLAP,
    ensemble: bool = False,
    local: int | None = None,
    on_progress: Progress = lambda pixels: None,
) -> T:
    """The restored image, of the kind of `image`; `model` is an IPTV2Restorer on any device.

    `tile` is a side in pixels, rounded up to what windows and grids divide; None runs the whole image at once; "auto"
    does so up to 4 megapixels if free memory allows and takes tiles else. Tiling is an approximation, since GGSA sees
    all of a map. `overlap` is the least that neighbours share, at most half a tile. Running out of memory halves tiles, with a
    warning; with None it is an error. `ensemble` averages over the 8 flips and quarter turns, at 8 times the cost.
    `local` is the base of `local_attention`.

    A gray image passes a colour model as three equal channels, which are averaged; a colour image passes a gray model
    channel by channel. Dual-pixel models take both views, left then right, as 6 channels. A tile that comes out with
    NaN or infinity is run again in float32 with global attention, then left as it was: a RuntimeWarning counts both.
    ValueError for anything that is no such image.
    """
    opened = _opened(image)
    pixels, merge = _matched(opened.pixels, model.config["in_channels"])
    careful = _Careful(model, local, ensemble)
    layout = fitting_layout(model, pixels.shape, tile, overlap)
    with torch.inference_mode(), _evaluating(model):
        restored = tiled(lambda part: careful(opened.scaled(part)), pixels, layout, on_progress)
        restored = merge(restored).clamp_(0, 1)
    careful.warn()
    return opened.back(restored)


class _Careful:
    """Runs a tile, (B, C, H, W) floats; counts those that came out not finite."""

    def __init__(self, model: Any, local: int | None, ensemble: bool) -> None:
        around = ensembled if ensemble else lambda run: run
        self.model, self.local, self.run = model, local, around(self._forward)
        self.repeated = self.unrestored = 0

    def __call__(self, tile: Tensor) -> Tensor:
        with local_attention(self.model, self.local):
            restored = self.run(tile)
        if restored.isfinite().all():
            return restored
        self.repeated += 1
        with _in_float32(self.model):
            restored = self.run(tile)
        if restored.isfinite().all():
            return restored
        self.unrestored += 1
        return mean(tile.split(restored.shape[1], dim=1))  # of a dual-pixel pair the middle

    def _forward(self, tile: Tensor) -> Tensor:
        return self.model(tile.to(self.model.device, self.model.dtype))

    def warn(self) -> None:
        if self.repeated:
            message = f"{self.repeated} tiles were not finite; {self.unrestored} of them could not be restored"
            warnings.warn(message, RuntimeWarning, stacklevel=3)


def ensembled(run: Run) -> Run:
    """The mean of `run` over the 8 flips and quarter turns of an image, each turned back."""

    def once(image: Tensor, flips: tuple[int, ...], turns: int) -> Tensor:
        return run(image.flip(flips).rot90(turns, (-2, -1))).rot90(-turns, (-2, -1)).flip(flips)

    return lambda image: mean(once(image, flips, turns) for flips in ((), (-1,)) for turns in range(4))


def mean(images: Iterable[Tensor]) -> Tensor:
    """Of tensors of one shape; where all are equal, bit for bit their value."""
    images = iter(images)
    average = next(images)
    for count, image in enumerate(images, 2):
        average = average.lerp(image, 1 / count)
    return average


def fitting_layout(
    model: Any, shape: Sequence[int], tile: int | Literal["auto"] | None, overlap: int = OVERLAP
) -> Layout:
    """The tiles that `restore` begins with for images (B, C, H, W); running out of memory makes them smaller."""
    config = model.backbone.config
    windows = [config.window_at(level) * model.pixels_at(level) for level in range(config.levels)]
    grids = [config.grid_at(level) * model.pixels_at(level) for level in range(config.levels)]
    step = lcm(*windows)  # keeps every window where it lies in the whole image
    unit = lcm(step, *grids)  # no attention has to pad a tile
    if tile is None:  # its own unit: it cannot be halved
        whole = max(shape[-2:])
        return Layout(whole, 0, whole)
    if tile == "auto":
        bytes_per_pixel = -(-VALUES_PER_PIXEL * config.width * model.dtype.itemsize // model.unshuffle**2)
        tile = tile_for_memory(shape, bytes_per_pixel, free_memory(model.device), unit)
    return Layout.fitting(int(tile), min(overlap, int(tile) // 2), unit, step)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _in_float32(model: Any) -> Iterator[None]:
    dtype = model.dtype
    _cast(model, torch.float32)
    try:
        with torch.autocast(model.device.type, enabled=False):
            yield
    finally:
        _cast(model, dtype)


def _cast(model: nn.Module, dtype: torch.dtype) -> None:
    with torch.inference_mode(False):  # parameters have to remain trainable
        nn.Module.to(model, dtype=dtype)  # not diffusers' own, which warns of modules that want fp32


@dataclass(frozen=True)
class _Opened:
    pixels: Tensor  # (B, C, H, W), a view of the image
    full: float  # the value of white
    back: Callable[[Tensor], Any]  # (B, C, H, W) in [0, 1], on the CPU -> the image's kind

    def scaled(self, part: Tensor) -> Tensor:
        return part if self.full == 1 else part.to(torch.float32) / self.full


@singledispatch
def _opened(image: Any) -> _Opened:
    raise ValueError(f"expected an image of Pillow, an array or a tensor, got {type(image).__name__}")


@_opened.register
def _(image: Tensor) -> _Opened:
    if not image.is_floating_point() or image.ndim not in (3, 4):
        raise ValueError(f"expected floats (C, H, W) or (B, C, H, W), got {image.dtype} {tuple(image.shape)}")

    def back(restored: Tensor) -> Tensor:
        restored = restored.to(image.device, image.dtype, copy=True)  # the copy may take part in training
        return restored if image.ndim == 4 else restored[0]

    return _Opened(_checked(image if image.ndim == 4 else image[None]), 1, back)


@_opened.register
def _(image: np.ndarray) -> _Opened:
    if image.dtype.name not in FULL or image.ndim not in (2, 3):
        raise ValueError(f"expected {', '.join(FULL)} (H, W) or (H, W, C), got {image.dtype} {image.shape}")
    full = FULL[image.dtype.name]
    usable = np.require(image, image.dtype.newbyteorder("="), ["C_CONTIGUOUS", "WRITEABLE"])  # as torch wants it
    planes = torch.from_numpy(usable if image.ndim == 3 else usable[..., None]).permute(2, 0, 1)

    def back(restored: Tensor) -> np.ndarray:
        values = restored[0].permute(1, 2, 0).numpy()
        if full > 1:
            np.rint(np.multiply(values, full, out=values), out=values)
        values = values.astype(image.dtype, order="C")
        return values if image.ndim == 3 else values[..., 0]

    return _Opened(_checked(planes[None]), full, back)


@_opened.register
def _(image: Image.Image) -> _Opened:
    if image.mode not in MODES:
        raise ValueError(f"expected an image of mode {', '.join(MODES)}, got {image.mode}: convert it first")
    if image.mode == "I;16" and image.has_transparency_data:
        raise ValueError("expected no transparent value in mode I;16, for which Pillow has no alpha channel")
    upright = ImageOps.exif_transpose(image)
    opened = _opened(np.array(upright.convert(MODES[image.mode])))

    def back(restored: Tensor) -> Image.Image:
        picture = Image.fromarray(opened.back(restored))
        picture.info = {key: value for key, value in upright.info.items() if key != "transparency"}
        if upright.has_transparency_data:
            picture.putalpha(upright.convert("RGBA").getchannel("A"))
        return picture

    return _Opened(opened.pixels, opened.full, back)


def _checked(pixels: Tensor) -> Tensor:
    if 0 in pixels.shape:
        raise ValueError(f"expected an image with pixels, got (B, C, H, W) = {tuple(pixels.shape)}")
    if pixels.is_floating_point() and not pixels.abs().amax() <= LARGEST_FLOAT:
        raise ValueError(f"expected floats in [0, 1], got {pixels.amin():g} to {pixels.amax():g}")
    return pixels


def _matched(pixels: Tensor, channels: int) -> tuple[Tensor, Run]:
    """The image as the model wants it, and how to make of the result what the image was."""
    given = pixels.shape[1]
    if given == channels:
        return pixels, lambda restored: restored
    if (given, channels) == (1, 3):
        return pixels.expand(-1, 3, -1, -1), lambda restored: mean(restored.split(1, dim=1))
    if (given, channels) == (3, 1):
        return pixels.flatten(0, 1)[:, None], lambda restored: restored.unflatten(0, (-1, 3)).flatten(1, 2)
    raise ValueError(f"expected an image of {channels} channels, got {given}")
