"""Sets of images to be measured, read in batches: folders of pictures, and `arr_0` of .npz files as ADM's scripts write it."""

import hashlib
import os
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Protocol
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np

from iptv2_diffusion.cli.sample_config import METADATA_KEY
from iptv2_diffusion.data.image_folder import opened, pictures_below, read_rgb

IMAGES = "arr_0"
GRID, NPZ = "grid.png", "samples.npz"  # what our sampler writes beside pictures: an overview, and the same as an array
READERS = 4  # threads that decode pictures


class ImageSet(Protocol):
    """So many images of one size."""

    path: Path
    count: int

    @property
    def side_lengths(self) -> tuple[int, int]:
        """Height and width, in pixels."""
        ...

    def batches(self, start: int, stop: int, size: int) -> Iterator[np.ndarray]:
        """The images `start` to `stop` - 1 as (B, H, W, 3) uint8, B being `size` but for the last."""
        ...

    def chosen(self, positions: Sequence[int], size: int) -> Iterator[np.ndarray]:
        """Those images, in ascending order, in batches of at most `size`."""
        ...


def open_images(path: Path, side: int | None = None) -> ImageSet:
    """Of a folder without pictures its samples.npz. Only the first picture, or a header, is read here.

    `side`: pixels to which the pictures of a folder are cropped as ADM does.
    FileNotFoundError or ValueError where there are no images.
    """
    if path.is_dir():
        npz = path / NPZ
        return ImageArray(npz) if npz.is_file() and not _pictures(path) else PictureFolder(path, side)
    if not path.is_file():
        raise FileNotFoundError(f"expected a folder of pictures or an .npz file, found no {path}")
    if side is not None:
        raise ValueError(f"--size crops the pictures of folders, {path} is a file")
    return ImageArray(path)


class PictureFolder:
    """Pictures anywhere below a folder, in the order of their names; alpha is laid on white."""

    def __init__(self, path: Path, side: int | None = None) -> None:
        self.path, self.side = path, side
        self.files = _pictures(path)
        self.count = len(self.files)
        if not self.files:
            raise ValueError(f"expected pictures in {path}, found none")
        self.side_lengths = self._pixels(self.files[0]).shape[:2]

    def batches(self, start: int, stop: int, size: int) -> Iterator[np.ndarray]:
        return self.chosen(range(start, stop), size)

    def chosen(self, positions: Sequence[int], size: int) -> Iterator[np.ndarray]:
        ahead: deque[tuple[list[str], Iterator[np.ndarray]]] = deque()
        with ThreadPoolExecutor(READERS) as readers:
            for first in range(0, len(positions), size):
                files = [self.files[position] for position in positions[first : first + size]]
                ahead.append((files, readers.map(self._pixels, files)))
                if len(ahead) > 1:  # a batch is decoded while the one before it is in use
                    yield self._stacked(*ahead.popleft())
            for files, pictures in ahead:
                yield self._stacked(files, pictures)

    def _pixels(self, file: str) -> np.ndarray:
        from iptv2_diffusion.diffusion.latents import center_crop

        picture = read_rgb(file)
        return np.asarray(picture if self.side is None else center_crop(picture, self.side))

    def _stacked(self, files: Sequence[str], decoded: Iterator[np.ndarray]) -> np.ndarray:
        (height, width), pictures = self.side_lengths, list(decoded)
        for file, picture in zip(files, pictures, strict=True):
            if picture.shape[:2] != (height, width):
                raise ValueError(
                    f"expected pictures of one size, {self.files[0]} has {width}x{height} pixels and {file} "
                    f"{picture.shape[1]}x{picture.shape[0]}; --size crops those of a reference"
                )
        return np.stack(pictures)


