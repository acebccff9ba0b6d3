"""What a module costs: products counted while it runs, and parameters.

Build the module and its inputs on the meta device: nothing is computed there, and attention is counted, which the same
counter misses on a CPU, where it is one fused kernel.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

Rule = Callable[[nn.Module, torch.Size], int]  # (layer, shape of its first input) -> products


def macs(module: nn.Module, *inputs: torch.Tensor) -> int:
    """Multiply-accumulates of convolutions, linear layers, matrix products and attention in one forward pass."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*inputs)
    return counter.get_total_flops() // 2


def products(module: nn.Module, rules: Mapping[type[nn.Module], Rule], *inputs: torch.Tensor) -> int:
    """Sum over all layers that have a rule (for exactly their class), at the shapes they meet in one forward pass."""
    counts: list[int] = []

    def count(layer: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        counts.append(rules[type(layer)](layer, arguments[0].shape))

    with torch.no_grad(), _before_forward([m for m in module.modules() if type(m) in rules], count):
        module(*inputs)
    return sum(counts)


def parameters(module: nn.Module) -> int:
    """Numbers in all parameters; one that several layers share counts once."""
    return sum(p.numel() for p in module.parameters())


@contextmanager
def _before_forward(layers: list[nn.Module], hook: Callable[[nn.Module, tuple], None]) -> Iterator[None]:
    handles = [layer.register_forward_pre_hook(hook) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
