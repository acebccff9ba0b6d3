"""The Fluent Emoji pictures (Microsoft, MIT) that the embedded models are trained on.

A folder holds `images/*.webp` (RGBA, 256x256) and `labels.csv` with the columns file, category, subcategory, name.
Pictures come out as uint8 (N, 3, size, size), composited on white.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from iptv2_diffusion.data.image_folder import on_white

CATEGORIES = (
    "Activities",
    "Animals & Nature",
    "Flags",
    "Food & Drink",
    "Objects",
    "People & Body",
    "Smileys & Emotion",
    "Symbols",
    "Travel & Places",
)
HOLD_OUT_EVERY = 10  # every tenth picture, in the order of labels.csv, is never trained on


@dataclass(frozen=True, kw_only=True)
class EmojiSet:
    images: torch.Tensor  # (N, 3, size, size) uint8
    labels: torch.Tensor  # (N,) int64, indices into CATEGORIES, which begin class_names
    sublabels: torch.Tensor  # (N,) int64, of the subcategories, indices into class_names
    class_names: tuple[str, ...]  # CATEGORIES, then the subcategories of each in turn
    names: tuple[str, ...]

    @property
    def held_out(self) -> torch.Tensor:
        return held_out_mask(len(self.names))


def held_out_mask(count: int) -> torch.Tensor:
    """(count,) bool: True for the pictures that are kept for measuring."""
    return torch.arange(count) % HOLD_OUT_EVERY == HOLD_OUT_EVERY - 1


def composite_on_white(picture: Image.Image, size: int) -> np.ndarray:
    """(size, size, 3) uint8. Transparent pixels become white before the picture is reduced (box filter)."""
    return np.asarray(on_white(picture).resize((size, size), Image.Resampling.BOX))


def load_emoji(root: Path, size: int = 128) -> EmojiSet:
    """Raises FileNotFoundError where `root` is not such a folder."""
    table = root / "labels.csv"
    if not table.is_file():
        raise FileNotFoundError(f"expected labels.csv and images/ in the emoji folder, found no {table}")
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    pixels = np.empty((len(rows), size, size, 3), np.uint8)
    for index, row in enumerate(rows):
        with Image.open(root / "images" / row["file"]) as picture:
            pixels[index] = composite_on_white(picture, size)
    finer = sorted({(CATEGORIES.index(row["category"]), row["subcategory"]) for row in rows})
    class_names = (*CATEGORIES, *(name for _, name in finer))
    return EmojiSet(
        images=torch.from_numpy(pixels).permute(0, 3, 1, 2),
        labels=torch.tensor([CATEGORIES.index(row["category"]) for row in rows]),
        sublabels=torch.tensor([class_names.index(row["subcategory"]) for row in rows]),
        class_names=class_names,
        names=tuple(row["name"] for row in rows),
    )
