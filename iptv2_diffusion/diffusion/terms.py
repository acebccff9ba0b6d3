"""What every objective reports: the parts of the loss of each sample, and where on the noise schedule it was taken."""

from typing import NamedTuple

import torch
from torch import Tensor

BINS = 8  # of equal width over the schedule


class LossTerms(NamedTuple):
    """All (B,) float32. `simple` is a mean squared error, `weight` what it counts for.

    `bound` is in bits per dimension, and zero where the variance is not learned.
    """

    simple: Tensor
    bound: Tensor
    weight: Tensor

    @property
    def total(self) -> Tensor:
        return self.weight * self.simple + self.bound


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Its mean over each sample, (B, ...) -> (B,)."""
    return (prediction - target).square().flatten(1).mean(1)


def bin_names() -> list[str]:
    """By thousandths of the schedule: t000-124 is the eighth with the least noise."""
    return [f"t{1000 * i // BINS:03d}-{1000 * (i + 1) // BINS - 1:03d}" for i in range(BINS)]


def bin_weights(t: Tensor, num_timesteps: int) -> dict[str, Tensor]:
    """For each bin (B,) float32: 1 where the timestep t (B,) lies in it, else 0."""
    index = (t * BINS / num_timesteps).long().clamp(max=BINS - 1)
    return {name: (index == i).to(torch.float32) for i, name in enumerate(bin_names())}
