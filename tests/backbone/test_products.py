"""The formulas against the multiplications that the layers really run, and against loops where a kernel hides them."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from iptv2_diffusion.backbone.products import PRODUCTS
from iptv2_diffusion.layers.attention import FCSA, GGSA, MDTA
from iptv2_diffusion.layers.conv import INITS
from iptv2_diffusion.layers.feed_forward import GDFN
from iptv2_diffusion.layers.norm import BiasFreeNorm, CentredNorm
from iptv2_diffusion.layers.residual import AdaLNZeroResidual
from iptv2_diffusion.metrics.complexity import products

INIT = INITS["torch"]


class Multiplications(TorchDispatchMode):
    """Counts the output elements of every product of two tensors."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.mul.Tensor, torch.ops.aten.addcmul.default):
            self.count += result.numel()
        return result


def by_formula(layer: nn.Module, *inputs: torch.Tensor) -> int:
    with torch.no_grad(), products(layer, PRODUCTS) as counts:
        layer(*inputs)
    return sum(counts)


def by_running(layer: nn.Module, *inputs: torch.Tensor) -> int:
    with torch.no_grad(), Multiplications() as mode:
        layer(*inputs)
    return mode.count


@pytest.mark.parametrize("size", [(8, 8), (16, 24), (4, 12), (9, 14)])
@pytest.mark.parametrize(
    "layer",
    [
        FCSA(8, 2, 4, init=INIT),
        FCSA(8, 2, 4, init=INIT, shift="cyclic"),
        FCSA(8, 2, 4, init=INIT, bottom=False),
        MDTA(8, 2, init=INIT),
        GDFN(8, init=INIT),
    ],
    ids=["interior", "cyclic", "top", "mdta", "gdfn"],
)
def test_formula_is_what_the_layer_runs(layer: nn.Module, size: tuple[int, int]) -> None:
    x = torch.zeros(2, 8, *size)
    assert by_formula(layer, x) == by_running(layer, x) > 0


@pytest.mark.parametrize(("size", "grid"), [((16, 16), 4), ((24, 40), 16), ((5, 7), 8), ((9, 12), 4)])
def test_attention_maps_are_scaled_among_real_tokens(size: tuple[int, int], grid: int) -> None:
    height, width = size
    rows, columns = -(-height // grid), -(-width // grid)  # of a cubby
    groups = Counter((y % rows, x % columns) for y in range(height) for x in range(width))
    pairs = sum(tokens**2 for tokens in groups.values())
    assert by_formula(GGSA(8, 2, grid, init=INIT), torch.zeros(3, 8, height, width)) == 3 * 2 * pairs


@pytest.mark.parametrize("norm", [BiasFreeNorm, CentredNorm])
def test_a_norm_costs_its_weight(norm: type[BiasFreeNorm] | type[CentredNorm]) -> None:
    assert by_formula(norm(8), torch.zeros(2, 8, 5, 7)) == 2 * 8 * 5 * 7


def test_a_conditioned_residual_costs_scale_and_gate() -> None:
    layer = AdaLNZeroResidual(8, nn.Identity(), cond_dim=6)
    inputs = torch.zeros(2, 8, 5, 7), torch.zeros(2, 6)
    assert by_formula(layer, *inputs) == by_running(layer, *inputs) == 2 * 2 * 8 * 5 * 7
