"""Where class-conditional training gets its examples: `len(source)` and `source.example(index, generator)`.

An example is a dict of tensors with "label" (0-d int64) and either "latents" (C, h, w) float32, scaled, or "pixels"
(3, H, W) uint8. The generator is the only randomness.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from iptv2_diffusion.data.image_folder import ImageFolder

CLASS_NAMES = "class_names"  # entry of a file's metadata: JSON


@dataclass(frozen=True)
class LatentMoments:
    """Posterior moments of encoded pictures; every visit samples the posterior anew.

    Where a picture has several labels, broader and finer ones, every visit draws one of them.
    """

    mean: torch.Tensor  # (N, C, h, w)
    std: torch.Tensor  # (N, C, h, w)
    labels: torch.Tensor  # (N,) or (N, K) int64
    class_names: Sequence[str] | None = None  # where the file has them

    def __len__(self) -> int:
        return len(self.labels)

    def example(self, index: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        mean, std = self.mean[index].float(), self.std[index].float()
        latents = mean + std * torch.randn(mean.shape, generator=generator)
        label = self.labels[index]
        if label.ndim:
            label = label[torch.randint(len(label), (), generator=generator)]
        return {"latents": latents, "label": label}

    def part(self, mask: torch.Tensor) -> "LatentMoments":
        """The rows where `mask` (N,) is True."""
        return replace(self, mean=self.mean[mask], std=self.std[mask], labels=self.labels[mask])


def load_moments(path: Path) -> LatentMoments:
    """Raises ValueError where the file is missing or is not one of moments."""
    try:
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            names = json.loads((file.metadata() or {}).get(CLASS_NAMES, "null"))
        moments = LatentMoments(tensors["mean"], tensors["std"], tensors["labels"].long(), names)
    except (OSError, SafetensorError, KeyError) as error:
        raise ValueError(f"expected latent moments (safetensors: mean, std, labels) in {path}: {error}") from None
    one_or_more = moments.labels.ndim in (1, 2) and moments.mean.shape[:1] == moments.labels.shape[:1]
    if moments.mean.shape != moments.std.shape or not one_or_more:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (moments.mean, moments.std, moments.labels))
        raise ValueError(
            f"expected mean and std of one shape (N, C, h, w) and labels (N,) or (N, K) in {path}, got {shapes}"
        )
    return moments


@dataclass(frozen=True)
class Pictures:
    """Pictures of an ImageFolder, mirrored half of the time if `flip`."""

    folder: ImageFolder
    flip: bool

    def __len__(self) -> int:
        return len(self.folder)

    def example(self, index: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        pixels, label = self.folder[index]
        if self.flip and torch.rand((), generator=generator) < 0.5:
            pixels = pixels.flip(-1)
        return {"pixels": pixels, "label": torch.tensor(label)}
