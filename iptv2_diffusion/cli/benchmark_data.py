"""The pictures of a benchmark, and where restored ones are written: PNG files, or what a server takes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from iptv2_diffusion.data.dnd import BOXES, write_bundle
from iptv2_diffusion.data.image_io import Photo, write_photo
from iptv2_diffusion.data.pairs import PairedPictures, PictureList, pair_folders
from iptv2_diffusion.data.restoration_sets import open_set, spec_of
from iptv2_diffusion.data.sidd import write_blocks, write_submission
from iptv2_diffusion.files import check_free
from iptv2_diffusion.metrics.fidelity import to_uint8
from iptv2_diffusion.restoration.protocols import Benchmark, noisy
from iptv2_diffusion.restoration.tasks import TASKS

NO_PAIRS = ("sidd-val", "sidd-bench", "dnd")  # not in files of pictures


class Pictures(Protocol):
    """What the data sets have in common."""

    @property
    def names(self) -> Sequence[str]: ...

    def read(self, index: int) -> Any: ...


@dataclass(frozen=True, eq=False)
class Sample:
    name: str
    degraded: np.ndarray  # (H, W, C) float32, white being 1; noise may exceed it
    clean: np.ndarray | None  # (H, W, C') uint8 | uint16; None: only a server has it


def open_benchmark(benchmark: Benchmark, root: Path) -> Pictures:
    """The whole set in the folder `root`, or what there is of a `partial` one.

    FileNotFoundError or ValueError, of one line, where it is not complete.
    """
    pictures = open_set(benchmark.data_set, root, gray=benchmark.protocol.colour == "gray")
    if len(pictures) != benchmark.count and not benchmark.partial:  # tiles that were cut from it, for instance
        raise ValueError(f"{benchmark.name}: expected {benchmark.count} whole pictures in {root}, got {len(pictures)}")
    return pictures


def open_folders(benchmark: Benchmark, folders: Sequence[Path], limit: int | None = None) -> Pictures:
    """Folders in place of the set's own layout, for those who have a part of it: degraded (left, right), clean.

    Without noise of its own: a benchmark that adds it takes one folder, of clean pictures. ValueError, of one line, for
    other folders than it needs, and pairs that do not match, their sizes among the first `limit`.
    """
    if benchmark.protocol_id in NO_PAIRS:
        raise ValueError(f"--pairs: {benchmark.name} is not made of picture files; expected --data-path")
    *degraded, clean = folders
    views = 0 if benchmark.sigma is not None else TASKS[benchmark.protocol.task].channels[0] // 3
    if len(degraded) != views:
        expected = {0: "CLEAN", 1: "DEGRADED CLEAN", 2: "LEFT RIGHT CLEAN"}[views]
        raise ValueError(f"--pairs: expected {expected} for {benchmark.name}, got {len(folders)} folders")
    gray = benchmark.protocol.colour == "gray"
    if not degraded:
        return PictureList.below(clean, gray=gray)
    pictures = PairedPictures(pair_folders(degraded, clean), gray=gray, bits=spec_of(benchmark.data_set).bits)
    pictures.check(limit)  # one that fails late would cost the scores of all
    return pictures


def read_sample(benchmark: Benchmark, pictures: Pictures, index: int) -> Sample:
    found, name = pictures.read(index), pictures.names[index]
    if benchmark.sigma is not None:
        return Sample(name, noisy(found, benchmark.sigma), found)
    if isinstance(found, tuple):
        return Sample(name, as_float(found[0]), found[1])
    return Sample(name, as_float(found), None)


def as_float(pixels: np.ndarray) -> np.ndarray:
    """float32, white being 1; floats stay."""
    return pixels if pixels.dtype.kind == "f" else pixels.astype(np.float32) / np.iinfo(pixels.dtype).max


class Writer:
    """Takes restored images, floats in [0, 1], in the order of the set; `close` writes what is left."""

    def __init__(self, folder: Path) -> None:
        """FileExistsError unless the folder is new or empty."""
        check_free(folder, "for restored pictures")
        self.folder = folder
        self.kept: list[np.ndarray] = []

    def save(self, sample: Sample, restored: np.ndarray) -> None:
        self.kept.append(to_uint8(restored))

    def close(self) -> None: ...


class PngWriter(Writer):
    """Of the depth of the clean picture."""

    def save(self, sample: Sample, restored: np.ndarray) -> None:
        path = self.folder / f"{sample.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        deep = sample.clean is not None and sample.clean.dtype == np.uint16
        write_photo(path, Photo(np.rint(restored * 65535).astype(np.uint16) if deep else to_uint8(restored)))


class BlockWriter(Writer):
    """`DenoisedBlocksSrgb.mat`, (N, rows, columns, 3) uint8."""

    def close(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_blocks(self.folder / "DenoisedBlocksSrgb.mat", np.stack(self.kept))


class SubmissionWriter(Writer):
    """`SubmitSrgb.csv`, as SIDD's server takes it."""

    def close(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_submission(self.folder / "SubmitSrgb.csv", np.stack(self.kept))


class BundleWriter(Writer):
    """`0001.mat` and so on, as DND's server takes them."""

    written = 0

    def save(self, sample: Sample, restored: np.ndarray) -> None:
        self.kept.append(restored)
        if len(self.kept) == BOXES:
            self.close()

    def close(self) -> None:
        if self.kept:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_bundle(self.folder, self.written, self.kept)
            self.written, self.kept = self.written + 1, []


WRITERS: dict[str, Callable[[Path], Writer]] = {
    "sidd-val": BlockWriter,
    "sidd-bench": SubmissionWriter,
    "dnd": BundleWriter,
}


def make_writer(benchmark: Benchmark, folder: Path) -> Writer:
    """For the folder of this benchmark below `folder`."""
    return WRITERS.get(benchmark.protocol_id, PngWriter)(folder / benchmark.name)
