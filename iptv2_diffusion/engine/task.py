"""What the training loop asks of a task."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor, nn

Scalar = Tensor | tuple[Tensor, Tensor]


class Task(Protocol):
    """Data, loss and pictures of one kind of training.

    All randomness derives from (seed, position): the loop promises results that depend on neither the number of
    workers and processes, nor the micro-batch, nor interruptions, and can only keep that if the task does.
    """

    @property  # so that a task may declare a more specific type
    def model(self) -> nn.Module:
        """What is trained, always the same object; has `save_pretrained(folder)` (a diffusers ModelMixin)."""
        ...

    @property
    def monitor(self) -> str | None:
        """The figure of `validate` whose largest value marks the best weights; None: the best are not kept."""
        ...

    def prepare(self, device: torch.device) -> None:
        """Moves frozen helpers (a VAE, say) to the device; the loop itself moves `model`."""
        ...

    def sample(self, position: int) -> dict[str, Tensor]:
        """The position-th sample (0, 1, ...) of the endless training stream, on the CPU; runs in a data worker."""
        ...

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Mapping[str, Scalar]]:
        """Float32 loss per sample, (B,), and scalars to log. Deterministic.

        A scalar is values, (B,), logged as their mean over the global batch, or (values, weights), both (B,), logged
        as sum(values * weights) / sum(weights) over it, and left out of a step whose weights are all 0. The loss of
        the timesteps in one bin, say, is (loss, (bin == i).float()), right for any number of processes. Every call
        returns the same names in the same order.
        `model` may be wrapped (DDP, FSDP): call it, but read its configuration from `self.model`.
        """
        ...

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Figures on held-out data (none: {}). `model` has the averaged weights; main process only, no gradients."""
        ...

    def preview(self, model: nn.Module) -> Image.Image | None:
        """A picture to look at; called like `validate`."""
        ...

    def export(self, folder: Path) -> None:
        """Writes small side files (scheduler configuration, class names) into a checkpoint; main process only."""
        ...
