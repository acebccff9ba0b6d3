"""The kernel distance against its definition, in float64."""

import numpy as np
import pytest
import torch

from iptv2_diffusion.metrics import kernel_distance as module
from iptv2_diffusion.metrics.kernel_distance import SUBSET, kernel_distance


def test_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many rows as a subset holds, every subset is the whole set."""
    monkeypatch.setattr(module, "SUBSETS", 2)
    generator = torch.Generator().manual_seed(0)
    drawn, real = torch.randn(SUBSET, 6, generator=generator) + 0.5, torch.randn(SUBSET, 6, generator=generator)

    def kernel(x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
        return ((x.double() @ y.double().T / 6 + 1) ** 3).numpy()

    def within(x: torch.Tensor) -> float:
        return (kernel(x, x).sum() - np.trace(kernel(x, x))) / (SUBSET * (SUBSET - 1))

    expected = within(drawn) + within(real) - 2 * kernel(drawn, real).mean()
    mean, deviation = kernel_distance(drawn, real)
    assert expected > 0.1
    assert mean == pytest.approx(expected, rel=1e-4)
    assert deviation == pytest.approx(0, abs=1e-5)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="needs 1000 images of each kind, got 999 and 1000"):
        kernel_distance(torch.zeros(999, 2), torch.zeros(1000, 2))
