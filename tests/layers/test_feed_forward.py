"""The four feed-forward networks against their formulas, in float64."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from naive_attention import randomise
from torch import nn

from iptv2_diffusion.layers.conv import INITS
from iptv2_diffusion.layers.feed_forward import FFN, GDFN, LeFFN, RepLeFFN

INIT = INITS["torch"]
EXACT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}
WIDTH = 4
Weights = list[torch.Tensor]


def gelu(x: torch.Tensor) -> torch.Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def local(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Depthwise, zeros around the map."""
    return F.conv2d(x, kernel, padding=kernel.shape[-1] // 2, groups=len(kernel))


def ffn(x: torch.Tensor, weights: Weights) -> torch.Tensor:
    expand, reduce = weights
    return F.conv2d(gelu(F.conv2d(x, expand)), reduce)


def leffn(x: torch.Tensor, weights: Weights) -> torch.Tensor:
    expand, kernel, reduce = weights
    return F.conv2d(local(gelu(F.conv2d(x, expand)), kernel), reduce)


def rep_leffn(x: torch.Tensor, weights: Weights) -> torch.Tensor:
    """Every 1x1 is two; the depthwise one is 5x5 + 3x3 + 1x1 + identity (Eq. 6)."""
    expand1, expand2, kernel5, kernel3, kernel1, reduce1, reduce2 = weights
    x = gelu(F.conv2d(F.conv2d(x, expand1), expand2))
    x = local(x, kernel5) + local(x, kernel3) + local(x, kernel1) + x
    return F.conv2d(F.conv2d(x, reduce1), reduce2)


def gdfn(x: torch.Tensor, weights: Weights) -> torch.Tensor:
    expand, kernel, reduce = weights
    gate, value = local(F.conv2d(x, expand), kernel).chunk(2, dim=1)
    return F.conv2d(gelu(gate) * value, reduce)


KINDS: dict[str, tuple[type[nn.Module], Callable[[torch.Tensor, Weights], torch.Tensor]]] = {
    "ffn": (FFN, ffn),
    "leffn": (LeFFN, leffn),
    "rep_leffn": (RepLeFFN, rep_leffn),
    "gdfn": (GDFN, gdfn),
}


@torch.no_grad()
@pytest.mark.parametrize("size", [(7, 9), (3, 2), (1, 1)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_equals_its_formula(kind: str, size: tuple[int, int]) -> None:
    make, formula = KINDS[kind]
    module = make(WIDTH, init=INIT).double()
    randomise(module)
    x = torch.randn(2, WIDTH, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(module(x), formula(x, list(module.parameters())), **EXACT)


@pytest.mark.parametrize(
    ("module", "parameters"),
    [
        (FFN(8, init=INIT), 8 * 8**2),
        (LeFFN(8, init=INIT), 8 * 8**2 + 100 * 8),
        (RepLeFFN(8, init=INIT, fused=True), 8 * 8**2 + 100 * 8),
        # Inner width 2c: c -> 2c -> 4c and 4c -> 2c -> c; kernels of 25 + 9 + 1 on 4c.
        (RepLeFFN(8, init=INIT), 2 * (2 + 8) * 8**2 + 35 * 4 * 8),
        (RepLeFFN(8, init=INIT, inner_ratio=1), 2 * (4 + 16) * 8**2 + 35 * 4 * 8),
        # int(2.66 * 8) = 21
        (GDFN(8, init=INIT), 8 * 42 + 9 * 42 + 21 * 8),
    ],
    ids=["ffn", "leffn", "fused", "factors", "wide factors", "gdfn"],
)
def test_parameters(module: nn.Module, parameters: int) -> None:
    assert sum(p.numel() for p in module.parameters()) == parameters


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind: str) -> None:
    make, _ = KINDS[kind]
    module = make(2, init=INIT).double()
    randomise(module)
    names = [name for name, _ in module.named_parameters()]

    def run(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), x)

    x = torch.randn(1, 2, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    # fast_mode: along random directions, or the 5x5 kernels would take seconds.
    assert torch.autograd.gradcheck(
        run, (x, *(p.detach().requires_grad_() for p in module.parameters())), fast_mode=True
    )
