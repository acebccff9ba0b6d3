"""What is computed again for the gradient changes no number, keeps less, and stays away from small maps."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iptv2_diffusion.layers import recompute
from iptv2_diffusion.layers.attention import FCSA
from iptv2_diffusion.layers.conv import INITS
from iptv2_diffusion.layers.feed_forward import RepLeFFN
from iptv2_diffusion.layers.recompute import local_product, recomputed
from iptv2_diffusion.layers.residual import AdaLNZeroResidual

INIT = INITS["torch"]


def kept(run: Callable[[], Tensor]) -> tuple[Tensor, int]:
    """The output, and the bytes that autograd keeps for the gradient."""
    sizes: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        sizes[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = run()
    return out, sum(sizes.values())


def gradients(body: nn.Module, x: Tensor, *args: Tensor) -> tuple[int, dict[str, Tensor | None]]:
    body.zero_grad()
    x = x.clone().requires_grad_()
    out, size = kept(lambda: body(x, *args))
    (out * torch.arange(out.numel(), dtype=out.dtype).view_as(out).cos()).sum().backward()
    return size, {"out": out.detach(), "x": x.grad} | {name: p.grad for name, p in body.named_parameters()}


BODIES: dict[str, Callable[[], nn.Module]] = {
    "fcsa": lambda: FCSA(16, 2, 4, init=INIT),
    "rep_leffn": lambda: RepLeFFN(16, init=INIT),
    "rep_leffn, few tokens": lambda: RepLeFFN(64, init=INIT),
    "rep_leffn, literal": lambda: _literal(RepLeFFN(16, init=INIT)),
    "adaln": lambda: AdaLNZeroResidual(16, nn.Identity(), 5),
}


def _literal(body: RepLeFFN) -> RepLeFFN:
    for part in (body.expand, body.local, body.reduce):
        part.literal = True
    return body


@pytest.mark.parametrize("name", BODIES)
def test_gradients_do_not_change(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    body = BODIES[name]().double()
    for parameter in body.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 64 if "few" in name else 16, 10, 9).double().contiguous(memory_format=torch.channels_last)
    args = (torch.randn(2, 5).double(),) if name == "adaln" else ()
    size, expected = gradients(body, x, *args)
    monkeypatch.setattr(recompute, "LARGE", 0)
    smaller, grads = gradients(body, x, *args)
    assert all(grad is not None for grad in grads.values())
    torch.testing.assert_close(grads, expected, rtol=1e-10, atol=1e-10)
    if name != "rep_leffn, literal":
        assert smaller < 0.85 * size


def test_local_product_keeps_one_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recompute, "LARGE", 0)
    x, kernel, weight = (
        torch.randn(*shape, requires_grad=True) for shape in ((2, 8, 9, 9), (8, 1, 5, 5), (4, 8, 1, 1))
    )
    _, size = kept(lambda: local_product(x, kernel, weight))
    assert size == 4 * (x.numel() + kernel.numel() + weight.numel())


def test_small_maps_are_kept() -> None:
    calls = []

    def body(x: Tensor) -> Tensor:
        calls.append(x.shape)
        return F.gelu(x)

    x = torch.randn(1, 1, 1024, 2048, requires_grad=True)
    assert x.numel() == recompute.LARGE
    recomputed(body, x).sum().backward()
    assert len(calls) == 1
    recomputed(body, torch.cat([x, x])).sum().backward()
    assert len(calls) == 3
