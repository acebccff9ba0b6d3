"""Pairs of degraded and clean pictures, and plain lists of clean ones.

Pairs are matched by name (folder below the root and file name without its extension), never by order: two listings that
are sorted apart go wrong silently when one file is missing. Hidden files and files that are no pictures are ignored.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from iptv2_diffusion.data.image_folder import EXTENSIONS, opened, pictures_below
from iptv2_diffusion.data.image_io import read_pixels

SHOWN = 5  # names in an error message


@dataclass(frozen=True)
class Pair:
    name: str
    degraded: tuple[Path, ...]  # several views of one scene where there are any (dual pixel: left, right)
    clean: Path


def list_pictures(root: str | Path) -> list[Path]:
    """All pictures below a folder, sorted. FileNotFoundError without the folder, ValueError without any picture."""
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"expected a folder of pictures, found no folder {root}")
    files = sorted(Path(file) for file in pictures_below(root))
    if not files:
        raise ValueError(f"expected pictures ({', '.join(EXTENSIONS)}) in {root}, found none")
    return files


def pair_folders(degraded_root: str | Path | Sequence[str | Path], clean_root: str | Path) -> list[Pair]:
    """Matches the pictures of two folders by their names below them; extensions may differ. Sorted by name.

    Several degraded folders hold several views of each scene. ValueError listing the first names that have no
    counterpart or are there twice.
    """
    roots = [degraded_root] if isinstance(degraded_root, (str, Path)) else list(degraded_root)
    views = [_by_stem(root) for root in roots]
    return match(views, _by_stem(clean_root), [str(root) for root in roots], str(clean_root))


def match(
    views: Sequence[dict[str, Path]],
    clean: dict[str, Path],
    places: Sequence[str],
    clean_place: str,
    *,
    spare_clean: bool = False,
) -> list[Pair]:
    """Pairs of files of the same key; `places` name the views in messages. Clean files may be left if `spare_clean`."""
    for view, place in zip(views, places, strict=True):
        lonely = [(f"in {place} only", view.keys() - clean.keys())]
        lonely += [] if spare_clean else [(f"in {clean_place} only", clean.keys() - view.keys())]
        if problems := [f"{where}: {shown(names)}" for where, names in lonely if names]:
            raise ValueError(f"expected pictures of the same names in {place} and {clean_place}; {'; '.join(problems)}")
    shared = set(clean).intersection(*views)
    if missing := sorted(set().union(*views) - shared):
        raise ValueError(f"expected pictures of the same names in {', '.join(places)}; not in all: {shown(missing)}")
    return [Pair(name, tuple(view[name] for view in views), clean[name]) for name in sorted(shared)]


def keyed(files: Iterable[Path], key: Callable[[Path], str]) -> dict[str, Path]:
    """Key -> file. ValueError where two files have one key: nothing would say which is meant."""
    found: dict[str, Path] = {}
    for file in files:
        if (other := found.setdefault(key(file), file)) != file:
            raise ValueError(f"expected one picture of each name, found {other} and {file}")
    return found


class PairedPictures:
    """`read(index)` gives the degraded and the clean picture, (H, W, C) uint8 or uint16.

    Several views of a scene are concatenated: a dual-pixel pair gives 6 channels. With `gray` every picture has one
    channel. `bits=8` keeps the high byte of 16-bit pictures, as readers do that know 8 bits only.
    """

    def __init__(self, pairs: Sequence[Pair], *, gray: bool = False, bits: int | None = None) -> None:
        self.pairs, self.gray, self.bits = tuple(pairs), gray, bits

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(pair.name for pair in self.pairs)

    def check(self, limit: int | None = None) -> None:
        """ValueError naming a file that is no picture, or files whose sizes differ, by headers; `limit`: of the first."""
        for pair in self.pairs[:limit]:
            sides = {file: _sides(file) for file in (*pair.degraded, pair.clean)}
            if len(set(sides.values())) > 1:
                found = " and ".join(f"{'x'.join(map(str, size))} in {file}" for file, size in sides.items())
                raise ValueError(f"expected pictures of one size, got sides of {found}")

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """ValueError naming the files where their sizes differ, or the depths of the views."""
        pair = self.pairs[index]
        views = [_read(file, self.gray, self.bits) for file in pair.degraded]
        clean = _read(pair.clean, self.gray, self.bits)
        for file, view in zip(pair.degraded, views, strict=True):
            if view.shape[:2] != clean.shape[:2]:
                raise ValueError(
                    f"expected pictures of one size, got {_size(view)} in {file} and {_size(clean)} in {pair.clean}"
                )
            if view.dtype != views[0].dtype:
                raise ValueError(
                    f"expected views of one depth, got {view.dtype} in {file}, {views[0].dtype} in {pair.degraded[0]}"
                )
        return np.concatenate(views, axis=2), clean


class JoinedPictures:
    """As `PairedPictures`, of files that hold the degraded and the clean picture side by side."""

    def __init__(self, files: Sequence[Path], *, degraded: Literal["left", "right"], gray: bool = False) -> None:
        self.files, self.degraded, self.gray = tuple(files), degraded, gray
        self.names = tuple(file.stem for file in self.files)

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """ValueError naming a file that has no two halves."""
        pixels = read_pixels(self.files[index], gray=self.gray)
        if pixels.shape[1] % 2:
            raise ValueError(f"expected two pictures side by side in {self.files[index]}, got {_size(pixels)}")
        left, right = (np.ascontiguousarray(half) for half in np.split(pixels, 2, axis=1))
        return (left, right) if self.degraded == "left" else (right, left)


class PictureList:
    """Clean photographs: `read(index)` gives (H, W, 3 | 1) uint8 or uint16."""

    def __init__(self, files: Sequence[Path], *, gray: bool = False, root: Path | None = None) -> None:
        """Names are relative to `root`, if there is one."""
        self.files, self.gray = tuple(files), gray
        self.names = tuple(_stem(file, root or file.parent) for file in self.files)

    @classmethod
    def below(cls, root: str | Path, *, gray: bool = False) -> "PictureList":
        """All pictures below a folder."""
        return cls(list_pictures(root), gray=gray, root=Path(root))

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> np.ndarray:
        return read_pixels(self.files[index], gray=self.gray)


def _sides(file: Path) -> tuple[int, ...]:
    """The shorter first: which one is the height, is told by EXIF, too."""
    with opened(file) as picture:
        return tuple(sorted(picture.size))


def _read(file: Path, gray: bool, bits: int | None) -> np.ndarray:
    pixels = read_pixels(file, gray=gray)
    return (pixels >> 8).astype(np.uint8) if bits == 8 and pixels.dtype == np.uint16 else pixels


def _by_stem(root: str | Path) -> dict[str, Path]:
    return keyed(list_pictures(root), lambda file: _stem(file, Path(root)))


def _stem(file: Path, root: Path) -> str:
    return file.relative_to(root).with_suffix("").as_posix()


def shown(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
