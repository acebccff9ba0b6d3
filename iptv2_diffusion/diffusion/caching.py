"""Feature caching for a U-shaped denoiser (DeepCache, Ma et al. 2023).

Neighbouring steps of a sampler see almost the same coarse features. So the levels below the outermost one run on one
step of N only, and in between the outermost encoder and decoder work with what the others gave back last.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from iptv2_diffusion.backbone.u_shape import UShape


class InnerCache:
    """Takes the place of `UShape.inner`: on calls 0, N, 2N, ... of the network the real thing, else the last result.

    Also the real thing where the shape changes, for instance because guidance begins or ends; N calls count from there.
    """

    def __init__(self, backbone: UShape, interval: int) -> None:
        self._compute = backbone.inner
        self._interval = interval
        self._calls = 0  # since the last full pass
        self._cached: Tensor | None = None

    def __call__(self, level: int, x: Tensor, cond: Tensor | None) -> Tensor:
        if level > 0:
            return self._compute(level, x, cond)
        if self._cached is None or self._cached.shape != x.shape or self._calls == self._interval:
            self._cached, self._calls = self._compute(level, x, cond), 0
        self._calls += 1
        return self._cached


@contextmanager
def cached_features(denoisers: Sequence[nn.Module], interval: int) -> Iterator[None]:
    """Inside, every forward of a denoiser is one step of a sampler; `interval` N = 1 changes no bit.

    ValueError unless N = 1 or every denoiser has a U of two levels or more as its `backbone`.
    """
    check_caching(denoisers, interval)
    backbones: list[Any] = [denoiser.backbone for denoiser in denoisers] if interval > 1 else []
    try:
        for backbone in backbones:
            backbone.inner = InnerCache(backbone, interval)  # of this instance, in front of its class's method
        yield
    finally:
        for backbone in backbones:
            del backbone.inner


def check_caching(denoisers: Sequence[nn.Module], interval: int) -> None:
    if not isinstance(interval, int) or interval < 1:
        raise ValueError(f"the cache interval must be a whole number of steps from 1, got {interval!r}")
    if interval == 1:
        return
    for denoiser in denoisers:
        backbone = getattr(denoiser, "backbone", None)
        if not (isinstance(backbone, UShape) and backbone.config.levels > 1):
            raise ValueError(
                f"a feature cache needs a U-shaped denoiser of several levels, not {type(denoiser).__name__}"
            )
    if len({id(denoiser) for denoiser in denoisers}) < len(denoisers):
        raise ValueError("with a feature cache the guide must be a model of its own, not the transformer itself")
