"""What denoisers of latents are given."""

import torch
from torch import Tensor


def check_inputs(x: Tensor, timestep: Tensor | float, labels: Tensor, channels: int) -> Tensor:
    """The timesteps, one for each of the latents x (B, channels, H, W); ValueError for whatever does not fit."""
    timestep = torch.as_tensor(timestep, device=x.device)
    if x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(f"expected latents (B, {channels}, H, W), got {tuple(x.shape)}")
    if timestep.ndim and timestep.shape not in ((1,), x.shape[:1]):
        raise ValueError(f"expected a timestep, or one for each of {len(x)} latents, got {tuple(timestep.shape)}")
    if labels.shape != x.shape[:1]:
        raise ValueError(f"expected one class label for each of {len(x)} latents, got shape {tuple(labels.shape)}")
    return timestep.expand(len(x))
