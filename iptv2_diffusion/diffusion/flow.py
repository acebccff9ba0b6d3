"""Rectified flow (Liu et al. 2023): straight paths between data and noise, and their velocity.

    z_t = (1 - t) z_0 + t noise
    target = d z_t / dt = noise - z_0

Times t go from 0 (data) to 1 (noise). Timesteps, here as in diffusers' FlowMatchEulerDiscreteScheduler, are
num_train_timesteps times t and need not be whole: they are what networks get and what guidance intervals mean.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from iptv2_diffusion.diffusion.terms import LossTerms, squared_error


class FlowObjective(nn.Module):
    """The loss for the `config` of a flow scheduler; times in training are logit-normal (Esser et al. 2024, Eq. 19)."""

    def __init__(self, config: Mapping[str, Any], *, mean: float = 0.0, std: float = 1.0) -> None:
        super().__init__()
        self.num_timesteps: int = config["num_train_timesteps"]
        self.mean, self.std = mean, std

    def draw(self, generator: torch.Generator) -> Tensor:
        """A timestep of training, 0-d float32."""
        logit = self.mean + self.std * torch.randn((), generator=generator)
        return logit.sigmoid() * self.num_timesteps

    def draw_in_part(self, part: int, parts: int, generator: torch.Generator) -> Tensor:
        """A timestep from one of equal parts of the schedule, uniformly, whatever training draws."""
        return (part + torch.rand((), generator=generator)) / parts * self.num_timesteps

    def add_noise(self, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """z_t for clean latents z (B, C, H, W) and timesteps t (B,) in [0, num_timesteps]."""
        time = (t.to(z.dtype) / self.num_timesteps)[:, None, None, None]
        return (1 - time) * z + time * noise

    def target(self, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The velocity, the same at all times."""
        return noise - z

    def loss(self, output: Tensor, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The loss of each sample, (B,) float32; arguments as for `terms`."""
        return self.terms(output, z, noise, t).total

    def terms(self, output: Tensor, z: Tensor, noise: Tensor, t: Tensor) -> LossTerms:
        """The loss of a network's output (B, C, H, W) for add_noise(z, noise, t)."""
        if output.shape != z.shape:
            raise ValueError(f"expected a velocity of shape {tuple(z.shape)}, got {tuple(output.shape)}")
        simple = squared_error(output.float(), self.target(z.float(), noise.float(), t))
        return LossTerms(simple, torch.zeros_like(simple), torch.ones_like(simple))
