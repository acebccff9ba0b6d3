"""Structural re-parameterisation (Eq. 6): convolutions that train as several and run as one.

All branches are linear and nothing stands between them, so training form and fused form are the same function, at
borders too. The functions here are pure; the modules hold either the factors or one weight called `fused`.

Training folds the factors into one weight and runs one convolution, which gives the same outputs and gradients as the
branches with far less memory. A stacked 1x1 is run as it is written where that costs fewer products: few tokens.
`literal = True` on a module always runs the branches; it is the reference for tests.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import nn

from iptv2_diffusion.layers.conv import Variance, pointwise_conv, uniform_
from iptv2_diffusion.layers.depthwise import depthwise_conv

NEGLIGIBLE = 32  # a singular value relative to the largest, in units of the weight's rounding


def merge_pointwise(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """(inner, in, 1, 1) then (out, inner, 1, 1) -> (out, in, 1, 1)."""
    return (second.flatten(1) @ first.flatten(1))[:, :, None, None]


def split_pointwise(weight: torch.Tensor, inner: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Balanced factors whose product is `weight` (out, in, 1, 1), every inner unit in use.

    ValueError where the weight's rank is larger than `inner`.
    """
    u, s, vh = torch.linalg.svd(weight.flatten(1).double(), full_matrices=False)
    if inner < len(s) and s[inner] > s[0] * NEGLIGIBLE * torch.finfo(weight.dtype).eps:
        raise ValueError(f"a weight {tuple(weight.shape[:2])} of full rank is no product of factors {inner} wide")
    u, s, vh = u[:, :inner], s[:inner], vh[:inner]
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(inner, len(s), dtype=torch.float64, generator=generator).to(weight.device)
    mix = torch.linalg.qr(mix).Q * s.sqrt()  # (inner, rank), orthogonal columns
    first, second = mix @ vh, u @ mix.T
    return first.to(weight)[:, :, None, None], second.to(weight)[:, :, None, None]


def merge_depthwise(kernel5: torch.Tensor, kernel3: torch.Tensor, kernel1: torch.Tensor) -> torch.Tensor:
    """DW5 + DW3 + DW1 + identity as one kernel, (C, 1, 5, 5)."""
    return kernel5 + F.pad(kernel3, (1, 1, 1, 1)) + F.pad(kernel1 + 1, (2, 2, 2, 2))


