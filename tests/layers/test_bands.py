"""Layers in bands of rows against the same layers in one piece."""

from typing import Any

import naive_attention as naive
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from iptv2_diffusion.layers import bands
from iptv2_diffusion.layers.attention import FCSA, GGSA
from iptv2_diffusion.layers.conv import INITS
from iptv2_diffusion.layers.feed_forward import RepLeFFN
from iptv2_diffusion.layers.residual import PlainResidual

INIT = INITS["torch"]
EXACT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}
LAYERS = [
    FCSA(4, 2, 4, init=INIT),
    FCSA(4, 1, 2, init=INIT, shift="cyclic"),
    GGSA(4, 2, 4, init=INIT),
    PlainResidual(4, RepLeFFN(4, init=INIT), "bias_free"),
    PlainResidual(4, RepLeFFN(4, init=INIT, fused=True), "centred"),
]


@pytest.fixture(params=[1, 400, 1500])
def small_bands(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "LARGE", request.param)


@pytest.mark.usefixtures("small_bands")
@pytest.mark.parametrize("size", [(24, 8), (25, 7), (9, 16), (3, 40), (1, 5)], ids=str)
@pytest.mark.parametrize("layer", LAYERS, ids=["interior", "cyclic", "grid", "ffn", "fused"])
def test_bands_change_nothing(layer: nn.Module, size: tuple[int, int]) -> None:
    layer = layer.double()
    naive.randomise(layer)
    x = torch.randn(2, 4, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = layer(x).detach()  # gradients are on: in one piece
    with torch.no_grad():
        torch.testing.assert_close(layer(x), whole, **EXACT)


def test_a_body_sees_bands_with_their_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "LARGE", 2 * 6 * 5 * 4)
    x, kernel = torch.randn(1, 2, 20, 5), torch.randn(2, 2, 3, 3)
    seen = []

    def body(rows: torch.Tensor) -> torch.Tensor:
        seen.append(rows.shape[2])
        return F.conv2d(rows, kernel, padding=1)

    with torch.no_grad():
        out = bands.in_bands(body, x, widest=6, reach=1)
    torch.testing.assert_close(out, F.conv2d(x, kernel, padding=1))
    assert seen == [5, 6, 6, 6, 5]  # four rows each, and one on every side that has one


def test_with_gradients_or_small_maps_the_body_runs_once() -> None:
    calls = []

    def body(rows: torch.Tensor) -> torch.Tensor:
        calls.append(rows.shape)
        return rows

    x = torch.zeros(1, 2, 20, 5)
    bands.in_bands(body, x, widest=2**30)
    with torch.no_grad():
        bands.in_bands(body, x, widest=8)
    assert calls == [x.shape, x.shape]
