"""Training a restorer: what the engine's loop asks of a task (see `engine.task.Task`).

One sample of the stream is a patch of a picture: the order of pictures comes from (seed, epoch), place, flips, noise and
everything else from (seed, position).
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from iptv2_diffusion.pictures import grid
from iptv2_diffusion.restoration.restorer import IPTV2Restorer
from iptv2_diffusion.rng import derived_generator, permutation

ORDER, DRAWS, HELD_OUT = range(3)  # what a derived generator is for
PREVIEW_PICTURES = 4
PREVIEW_SIZE = 256  # pixels a side
CHARBONNIER = 1e-3  # MPRNet's
PSNR_FLOOR = 1e-8  # NAFNet's, of the mean squared error
SPECTRUM = 0.1  # MIMO-UNet's weight of the spectrum

Score = Callable[[np.ndarray, np.ndarray], float]  # of two (H, W, C) uint8 pictures


class Source(Protocol):
    """Patches as in `data.patches`."""

    def __len__(self) -> int: ...

    def patch(
        self, index: int, size: int | None, generator: torch.Generator, *, centred: bool = False
    ) -> dict[str, Tensor]: ...


def _negative_psnr(error: Tensor) -> Tensor:
    """(N,), dB; a perfect sample's is -80, where the gradient stays finite."""
    return 10 * (error.square().mean((1, 2, 3)) + PSNR_FLOOR).log10()


def _l1(error: Tensor) -> Tensor:
    return error.abs().mean((1, 2, 3))


def _l1_with_spectrum(error: Tensor) -> Tensor:
    """(N,); the spectrum is the discrete Fourier transform without a factor."""
    return _l1(error) + SPECTRUM * torch.view_as_real(torch.fft.rfft2(error)).abs().mean((1, 2, 3, 4))


LOSSES: dict[str, Callable[[Tensor], Tensor]] = {  # errors (N, C, H, W) -> (N,)
    "l1": _l1,
    "l1+fft": _l1_with_spectrum,
    "charbonnier": lambda error: (error.square() + CHARBONNIER**2).sqrt().mean((1, 2, 3)),
    "psnr": _negative_psnr,
}


class RestorationTask:
    """Regression of the clean picture.

    `size_at` tells the side of the patch at a position of the stream. `held_out` sources, by name, are measured with
    `scores` on central squares of `validation_size` pixels (None: whole pictures) but never trained on. `mixup` is the
    parameter of the Beta distribution by which two patches mix; 0: they do not.
    """

    def __init__(
        self,
        model: IPTV2Restorer,
        source: Source,
        *,
        size_at: Callable[[int], int],
        held_out: Mapping[str, Source] | None = None,
        scores: Mapping[str, Score] | None = None,
        validation_size: int | None = 256,
        loss: str = "l1",
        mixup: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.model, self.source, self.size_at = model, source, size_at
        self.held_out, self.scores, self.validation_size = held_out or {}, scores or {}, validation_size
        self.penalty, self.mixup, self.seed = LOSSES[loss], mixup, seed
        self.monitor = "psnr" if self.held_out and "psnr" in self.scores else None
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))

    def prepare(self, device: torch.device) -> None:
        self.device = device

    def sample(self, position: int) -> dict[str, Tensor]:
        generator = derived_generator(self.seed, DRAWS, position)
        size = self.size_at(position)
        patch = self.source.patch(self._picture(position), size, generator)
        if not self.mixup:
            return patch
        other = self.source.patch(int(torch.randint(len(self.source), (), generator=generator)), size, generator)
        share = _beta(self.mixup, generator)
        return {name: share * patch[name] + (1 - share) * other[name] for name in patch}

    def _picture(self, position: int) -> int:
        epoch, place = divmod(position, len(self.source))
        if self._order[0] != epoch:
            self._order = epoch, permutation(len(self.source), self.seed, ORDER, epoch)
        return int(self._order[1][place])

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        error = model(batch["degraded"]).float() - batch["clean"]
        psnr = -10 * error.detach().square().mean((1, 2, 3)).clamp_min(1e-10).log10()
        return self.penalty(error), {"psnr": psnr}

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Means over the held-out pictures, by source and over all of them; the same degradations every time.

        Without any there are no figures.
        """
        if not self.held_out:
            return {}
        figures: dict[str, float] = {}
        for name, source in self.held_out.items():
            rows = [self._scored(model, source, index) for index in range(len(source))]
            figures |= {f"{score}_{name}": float(np.mean([row[score] for row in rows])) for score in self.scores}
        for score in self.scores:
            figures[score] = float(np.mean([figures[f"{score}_{name}"] for name in self.held_out]))
        return figures

    def _scored(self, model: nn.Module, source: Source, index: int) -> dict[str, float]:
        pictures = self._restored(model, source, index, self.validation_size)
        restored, clean = (to_uint8(pictures[name]) for name in ("restored", "clean"))
        return {name: score(restored, clean) for name, score in self.scores.items()}

    def _restored(self, model: nn.Module, source: Source, index: int, size: int | None) -> dict[str, Tensor]:
        generator = derived_generator(self.seed, HELD_OUT, index)
        patch = source.patch(index, size, generator, centred=True)
        return patch | {"restored": model(patch["degraded"][None].to(self.device))[0].cpu()}

    def preview(self, model: nn.Module) -> Image.Image | None:
        """Before, after and truth of some held-out pictures."""
        pictures, captions = [], []
        for number in range(PREVIEW_PICTURES if self.held_out else 0):
            name, source = list(self.held_out.items())[number % len(self.held_out)]
            row = self._restored(model, source, number % len(source), PREVIEW_SIZE)
            for part in ("degraded", "restored", "clean"):
                pictures.append(Image.fromarray(to_uint8(row[part][:3]).squeeze()).convert("RGB"))
                captions.append(f"{part} {name}".strip())
        return grid(pictures, captions, columns=3) if pictures else None

    def export(self, folder: Path) -> None:
        """The model's configuration says it all."""


def to_uint8(image: Tensor) -> np.ndarray:
    """(C, H, W) in [0, 1] -> (H, W, C), clamped and rounded."""
    return (image.float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def _beta(parameter: float, generator: torch.Generator) -> float:
    """A draw from Beta(parameter, parameter), for which torch takes no generator."""
    seed = int(torch.randint(2**62, (), generator=generator))
    return float(np.random.default_rng(seed).beta(parameter, parameter))
