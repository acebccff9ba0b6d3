"""Training branches = folded weights = fused weights, in outputs and gradients, in float64."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from naive_attention import randomise
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from iptv2_diffusion.layers.conv import INITS
from iptv2_diffusion.layers.feed_forward import RepLeFFN
from iptv2_diffusion.layers.reparam import (
    Reparameterised,
    RepDepthwise,
    RepPointwise,
    fuse,
    fuse_state_dict,
    merge_depthwise,
    merge_pointwise,
    split_depthwise,
    split_pointwise,
    unfuse,
    unfuse_state_dict,
)

INIT = INITS["torch"]
EXACT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}
MODULES: dict[str, Callable[[], nn.Module]] = {
    "pointwise": lambda: RepPointwise(4, 6, 5, init=INIT),
    "depthwise": lambda: RepDepthwise(4, init=INIT),
    "feed-forward": lambda: RepLeFFN(4, init=INIT),
}
MANY, FEW = (16, 16), (1, 2)  # pixels: folded, and literally


def randomised(kind: str) -> nn.Module:
    module = MODULES[kind]().double()
    randomise(module)
    return module


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def literal(module: nn.Module) -> nn.Module:
    module = copy.deepcopy(module)
    for child in module.modules():
        if isinstance(child, Reparameterised):
            child.literal = True
    return module


def fused(module: nn.Module) -> nn.Module:
    module = copy.deepcopy(module)
    fuse(module)
    return module


@torch.no_grad()
@pytest.mark.parametrize("size", [MANY, FEW, (1, 1), (3, 7)], ids=str)
@pytest.mark.parametrize("kind", MODULES)
def test_branches_equal_folded_equal_fused(kind: str, size: tuple[int, int]) -> None:
    """Whole maps, so borders included."""
    module = randomised(kind)
    x = random(2, 4, *size)
    expected = literal(module)(x)
    torch.testing.assert_close(module(x), expected, **EXACT)
    torch.testing.assert_close(fused(module)(x), expected, **EXACT)


@pytest.mark.parametrize("size", [MANY, FEW], ids=str)
@pytest.mark.parametrize("kind", MODULES)
def test_folding_changes_no_gradient(kind: str, size: tuple[int, int]) -> None:
    module, x = randomised(kind), random(2, 4, *size)
    gradients = []
    for form in (module, literal(module)):
        inputs = x.clone().requires_grad_()
        out = form(inputs)
        out.backward(random(*out.shape, seed=1))
        gradients.append({"input": inputs.grad} | {name: p.grad for name, p in form.named_parameters()})
    folded, reference = gradients
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in reference.values())
    torch.testing.assert_close(folded, reference, **EXACT)


@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 5, 6, 8, 64])
def test_stacked_pointwise_runs_the_cheaper_form(tokens: int) -> None:
    """Folding costs inner x in x out once, then tokens x in x out; literally it is tokens x inner x (in + out)."""
    inputs, outputs, inner = 4, 16, 8
    module = RepPointwise(inputs, outputs, inner, init=INIT)
    x = torch.randn(1, inputs, 1, tokens)
    with FlopCounterMode(display=False) as counter:
        module(x)
    folding = inner * inputs * outputs + tokens * inputs * outputs
    assert counter.get_total_flops() == 2 * min(folding, tokens * inner * (inputs + outputs))
    module.fuse()
    with FlopCounterMode(display=False) as counter:
        module(x)
    assert counter.get_total_flops() == 2 * tokens * inputs * outputs


@torch.no_grad()
@pytest.mark.parametrize("kind", MODULES)
def test_fuse_and_unfuse_in_any_order(kind: str) -> None:
    module, x = randomised(kind), random(2, 4, 6, 5)
    expected = literal(module)(x)
    shapes = {name: p.shape for name, p in module.named_parameters()}
    small = {name: p.shape for name, p in fused(module).named_parameters()}
    for function in (unfuse, fuse, fuse, unfuse, unfuse, fuse):
        function(module)
        wanted = small if function is fuse else shapes
        assert {name: p.shape for name, p in module.named_parameters()} == wanted
        assert all(p.requires_grad and p.dtype == torch.float64 for p in module.parameters())
        torch.testing.assert_close(module(x), expected, **EXACT)
        torch.testing.assert_close(literal(module)(x), expected, **EXACT)


def test_unfused_factors_all_learn() -> None:
    """Also where the inner width exceeds the rank: no unit may be stuck at zero on both sides."""
    module = fused(randomised("feed-forward"))
    unfuse(module)
    out = module(random(2, 4, 6, 5))
    out.backward(random(*out.shape, seed=1))
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None
        assert (parameter.grad != 0).all(), name


@torch.no_grad()
def test_unfusing_factors_narrower_than_the_layer() -> None:
    """inner 2 < rank 4 of a general weight, but a weight that came from such factors has rank 2."""
    module = RepPointwise(4, 6, 2, init=INIT).double()
    randomise(module)
    x = random(2, 4, 6, 5)
    expected = module(x)
    module.fuse()
    module.unfuse()
    torch.testing.assert_close(module(x), expected, **EXACT)


@torch.no_grad()
def test_merge_and_split_are_inverse() -> None:
    weight = random(6, 4, 1, 1)
    torch.testing.assert_close(merge_pointwise(*split_pointwise(weight, 9)), weight, **EXACT)
    assert [tuple(factor.shape) for factor in split_pointwise(weight, 9)] == [(9, 4, 1, 1), (6, 9, 1, 1)]
    first, second = split_pointwise(weight, 9)
    torch.testing.assert_close(first.norm(), second.norm(), **EXACT)
    kernel = random(3, 1, 5, 5)
    torch.testing.assert_close(merge_depthwise(*split_depthwise(kernel)), kernel, **EXACT)


@torch.no_grad()
def test_depthwise_merge_in_numbers() -> None:
    ones = [torch.ones(1, 1, side, side) for side in (5, 3, 1)]
    expected = torch.ones(5, 5)
    expected[1:4, 1:4] = 2
    expected[2, 2] = 4  # 5x5, 3x3, 1x1 and the identity
    torch.testing.assert_close(merge_depthwise(*ones)[0, 0], expected)


class Pair(nn.Module):
    """Something to keep, beside two feed-forwards at different depths."""

    def __init__(self, *, fused: bool = False) -> None:
        super().__init__()
        self.outer = RepLeFFN(4, init=INIT, fused=fused)
        self.inside = nn.Sequential(nn.BatchNorm2d(4), RepLeFFN(4, init=INIT, fused=fused))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inside(self.outer(x))


@torch.no_grad()
def test_state_dict_conversion_equals_fusing_the_module() -> None:
    model = Pair().double()
    randomise(model)
    x = random(1, 4, 5, 6)
    expected = model.eval()(x)
    converted = fuse_state_dict(model.state_dict())
    torch.testing.assert_close(converted, dict(fused(model).state_dict()), **EXACT)
    built_fused = Pair(fused=True).double().eval()
    built_fused.load_state_dict(converted)
    torch.testing.assert_close(built_fused(x), expected, **EXACT)


@torch.no_grad()
def test_state_dict_conversion_back_loads_into_a_training_form() -> None:
    model = Pair(fused=True).double()
    randomise(model)
    x = random(1, 4, 5, 6)
    expected = model.eval()(x)
    training = Pair().double().eval()
    training.load_state_dict(unfuse_state_dict(model.state_dict(), inner_ratio=0.5))
    torch.testing.assert_close(literal(training)(x), expected, **EXACT)
    unfuse(model)
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in training.state_dict().items()}


@torch.no_grad()
def test_conversion_of_one_convolution_by_itself() -> None:
    """Keys without a prefix."""
    for kind in ("pointwise", "depthwise"):
        module = randomised(kind)
        torch.testing.assert_close(fuse_state_dict(module.state_dict()), dict(fused(module).state_dict()), **EXACT)


@torch.no_grad()
@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 256), (256, 64)])
def test_stacked_pointwise_starts_as_a_single_one(init: str, inputs: int, outputs: int) -> None:
    """Output std at initialisation, against PyTorch's own initialisers on one 1x1 convolution."""
    torch.manual_seed(0)
    single = nn.Conv2d(inputs, outputs, 1, bias=False)
    if init == "xavier":
        nn.init.xavier_uniform_(single.weight)
    x = torch.randn(1, inputs, 24, 24)
    expected = single(x).std().item()
    for fused in (False, True):
        stacked = RepPointwise(inputs, outputs, 128, init=INITS[init], fused=fused)
        assert stacked(x).std().item() == pytest.approx(expected, rel=0.04)
        assert stacked.weight().std().item() == pytest.approx(single.weight.std().item(), rel=0.04)


@torch.no_grad()
def test_precision_of_half_weights_survives_unfusing() -> None:
    """The decomposition runs in float64 whatever the weights are."""
    module = fused(randomised("pointwise")).bfloat16()
    weight = module.state_dict()["fused"].clone()
    unfuse(module)
    fuse(module)
    assert module.state_dict()["fused"].dtype == torch.bfloat16
    torch.testing.assert_close(module.state_dict()["fused"], weight, rtol=0.02, atol=0.02)
