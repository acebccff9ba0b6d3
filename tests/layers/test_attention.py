"""FCSA, GGSA and MDTA against loops, in float64."""

from typing import Any

import naive_attention as naive
import pytest
import torch
from torch import nn
from torch.func import functional_call

from iptv2_diffusion.layers.attention import FCSA, GGSA, MDTA
from iptv2_diffusion.layers.conv import INITS

INIT = INITS["torch"]
EXACT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}
# Multiples of 4, exactly one window or grid, odd, smaller than one window or grid, thin: one side within one window.
SIZES = [(8, 8), (12, 8), (4, 4), (5, 7), (13, 10), (3, 2), (1, 1), (4, 9), (9, 3), (6, 10)]


def maps(channels: int, height: int, width: int, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * 100 + width)
    return torch.randn(batch, channels, height, width, dtype=torch.float64, generator=generator)


def randomised(module: nn.Module) -> Any:  # pyright cannot know the attributes of a module
    module = module.double()
    naive.randomise(module)
    return module


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("shift", ["interior", "cyclic"])
def test_fcsa_equals_loops(shift: str, size: tuple[int, int]) -> None:
    module = randomised(FCSA(4, 2, 4, init=INIT, shift=shift))
    x = maps(4, *size)
    torch.testing.assert_close(module(x), torch.stack([naive.fcsa(module, image, shift) for image in x]), **EXACT)


@torch.no_grad()
@pytest.mark.parametrize("size", [(8, 8), (5, 7), (4, 4), (3, 2)], ids=str)
def test_fcsa_without_bottom_branch_equals_loops(size: tuple[int, int]) -> None:
    module = randomised(FCSA(4, 2, 4, init=INIT, bottom=False))
    x = maps(4, *size)
    torch.testing.assert_close(module(x), torch.stack([naive.fcsa(module, image, "") for image in x]), **EXACT)


@torch.no_grad()
@pytest.mark.parametrize(("heads", "window", "size"), [(1, 2, (6, 5)), (3, 2, (4, 4)), (2, 8, (17, 24))], ids=str)
def test_fcsa_equals_loops_for_other_windows_and_heads(heads: int, window: int, size: tuple[int, int]) -> None:
    module = randomised(FCSA(6, heads, window, init=INIT))
    x = maps(6, *size, batch=1)
    torch.testing.assert_close(module(x)[0], naive.fcsa(module, x[0], "interior"), **EXACT)


@torch.no_grad()
@pytest.mark.parametrize("size", [(4, 12), (12, 3)], ids=str)
def test_on_a_strip_no_wider_than_a_window_the_bottom_branch_does_not_act(size: tuple[int, int]) -> None:
    module = randomised(FCSA(4, 2, 4, init=INIT))
    x = maps(4, *size)
    before = module(x)
    module.bottom.token_weight.mul_(-3).add_(1)
    module.bottom.temperature.add_(2)
    assert torch.equal(module(x), before)


@torch.no_grad()
def test_border_of_the_bottom_branch_is_the_top_branch() -> None:
    """With only w_bottom = 1 and a pointwise identity behind it, the border half a window wide shows F_top."""
    module = randomised(FCSA(4, 2, 4, init=INIT))
    module.project.weight.copy_(torch.eye(4)[:, :, None, None])
    x = maps(4, 12, 8)
    module.weight_top.fill_(1)
    module.weight_bottom.fill_(0)
    top = module(x)
    module.weight_top.fill_(0)
    module.weight_bottom.fill_(1)
    equal = (module(x) == top).all(1).all(0)
    expected = torch.ones(12, 8, dtype=torch.bool)
    expected[2:-2, 2:-2] = False
    assert torch.equal(equal, expected)


def test_fcsa_parameters_and_their_initial_values() -> None:
    module = FCSA(8, 2, 4, init=INIT)
    values = {name: p.detach() for name, p in module.named_parameters() if p.ndim == 3}
    expected = {"top.token_weight": 1, "bottom.token_weight": 1, "weight_top": 0.5, "weight_bottom": 0.5}
    for name, value in expected.items():
        torch.testing.assert_close(values.pop(name), torch.full((2, 4, 4), float(value)))
    assert set(values) == {"top.temperature", "bottom.temperature"}
    for temperature in values.values():
        torch.testing.assert_close(temperature, torch.ones(2, 1, 1))
    assert sum(p.numel() for p in module.parameters()) == 4 * 8 * 8 + 9 * 24 + 4 * 32 + 2 * 2
    alone = FCSA(8, 2, 4, init=INIT, bottom=False)
    assert sum(p.numel() for p in alone.parameters()) == 4 * 8 * 8 + 9 * 24 + 2 * 32 + 2


@torch.no_grad()
@pytest.mark.parametrize("bottom", [True, False])
def test_one_window_over_the_map_is_attention_over_all_pixels(bottom: bool) -> None:
    """At initialisation w_t is 1 and the merge weights sum to 1: FCSA is then MDTA."""
    everywhere = randomised(MDTA(4, 2, init=INIT))
    window: Any = FCSA(4, 2, 8, init=INIT, bottom=bottom).double()
    window.load_state_dict({k: v for k, v in everywhere.state_dict().items() if k != "temperature"}, strict=False)
    window.top.temperature.copy_(everywhere.temperature)
    x = maps(4, 8, 7)
    torch.testing.assert_close(window(x), everywhere(x), **EXACT)


