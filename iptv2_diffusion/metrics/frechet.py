"""Fréchet distance of two sets of features, each taken for a Gaussian (Heusel et al. 2017): sums, fits, distance.

Features are (B, d). Sums, fits and distances are float64.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Gaussian:
    mean: np.ndarray  # (d,)
    covariance: np.ndarray  # (d, d), of a sample: divided by n - 1


class Moments:
    """Count, sum x and sum x xᵀ; those of several shards add up (`tensors`)."""

    def __init__(self, dimension: int, device: torch.device | str = "cpu") -> None:
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.total = torch.zeros(dimension, dtype=torch.float64, device=device)
        self.products = torch.zeros(dimension, dimension, dtype=torch.float64, device=device)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The sums themselves, to be added in place."""
        return self.count, self.total, self.products

    def add(self, features: Tensor) -> None:
        """ValueError for features that are not finite."""
        if not features.isfinite().all():
            raise ValueError("expected finite features, got some that are not")
        features = features.to(self.total)
        self.count += len(features)
        self.total += features.sum(0)
        self.products.addmm_(features.T, features)

    def gaussian(self) -> Gaussian:
        """ValueError for fewer than two rows."""
        if self.count < 2:
            raise ValueError(f"expected at least 2 images for a covariance, got {int(self.count)}")
        mean = self.total / self.count
        covariance = (self.products - self.count * torch.outer(mean, mean)) / (self.count - 1)
        return Gaussian(mean.cpu().numpy(), covariance.cpu().numpy())


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """|m_a - m_b|² + tr(A) + tr(B) - 2 tr((A^½ B A^½)^½), at least 0.

    The last trace is the sum of the singular values of A^½ B^½: unlike a root of the product A B, that stays real and
    exact for singular covariances, as those of fewer images than features are.
    """
    _check(a, b)
    roots = _root(a.covariance) @ _root(b.covariance)
    overlap = np.linalg.svd(roots, compute_uv=False).sum()
    shift = np.square(a.mean.astype(np.float64) - b.mean).sum()
    spread = np.trace(a.covariance, dtype=np.float64) + np.trace(b.covariance, dtype=np.float64)
    return max(0.0, float(shift + spread - 2 * overlap))


def _root(covariance: np.ndarray) -> np.ndarray:
    """The symmetric square root; eigenvalues that rounding alone can bring about, on either side of 0, are 0."""
    values, vectors = np.linalg.eigh(covariance.astype(np.float64))
    rounding = len(values) * np.finfo(np.float64).eps * values.max()
    return (vectors * np.sqrt(np.where(values > rounding, values, 0))) @ vectors.T


def _check(a: Gaussian, b: Gaussian) -> None:
    size = a.mean.size
    for one in (a, b):
        if one.mean.shape != (size,) or one.covariance.shape != (size, size):
            raise ValueError(
                f"expected means ({size},) and covariances ({size}, {size}), "
                f"got {one.mean.shape} and {one.covariance.shape}"
            )
        if not (np.isfinite(one.mean).all() and np.isfinite(one.covariance).all()):
            raise ValueError("expected finite means and covariances, got some that are not")
