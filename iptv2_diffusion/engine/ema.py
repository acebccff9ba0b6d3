"""The exponential moving average of the weights, which is what gets validated, shown and shipped."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class EMA:
    """`module`: a float32 copy of the model in evaluation mode, equal to it before the first update."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.module: Any = copy.deepcopy(model).float().eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """average <- decay * average + (1 - decay) * weights; buffers are copied."""
        average = list(self.module.parameters())
        weights = [new.detach().to(old.dtype) for old, new in zip(average, model.parameters(), strict=True)]
        torch._foreach_lerp_(average, weights, 1 - self.decay)  # pyright: ignore[reportPrivateImportUsage]
        for old, new in zip(self.module.buffers(), model.buffers(), strict=True):
            old.copy_(new)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        self.module.load_state_dict(weights)
