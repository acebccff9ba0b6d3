"""The U against its wiring written out by hand; gradients in every variant; wrong use."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from iptv2_diffusion.backbone.block import ParallelLayers, TransformerLayer
from iptv2_diffusion.backbone.config import BackboneConfig
from iptv2_diffusion.backbone.u_shape import UShape
from iptv2_diffusion.layers.attention import FCSA, GGSA, MDTA

TINY: dict[str, Any] = {"width": 4, "layers": (2, 2), "heads": (1, 2), "window": 8, "grid": 4}
EXACT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}


def make(**fields: Any) -> Any:  # pyright cannot know the attributes of a module
    return UShape(BackboneConfig(**(TINY | fields)))


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Every parameter near its initial value but at no special one, such as the zeros of AdaLN."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data.add_(0.2 * noise)


def maps(channels: int, height: int, width: int, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, channels, height, width, generator=generator, dtype=torch.float64)


def kinds(layers: Any) -> list[type[nn.Module]]:
    return [type(layer.attention.body) for layer in layers]


@torch.no_grad()
def test_wiring() -> None:
    """Skips are concatenated behind the upsampled map; reduced by a 1x1 on every level but the top one."""
    net = make(layers=(1, 2, 1), heads=(1, 2, 2), refinement=1).double()
    randomise(net)
    x = maps(4, 12, 20)

    def run(layers: nn.ModuleList, features: torch.Tensor) -> torch.Tensor:
        for layer in layers:
            features = layer(features)
        return features

    def shrunk(level: int, features: torch.Tensor) -> torch.Tensor:
        (weight,) = net.downs[level].parameters()
        return F.pixel_unshuffle(F.conv2d(features, weight, padding=1), 2)

    def grown(level: int, features: torch.Tensor) -> torch.Tensor:
        (weight,) = net.ups[level].parameters()
        return F.pixel_shuffle(F.conv2d(features, weight, padding=1), 2)

    (reduce,) = net.reduces.parameters()
    top = run(net.encoder[0], x)
    middle = run(net.encoder[1], shrunk(0, top))
    out = run(net.bottom, shrunk(1, middle))
    out = F.conv2d(torch.cat([grown(1, out), middle], 1), reduce)
    out = run(net.decoder[1], out)
    out = run(net.decoder[0], torch.cat([grown(0, out), top], 1))
    torch.testing.assert_close(net(x), run(net.refinement, out), **EXACT)


@torch.no_grad()
def test_one_level_is_its_layers_and_keeps_the_width() -> None:
    net = make(layers=(2,), heads=(1,), refinement=1).double()
    randomise(net)
    x = expected = maps(4, 7, 5)
    for layer in [*net.bottom, *net.refinement]:
        expected = layer(expected)
    torch.testing.assert_close(net(x), expected, **EXACT)


def test_widths_heads_windows_and_grids_by_level() -> None:
    net = make(width=8, layers=(2, 2, 2, 2), heads=(1, 2, 4, 8), window=32, grid=16, refinement=2)
    places = [*net.encoder, net.bottom, *net.decoder, net.refinement]
    expected = [(8, 1, 32), (16, 2, 16), (32, 4, 8), (64, 8, 4), (16, 1, 32), (16, 2, 16), (32, 4, 8), (16, 1, 32)]
    found = []
    for layers in places:
        fcsa, ggsa = (layer.attention.body for layer in layers)
        assert ggsa.grid == 16
        assert ggsa.heads == fcsa.heads
        found.append((fcsa.project.in_channels, fcsa.heads, fcsa.window))
    assert found == expected


@pytest.mark.parametrize(
    ("attention", "expected"),
    [
        (("fcsa", "ggsa"), [FCSA, GGSA, FCSA]),
        (("ggsa", "fcsa"), [GGSA, FCSA, GGSA]),
        (("fcsa",), [FCSA] * 3),
        (("ggsa",), [GGSA] * 3),
        (("mdta", "ggsa"), [MDTA, GGSA, MDTA]),
    ],
)
def test_attentions_alternate_within_every_level(attention: tuple[str, ...], expected: list[type]) -> None:
    net = make(layers=(3, 3), refinement=3, attention=attention)
    for layers in [*net.encoder, net.bottom, *net.decoder, net.refinement]:
        assert kinds(layers) == expected


@torch.no_grad()
def test_parallel_merges_both_sides_by_a_pointwise_convolution() -> None:
    net = make(parallel=True, layers=(4, 2), refinement=2).double()
    randomise(net)
    assert [len(layers) for layers in (net.encoder[0], net.bottom, net.refinement)] == [2, 1, 1]
    pair, x = net.bottom[0], maps(8, 4, 6)
    assert isinstance(pair, ParallelLayers)
    assert kinds(pair.sides) == [FCSA, GGSA]
    expected = F.conv2d(torch.cat([side(x) for side in pair.sides], 1), pair.merge.weight)
    torch.testing.assert_close(pair(x), expected, **EXACT)


@torch.no_grad()
def test_a_layer_is_attention_then_feed_forward() -> None:
    """x + attention(LN(x)), then x + ffn(LN(x)) (Eq. 1)."""
    layer: Any = TransformerLayer(BackboneConfig(**TINY, norm="centred"), 0, 4, "fcsa").double()
    randomise(layer)
    x = maps(4, 8, 8)
    attention, feed_forward = layer.attention, layer.feed_forward
    hidden = x + attention.body(attention.norm(x))
    torch.testing.assert_close(layer(x), hidden + feed_forward.body(feed_forward.norm(hidden)), **EXACT)


VARIANTS: dict[str, dict[str, Any]] = {
    "denoiser": {"cond_dim": 6, "size": 16, "init": "xavier"},
    "denoiser, xavier, three levels": {"cond_dim": 6, "layers": (2, 2, 2), "heads": (1, 2, 4), "size": 16},
    "denoiser, refinement": {"cond_dim": 6, "size": 16, "refinement": 2},
    "denoiser, one window": {"cond_dim": 6, "size": 16, "window": 16},
    "denoising": {"norm": "bias_free"},
    "other restoration": {"norm": "centred", "refinement": 2},
    "restormer": {"attention": ("mdta",), "feed_forward": "gdfn"},
    "mdta and ggsa": {"attention": ("mdta", "ggsa"), "feed_forward": "gdfn"},
    "ffn": {"feed_forward": "ffn"},
    "leffn": {"feed_forward": "leffn"},
    "gdfn": {"feed_forward": "gdfn"},
    "rep-leffn, wide": {"inner_ratio": 1.0},
    "rep-leffn, fused": {"fused": True},
    "all fcsa": {"attention": ("fcsa",)},
    "all ggsa": {"attention": ("ggsa",)},
    "ggsa first": {"attention": ("ggsa", "fcsa")},
    "parallel": {"parallel": True},
    "parallel, conditioned": {"parallel": True, "cond_dim": 6},
    "pointwise resampling": {"resample_kernel": 1},
    "cyclic": {"shift": "cyclic"},
    "no relative bias": {"relative_bias": False},
    "grid 8": {"grid": 8},
}


def learning(net: nn.Module) -> dict[str, float]:
    """Share of every parameter's entries that got a gradient."""
    return {name: 0.0 if p.grad is None else (p.grad != 0).double().mean().item() for name, p in net.named_parameters()}


