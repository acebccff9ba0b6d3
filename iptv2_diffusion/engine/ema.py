"""The exponential moving averages of the weights, which are what gets validated, shown and shipped."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from iptv2_diffusion.engine.decay import decay


class EMA:
    """`module`: a float32 copy of the model in evaluation mode, equal to it before the first update.

    Where the model's parameters are spread over the processes (see `follow`), so are the averages, and `module` holds
    them after `gather` only. `name` says how the past fades (see `engine.decay`).
    """

    def __init__(self, model: nn.Module, name: str) -> None:
        self.name, self.updates = name, 0
        self.module: Any = copy.deepcopy(model).float().eval().requires_grad_(False)
        self._averages: list[Any] = list(self.module.parameters())
        self._spread = False

    def follow(self, model: nn.Module, device: torch.device, keeper: bool) -> None:
        """Moves the average to where `model` is, prepared and not yet trained.

        If that is spread over the processes, the module stays on the CPU of the `keeper`.
        """
        parameters = list(model.parameters())
        self._spread = any(hasattr(parameter, "full_tensor") for parameter in parameters)
        if not self._spread:
            self.module.to(device)
            return
        self.module.to("cpu" if keeper else "meta")
        self._averages = [parameter.detach().to(torch.float32, copy=True) for parameter in parameters]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """average <- decay * average + (1 - decay) * weights; buffers are copied."""
        self.updates += 1
        weights = [new.detach().to(old.dtype) for old, new in zip(self._averages, model.parameters(), strict=True)]
        share = 1 - decay(self.name, self.updates)
        torch._foreach_lerp_(self._averages, weights, share)  # pyright: ignore[reportPrivateImportUsage]
        for old, new in zip(self.module.buffers(), model.buffers(), strict=True):
            old.copy_(new)

    @torch.no_grad()
    def gather(self, device: torch.device) -> Any:
        """`module`, in the keeper's process filled with what is spread over all of them, which all have to call this.

        It is then on `device`; where nothing is spread it stays where it is.
        """
        if not self._spread:
            return self.module
        for whole, average in zip(self.module.parameters(), self._averages, strict=True):
            value = average.full_tensor()
            if not whole.is_meta:
                whole.copy_(value)
        return self.module if next(self.module.parameters()).is_meta else self.module.to(device)

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor], updates: int) -> None:
        """The average after that many updates."""
        self.updates = updates
        if not self._spread:
            self.module.load_state_dict(weights)
            return
        from torch.distributed.tensor import distribute_tensor

        for (name, _), average in zip(self.module.named_parameters(), self._averages, strict=True):
            whole = weights[name].to(average.device)
            average.copy_(distribute_tensor(whole, average.device_mesh, average.placements))
