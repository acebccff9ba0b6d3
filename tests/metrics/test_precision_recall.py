"""Precision and recall of toy clusters, and against a computation without tiles and against torch-fidelity."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_prc import calculate_precision_recall_full

from iptv2_diffusion.metrics import precision_recall as module
from iptv2_diffusion.metrics.precision_recall import precision_recall


def cluster(count: int, centre: float, seed: int) -> torch.Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(seed)) + centre


def by_hand(generated: np.ndarray, real: np.ndarray, k: int) -> tuple[float, float]:
    def inside(points: np.ndarray, centres: np.ndarray) -> float:
        own = np.linalg.norm(centres[:, None] - centres[None], axis=2)
        radii = np.sort(own, axis=1)[:, k]
        return (np.linalg.norm(points[:, None] - centres[None], axis=2) <= radii).any(1).mean()

    return inside(generated, real), inside(real, generated)


def test_clusters() -> None:
    """Half of the real modes drawn, and a mode that is not real: half of each is inside."""
    shared, unreal, missed = (cluster(50, centre, seed) for seed, centre in enumerate((0, 100, -100)))
    assert precision_recall(torch.cat([shared, unreal]), torch.cat([shared, missed])) == (0.5, 0.5)
    assert precision_recall(shared, torch.cat([shared, missed])) == (1, 0.5)
    assert precision_recall(shared, shared) == (1, 1)
    assert precision_recall(unreal, missed) == (0, 0)


@pytest.mark.parametrize("tile", [7, 1000])
@pytest.mark.parametrize("k", [1, 3])
def test_tiles_change_nothing(tile: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TILE", tile)
    generated, real = cluster(90, 0.4, 0), 1.2 * cluster(60, 0, 1)
    expected = by_hand(generated.double().numpy(), real.double().numpy(), k)
    assert min(expected) > 0.2
    assert max(expected) < 0.98
    assert precision_recall(generated, real, k) == pytest.approx(expected)
    if k == 3:
        assert precision_recall(generated, real) == pytest.approx(calculate_precision_recall_full(generated, real))


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected features \(N, d\) and \(M, d\), got \(5, 8\) and \(5, 7\)"):
        precision_recall(torch.zeros(5, 8), torch.zeros(5, 7))
    with pytest.raises(ValueError, match="more than 3 images of each kind, got 5 and 3"):
        precision_recall(torch.zeros(5, 8), torch.zeros(3, 8))
