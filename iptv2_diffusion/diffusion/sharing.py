"""Modulations computed once for each pair of timestep and label of a batch.

In one step of a sampler all rows share the timestep; with guidance half of them share the null label as well.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

MODULATIONS = ("modulation", "head_modulation")  # the layers of the condition, by the last part of their names


class _Rows:
    """Of the batch that a denoiser is at: one row for each pair, and which pair every row has."""

    def find(self, _: nn.Module, inputs: tuple[Tensor, Tensor, Tensor]) -> None:
        timestep, labels = inputs[1:]
        pairs = torch.stack([timestep.float().expand(len(labels)), labels.float()])  # exact below 2^24
        found, self._pair = torch.unique(pairs, dim=1, return_inverse=True)
        self._row = self._pair.new_empty(found.shape[1]).scatter_(0, self._pair, torch.arange(len(labels)).to(labels))

    def reduce(self, _: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (inputs[0][self._row],)

    def expand(self, _: nn.Module, __: tuple[Tensor], modulation: Tensor) -> Tensor:
        return modulation[self._pair]


@contextmanager
def shared_modulation(denoisers: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, denoisers are called with (latents, timestep, labels), one after the other, and not in parallel.

    The modulations are those of every row alone, but for the rounding of products of fewer rows.
    ValueError unless every denoiser is ours.
    """
    with ExitStack() as stack:
        for denoiser in denoisers:
            rows = _Rows()
            stack.callback(denoiser.register_forward_pre_hook(rows.find).remove)
            for layer in _modulations(denoiser):
                stack.callback(layer.register_forward_pre_hook(rows.reduce).remove)
                stack.callback(layer.register_forward_hook(rows.expand).remove)
        yield


def _modulations(denoiser: nn.Module) -> list[nn.Module]:
    found = [layer for name, layer in denoiser.named_modules() if name.rpartition(".")[2] in MODULATIONS]
    if not found:
        raise ValueError(f"shared modulation needs a denoiser of IPT-V2, not {type(denoiser).__name__}")
    return found
