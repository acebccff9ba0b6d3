"""What a module costs: products counted while it runs, and parameters.

Build the module and its inputs on the meta device: nothing is computed there, and attention is counted, which the same
counter misses on a CPU, where it is one fused kernel.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

Rule = Callable[..., int]  # (layer, shape of its first input) -> products


def macs(module: nn.Module, *inputs: torch.Tensor) -> int:
    """Multiply-accumulates of convolutions, linear layers, matrix products and attention in one forward pass."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*inputs)
    return counter.get_total_flops() // 2


@contextmanager
def products(module: nn.Module, rules: Mapping[type[nn.Module], Rule]) -> Iterator[list[int]]:
    """Fills the list with one number for each call of a layer that has a rule, for exactly its class."""
    counts: list[int] = []

    def count(layer: nn.Module, arguments: tuple) -> None:
        counts.append(rules[type(layer)](layer, arguments[0].shape))

    handles = [layer.register_forward_pre_hook(count) for layer in module.modules() if type(layer) in rules]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


def parameters(module: nn.Module) -> int:
    """Numbers in all parameters; one that several layers share counts once."""
    return sum(p.numel() for p in module.parameters())
