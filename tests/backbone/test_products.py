"""The formulas against the multiplications of the equations as they are written, and against loops where a kernel hides them.

The layers themselves may compute the same function with fewer."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from iptv2_diffusion.backbone.products import PRODUCTS
from iptv2_diffusion.layers.attention import FCSA, GGSA, MDTA
from iptv2_diffusion.layers.conv import INITS
from iptv2_diffusion.layers.feed_forward import GDFN
from iptv2_diffusion.layers.norm import BiasFreeNorm, CentredNorm
from iptv2_diffusion.layers.residual import AdaLNZeroResidual
from iptv2_diffusion.layers.windows import from_windows, pad_to_multiple, to_windows
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


def by_running(layer: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> int:
    with torch.no_grad(), Multiplications() as mode:
        layer(*inputs)
    return mode.count


def literal_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    return v @ (F.normalize(q, dim=-2).mT @ F.normalize(k, dim=-2) * temperature).softmax(-1).mT


def literal_branch(branch: Any, qkv: torch.Tensor) -> torch.Tensor:
    q, k, v = to_windows(qkv, branch.window, branch.heads, parts=3)
    weight = branch.token_weight.flatten(1)[:, :, None]
    return from_windows(literal_attention(q * weight, k * weight, v, branch.temperature), branch.window)


def literal_fcsa(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """Eq. 2 and 3 as they are written."""
    qkv = pad_to_multiple(layer.local(layer.qkv(x)), layer.window)
    top, half = literal_branch(layer.top, qkv), layer.window // 2
    repeats = (1, qkv.shape[-2] // layer.window, qkv.shape[-1] // layer.window)
    weights = [w.repeat(repeats).repeat_interleave(top.shape[1] // layer.heads, 0) for w in merge_weights(layer)]
    merged = top * weights[0]
    if layer.bottom is not None:
        bottom = top.clone()
        if layer.merge == layer._cyclic:
            rolled = literal_branch(layer.bottom, qkv.roll((-half, -half), (-2, -1)))
            bottom = rolled.roll((half, half), (-2, -1))
        elif min(qkv.shape[-2:]) > layer.window:
            inside = (..., slice(half, -half), slice(half, -half))
            bottom[inside] = literal_branch(layer.bottom, qkv[inside])
        merged = merged + bottom * weights[1]
    return layer.project(merged[..., : x.shape[-2], : x.shape[-1]])


def merge_weights(layer: Any) -> list[torch.Tensor]:
    return [weight for weight in (layer.weight_top, layer.weight_bottom) if weight is not None]


def literal_mdta(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """Restormer's, without token weights."""
    parts = layer.local(layer.qkv(x)).chunk(3, dim=1)
    q, k, v = (part.flatten(2).unflatten(1, (layer.heads, -1)).mT for part in parts)
    out = literal_attention(q, k, v, layer.temperature)
    return layer.project(out.mT.flatten(1, 2).unflatten(2, x.shape[-2:]))


LITERAL: list[tuple[nn.Module, Any]] = [
    (FCSA(8, 2, 4, init=INIT), literal_fcsa),
    (FCSA(8, 2, 4, init=INIT, shift="cyclic"), literal_fcsa),
    (FCSA(8, 2, 4, init=INIT, bottom=False), literal_fcsa),
    (MDTA(8, 2, init=INIT), literal_mdta),
    (GDFN(8, init=INIT), lambda layer, x: layer(x)),
]


@pytest.mark.parametrize("size", [(8, 8), (16, 24), (4, 12), (9, 14)])
@pytest.mark.parametrize(("layer", "literal"), LITERAL, ids=["interior", "cyclic", "top", "mdta", "gdfn"])
def test_formula_counts_the_equations(layer: nn.Module, literal: Any, size: tuple[int, int]) -> None:
    x = torch.randn(2, 8, *size, generator=torch.Generator().manual_seed(0))
    assert by_formula(layer, x) == by_running(partial(literal, layer), x) > 0
    torch.testing.assert_close(layer(x), literal(layer, x))


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
