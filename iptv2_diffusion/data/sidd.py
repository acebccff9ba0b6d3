"""Blocks of the Smartphone Image Denoising Dataset: 40 pictures of 32 blocks, 256x256, in .mat files (v5)."""

import base64
import csv
from io import StringIO
from pathlib import Path

import numpy as np

from iptv2_diffusion.data.image_writers import write_bytes
from iptv2_diffusion.data.matlab import load_v5, save_v5

HOME = "https://abdokamel.github.io/sidd"
BLOCKS = (40, 32, 256, 256, 3)  # pictures, blocks, rows, columns, RGB
NOISY, CLEAN = "ValidationNoisyBlocksSrgb", "ValidationGtBlocksSrgb"  # variables, and files with .mat
BENCHMARK = "BenchmarkNoisyBlocksSrgb"  # noisy blocks whose clean ones only the server has


class SiddBlocks:
    """Validation blocks: `read(index)` gives the noisy and the clean block, (256, 256, 3) uint8; 32 to a picture."""

    def __init__(self, root: str | Path, shape: tuple[int, ...] = BLOCKS) -> None:
        self.noisy, self.clean = (read_blocks(root, name, shape).reshape(-1, *shape[2:]) for name in (NOISY, CLEAN))
        self.names = tuple(f"{picture:02d}_{block:02d}" for picture in range(shape[0]) for block in range(shape[1]))

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.noisy[index], self.clean[index]


class NoisyBlocks:
    """Benchmark blocks: `read(index)` gives a noisy block, (256, 256, 3) uint8; only the server has the clean ones."""

    def __init__(self, root: str | Path, shape: tuple[int, ...] = BLOCKS) -> None:
        self.blocks = read_blocks(root, BENCHMARK, shape).reshape(-1, *shape[2:])
        self.names = tuple(f"{index:04d}" for index in range(len(self.blocks)))

    def __len__(self) -> int:
        return len(self.blocks)

    def read(self, index: int) -> np.ndarray:
        return self.blocks[index]


def read_blocks(root: str | Path, variable: str, shape: tuple[int, ...] = BLOCKS) -> np.ndarray:
    """(40, 32, 256, 256, 3) uint8. FileNotFoundError without the file, ValueError for another content."""
    root = Path(root)
    places = [root / below / f"{variable}.mat" for below in ("", "test/SIDD", "SIDD")]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise FileNotFoundError(f"expected {variable}.mat in {root}, found none; it is to be had at {HOME}")
    blocks = load_v5(path, variable)
    if blocks.shape != shape or blocks.dtype != np.uint8:
        raise ValueError(f"expected {variable} {shape} uint8 in {path}, got {blocks.shape} {blocks.dtype}")
    return blocks


def write_blocks(
    path: str | Path, blocks: np.ndarray, variable: str = "DenoisedBlocksSrgb", *, overwrite: bool = False
) -> None:
    """A .mat file (v5) with the blocks, in the shape of the validation files or flattened to (N, rows, columns, 3)."""
    save_v5(Path(path), {variable: _checked(blocks)}, overwrite=overwrite)


def write_submission(path: str | Path, blocks: np.ndarray, *, overwrite: bool = False) -> None:
    """What the benchmark's server takes: a CSV file with ID (from 0) and BLOCK (base64 of a block's bytes)."""
    blocks = _checked(blocks)
    text = StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["ID", "BLOCK"])
    for index, block in enumerate(blocks.reshape(-1, *blocks.shape[-3:])):
        rows.writerow([index, base64.b64encode(block.tobytes()).decode()])
    write_bytes(path, text.getvalue().encode(), overwrite=overwrite)


def _checked(blocks: np.ndarray) -> np.ndarray:
    if blocks.dtype != np.uint8 or blocks.ndim not in (4, 5) or blocks.shape[-1] != 3:
        raise ValueError(f"expected blocks (..., rows, columns, 3) uint8, got {blocks.shape} {blocks.dtype}")
    return blocks
