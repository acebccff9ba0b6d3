"""A denoiser of a few thousand parameters, and inputs for it."""

from collections.abc import Callable
from typing import Any

import torch

from iptv2_diffusion import IPTV2Transformer2DModel

TINY: dict[str, Any] = {
    "sample_size": 16,
    "num_classes": 5,
    "cond_dim": 12,
    "width": 4,
    "layers": (2, 2),
    "heads": (1, 2),
    "grid": 4,
}
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}  # float32, sums in another order


def make(**fields: Any) -> IPTV2Transformer2DModel:
    """A tiny model that does something: its zeros moved."""
    model = IPTV2Transformer2DModel(**(TINY | fields)).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def inputs(height: int = 16, width: int = 16, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 4, height, width, generator=generator)
    return x, torch.randint(0, 1000, (batch,), generator=generator), torch.randint(0, 6, (batch,), generator=generator)


def run(model: Callable[..., Any], x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return model(x, t, labels).sample
