from typing import Any

import pytest
import torch
from naive_attention import randomise
from torch import nn

from iptv2_diffusion.layers.norm import EPS
from iptv2_diffusion.layers.residual import AdaLNZeroResidual, PlainResidual, make_residual

EXACT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def body() -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Tanh())


def normalised(x: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean(1, keepdim=True)
    return centred / ((centred**2).mean(1, keepdim=True) + EPS).sqrt()


@torch.no_grad()
def test_plain_is_x_plus_body_of_norm() -> None:
    residual: Any = PlainResidual(4, body(), "centred").double()
    randomise(residual)
    x = random(2, 4, 3, 5)
    normed = normalised(x) * residual.norm.weight[:, None, None] + residual.norm.bias[:, None, None]
    torch.testing.assert_close(residual(x), x + residual.body(normed), **EXACT)


@torch.no_grad()
def test_conditioned_modulates_each_sample_by_its_condition() -> None:
    """shift, scale, gate are three thirds of Linear(cond): x + gate * body(LN(x) * (1 + scale) + shift)."""
    residual = AdaLNZeroResidual(4, body(), 6).double()
    randomise(residual)
    x, cond = random(2, 4, 3, 5), random(2, 6, seed=1)
    for image, condition, out in zip(x, cond, residual(x, cond), strict=True):
        modulation = residual.modulation.weight @ condition + residual.modulation.bias
        shift, scale, gate = modulation.view(3, 4, 1, 1)
        expected = image + gate * residual.body(normalised(image[None]) * (1 + scale) + shift)[0]
        torch.testing.assert_close(out, expected, **EXACT)


@torch.no_grad()
def test_conditioned_is_bitwise_the_identity_at_initialisation() -> None:
    residual = AdaLNZeroResidual(4, body(), 6)
    x = random(2, 4, 8, 5).float()
    assert torch.equal(residual(x, random(2, 6, seed=1).float()), x)


@torch.no_grad()
def test_plain_equals_conditioned_under_the_affine_map() -> None:
    """shift = bias, scale = weight - 1, gate = 1."""
    plain: Any = PlainResidual(4, body(), "centred").double()
    randomise(plain)
    conditioned = AdaLNZeroResidual(4, plain.body, 6).double()
    weight, bias = plain.norm.weight, plain.norm.bias
    conditioned.modulation.bias.copy_(torch.cat([bias, weight - 1, torch.ones(4)]))
    x = random(2, 4, 3, 5)
    torch.testing.assert_close(conditioned(x, random(2, 6, seed=1)), plain(x), **EXACT)


def test_the_factory_makes_the_kind_that_the_condition_asks_for() -> None:
    plain = make_residual(None, "bias_free")(4, body())
    conditioned = make_residual(6, "bias_free")(4, body())
    assert isinstance(plain, PlainResidual)
    assert isinstance(conditioned, AdaLNZeroResidual)
    assert {name for name, _ in plain.named_parameters() if not name.startswith("body")} == {"norm.weight"}
    shapes = {name: tuple(p.shape) for name, p in conditioned.named_parameters() if not name.startswith("body")}
    assert shapes == {"modulation.weight": (12, 6), "modulation.bias": (12,)}


@pytest.mark.parametrize("layer", ["body.0.weight", "body.0.bias"])
def test_the_body_learns_once_the_gate_has_moved(layer: str) -> None:
    residual = AdaLNZeroResidual(4, body(), 6).double()
    x, cond = random(2, 4, 3, 5), random(2, 6, seed=1)
    residual(x, cond).square().sum().backward()
    assert (residual.get_parameter("modulation.weight").grad != 0).any()
    assert (residual.get_parameter(layer).grad == 0).all()
    randomise(residual)
    residual.zero_grad()
    residual(x, cond).square().sum().backward()
    assert (residual.get_parameter(layer).grad != 0).all()
