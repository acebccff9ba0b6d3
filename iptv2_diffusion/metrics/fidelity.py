"""How close a restored image is to the clean one: PSNR, MAE and the five SSIMs that the literature reports.

Images are arrays (H, W) or (H, W, C), two of one shape: 8 or 16 bits, or floating point. `peak` is the value of white:
255, 65535, or 1.0 for floats in [0, 1]; it is always told, never guessed from the pixels. Scores are computed in
float64, without cropping a border and without rounding; pixels that are not finite give scores that are not finite.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def psnr(a: np.ndarray, b: np.ndarray, *, peak: float) -> float:
    """dB, from the mean squared error over all pixels and channels jointly; inf for equal images."""
    a, b = _checked(a, b, peak)
    error = float(np.mean(np.square(a - b)))
    return 20 * math.log10(peak) - 10 * math.log10(error) if error else math.inf


def mae(a: np.ndarray, b: np.ndarray, *, peak: float) -> float:
    """Mean absolute difference over all pixels and channels, as a fraction of the peak."""
    a, b = _checked(a, b, peak)
    return float(np.mean(np.abs(a - b))) / peak


@dataclass(frozen=True, kw_only=True)
class SSIMMethod:
    """What the definitions of SSIM differ in; all have C1 = (0.01 peak)^2, C2 = (0.03 peak)^2."""

    taps: tuple[float, ...]  # the window along each of its axes, odd in number, of sum 1
    replicate: bool = False  # a window around every pixel, the border repeated outward; else those inside the image
    volume: bool = False  # the window spans the channels too, as a third axis; else the mean over channels
    sample: bool = False  # covariances of a sample: n / (n - 1) times as large, n the pixels of a window


def _gaussian(radius: int, sigma: float) -> tuple[float, ...]:
    weights = np.exp(-0.5 * np.square(np.arange(-radius, radius + 1) / sigma))
    return tuple((weights / weights.sum()).tolist())


_GAUSSIAN = _gaussian(radius=5, sigma=1.5)

SSIM_METHODS: Mapping[str, SSIMMethod] = {
    "wang": SSIMMethod(taps=_GAUSSIAN),  # ssim_index.m of Wang et al. 2004; BasicSR, KAIR; deraining, on luma
    "matlab2d": SSIMMethod(taps=_GAUSSIAN, replicate=True),  # MATLAB's ssim of gray images
    "matlab3d": SSIMMethod(taps=_GAUSSIAN, replicate=True, volume=True),  # of colour: GoPro, HIDE, SIDD
    "sk7": SSIMMethod(taps=(1 / 7,) * 7, sample=True),  # scikit-image's default: DPDD
    "skgauss": SSIMMethod(taps=_GAUSSIAN),  # scikit-image with gaussian_weights: RealBlur; the numbers are wang's
}


def ssim(a: np.ndarray, b: np.ndarray, *, peak: float, method: str) -> float:
    """Mean structural similarity by one of SSIM_METHODS; 1 for equal images.

    The methods are up to 0.1 apart on the same pair of images: a number without its method says nothing. Methods whose
    windows lie inside the image need it to be as large as one.
    """
    if method not in SSIM_METHODS:
        raise ValueError(f"expected an SSIM method out of {', '.join(SSIM_METHODS)}, got {method}")
    definition = SSIM_METHODS[method]
    a, b = _checked(a, b, peak)
    side = len(definition.taps)
    if not definition.replicate and min(a.shape[:2]) < side:
        raise ValueError(f"expected images of at least {side}x{side} pixels for SSIM {method}, got {a.shape}")
    return float(_ssim_map(_channels_first(a), _channels_first(b), peak, definition).mean())


def luma(rgb: np.ndarray, *, rounded: bool = True) -> np.ndarray:
    """Y of MATLAB's rgb2ycbcr: uint8 (H, W, 3) to uint8 (H, W), black 16, white 235: deraining.

    Halves, which 194 of all colours have, are rounded up. Toolboxes in Python do not round (`rounded=False`, float64):
    their PSNR is 0.02 dB higher at 31 dB and 0.09 dB at 39 dB.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[-1] != 3:
        raise ValueError(f"expected a uint8 image (H, W, 3), got {rgb.dtype} {rgb.shape}")
    # Integers, so that the halves are exact: Y = (65.481 R + 128.553 G + 24.966 B) / 255 + 16.
    scaled = rgb.astype(np.int64) @ np.array([65_481, 128_553, 24_966]) + 16 * 255_000
    return ((scaled + 127_500) // 255_000).astype(np.uint8) if rounded else scaled / 255_000


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Floats, clamped to [0, 1], times 255 and rounded, halves to the even number as scikit-image's img_as_ubyte does.

    Computed in the precision of the image. ValueError where a pixel is not a number.
    """
    if image.dtype.kind != "f":
        raise ValueError(f"expected a floating-point image in [0, 1], got {image.dtype}")
    if np.isnan(image).any():
        raise ValueError("expected an image in [0, 1], got pixels that are not numbers")
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _checked(a: np.ndarray, b: np.ndarray, peak: float) -> tuple[np.ndarray, np.ndarray]:
    """Both in float64, or ValueError."""
    if a.shape != b.shape or a.ndim not in (2, 3) or not a.size:
        raise ValueError(f"expected two images of one shape, (H, W) or (H, W, C), got {a.shape} and {b.shape}")
    for image in (a, b):
        white = np.iinfo(image.dtype).max if image.dtype.kind == "u" else peak
        if peak != white or not 0 < peak < math.inf:
            raise ValueError(f"expected the value of white as peak (255, 65535, 1.0), got {peak} for {image.dtype}")
    return a.astype(np.float64), b.astype(np.float64)


def _channels_first(image: np.ndarray) -> np.ndarray:
    """(C, H, W) and contiguous: rows are what the windows run along fastest."""
    return np.ascontiguousarray(np.moveaxis(np.atleast_3d(image), -1, 0))


def _ssim_map(a: np.ndarray, b: np.ndarray, peak: float, method: SSIMMethod) -> np.ndarray:
    """(C, H, W) twice -> SSIM at every window."""
    mean_a, mean_b = _local_mean(a, method), _local_mean(b, method)
    product, squares = mean_a * mean_b, mean_a**2 + mean_b**2
    covariance = _local_mean(a * b, method) - product
    variances = _local_mean(a**2 + b**2, method) - squares  # the sum of the two, which is all that SSIM needs
    if method.sample:
        pixels = len(method.taps) ** (3 if method.volume else 2)
        covariance *= pixels / (pixels - 1)
        variances *= pixels / (pixels - 1)
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    return (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))


def _local_mean(maps: np.ndarray, method: SSIMMethod) -> np.ndarray:
    """Weighted by the window, one axis after the other."""
    for axis in (0, 1, 2) if method.volume else (1, 2):
        if method.replicate:
            reach = [(len(method.taps) // 2,) * 2 if i == axis else (0, 0) for i in range(3)]
            maps = np.pad(maps, reach, mode="edge")
        maps = sliding_window_view(maps, len(method.taps), axis) @ np.asarray(method.taps)
    return maps
