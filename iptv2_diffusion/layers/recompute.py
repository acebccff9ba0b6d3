"""Memory of training: what is cheap to compute is computed again for the gradient, rather than kept until then.

Only on large maps: that is where the memory goes, and on small ones it would cost more time.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from iptv2_diffusion.layers.conv import pointwise_conv, pointwise_gradients
from iptv2_diffusion.layers.depthwise import depthwise_conv, depthwise_gradients, plain_cpu

LARGE = 2**21  # values of a map, 8 MiB in fp32


def recomputed(body: Callable[..., Tensor], x: Tensor, *others: Tensor) -> Tensor:
    """`body(x, *others)`, of which only the inputs are kept where x is large."""
    if not _pays(x):
        return body(x, *others)
    return checkpoint(body, x, *others, use_reentrant=False, preserve_rng_state=False)


def local_product(x: Tensor, kernel: Tensor, weight: Tensor) -> Tensor:
    """PW-Conv(DW-Conv(GELU(x))) (Eq. 5); x (B, C, H, W), kernel (C, 1, k, k), weight (out, C, 1, 1)."""
    if _pays(x) and plain_cpu(x):
        return _LocalProduct.apply(x, kernel, weight)
    return pointwise_conv(depthwise_conv(F.gelu(x), kernel), weight)


def _pays(x: Tensor) -> bool:
    """Compilers decide for themselves what to keep."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling() and x.numel() > LARGE


class _LocalProduct(torch.autograd.Function):
    """Of three maps as wide as x, which a layer usually keeps, only x stays."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, kernel, weight)
        return pointwise_conv(depthwise_conv(F.gelu(x), kernel), weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, kernel, weight = ctx.saved_tensors
        active = F.gelu(x)
        grad, grad_weight = pointwise_gradients(depthwise_conv(active, kernel), weight, grads[0])
        grad, grad_kernel = depthwise_gradients(active, kernel, grad)
        return torch.ops.aten.gelu_backward(grad, x), grad_kernel, grad_weight