class ImageArray:
    """`arr_0` (N, H, W, 3) uint8 of an .npz file: memory-mapped where it is stored plainly, else inflated as it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with opened_npz(path) as archive:
            self.entry = _entry(archive, path)
            with archive.open(self.entry) as stream:
                self.shape = _read_header(stream, path)
        self.count, *_ = self.shape
        self.side_lengths = self.shape[1], self.shape[2]

    def batches(self, start: int, stop: int, size: int) -> Iterator[np.ndarray]:
        if self.entry.compress_type == ZIP_STORED:
            pixels = np.memmap(self.path, np.uint8, "r", self._offset(), self.shape)
            for first in range(start, stop, size):
                yield np.array(pixels[first : min(first + size, stop)])
            return
        with ZipFile(self.path) as archive, archive.open(self.entry) as stream:
            _read_header(stream, self.path)
            stream.seek(start * self._bytes, 1)
            for first in range(start, stop, size):
                shape = (min(size, stop - first), *self.shape[1:])
                yield np.frombuffer(_exactly(stream, shape[0] * self._bytes, self.path), np.uint8).reshape(shape)

    def chosen(self, positions: Sequence[int], size: int) -> Iterator[np.ndarray]:
        """All are read: a deflated file can only be read from its beginning."""
        wanted = np.zeros(self.count, bool)
        wanted[list(positions)] = True
        for first, batch in zip(range(0, self.count, size), self.batches(0, self.count, size), strict=True):
            yield batch[wanted[first : first + len(batch)]]

    @property
    def _bytes(self) -> int:
        """Of one image."""
        return int(np.prod(self.shape[1:]))

    def _offset(self) -> int:
        """Of the first pixel in the file: behind the zip's header of the entry (30 bytes, name, extra field) and numpy's."""
        with self.path.open("rb") as file:
            file.seek(self.entry.header_offset + 26)
            lengths = np.frombuffer(file.read(4), "<u2")
            file.seek(self.entry.header_offset + 30 + int(lengths.sum()))
            _read_header(file, self.path)
            return file.tell()


def opened_npz(path: Path) -> ZipFile:
    """ValueError for a file that is no .npz."""
    try:
        return ZipFile(path)
    except BadZipFile as error:
        raise ValueError(f"expected an .npz file, {path} is not one: {error}") from error


def members(path: Path) -> set[str]:
    """Names of the arrays in an .npz file."""
    with opened_npz(path) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist()}


def digests(images: np.ndarray) -> np.ndarray:
    """(B, H, W, 3) -> (B, 32) uint8: SHA-256 of each image's size and pixels."""
    size = f"{images.shape[1]}x{images.shape[2]}\0".encode()
    found = b"".join(hashlib.sha256(size + image.tobytes()).digest() for image in images)
    return np.frombuffer(bytearray(found), np.uint8).reshape(-1, 32)


def write_images(archive: ZipFile, images: ImageSet, chosen: Sequence[int]) -> None:
    """Adds those images, in ascending order, as `arr_0` to an .npz file, one batch in memory."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(chosen), *images.side_lengths, 3)}
    with archive.open(f"{IMAGES}.npy", "w", force_zip64=True) as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for batch in images.chosen(chosen, 64):
            stream.write(batch.tobytes())


def _pictures(folder: Path) -> list[str]:
    overview = os.path.join(folder, GRID)
    return [file for file in pictures_below(folder) if file != overview or not _is_ours(file)]


def _is_ours(picture: str) -> bool:
    """Whether our sampler wrote it, which leaves a record in its pictures."""
    with opened(picture) as found:
        return METADATA_KEY in found.info


def _entry(archive: ZipFile, path: Path) -> ZipInfo:
    try:
        return archive.getinfo(f"{IMAGES}.npy")
    except KeyError:
        raise ValueError(f"expected images as {IMAGES} in {path}, it holds {', '.join(archive.namelist())}") from None


def _read_header(stream: IO[bytes], path: Path) -> tuple[int, ...]:
    """The shape; the stream stands at the first pixel afterwards."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype != np.uint8 or fortran or len(shape) != 4 or shape[3] != 3 or not shape[0]:
        raise ValueError(f"expected {IMAGES} in {path} to be uint8 (N, H, W, 3), got {dtype} {shape}")
    return shape


def _exactly(stream: IO[bytes], count: int, path: Path) -> bytearray:
    try:
        content = stream.read(count)
    except (BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if len(content) < count:
        raise ValueError(f"{path} ends before its last image")
    return bytearray(content)  # arrays on it may be written to, as torch expects
