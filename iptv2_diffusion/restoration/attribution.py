"""Local Attribution Maps: which pixels of the input act on a patch of the output (Figure 2; Gu and Dong, CVPR 2021).

Integrated gradients along a path from a blurred image to the image itself, of a detector of edges in the patch.
The constants are those of the method's published tutorial.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from iptv2_diffusion.pictures import grid

SMALLEST_SQUARE = 1e-12  # of a difference under the root: its gradient has no value at 0
SHARP = 1e-5  # pixels, deviation of the last blur, which is none
# matplotlib's "seismic": blue, white, red
SEISMIC_AT = (0.0, 0.25, 0.5, 0.75, 1.0)
SEISMIC = np.array([(0, 0, 0.3), (0, 0, 1), (1, 1, 1), (1, 0, 0), (0.5, 0, 0)])
OPACITY = 0.5
SMALLEST_PICTURE = 256  # pixels a side: smaller ones are magnified by a whole number
RED = (255, 0, 0)

Network = Callable[[Tensor], Tensor]  # (B, C, H, W) -> (B, C', H, W), every image by itself


@dataclass(frozen=True, eq=False)
class Attribution:
    """`raw` (C, H, W) sums to `change` but for the steps of the path, the less the more there are."""

    raw: Tensor
    change: float  # of the detector, from the blurred image to the image

    @property
    def map(self) -> Tensor:
        """(H, W), |sum over channels| over its maximum."""
        magnitude = self.raw.sum(0).abs()
        return magnitude / magnitude.max()

    @property
    def diffusion_index(self) -> float:
        """(1 - Gini) * 100: the larger, the more pixels are involved."""
        return (1 - gini(self.map)) * 100


def local_attribution(
    model: Network,
    image: Tensor,
    patch: tuple[int, int],
    side: int = 16,
    fold: int = 50,
    sigma: float = 1.2,
    kernel: int = 9,
    batch: int = 1,
) -> Attribution:
    """For the degraded `image` (C, H, W) in [0, 1] and the side x side pixels of the output whose corner is `patch`.

    `fold`: steps of the path, on which a `kernel` x `kernel` Gaussian blur shrinks from `sigma` pixels to none; `batch`
    of them run at once. ValueError where the patch, and the row and column after it, are not inside the image, and
    where the output there does not depend on the image.
    """
    _check(image, patch, side, kernel)
    path = blur_path(image, fold, sigma, kernel)

    def detect(points: Tensor) -> Tensor:
        return edges(model(points), patch, side)

    raw = torch.zeros_like(image)
    for before, points in zip(path[:-1].split(batch), path[1:].split(batch), strict=True):
        # The path's derivative times the length of a step is the difference of two points: blurs are linear.
        raw += (_gradient(detect, points) * (points - before)).sum(0)
    if not raw.any():
        raise ValueError(f"the output at {patch} does not depend on the image: nothing to attribute it to")
    with torch.no_grad():
        first, last = (float(detect(point[None])) for point in (path[0], path[-1]))
    return Attribution(raw, last - first)


def _check(image: Tensor, patch: tuple[int, int], side: int, kernel: int) -> None:
    if image.ndim != 3:
        raise ValueError(f"expected one image (C, H, W), got {tuple(image.shape)}")
    if kernel % 2 == 0 or min(image.shape[1:]) <= kernel // 2:
        raise ValueError(f"expected an odd kernel, less than twice the image {tuple(image.shape[1:])}, got {kernel}")
    if any(start < 0 or start + side >= size for start, size in zip(patch, image.shape[1:], strict=True)):
        raise ValueError(
            f"expected a patch of {side}x{side} pixels, and one row and column more, inside the image of "
            f"{image.shape[1]}x{image.shape[2]}; got its corner at {patch}"
        )


def blur_path(image: Tensor, fold: int, sigma: float, kernel: int) -> Tensor:
    """(C, H, W) -> (fold + 1, C, H, W), from the most blurred to the image itself; borders reflect."""
    sigmas = torch.linspace(sigma, 0, fold + 1, dtype=image.dtype, device=image.device) + SHARP
    offsets = torch.arange(kernel, dtype=image.dtype, device=image.device) - kernel // 2
    taps = torch.softmax(-0.5 * (offsets / sigmas[:, None]).square(), dim=1)  # (fold + 1, kernel)
    padded = F.pad(image[:, None], (kernel // 2,) * 4, mode="reflect")
    rows = F.conv2d(padded, taps[:, None, :, None])  # (C, fold + 1, H, W + kernel - 1)
    return F.conv2d(rows, taps[:, None, None, :], groups=len(taps)).transpose(0, 1).contiguous()


def edges(output: Tensor, patch: tuple[int, int], side: int) -> Tensor:
    """(B, C, H, W) -> (B,), the sum over the patch of the length of every pixel's gradient."""
    top, left = patch
    output = output[..., top : top + side + 1, left : left + side + 1]
    corner = output[..., :-1, :-1]
    down, right = corner - output[..., 1:, :-1], corner - output[..., :-1, 1:]
    return (down.square() + right.square() + SMALLEST_SQUARE).sqrt().sum((1, 2, 3))


def _gradient(function: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    points = points.detach().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(function(points).sum(), points)[0]


def gini(values: Tensor) -> float:
    """0 where all are equal, (n - 1) / n where only one of n is not zero; values of 0 or more."""
    ranked = values.double().flatten().sort().values
    count = len(ranked)
    weights = 2 * torch.arange(1, count + 1, dtype=ranked.dtype, device=ranked.device) - count - 1
    return float((weights * ranked).sum() / (count * ranked.sum()))


def pixels_holding(values: Tensor, share: float = 0.95) -> int:
    """The fewest pixels that together hold this share of the sum."""
    ranked = values.double().flatten().sort(descending=True).values
    return int((ranked.cumsum(0) < share * ranked.sum()).sum()) + 1


def picture(image: Tensor, patch: tuple[int, int], side: int, maps: dict[str, Attribution]) -> Image.Image:
    """The image (1 | 3, H, W) with its patch in a red box, and beside it each map, by its name, laid over the image."""
    pixels = image.detach().clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0).cpu().double().numpy()
    colours = (seismic(0.5 + 0.5 * found.map.cpu().double().numpy()) for found in maps.values())
    overlays = [OPACITY * colour + (1 - OPACITY) * pixels for colour in colours]
    captions = ["input", *(f"DI {found.diffusion_index:.1f} {name}" for name, found in maps.items())]
    return grid([_boxed(panel, patch, side) for panel in (pixels, *overlays)], captions, columns=1 + len(maps))


def seismic(values: np.ndarray) -> np.ndarray:
    """(...) in [0, 1] -> (..., 3) in [0, 1]."""
    return np.stack([np.interp(values, SEISMIC_AT, channel) for channel in SEISMIC.T], axis=-1)


def _boxed(pixels: np.ndarray, patch: tuple[int, int], side: int) -> Image.Image:
    zoom = max(1, -(-SMALLEST_PICTURE // max(pixels.shape[:2])))
    panel = Image.fromarray((pixels * 255).round().astype(np.uint8))
    panel = panel.resize((panel.width * zoom, panel.height * zoom), Image.Resampling.NEAREST)
    top, left = (start * zoom for start in patch)
    box = (left, top, left + side * zoom - 1, top + side * zoom - 1)
    ImageDraw.Draw(panel).rectangle(box, outline=RED, width=max(1, zoom // 2))
    return panel