@pytest.mark.parametrize("size", [(16, 16), (20, 24)], ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_gradient_reaches_every_parameter(variant: str, size: tuple[int, int]) -> None:
    net = make(**VARIANTS[variant])
    randomise(net)
    x, cond_dim = maps(4, *size).float(), net.config.cond_dim
    cond = None if cond_dim is None else torch.randn(2, cond_dim)
    out = net(x, cond)
    assert out.shape == (2, 8, *size)
    (out * torch.randn_like(out)).sum().backward()
    # Every entry; but padded grids never hold the largest relative positions.
    least = {name: 0.3 if "position" in name and size != (16, 16) else 1 for name, _ in net.named_parameters()}
    assert {name: share for name, share in learning(net).items() if share < least[name]} == {}


@torch.no_grad()
@pytest.mark.parametrize("size", [(16, 16), (8, 24), (2, 2)], ids=str)
def test_conditioned_layers_are_the_identity_at_initialisation(size: tuple[int, int]) -> None:
    """Bitwise, so that only stem, resampling and head act on the first step."""
    net = make(cond_dim=6)
    layers: list[Any] = [layer for layer in net.modules() if isinstance(layer, TransformerLayer)]
    assert len(layers) == 6
    for layer in layers:
        width = layer.attention.modulation.out_features // 3
        x = maps(width, *size).float()
        assert torch.equal(layer(x, torch.randn(2, 6)), x)


@torch.no_grad()
def test_plain_equals_conditioned_under_the_affine_map() -> None:
    plain, conditioned = make(norm="centred").double(), make(cond_dim=6).double()
    randomise(plain)
    shared = {name: value for name, value in plain.state_dict().items() if ".norm." not in name}
    missing = conditioned.load_state_dict(shared, strict=False).missing_keys
    assert all("modulation" in name for name in missing)
    for name, module in conditioned.named_modules():
        if name.endswith("modulation"):
            norm = plain.get_submodule(name.removesuffix("modulation") + "norm")
            weight, bias = norm.get_parameter("weight"), norm.get_parameter("bias")
            module.get_parameter("bias").copy_(torch.cat([bias, weight - 1, torch.ones_like(bias)]))
    x = maps(4, 16, 12)
    torch.testing.assert_close(conditioned(x, torch.randn(2, 6, dtype=torch.float64)), plain(x), **EXACT)


@pytest.mark.parametrize("size", [(15, 16), (16, 2), (18, 18)], ids=str)
def test_other_sizes_are_refused_with_the_multiple(size: tuple[int, int]) -> None:
    net = make(layers=(1, 1, 1), heads=(1, 1, 1))
    with pytest.raises(ValueError, match=r"multiples of 4.*" + str(size[0])):
        net(maps(4, *size).float())


def test_a_condition_is_given_exactly_where_there_is_one() -> None:
    x = maps(4, 4, 4).float()
    with pytest.raises(ValueError, match=r"cond_dim is 6.*missing"):
        make(cond_dim=6)(x)
    with pytest.raises(ValueError, match=r"cond_dim is None.*given"):
        make()(x, torch.zeros(2, 6))


@torch.no_grad()
@pytest.mark.parametrize("size", [(2, 2), (6, 10), (34, 14)], ids=str)
def test_any_multiple_keeps_its_size(size: tuple[int, int]) -> None:
    out = make()(maps(4, *size, batch=1).float())
    assert out.shape == (1, 8, *size)
    assert out.isfinite().all()


@torch.no_grad()
def test_images_of_a_batch_do_not_mix() -> None:
    net = make(cond_dim=6).double()
    randomise(net)
    x, cond = maps(4, 10, 14, batch=3), torch.randn(3, 6, dtype=torch.float64)
    expected = torch.cat([net(x[i : i + 1], cond[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(net(x, cond), expected, **EXACT)
