"""Labelled pictures to be prepared for training: what folders, tar files and Hugging Face data sets have in common."""

import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Protocol

from PIL import Image

from iptv2_diffusion.data.image_folder import read_rgb, scan, to_rgb


class LabelledPictures(Protocol):
    """Pictures in a fixed order. Reading one leaves nothing behind, so worker processes may share the object."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names; the index is the class id."""
        ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Where it lies, as a path inside the set."""
        ...

    def label(self, index: int) -> int: ...

    def picture(self, index: int) -> Image.Image:
        """RGB, upright, transparency on white; ValueError naming the one that cannot be decoded."""
        ...


class FolderPictures:
    """One folder of pictures per class, as `image_folder.scan` lists them."""

    def __init__(self, root: str | Path) -> None:
        self.classes, self._files, self._labels = scan(root)
        self._root = os.path.join(root, "")

    def __len__(self) -> int:
        return len(self._files)

    def name(self, index: int) -> str:
        return self._files[index].removeprefix(self._root).replace(os.sep, "/")

    def label(self, index: int) -> int:
        return self._labels[index]

    def picture(self, index: int) -> Image.Image:
        return read_rgb(self._files[index])


def decode_rgb(content: bytes, name: str) -> Image.Image:
    """The picture in these bytes as `read_rgb` gives it; ValueError naming it where it cannot be decoded."""
    try:
        with Image.open(BytesIO(content)) as picture:
            return to_rgb(picture)
    except Exception as error:  # as in `image_folder.opened`
        raise ValueError(f"cannot read {name} as a picture: {error}") from error


def number_classes(
    labels: Sequence[int | str], names: Sequence[str] | None = None
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The names of the classes and the class id of each label.

    Numbers are class ids, named by `names` or by themselves. Texts are names, numbered in the order of `names` or
    sorted. ValueError for a mixture, and for a label outside `names`.
    """
    numbers = [label for label in labels if isinstance(label, int)]
    if len(numbers) == len(labels):
        classes = tuple(names) if names else tuple(map(str, range(max(numbers) + 1)))
        if outside := [number for number in numbers if not 0 <= number < len(classes)]:
            raise ValueError(f"expected labels from 0 to {len(classes) - 1}, got {outside[0]}")
        return classes, tuple(numbers)
    if numbers:
        text = next(label for label in labels if isinstance(label, str))
        raise ValueError(f"expected labels that are all numbers or all names, got {numbers[0]} and {text!r}")
    classes = tuple(names or sorted(map(str, set(labels))))
    ids = {name: index for index, name in enumerate(classes)}
    if unknown := [label for label in labels if label not in ids]:
        raise ValueError(f"expected labels among {len(classes)} class names, got {unknown[0]!r}")
    return classes, tuple(ids[str(label)] for label in labels)
