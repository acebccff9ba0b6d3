"""Large images in overlapping tiles, for any function of (B, C, H, W) images that keeps H and W.

A tile is laid over its predecessors by linear interpolation where they overlap: so weights sum to one by construction,
ramps exist on interior edges only, and where tiles agree the result is theirs bit for bit.
"""

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import isqrt
from pathlib import Path

import psutil
import torch
from torch import Tensor

Run = Callable[[Tensor], Tensor]  # (B, C, H, W) -> (B, C', H, W)
Progress = Callable[[int], None]  # called with the number of pixels finished so far

OVERLAP = 64  # pixels
LARGEST_TILE = 512  # pixels; the largest patch of the paper's training has 384
LARGEST_WHOLE = 2**22  # pixels; the largest picture of the paper's benchmarks, DPDD's, has 1680x1120
SHARE_OF_FREE_MEMORY = 0.5
CONTROL = Path("/sys/fs/cgroup")
CGROUP = (  # limit and use, of versions 2 and 1
    (CONTROL / "memory.max", CONTROL / "memory.current"),
    (CONTROL / "memory/memory.limit_in_bytes", CONTROL / "memory/memory.usage_in_bytes"),
)
OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")  # what torch says, by device


@dataclass(frozen=True)
class Layout:
    """Tiles of `tile` pixels a side, their origins in multiples of `step`; neighbours share `overlap` or more.

    `tile` is a multiple of `unit`, and `overlap` and `unit` are multiples of `step`: see `fitting`.
    """

    tile: int
    overlap: int
    unit: int = 1
    step: int = 1

    @classmethod
    def fitting(cls, tile: int, overlap: int, unit: int = 1, step: int = 1) -> "Layout":
        """Both lengths rounded up to what is possible; ValueError unless the overlap is from 0 to below the tile."""
        if not 0 <= overlap < tile:
            raise ValueError(f"expected an overlap from 0 to below the tile, got overlap {overlap} and tile {tile}")
        tile = _up(tile, unit)
        return cls(tile, min(_up(overlap, step), tile - step), unit, step)

    def spans(self, size: int, first: int = 0) -> list[tuple[int, int]]:
        """(start, end) of the fewest tiles that cover [first, size), evenly spaced; the last one may be cut short.

        Where `size` is no multiple of `step`, so is the last tile not: it ends as the image does.
        """
        room = size - first - self.tile
        if room <= 0:
            return [(first, size)]
        gaps = -(-room // (self.tile - self.overlap))
        starts = sorted({first + _up(-(-i * room // gaps), self.step) for i in range(gaps + 1)})
        return [(start, min(start + self.tile, size)) for start in starts]

    def halved(self) -> "Layout | None":
        """None where the tile is as small as it can be."""
        tile = _up(max(1, self.tile // 2), self.unit)
        if tile >= self.tile:
            return None
        return Layout.fitting(tile, min(self.overlap, tile // 2), self.unit, self.step)

    def resume(self, done: int) -> int:
        """Where to start so that what is finished, up to `done`, is overlapped as usual."""
        return max(0, done - self.overlap) // self.step * self.step


def tiled(run: Run, image: Tensor, layout: Layout, on_progress: Progress = lambda pixels: None) -> Tensor:
    """`run(image)` from tiles, on the CPU in at least fp32. A tile no smaller than the image gives just `run(image)`.

    Running out of memory halves the tile, with a warning, and goes on below the rows that are finished.
    """
    return joined(_strips(run, image, layout, on_progress), image.shape[-2], dim=-2)


def _strips(run: Run, image: Tensor, layout: Layout, on_progress: Progress) -> Iterator[tuple[int, Tensor]]:
    """(top, strip as wide as the image), from the top down."""
    height, width = image.shape[-2:]
    done = 0
    while done < height:
        try:
            for top, bottom in layout.spans(height, layout.resume(done)):
                progress = partial(_report, on_progress, done * width, bottom - done)
                yield top, joined(_tiles(run, image[..., top:bottom, :], layout, progress), width, dim=-1)
                done = bottom
        except (MemoryError, RuntimeError) as error:
            smaller = layout.halved()
            if smaller is None or not is_out_of_memory(error):
                raise
            warnings.warn(
                f"out of memory with tiles of {layout.tile} pixels, going on with {smaller.tile}", stacklevel=2
            )
            layout = smaller


def _tiles(run: Run, strip: Tensor, layout: Layout, on_column: Callable[[int], None]) -> Iterator[tuple[int, Tensor]]:
    for left, right in layout.spans(strip.shape[-1]):
        tile = run(strip[..., left:right])
        yield left, tile.to("cpu", torch.promote_types(tile.dtype, torch.float32), copy=True)
        on_column(right)


def _report(on_progress: Progress, before: int, rows: int, columns: int) -> None:
    on_progress(before + rows * columns)


def joined(pieces: Iterable[tuple[int, Tensor]], size: int, dim: int) -> Tensor:
    """One tensor of `size` along `dim` from (start, piece) in ascending order, blended where they overlap."""
    whole, done = None, 0
    for start, piece in pieces:
        length, shared = piece.shape[dim], done - start
        if length == size:
            return piece
        if whole is None:
            shape = list(piece.shape)
            shape[dim] = size
            whole = piece.new_empty(shape)
        target = whole.narrow(dim, start, length)
        weight = ramp(shared).to(piece).unflatten(0, (-1, *[1] * (-1 - dim)))
        target.narrow(dim, 0, shared).lerp_(piece.narrow(dim, 0, shared), weight)
        target.narrow(dim, shared, length - shared).copy_(piece.narrow(dim, shared, length - shared))
        done = start + length
    assert whole is not None
    return whole


def ramp(shared: int) -> Tensor:
    """Weights (shared,) of the later of two overlapping tiles: 0, rising over the middle half, 1.

    The outer quarters go to the tile that sees further there: a network whose receptive field reaches no further than
    a quarter of the overlap is not changed by tiling.
    """
    margin = shared // 4
    rise = (torch.arange(shared, dtype=torch.float64) + 0.5 - margin) / max(1, shared - 2 * margin)
    return rise.clamp(0, 1)


def is_out_of_memory(error: Exception) -> bool:
    kinds = MemoryError, torch.cuda.OutOfMemoryError
    return isinstance(error, kinds) or any(words in str(error) for words in OUT_OF_MEMORY)


def tile_for_memory(shape: Sequence[int], bytes_per_pixel: float, free: int, unit: int) -> int:
    """The whole (B, C, H, W) image where half of the free bytes suffice for it, else the largest tile that does.

    Tiles stay within `LARGEST_TILE` and whole images within `LARGEST_WHOLE`: larger ones cost as much for each pixel,
    and GGSA's grid would be far wider than in training.
    """
    pixels = int(free * SHARE_OF_FREE_MEMORY / (bytes_per_pixel * shape[0]))
    if shape[-2] * shape[-1] <= min(pixels, LARGEST_WHOLE):
        return max(shape[-2:])
    return max(unit, min(LARGEST_TILE, isqrt(pixels)) // unit * unit)


def free_memory(device: torch.device) -> int:
    """Bytes; on a CPU no more than what a container leaves."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min([psutil.virtual_memory().available, *_left_by_container()])


def _left_by_container() -> Iterator[int]:
    for limit, used in CGROUP:
        with suppress(OSError, ValueError):  # no such file, or "max"
            found = re.search(r"^inactive_file (\d+)", (used.parent / "memory.stat").read_text(), re.MULTILINE)
            cached = int(found[1]) if found else 0  # files, which can be read again
            yield max(0, int(limit.read_text()) - int(used.read_text()) + cached)


def _up(length: int, unit: int) -> int:
    return -(-length // unit) * unit
