"""The depthwise convolution, on small maps and larger ones, against PyTorch's own gradients, in float64."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from iptv2_diffusion.layers.depthwise import depthwise_conv, weight_gradient

EXACT: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("size", [(1, 1), (2, 4), (4, 4), (5, 5), (6, 8), (8, 6), (9, 11)])
def test_output_and_gradients(size: tuple[int, int], kernel: int, memory_format: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(0)
    x, seed = torch.randn(2, 3, 7, *size, dtype=torch.float64, generator=generator)
    x = x.contiguous(memory_format=memory_format).requires_grad_()
    weight = torch.randn(7, 1, kernel, kernel, dtype=torch.float64, generator=generator, requires_grad=True)
    expected = F.conv2d(x, weight, padding=kernel // 2, groups=7)
    expected_gradients = torch.autograd.grad(expected, (x, weight), seed)
    out = depthwise_conv(x, weight)
    torch.testing.assert_close(out, expected, **EXACT)
    for gradient, right in zip(torch.autograd.grad(out, (x, weight), seed), expected_gradients, strict=True):
        torch.testing.assert_close(gradient, right, **EXACT)
    torch.testing.assert_close(weight_gradient(x.detach(), seed, kernel), expected_gradients[1], **EXACT)


def test_only_asked_gradients() -> None:
    x, weight = torch.randn(2, 3, 4, 4), torch.randn(3, 1, 5, 5, requires_grad=True)
    depthwise_conv(x, weight).sum().backward()
    assert weight.grad is not None
    assert x.grad is None


@pytest.mark.parametrize("size", [(4, 4), (9, 11)])
def test_under_autocast_output_and_gradients_are_those_of_bfloat16(size: tuple[int, int]) -> None:
    x = torch.randn(2, 7, *size, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weight = torch.randn(7, 1, 5, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = depthwise_conv(x, weight)
        expected = F.conv2d(x, weight, padding=2, groups=7)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, expected)
    seed = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).bfloat16()
    gradients = torch.autograd.grad(out, (x, weight), seed)
    exact = F.conv2d(x.bfloat16().double(), weight.bfloat16().double(), padding=2, groups=7)
    for gradient, right in zip(gradients, torch.autograd.grad(exact, (x, weight), seed.double()), strict=True):
        assert gradient.dtype == torch.float32
        assert (gradient - right).norm() / right.norm() < 2**-8
