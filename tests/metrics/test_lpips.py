"""LPIPS through a stand-in for the package, and through the package where it and its weights are at hand."""

import itertools
import math
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import nn

from iptv2_diffusion.metrics import lpips
from iptv2_diffusion.metrics.lpips import lpips_alex


@pytest.fixture(autouse=True)
def forgotten_network() -> Iterator[None]:
    lpips._network.cache_clear()
    yield
    lpips._network.cache_clear()


class StandIn(nn.Module):
    """Remembers what it was built with and called with; the distance is the mean of the first image."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.options = options

    def forward(self, a: torch.Tensor, b: torch.Tensor, normalize: bool) -> torch.Tensor:
        self.seen = a, b, normalize
        return a.mean((1, 2, 3), keepdim=True)


@pytest.fixture
def images() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.random((32, 40, 3)), generator.random((32, 40, 3))


def test_the_network_sees_both_images(images: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=StandIn))
    assert lpips_alex(*images) == pytest.approx(images[0].mean(), rel=1e-5)
    network = lpips._network()
    assert isinstance(network, StandIn)
    assert network.options == {"net": "alex", "version": "0.1", "verbose": False}
    *seen, normalized = network.seen
    assert normalized is True
    for tensor, image in zip(seen, images, strict=True):
        np.testing.assert_array_equal(tensor.numpy(), image.astype(np.float32).transpose(2, 0, 1)[None])


def distance_by_hand(a: np.ndarray, b: np.ndarray, features: nn.Sequential, package: nn.Module) -> float:
    """Squared differences of unit feature vectors, weighted over channels, mean over pixels, sum over five layers."""
    mean, deviation = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x = torch.stack([((2 * torch.from_numpy(i).float() - 1 - mean) / deviation).permute(2, 0, 1) for i in (a, b)])
    total = 0.0
    for index, layer in enumerate(features):
        x = layer(x)
        if index in (1, 4, 7, 9, 11):  # the ReLUs
            unit = x / x.norm(dim=1, keepdim=True)
            weight = package.get_parameter(f"lin{(1, 4, 7, 9, 11).index(index)}.model.1.weight")
            total += ((unit[0] - unit[1]) ** 2 * weight[0]).sum(0).mean().item()
    return total


def test_the_package_computes_its_definition(
    images: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With random features: its own cannot be fetched everywhere."""
    pytest.importorskip("lpips")
    widths = [(3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1)]
    convolutions = [nn.Conv2d(i, o, kernel, stride, padding) for i, o, kernel, stride, padding in widths]
    pools = [nn.MaxPool2d(3, 2)]
    first, second, *others = ([convolution, nn.ReLU()] for convolution in convolutions)
    features = nn.Sequential(*first, *pools, *second, *pools, *itertools.chain(*others))
    monkeypatch.setattr("torchvision.models.alexnet", lambda pretrained: SimpleNamespace(features=features))
    with torch.no_grad():
        expected = distance_by_hand(*images, features, lpips._network())
    assert expected > 0.01
    assert lpips_alex(*images) == pytest.approx(expected, rel=1e-4)  # float32
    assert lpips_alex(images[0], images[0]) == 0


def test_a_missing_package_is_named(images: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(OSError, match=r'pip install "iptv2-diffusion\[lpips\]"'):
        lpips_alex(*images)


@pytest.mark.parametrize("error", [URLError("no route to host"), RuntimeError("invalid hash value")])
def test_weights_that_cannot_be_fetched_are_named(
    error: Exception, images: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(**options: object) -> None:
        raise error

    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=unreachable))
    with pytest.raises(OSError, match=r"AlexNet, whose weights could not be fetched: .*(no route|invalid hash)"):
        lpips_alex(*images)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.zeros((32, 40, 3)), np.zeros((40, 32, 3)), r"one shape .* got \(32, 40, 3\) and \(40, 32, 3\)"),
        (np.zeros((32, 40)), np.zeros((32, 40)), r"\(H, W, 3\)"),
        (np.zeros((30, 40, 3)), np.zeros((30, 40, 3)), r"at least 31x31 pixels, got \(30, 40, 3\)"),
        (np.zeros((32, 40, 3)), np.zeros((32, 40, 3), np.uint8), r"floats in \[0, 1\], got uint8"),
        (np.zeros((32, 40, 3)), np.full((32, 40, 3), 1.5), r"floats in \[0, 1\], got float64 from 1.5 to 1.5"),
        (np.full((32, 40, 3), math.nan), np.zeros((32, 40, 3)), r"floats in \[0, 1\], got float64 from nan to nan"),
    ],
)
def test_images_that_are_refused(a: np.ndarray, b: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lpips_alex(a, b)
