import pytest
import torch
import torch.nn.functional as F
from torch import nn

from iptv2_diffusion.metrics.complexity import macs, parameters, products


class Attention(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(x, x, x)


def on_meta(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


def test_convolutions_and_linear_layers_are_counted() -> None:
    pixels = 6 * 10
    assert macs(nn.Conv2d(4, 8, 3, padding=1, device="meta"), on_meta(2, 4, 6, 10)) == 2 * pixels * 9 * 4 * 8
    assert macs(nn.Conv2d(4, 4, 5, padding=2, groups=4, device="meta"), on_meta(1, 4, 6, 10)) == pixels * 25 * 4
    assert macs(nn.Linear(3, 5, device="meta"), on_meta(7, 3)) == 7 * 3 * 5


def test_attention_is_counted() -> None:
    batch, heads, tokens, depth = 2, 3, 5, 8
    assert macs(Attention(), on_meta(batch, heads, tokens, depth)) == 2 * batch * heads * tokens**2 * depth


def test_products_follow_the_rules_at_the_shapes_met() -> None:
    gelu = nn.GELU()
    module = nn.Sequential(nn.Linear(3, 5), gelu, nn.Linear(5, 2), gelu)
    rules = {nn.GELU: lambda layer, shape: shape.numel(), nn.Linear: lambda layer, shape: 100 * layer.out_features}
    with products(module, rules) as counts:
        module(torch.zeros(4, 3))
    assert counts == [500, 4 * 5, 200, 4 * 2]


def test_no_hook_is_left_behind() -> None:
    module = nn.Sequential(nn.GELU())
    with pytest.raises(RuntimeError), products(module, {nn.GELU: lambda layer, shape: 1}):
        raise RuntimeError
    assert not module[0]._forward_pre_hooks


def test_a_shared_parameter_counts_once() -> None:
    linear = nn.Linear(3, 5, device="meta")
    assert parameters(nn.Sequential(linear, linear)) == 3 * 5 + 5
