from typing import Any

import pytest
import torch
from torch.func import functional_call

from iptv2_diffusion.layers.norm import NORMS, BareNorm, BiasFreeNorm, CentredNorm

EXACT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def statistics(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and biased variance over the channels of each pixel."""
    mean = x.sum(1, keepdim=True) / x.shape[1]
    return mean, ((x - mean) ** 2).sum(1, keepdim=True) / x.shape[1]


@pytest.fixture
def x() -> torch.Tensor:
    return 3 * random(2, 6, 3, 5) + 2


@torch.no_grad()
def test_centred(x: torch.Tensor) -> None:
    norm = CentredNorm(6).double()
    norm.weight.copy_(random(6, seed=1))
    norm.bias.copy_(random(6, seed=2))
    mean, variance = statistics(x)
    expected = (x - mean) / (variance + 1e-5).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), expected, **EXACT)


@torch.no_grad()
def test_bias_free_divides_without_centring(x: torch.Tensor) -> None:
    norm = BiasFreeNorm(6).double()
    norm.weight.copy_(random(6, seed=1))
    _, variance = statistics(x)
    torch.testing.assert_close(norm(x), x / (variance + 1e-5).sqrt() * norm.weight[:, None, None], **EXACT)
    shifted = norm(x + 5) - norm(x)  # the shift survives
    torch.testing.assert_close(shifted, 5 / (variance + 1e-5).sqrt() * norm.weight[:, None, None], **EXACT)


def test_bare_has_no_parameters_and_is_centred(x: torch.Tensor) -> None:
    norm = BareNorm()
    assert not list(norm.parameters())
    mean, variance = statistics(x)
    torch.testing.assert_close(norm(x), (x - mean) / (variance + 1e-5).sqrt(), **EXACT)


@pytest.mark.parametrize("name", NORMS)
def test_starts_as_plain_normalisation(name: str) -> None:
    parameters = dict(NORMS[name](4).named_parameters())
    torch.testing.assert_close(parameters.pop("weight").detach(), torch.ones(4))
    if name == "centred":
        torch.testing.assert_close(parameters.pop("bias").detach(), torch.zeros(4))
    assert not parameters


@pytest.mark.parametrize("name", NORMS)
def test_gradients_of_input_and_parameters(name: str) -> None:
    norm = NORMS[name](3).double()
    values = tuple(random(3, seed=seed).requires_grad_() for seed, _ in enumerate(norm.parameters(), 2))

    def run(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        names = (name for name, _ in norm.named_parameters())
        return functional_call(norm, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (random(2, 3, 2, 2).requires_grad_(), *values))


@pytest.mark.parametrize("name", NORMS)
def test_under_autocast_the_statistics_are_those_of_fp32(name: str) -> None:
    x = (random(2, 32, 3, 5) + 3).bfloat16()
    norm = NORMS[name](32)
    with torch.autocast("cpu", torch.bfloat16):
        out = norm(x)
    torch.testing.assert_close(out.float(), norm(x.float()), rtol=2**-7, atol=2**-7)  # rounding of the output alone