def split_depthwise(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Kernels whose merge is `weight`: all of it, less the identity, in DW5."""
    kernel3, kernel1 = weight.new_zeros(len(weight), 1, 3, 3), weight.new_zeros(len(weight), 1, 1, 1)
    return weight - merge_depthwise(torch.zeros_like(weight), kernel3, kernel1), kernel3, kernel1


M = TypeVar("M", bound="Fusable")


class Reparameterised(nn.Module):
    """Base of the two: `fuse` and `unfuse` work in place and may be called in any order."""

    literal: bool = False
    fused: torch.Tensor | None

    @property
    def is_fused(self) -> bool:
        return self.fused is not None

    def factors(self) -> dict[str, torch.Tensor]:
        return {name: p for name, p in self.named_parameters(recurse=False) if name != "fused"}

    def fuse(self) -> None:
        if not self.is_fused:
            self._replace(fused=self.weight())

    def unfuse(self) -> None:
        if self.fused is not None:
            self._replace(**self.split(self.fused))

    def _replace(self, **tensors: torch.Tensor) -> None:
        trained = any(p.requires_grad for p in self.parameters(recurse=False))
        for name in list(self._parameters):
            setattr(self, name, None)
        for name, tensor in tensors.items():
            setattr(self, name, nn.Parameter(tensor.detach().clone(), requires_grad=trained))

    def weight(self) -> torch.Tensor:
        """The one weight of the fused form, differentiable in the factors."""
        return self.fused if self.fused is not None else self.merge(self.factors())

    @staticmethod
    def merge(factors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        raise NotImplementedError

    def split(self, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        raise NotImplementedError


class RepPointwise(Reparameterised):
    """PW-Conv(PW-Conv(x)), without bias."""

    def __init__(self, inputs: int, outputs: int, inner: int, *, init: Variance, fused: bool = False) -> None:
        super().__init__()
        self.inputs, self.outputs, self.inner = inputs, outputs, inner
        self.first = self.second = self.fused = None
        variance = init(inputs, outputs)
        if fused:
            self.fused = nn.Parameter(torch.empty(outputs, inputs, 1, 1))
            uniform_(self.fused, variance)
            return
        self.first = nn.Parameter(torch.empty(inner, inputs, 1, 1))
        self.second = nn.Parameter(torch.empty(outputs, inner, 1, 1))
        uniform_(self.first, init(inputs, inner))
        # The product of both has the variance that one 1x1 would have.
        uniform_(self.second, variance / (inner * init(inputs, inner)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for weight in self.weights(x):
            x = pointwise_conv(x, weight)
        return x

    def weights(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Of the 1x1 convolutions to run on x, one after another."""
        if self.first is not None and self.second is not None and (self.literal or self._few_tokens(x)):
            return [self.first, self.second]
        return [self.weight()]

    def _few_tokens(self, x: torch.Tensor) -> bool:
        """Whether folding the factors costs more products than running both on these tokens."""
        inputs, outputs = self.inputs, self.outputs
        tokens = x.numel() // inputs
        return tokens * self.inner * (inputs + outputs) < (self.inner + tokens) * inputs * outputs

    @staticmethod
    def merge(factors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return merge_pointwise(factors["first"], factors["second"])

    def split(self, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        return dict(zip(("first", "second"), split_pointwise(weight, self.inner), strict=True))


class RepDepthwise(Reparameterised):
    """DW5(x) + DW3(x) + DW1(x) + x, without bias."""

    REACH = 2  # pixels to every side

    def __init__(self, width: int, *, init: Variance, fused: bool = False) -> None:
        super().__init__()
        self.width = width
        self.kernel5 = self.kernel3 = self.kernel1 = self.fused = None
        if fused:
            self.fused = nn.Parameter(torch.empty(width, 1, 5, 5))
            uniform_(self.fused, init(25, 25))
            return
        for kernel in (5, 3, 1):
            weight = nn.Parameter(torch.empty(width, 1, kernel, kernel))
            uniform_(weight, init(kernel**2, kernel**2))
            setattr(self, f"kernel{kernel}", weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.literal and not self.is_fused:
            branches = [F.conv2d(x, k, padding=k.shape[-1] // 2, groups=self.width) for k in self.factors().values()]
            return sum(branches, x)
        return depthwise_conv(x, self.weight())

    @staticmethod
    def merge(factors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return merge_depthwise(factors["kernel5"], factors["kernel3"], factors["kernel1"])

    def split(self, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        return dict(zip(("kernel5", "kernel3", "kernel1"), split_depthwise(weight), strict=True))


def fuse(module: nn.Module) -> None:
    """Fuse every re-parameterised convolution inside, in place."""
    for child in module.modules():
        if isinstance(child, Reparameterised):
            child.fuse()


def unfuse(module: nn.Module) -> None:
    """Back to factors, in place: the same function, though not the factors it was fused from."""
    for child in module.modules():
        if isinstance(child, Reparameterised):
            child.unfuse()


class Fusable:
    """For diffusers models: `fuse` and `unfuse`, with the form on record in the model's configuration."""

    register_to_config: Callable[..., None]

    def fuse(self: M) -> M:
        """To the inference form, in place: the same function with fewer parameters."""
        fuse(cast(nn.Module, self))
        self.register_to_config(fused=True)
        return self

    def unfuse(self: M) -> M:
        """To a training form, in place: the same function."""
        unfuse(cast(nn.Module, self))
        self.register_to_config(fused=False)
        return self


def fuse_state_dict(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict of the fused form from that of the training form, without a model."""
    fused: dict[str, torch.Tensor] = {}
    for key, tensor in state.items():
        prefix, name = _split_key(key)
        if name == "first":
            fused[prefix + "fused"] = merge_pointwise(tensor, state[prefix + "second"])
        elif name == "kernel5":
            fused[prefix + "fused"] = merge_depthwise(tensor, state[prefix + "kernel3"], state[prefix + "kernel1"])
        elif name not in ("second", "kernel3", "kernel1"):
            fused[key] = tensor
    return fused


def unfuse_state_dict(state: Mapping[str, torch.Tensor], inner_ratio: float) -> dict[str, torch.Tensor]:
    """The state dict of a training form; `inner_ratio` is inner width / hidden width of the feed-forwards."""
    unfused: dict[str, torch.Tensor] = {}
    for key, tensor in state.items():
        prefix, name = _split_key(key)
        if name != "fused":
            unfused[key] = tensor
        elif tensor.shape[-1] == 1:
            inner = round(max(tensor.shape[:2]) * inner_ratio)
            unfused[prefix + "first"], unfused[prefix + "second"] = split_pointwise(tensor, inner)
        else:
            kernels = zip(("kernel5", "kernel3", "kernel1"), split_depthwise(tensor), strict=True)
            unfused |= {prefix + kernel: weight for kernel, weight in kernels}
    return unfused


def _split_key(key: str) -> tuple[str, str]:
    """ "a.b.first" -> ("a.b.", "first"); "first" -> ("", "first")."""
    module, dot, name = key.rpartition(".")
    return module + dot, name
