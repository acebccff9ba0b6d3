"""Classifier-free guidance (Ho & Salimans 2022) and autoguidance (Karras et al. 2024) as closures around the denoiser.

Labels are (B,), latents (B, C, H, W), predictions (B, C or 2C, H, W) in float32, whatever the model's precision.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]


def guided(
    model: Callable,
    class_labels: Tensor,
    null_label: int,
    scale: float,
    *,
    channels: int | None = None,
    interval: tuple[float, float] | None = None,
    guide: Callable | None = None,
    num_train_timesteps: int = 1000,
) -> Denoise:
    """denoise(z, t) -> weak + scale * (conditional - weak), t being one timestep for all rows.

    `weak` is the same model's prediction for the null label, or, with a `guide` (a worse model of the same data:
    smaller, or with earlier or less averaged weights), the guide's for the same labels.
    Guidance acts on the first `channels` latent channels (None: all of them; 3 is what DiT does to its 4). The others
    and the learned variance stay those of the conditional prediction.
    `interval` (low, high), both inclusive fractions t / num_train_timesteps, limits it to a range of noise levels;
    an interval of no width, low = high, contains nothing.
    The cost is one forward of 2B rows (with a guide: of B rows each of both models), or of B rows where the scale is 1
    or t lies outside the interval.
    """
    check_guidance(scale, interval)
    both_labels = torch.cat([class_labels, torch.full_like(class_labels, null_label)])

    def conditional(z: Tensor, t: Tensor) -> Tensor:
        return model(z, t, class_labels).sample.float()

    def both(z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        if guide is not None:
            return conditional(z, t), guide(z, t, class_labels).sample.float()
        prediction, null = model(torch.cat([z, z]), t, both_labels).sample.float().chunk(2)
        return prediction, null

    def combined(z: Tensor, t: Tensor) -> Tensor:
        prediction, weak = both(z, t)
        count = z.shape[1] if channels is None else channels
        toward = weak[:, :count].lerp(prediction[:, :count], scale)
        return torch.cat([toward, prediction[:, count:]], dim=1)

    def denoise(z: Tensor, t: Tensor) -> Tensor:
        if scale == 1 or not _inside(float(t) / num_train_timesteps, interval):
            return conditional(z, t)
        return combined(z, t)

    return denoise


def check_guidance(scale: float, interval: tuple[float, float] | None) -> None:
    if not math.isfinite(scale):
        raise ValueError(f"the guidance scale must be a finite number, got {scale}")
    if interval is not None and not (len(interval) == 2 and 0 <= interval[0] <= interval[1] <= 1):
        raise ValueError(f"the guidance interval must be (low, high) with 0 <= low <= high <= 1, got {interval}")


def check_guidance_channels(channels: int | None, latent_channels: int) -> None:
    if channels is not None and not 1 <= channels <= latent_channels:
        raise ValueError(f"guidance channels must be 1 to {latent_channels}, or None for all, got {channels}")


def _inside(fraction: float, interval: tuple[float, float] | None) -> bool:
    if interval is None:
        return True
    low, high = interval
    return low < high and low <= fraction <= high
