"""Pictures sorted into one folder per class, as class-conditional training reads them.

Expected layout: root/<class name>/<picture>. Classes are numbered in the sorted order of their folder names, and
pictures may lie deeper than one level: ids and order are those of torchvision's ImageFolder. Hidden files and folders
and files with other extensions are ignored. Pictures come out as uint8 (3, H, W), RGB.

An unreadable picture is refused with its name when it is read: skipping it would make the picture at a given position
depend on what else can be decoded, and checking a million files before the first step takes too long.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile
from torch.utils.data import Dataset

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
LAYOUT = "root/<class name>/<picture>"


class FolderListing(NamedTuple):
    classes: tuple[str, ...]  # index = class id
    files: tuple[str, ...]  # paths as strings, which take a third of the memory of a million Path objects
    labels: tuple[int, ...]  # class id of each file


def scan(root: str | Path) -> FolderListing:
    """Lists the pictures without opening them.

    FileNotFoundError where `root` is no folder, ValueError where it has no class folder or a class has no picture.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"expected a folder of pictures ({LAYOUT}), found no folder {root}")
    classes = tuple(sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not _is_hidden(entry.name)))
    if not classes:
        raise ValueError(f"expected one folder per class ({LAYOUT}), found no folder inside {root}")
    pictures = [tuple(pictures_below(root / name)) for name in classes]
    _refuse_empty(root, [name for name, files in zip(classes, pictures, strict=True) if not files])
    labels = tuple(label for label, files in enumerate(pictures) for _ in files)
    return FolderListing(classes, tuple(file for files in pictures for file in files), labels)


def class_folders(root: Path) -> Iterator[Path]:
    """Those folders in `root` that hold pictures, at any depth."""
    folders = (path for path in sorted(root.glob("*")) if path.is_dir() and not _is_hidden(path.name))
    return (folder for folder in folders if next(pictures_below(folder), None) is not None)


def read_rgb(path: str | Path) -> Image.Image:
    """Mode RGB, 8 bits, upright (EXIF orientation applied), transparency on white; the first frame of several.

    ValueError naming the file where it cannot be decoded.
    """
    with opened(path) as picture:
        return to_rgb(picture)


@contextmanager
def opened(path: str | Path) -> Iterator[Image.Image]:
    """Errors in the block, too, become ValueError with the name of the file: only asking for pixels decodes them."""
    try:
        with Image.open(path) as picture:
            if isinstance(picture, TiffImageFile):
                picture.filename = (
                    ""  # else Pillow maps plain files into memory in the shape that they have once upright
                )
            yield picture
    except Exception as error:  # bad bytes raise more than OSError: ValueError, SyntaxError, DecompressionBombError
        raise ValueError(f"cannot read {path} as a picture: {error}") from error


class ImageFolder(Dataset[tuple[torch.Tensor, int]]):
    """Pairs of picture, uint8 (3, H, W), and class id.

    `transform` takes and returns an RGB picture; cropping all pictures to one size, as batches need, belongs there.
    """

    def __init__(self, root: str | Path, transform: Callable[[Image.Image], Image.Image] | None = None) -> None:
        self.classes, self.files, self.labels = scan(root)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        picture = read_rgb(self.files[index])
        if self.transform is not None:
            picture = self.transform(picture)
        pixels = torch.from_numpy(np.array(picture))  # (H, W, 3)
        return pixels.permute(2, 0, 1).contiguous(), self.labels[index]


def pictures_below(folder: Path) -> Iterator[str]:
    """Sorted by folder, then by name. Symbolic links are followed: subsets of large data sets are made of them."""
    for parent, _, names in sorted(os.walk(folder, followlinks=True)):
        if any(_is_hidden(part) for part in Path(parent).relative_to(folder).parts):
            continue
        for name in sorted(names):
            if name.lower().endswith(EXTENSIONS) and not _is_hidden(name):
                yield os.path.join(parent, name)


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _refuse_empty(root: Path, classes: list[str]) -> None:
    if classes:
        shown = ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")
        raise ValueError(
            f"expected pictures ({', '.join(EXTENSIONS)}) in every class folder of {root} ({LAYOUT}), "
            f"found none in {len(classes)} of them: {shown}"
        )


def to_rgb(picture: Image.Image) -> Image.Image:
    """What `read_rgb` gives, of a picture that is opened."""
    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I"):
        return _from_16_bit(upright).convert("RGB")
    if upright.mode == "F":
        raise ValueError("expected 8 or 16 bits per channel, it holds floating-point numbers")
    return on_white(upright) if upright.has_transparency_data else upright.convert("RGB")


def on_white(picture: Image.Image) -> Image.Image:
    """RGB, what is transparent being white."""
    rgba = picture.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


def _from_16_bit(picture: Image.Image) -> Image.Image:
    """The high byte, as Pillow itself reads 16-bit colour; its own conversion of 16-bit gray clips at 255."""
    values = np.asarray(picture)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"expected 8 or 16 bits per channel, it holds values from {values.min()} to {values.max()}")
    return Image.fromarray((values >> 8).astype(np.uint8))
