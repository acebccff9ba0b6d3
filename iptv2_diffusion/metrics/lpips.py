"""LPIPS, the perceptual distance of Zhang et al. 2018, through the optional package `lpips`.

Version 0.1 with AlexNet, as the tables of defocus deblurring report it.
"""

import importlib
import warnings
from functools import cache

import numpy as np
import torch
from torch import nn

SMALLEST = 31  # pixels: of a smaller image the pooling leaves no features


def lpips_alex(a: np.ndarray, b: np.ndarray) -> float:
    """Distance of two floating-point images (H, W, 3) in [0, 1]; 0 for equal images.

    Computed in float32 on the CPU. OSError where the package or AlexNet's weights, which torchvision downloads at the
    first use, cannot be had.
    """
    a, b = _checked(a, b), _checked(b, a)
    network = _network()
    with torch.inference_mode():
        return network(_batch(a), _batch(b), normalize=True).item()


@cache  # 10 MB, out of a file of 233 MB that takes longer to read than a pair of images to score
def _network() -> nn.Module:
    try:
        package = importlib.import_module("lpips")
    except ImportError as error:
        raise OSError(f'LPIPS needs another package: pip install "iptv2-diffusion[lpips]" ({error})') from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the package asks torchvision for weights in a deprecated way
            return package.LPIPS(net="alex", version="0.1", verbose=False)
    except (OSError, RuntimeError) as error:  # RuntimeError: the checksum of a broken download
        raise OSError(f"LPIPS compares features of AlexNet, whose weights could not be fetched: {error}") from error


def _checked(image: np.ndarray, other: np.ndarray) -> np.ndarray:
    if image.shape != other.shape or image.ndim != 3 or image.shape[-1] != 3 or min(image.shape[:2]) < SMALLEST:
        raise ValueError(
            f"expected two images of one shape (H, W, 3), at least {SMALLEST}x{SMALLEST} pixels, "
            f"got {image.shape} and {other.shape}"
        )
    if image.dtype.kind != "f" or not (image.min() >= 0 and image.max() <= 1):
        raise ValueError(f"expected floats in [0, 1], got {image.dtype} from {image.min()} to {image.max()}")
    return image


def _batch(image: np.ndarray) -> torch.Tensor:
    """(1, 3, H, W)"""
    return torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
