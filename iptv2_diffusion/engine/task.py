"""What the training loop asks of a task."""

from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor, nn


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

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Float32 loss per sample, (B,), and scalars to log, each (B,). Deterministic.

        `model` may be wrapped (DDP): call it, but read its configuration from `self.model`.
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
