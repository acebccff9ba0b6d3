"""Patches to train a restorer on: a source has `len(source)` pictures and `source.patch(index, size, generator)`.

A patch is a dict of "degraded" and "clean", float32 (C, size, size) in [0, 1] (noise is not clipped). The generator is
the only randomness; without one the patch is the middle of the picture as it is. `size=None` is the whole picture.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor


class Photographs(Protocol):
    """As `data.pairs.PictureList`: `read` gives (H, W, C) uint8 or uint16."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> np.ndarray: ...


class Pairs(Protocol):
    """As `data.pairs.PairedPictures`: `read` gives the degraded and the clean picture."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]: ...


class Degrade(Protocol):
    """As `data.degradations`: (C, H + 2 margin, W + 2 margin) -> the degraded and the clean picture, (C, H, W)."""

    @property
    def margin(self) -> int: ...

    def __call__(self, clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Chosen:
    """Some of the pictures or pairs."""

    pictures: Any
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int) -> Any:
        return self.pictures.read(self.indices[index])


@dataclass(frozen=True)
class CleanPatches:
    """Clean photographs, degraded anew at every visit."""

    pictures: Photographs
    degrade: Degrade

    def __len__(self) -> int:
        return len(self.pictures)

    def patch(
        self, index: int, size: int | None, generator: torch.Generator, *, centred: bool = False
    ) -> dict[str, Tensor]:
        side = None if size is None else size + 2 * self.degrade.margin
        (crop,) = _patch([self.pictures.read(index)], side, None if centred else generator)
        degraded, clean = self.degrade(crop, generator)
        return {"degraded": degraded, "clean": clean}


@dataclass(frozen=True)
class PairedPatches:
    """Degraded pictures beside clean ones."""

    pictures: Pairs

    def __len__(self) -> int:
        return len(self.pictures)

    def patch(
        self, index: int, size: int | None, generator: torch.Generator, *, centred: bool = False
    ) -> dict[str, Tensor]:
        degraded, clean = _patch(self.pictures.read(index), size, None if centred else generator)
        return {"degraded": degraded, "clean": clean}


def _patch(pictures: Sequence[np.ndarray], size: int | None, generator: torch.Generator | None) -> list[Tensor]:
    """The same square of all pictures, flipped and turned alike."""
    if size is not None:
        height, width = pictures[0].shape[:2]
        top, left = (_start(length, size, generator) for length in (height, width))
        pictures = [_square(picture[top : top + size, left : left + size], size) for picture in pictures]
    turn = _flips_and_turns(generator) if generator is not None else np.asarray
    return [to_tensor(turn(picture)) for picture in pictures]


def _start(length: int, size: int, generator: torch.Generator | None) -> int:
    room = max(length - size, 0)
    return room // 2 if generator is None else int(torch.randint(room + 1, (), generator=generator))


def _square(picture: np.ndarray, size: int) -> np.ndarray:
    """A picture smaller than the patch goes on by reflection, as in Restormer's training."""
    missing = [(0, size - length) for length in picture.shape[:2]]
    return np.pad(picture, (*missing, (0, 0)), mode="symmetric") if any(after for _, after in missing) else picture


def _flips_and_turns(generator: torch.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """One of the eight symmetries of a square."""
    symmetry = int(torch.randint(8, (), generator=generator))

    def turn(picture: np.ndarray) -> np.ndarray:
        turned = np.rot90(picture, symmetry % 4)
        return turned[:, ::-1] if symmetry >= 4 else turned

    return turn


def to_tensor(pixels: np.ndarray) -> Tensor:
    """(H, W, C) uint8 or uint16 -> (C, H, W) float32 in [0, 1]."""
    peak = np.iinfo(pixels.dtype).max
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32) / peak)
