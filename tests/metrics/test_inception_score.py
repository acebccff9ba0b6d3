"""Inception Scores of known probabilities, and against torch-fidelity without its shuffling."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric

from iptv2_diffusion.metrics import inception_score
from iptv2_diffusion.metrics.inception_score import ScoreSums


def score(logits: torch.Tensor, batch: int = 64) -> tuple[float, float]:
    sums = ScoreSums(len(logits), logits.shape[1])
    for first in range(0, len(logits), batch):
        sums.add(logits[first : first + batch], first)
    return sums.score()


def test_known_probabilities() -> None:
    """Certain and evenly spread over 8 classes: 8; undecided: 1; one class only: 1."""
    certain = 1000 * torch.eye(8).repeat(5, 1)
    assert score(certain) == pytest.approx((8, 0))
    assert score(torch.zeros(40, 8)) == pytest.approx((1, 0))
    assert score(certain[:1].repeat(40, 1)) == pytest.approx((1, 0))


def test_splits_follow_the_order_of_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sorted by class, a split sees few classes; the last one holds what is left."""
    monkeypatch.setattr(inception_score, "SPLIT", 10)
    sorted_by_class = 1000 * torch.eye(4).repeat_interleave(5, 0)
    assert score(sorted_by_class) == pytest.approx((2, 0))
    scores = [2, 2, 1]
    assert score(torch.cat([sorted_by_class, sorted_by_class[:3]])) == pytest.approx((np.mean(scores), np.std(scores)))


@pytest.mark.parametrize("batch", [7, 100])
def test_torch_fidelity_unshuffled(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inception_score, "SPLIT", 30)
    logits = 2 * torch.randn(300, 20, generator=torch.Generator().manual_seed(0))
    expected = isc_features_to_metric(logits, splits=10, shuffle=False)
    assert score(logits, batch) == pytest.approx(tuple(expected.values()), rel=1e-12)