@torch.no_grad()
@pytest.mark.parametrize("size", [(4, 6), (5, 7), (1, 1)], ids=str)
def test_mdta_equals_loops(size: tuple[int, int]) -> None:
    module = randomised(MDTA(6, 2, init=INIT))
    x = maps(6, *size)
    torch.testing.assert_close(module(x), torch.stack([naive.mdta(module, image) for image in x]), **EXACT)


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("relative_bias", [True, False], ids=["bias", "no bias"])
def test_ggsa_equals_masked_loops(relative_bias: bool, size: tuple[int, int]) -> None:
    module = randomised(GGSA(4, 2, 4, init=INIT, relative_bias=relative_bias))
    x = maps(4, *size)
    torch.testing.assert_close(module(x), torch.stack([naive.ggsa(module, image) for image in x]), **EXACT)


@torch.no_grad()
@pytest.mark.parametrize("size", [(24, 40), (40, 24), (24, 24), (16, 16), (12, 15), (17, 33)], ids=str)
def test_ggsa_of_the_paper_equals_masked_loops(size: tuple[int, int]) -> None:
    """Grid 16, where whole rows of cubbies are padding at sides 24 and 40."""
    module = randomised(GGSA(2, 1, 16, init=INIT))
    x = maps(2, *size, batch=1)
    torch.testing.assert_close(module(x)[0], naive.ggsa(module, x[0]), **EXACT)


@torch.no_grad()
def test_a_grid_as_large_as_the_map_is_global_attention() -> None:
    module = randomised(GGSA(6, 3, 4, init=INIT, relative_bias=False))
    everywhere = nn.MultiheadAttention(6, 3, bias=False, batch_first=True, dtype=torch.float64)
    everywhere.in_proj_weight.copy_(module.qkv.weight.flatten(1))
    everywhere.out_proj.weight.copy_(module.project.weight.flatten(1))
    x = maps(6, 4, 4)
    tokens = x.flatten(2).mT
    expected = everywhere(tokens, tokens, tokens, need_weights=False)[0]
    torch.testing.assert_close(module(x).flatten(2).mT, expected, **EXACT)


def test_ggsa_parameters() -> None:
    """The table of relative positions is (2g - 1)^2 x heads, drawn from a truncated normal of 0.02."""
    module = GGSA(8, 2, 16, init=INIT)
    (table,) = (p for name, p in module.named_parameters() if name.startswith("position"))
    assert table.numel() == 31**2 * 2
    assert table.std().item() == pytest.approx(0.02, rel=0.1)
    assert sum(p.numel() for p in module.parameters()) == 4 * 8 * 8 + table.numel()
    assert sum(p.numel() for p in GGSA(8, 2, 16, init=INIT, relative_bias=False).parameters()) == 4 * 8 * 8


MODULES = {
    "fcsa interior": (lambda: FCSA(2, 1, 2, init=INIT), (5, 4)),
    "fcsa cyclic": (lambda: FCSA(2, 1, 2, init=INIT, shift="cyclic"), (3, 4)),
    "fcsa wide heads": (lambda: FCSA(6, 1, 2, init=INIT), (4, 3)),  # fewer tokens than channels
    "ggsa": (lambda: GGSA(2, 1, 2, init=INIT), (2, 4)),
    "ggsa padded": (lambda: GGSA(2, 1, 3, init=INIT), (2, 5)),
    "mdta": (lambda: MDTA(4, 2, init=INIT), (2, 3)),
}


@pytest.mark.parametrize("case", MODULES)
def test_gradients_of_input_and_parameters(case: str) -> None:
    make, size = MODULES[case]
    module = randomised(make())
    names, parameters = zip(*module.named_parameters(), strict=True)

    def run(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return functional_call(module, dict(zip(names, values, strict=True)), x)

    x = maps(module.qkv.in_channels, *size, batch=1).requires_grad_()
    assert torch.autograd.gradcheck(run, (x, *(p.detach().requires_grad_() for p in parameters)))


@torch.no_grad()
@pytest.mark.parametrize("size", [(16, 16), (11, 18)], ids=str)
@pytest.mark.parametrize("kind", [FCSA, GGSA])
def test_bfloat16_autocast_is_close_to_float32(kind: type[FCSA | GGSA], size: tuple[int, int]) -> None:
    module = randomised(kind(16, 2, 8, init=INIT)).float()
    x = maps(16, *size).float()
    expected = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        out = module(x)
    # bfloat16 keeps 8 bits: four roundings in a row stay within 3 % of the map's scale.
    torch.testing.assert_close(out.float(), expected, rtol=0, atol=0.03 * expected.abs().max().item())


@torch.no_grad()
@pytest.mark.parametrize("kind", ["fcsa", "mdta"])
def test_norms_do_not_overflow_in_float16(kind: str) -> None:
    """L2 norms run in float32: here they pass 65504, the largest float16, though no pixel does."""
    torch.manual_seed(0)
    module = FCSA(4, 1, 32, init=INIT) if kind == "fcsa" else MDTA(4, 1, init=INIT)
    x = 9000 * maps(4, 32, 32, batch=1).float()
    qkv = module.local(module.qkv(x))
    assert qkv.abs().max() < 65504 < qkv.norm(dim=(2, 3)).max()
    expected = module(x)
    with torch.autocast("cpu", torch.float16):
        out = module(x)
    torch.testing.assert_close(out.float(), expected, rtol=0, atol=0.01 * expected.abs().max().item())


@torch.no_grad()
@pytest.mark.parametrize("case", MODULES)
def test_images_of_a_batch_and_memory_layout_do_not_matter(case: str) -> None:
    make, size = MODULES[case]
    module = randomised(make())
    x = maps(module.qkv.in_channels, *size, batch=3)
    expected = torch.cat([module(image[None]) for image in x])
    torch.testing.assert_close(module(x.contiguous(memory_format=torch.channels_last)), expected, **EXACT)
