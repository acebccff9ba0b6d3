"""The condition of the denoiser: noise level and class, as in DiT."""

import math

import torch
from torch import nn

FREQUENCIES = 256
STD = 0.02  # of the initial weights, as DiT


class TimestepEmbedding(nn.Module):
    """Sinusoids of the timestep, in steps of the training schedule, then an MLP: (B,) -> (B, dim)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        linears = nn.Linear(FREQUENCIES, dim), nn.Linear(dim, dim)
        for linear in linears:
            nn.init.normal_(linear.weight, std=STD)
            nn.init.zeros_(linear.bias)
        self.mlp = nn.Sequential(linears[0], nn.SiLU(), linears[1])

    def forward(self, timestep: torch.Tensor) -> torch.Tensor:
        return self.mlp(sinusoids(timestep).to(next(self.mlp.parameters()).dtype))


class LabelEmbedding(nn.Embedding):
    """One row a class and a last one for "no class": (B,) -> (B, dim)."""

    def __init__(self, num_classes: int, dim: int) -> None:
        super().__init__(num_classes + 1, dim)
        nn.init.normal_(self.weight, std=STD)

    @property
    def null_label(self) -> int:
        return self.num_embeddings - 1


def sinusoids(timestep: torch.Tensor) -> torch.Tensor:
    """(B,) -> (B, 256) fp32: cosines, then sines, at frequencies from 1 down to 1/10000."""
    half = FREQUENCIES // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timestep.device) / half
    angles = timestep.float()[:, None] * torch.exp(-math.log(10_000) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=1)
