"""Restorers of a few thousand parameters, and inputs for them."""

from typing import Any

import numpy as np
import torch

from iptv2_diffusion import IPTV2Restorer

TINY: dict[str, Any] = {"width": 4, "layers": (2, 2), "heads": (1, 2), "window": 8, "grid": 4}
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}  # float32, sums in another order


def make(**fields: Any) -> IPTV2Restorer:
    """Every parameter moved away from its initial value, which may be a special one."""
    model = IPTV2Restorer(**(TINY | fields)).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def identity(**fields: Any) -> IPTV2Restorer:
    """The whole network runs, but its residual is 0."""
    model = make(**({"layers": (1, 2)} | fields))
    torch.nn.init.zeros_(model.head.weight)
    return model


def random(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)))


def levels(dtype: Any, *shape: int) -> np.ndarray:
    """Integers over the whole range, both ends among them where there is room."""
    full = np.iinfo(dtype).max
    values = np.random.default_rng(sum(shape)).integers(0, full, shape, dtype, endpoint=True)
    values.flat[:2] = [full, 0][: values.size]
    return values
