"""Blur kernels, and the convolution that applies them.

A kernel is (k, k) float32, k odd, not negative, of sum 1. Its centroid is at the centre of the central pixel, so that the
blurred picture lies where the sharp one does.
"""

import math
from functools import cache
from pathlib import Path

import torch

from iptv2_diffusion.data.matlab import cells, is_cell_array, open_v73

STEPS = 1024  # instants of an exposure
MOST_STROKES = 4  # stretches of smooth movement between jerks of the hand
WANDER = 3.0  # by how much velocity changes during a stroke, relative to what it is at first
OSCILLATIONS = 12  # of tremor: up to six periods in an exposure
TREMOR_FALLS = (1.0, 2.5)  # amplitude falls as frequency to a power drawn from these
LINGERS = 4  # oscillations of speed along a path: up to two periods in an exposure
UNEVEN = 1.5  # up to this standard deviation of the speed's logarithm
_FREQUENCIES = torch.arange(1.0, OSCILLATIONS + 1, dtype=torch.float64)  # in half periods of an exposure


def convolve_valid(image: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """(C, H, W) and (k, k) -> (C, H - k + 1, W - k + 1): only what needs no guess of the scene beyond the border."""
    size, lost = image.shape[-2:], kernel.shape[-1] - 1
    spectrum = torch.fft.rfft2(image) * torch.fft.rfft2(kernel, s=size)
    return torch.fft.irfft2(spectrum, s=size)[..., lost:, lost:]  # what wraps around fell into the part cut off


def disc(radius: float) -> torch.Tensor:
    """Out-of-focus lens: a disc with a one-pixel ramp at its edge, radius in pixels; up to 0.5 it is one point."""
    offsets = torch.arange(-disc_reach(radius), disc_reach(radius) + 1.0)
    weights = (radius + 0.5 - torch.hypot(offsets[:, None], offsets)).clamp(0, 1)
    return weights / weights.sum()


def disc_reach(radius: float) -> int:
    """Pixels on each side of the centre."""
    return math.ceil(radius - 0.5)


def camera_shake(size: float, generator: torch.Generator) -> torch.Tensor:
    """Path of a point during an exposure with a trembling hand; `size` is the side of the square that it fills, in pixels.

    Strokes of inertial random walks follow each other, each with a velocity of its own at its start (the two
    ingredients of Boracchi and Foi, "Modeling the performance of image restoration from motion blur", 2012). Tremor,
    oscillations that are the weaker the faster they are, is added: measured paths turn and cross themselves more often.
    The hand lingers in some parts of its path and hurries through others, which leave a faint trace only.
    """
    path = _trajectory(generator)
    return _along(path, size, _lasting(len(path), generator))


def linear_motion(size: float, generator: torch.Generator) -> torch.Tensor:
    """Straight and even, in any direction, as far as a square of `size` pixels reaches."""
    return _along(_line(STEPS, generator), size)


def bent_motion(size: float, generator: torch.Generator) -> torch.Tensor:
    """Between linear motion and camera shake, no nearer to the latter: easier to learn first."""
    shake = _trajectory(generator)
    line = _spread_one(_line(len(shake), generator))
    return _along(line.lerp(shake, 0.5 * torch.rand((), generator=generator, dtype=torch.float64)), size)


def shake_reach(size: float) -> int:
    """Pixels on each side of the centre."""
    return math.ceil((size - 1) / 2)


def _along(path: torch.Tensor, size: float, lasting: torch.Tensor | None = None) -> torch.Tensor:
    """Kernel of a path (n, 2), enlarged to fill a square of `size` pixels; its points last as (n,) says, or all alike."""
    if lasting is None:
        lasting = path.new_ones(len(path))
    path = path - lasting @ path / lasting.sum()
    path = path * ((size - 1) / 2 / path.abs().max())
    pixels = torch.arange(-shake_reach(size), shake_reach(size) + 1.0, dtype=path.dtype)
    rows, columns = _bilinear(path.T, pixels)
    kernel = rows.T @ (lasting[:, None] * columns)
    return (kernel / kernel.sum()).float()


def _line(steps: int, generator: torch.Generator) -> torch.Tensor:
    angle = torch.rand((), generator=generator, dtype=torch.float64) * math.pi
    return torch.linspace(-1, 1, steps, dtype=torch.float64)[:, None] * torch.stack([angle.cos(), angle.sin()])


def _trajectory(generator: torch.Generator) -> torch.Tensor:
    """(STEPS or a few less, 2) float64, centred on its mean; any ratio of strokes and tremor is as likely."""
    strokes = _spread_one(_strokes(generator))
    tremor = _spread_one(_tremor(len(strokes), generator))
    return strokes.lerp(tremor, torch.rand((), generator=generator, dtype=torch.float64))


def _strokes(generator: torch.Generator) -> torch.Tensor:
    strokes = int(torch.randint(1, MOST_STROKES + 1, (), generator=generator))
    shape = (strokes, STEPS // strokes, 2)
    changes = torch.randn(shape, generator=generator, dtype=torch.float64) * (WANDER / STEPS**0.5)
    start = torch.randn((strokes, 1, 2), generator=generator, dtype=torch.float64)
    return (start + changes.cumsum(1)).reshape(-1, 2).cumsum(0)


def _tremor(steps: int, generator: torch.Generator) -> torch.Tensor:
    falls = torch.empty((), dtype=torch.float64).uniform_(*TREMOR_FALLS, generator=generator)
    amplitudes = torch.randn((2, OSCILLATIONS, 2), generator=generator, dtype=torch.float64)
    return _oscillating(amplitudes * _FREQUENCIES[:, None] ** -falls, steps)


def _lasting(steps: int, generator: torch.Generator) -> torch.Tensor:
    """(steps,): how long each point of a path lasts, on a scale of its own."""
    amplitudes = torch.randn((2, LINGERS), generator=generator, dtype=torch.float64) / LINGERS**0.5
    uneven = UNEVEN * torch.rand((), generator=generator, dtype=torch.float64)
    return (uneven * _oscillating(amplitudes, steps)).exp()


def _oscillating(amplitudes: torch.Tensor, steps: int) -> torch.Tensor:
    """Amplitudes (2, n, ...) of cosines and sines of the first n frequencies -> their sum (steps, ...)."""
    cosines, sines = (oscillations[:, : amplitudes.shape[1]] for oscillations in _oscillations(steps))
    return cosines @ amplitudes[0] + sines @ amplitudes[1]


@cache
def _oscillations(steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    phases = torch.arange(steps, dtype=torch.float64)[:, None] * (math.pi / steps) * _FREQUENCIES
    return phases.cos(), phases.sin()


def _spread_one(path: torch.Tensor) -> torch.Tensor:
    """Centred, its mean squared distance from there 1."""
    path = path - path.mean(0)
    return path / path.square().sum(1).mean().sqrt()


def load_kernels(path: str | Path) -> tuple[torch.Tensor, ...]:
    """Measured kernels, such as Levin et al.'s eight (CVPR 2009): a MATLAB 7.3 file with one cell array of kernels.

    They are divided by their sums, and moved to where the centroid is central: where a camera pointed cannot be told from
    a blurred picture. Fractions of pixels are shared linearly between neighbours, as those of drawn paths are.
    ValueError where the file holds anything else, FileNotFoundError where there is none, OSError where the package that
    reads it is missing.
    """
    with open_v73(Path(path)) as file:
        found = [entry for entry in file.values() if is_cell_array(entry)]
        if len(found) != 1:
            raise ValueError(f"expected one cell array of kernels in {path}, found {len(found)}")
        arrays = cells(file, found[0])
    return tuple(_centred(_normalised(torch.tensor(array, dtype=torch.float64), path)) for array in arrays)


def _normalised(kernel: torch.Tensor, path: str | Path) -> torch.Tensor:
    sides = tuple(kernel.shape)
    odd_square = len(sides) == 2 and sides[0] == sides[1] and sides[0] % 2 == 1
    if not (odd_square and kernel.min() >= 0 and 0 < kernel.sum() < math.inf):
        raise ValueError(
            f"expected square kernels of odd sides, not negative, not all zero in {path}, got one of {sides}"
        )
    return kernel / kernel.sum()


def _centred(kernel: torch.Tensor) -> torch.Tensor:
    """Moved by fractions of pixels, in the smallest square that holds it."""
    reach = len(kernel)
    pixels = torch.arange(-reach, reach + 1.0, dtype=kernel.dtype)
    offsets = torch.arange(len(kernel), dtype=kernel.dtype) - len(kernel) // 2
    # Rounded, so that a kernel which is central already stays as it is.
    rows, columns = (offsets - (sums @ offsets).round(decimals=6) for sums in (kernel.sum(1), kernel.sum(0)))
    moved = _bilinear(rows, pixels).T @ kernel @ _bilinear(columns, pixels)
    cut = reach - int((moved.nonzero() - reach).abs().max())
    return moved[cut : len(moved) - cut, cut : len(moved) - cut].float()


def _bilinear(positions: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """(..., n) and (k,) -> (..., n, k): how a point is shared between the pixels on both its sides."""
    return (1 - (positions[..., None] - pixels).abs()).clamp(min=0)
