"""Fréchet distances against closed forms and SciPy's root of the product, sums over shards against numpy."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

from iptv2_diffusion.metrics.frechet import Gaussian, Moments, frechet_distance


def random_gaussian(dimension: int, rows: int, seed: int) -> Gaussian:
    """A fit to so many rows."""
    features = np.random.default_rng(seed).normal(size=(rows, dimension)) @ np.diag(np.linspace(0.5, 2, dimension))
    return Gaussian(features.mean(0), np.cov(features, rowvar=False))


def fit(*shards: torch.Tensor) -> Gaussian:
    whole = Moments(shards[0].shape[1])
    for shard in shards:
        moments = Moments(shard.shape[1])
        moments.add(shard)
        for total, part in zip(whole.tensors, moments.tensors, strict=True):
            total += part
    return whole.gaussian()


def test_closed_forms() -> None:
    """|shift|² + sum (s - t)² for covariances with the same axes; the axes turned, it stays."""
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    s, t, shift = np.array([1.0, 2, 3, 0]), np.array([2.0, 0.5, 0, 1]), np.array([1.0, -2, 0.5, 0])
    a = Gaussian(np.zeros(4), rotation @ np.diag(s**2) @ rotation.T)
    b = Gaussian(shift, rotation @ np.diag(t**2) @ rotation.T)
    expected = 5.25 + 1 + 2.25 + 9 + 1
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dimension", [2, 5, 60])
def test_scipys_root_of_the_product(dimension: int) -> None:
    """And torch-fidelity's eigenvalues of it."""
    a, b = random_gaussian(dimension, 500, 0), random_gaussian(dimension, 400, 1)
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance)
    expected = np.square(a.mean - b.mean).sum() + np.trace(a.covariance + b.covariance - 2 * np.real(root))
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    theirs = [{"mu": fit.mean, "sigma": fit.covariance} for fit in (a, b)]
    assert fid_statistics_to_metric(*theirs, verbose=False)[KEY_METRIC_FID] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rows", [20, 300])
def test_equal_sets_have_no_distance(rows: int) -> None:
    """Covariances of fewer rows than dimensions, too."""
    a = random_gaussian(100, rows, 0)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-10)


def test_types_may_be_mixed() -> None:
    a, b = random_gaussian(6, 200, 0), random_gaussian(6, 200, 1)
    rounded = Gaussian(b.mean.astype(np.float32), b.covariance)
    assert frechet_distance(a, rounded) == pytest.approx(frechet_distance(a, b), rel=1e-5)
    assert frechet_distance(a, rounded) != frechet_distance(a, b)


def test_sums_of_shards_are_those_of_the_whole() -> None:
    features = torch.randn(300, 7, generator=torch.Generator().manual_seed(0)) + 5
    whole, parts = fit(features), fit(*features.split([100, 1, 199]))
    np.testing.assert_allclose(whole.mean, features.double().mean(0), rtol=1e-13)
    np.testing.assert_allclose(whole.covariance, np.cov(features.double().numpy(), rowvar=False), atol=1e-12)
    np.testing.assert_allclose(parts.covariance, whole.covariance, atol=1e-13)
    assert whole.covariance.dtype == np.float64


def test_bad_input_is_refused() -> None:
    a = random_gaussian(3, 50, 0)
    with pytest.raises(ValueError, match=r"expected means \(3,\) and covariances \(3, 3\), got \(4,\) and \(4, 4\)"):
        frechet_distance(a, random_gaussian(4, 50, 0))
    with pytest.raises(ValueError, match="expected finite means"):
        frechet_distance(a, Gaussian(a.mean, a.covariance * np.nan))
    with pytest.raises(ValueError, match="expected finite features"):
        fit(torch.tensor([[1.0, torch.inf]]))
    with pytest.raises(ValueError, match="at least 2 images for a covariance, got 1"):
        fit(torch.zeros(1, 2))
