"""Layout, blending, and going on after memory ran out."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from iptv2_diffusion.restoration import tiling
from iptv2_diffusion.restoration.tiling import Layout, free_memory, is_out_of_memory, ramp, tile_for_memory, tiled

LAYOUTS = [
    (64, 16, 8, 8),
    (64, 32, 64, 32),
    (64, 0, 1, 1),
    (100, 30, 64, 32),
    (16, 15, 1, 1),
    (96, 90, 32, 32),
    (8, 0, 1, 1),
]
SIZES = [1, 7, 63, 64, 65, 72, 113, 200, 333]


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("numbers", LAYOUTS, ids=str)
@pytest.mark.parametrize("first", [0, 32])
def test_spans_cover_evenly_with_at_least_the_overlap(numbers: tuple[int, ...], size: int, first: int) -> None:
    layout, (tile, overlap, unit, step) = Layout.fitting(*numbers), numbers
    size += first
    spans = layout.spans(size, first)
    assert layout.tile % unit == layout.overlap % step == 0
    assert layout.tile >= tile
    assert layout.overlap >= min(overlap, layout.tile - step)
    assert (spans[0][0], spans[-1][1]) == (first, size)
    assert all((start - first) % step == 0 for start, _ in spans)
    assert all(end - start == min(layout.tile, size - start) for start, end in spans)
    assert all(later[0] <= earlier[1] - layout.overlap for earlier, later in pairwise(spans))
    assert len(spans) <= max(1, -(-(size - first - layout.overlap) // (layout.tile - layout.overlap)))
    gaps = [later[0] - earlier[0] for earlier, later in pairwise(spans)]
    assert not gaps or max(gaps) - min(gaps) <= step


def test_spans_of_a_known_case() -> None:
    assert Layout.fitting(64, 16, 8, 8).spans(150) == [(0, 64), (48, 112), (88, 150)]
    assert Layout.fitting(512, 64, 64, 32).spans(720) == [(0, 512), (224, 720)]


@pytest.mark.parametrize("shared", [1, 2, 3, 8, 63])
def test_ramps_of_neighbours_sum_to_one(shared: int) -> None:
    rising = ramp(shared)
    torch.testing.assert_close(rising + rising.flip(0), torch.ones(shared, dtype=torch.float64), rtol=0, atol=1e-15)
    assert (rising.diff() >= 0).all()
    assert not rising[: shared // 4].any()


@pytest.mark.parametrize("numbers", [(24, 8, 8, 8), (16, 5, 1, 1), (16, 0, 1, 1), (16, 11, 1, 1)], ids=str)
def test_weights_of_all_tiles_sum_to_one_and_stay_inside_their_tile(numbers: tuple[int, ...]) -> None:
    """The result is linear in the tiles: the weights of one show when it is white and all others are black."""
    layout, size = Layout.fitting(*numbers), (26, 39)
    places = [(rows, columns) for rows in layout.spans(size[0]) for columns in layout.spans(size[1])]
    total = torch.zeros(size)
    for white, (rows, columns) in enumerate(places):
        calls = iter(range(len(places)))
        black = torch.zeros(1, 1, *size)
        weight = tiled(lambda x: torch.full_like(x, next(calls) == white), black, layout)[0, 0]  # noqa: B023
        assert weight.min() >= 0
        total += weight
        assert weight[slice(*rows), slice(*columns)].any()
        weight[slice(*rows), slice(*columns)] = 0
        assert not weight.any()
    assert len(places) >= 4
    torch.testing.assert_close(total, torch.ones(size), rtol=0, atol=1e-6)


@pytest.mark.parametrize("numbers", [*LAYOUTS, (7, 3, 1, 1)], ids=str)
@pytest.mark.parametrize("size", [(1, 1), (5, 90), (39, 65)], ids=str)
def test_identity_is_bitwise(numbers: tuple[int, ...], size: tuple[int, int]) -> None:
    image = random(2, 3, *size)
    assert torch.equal(tiled(lambda x: x, image, Layout.fitting(*numbers)), image)


def test_a_tile_as_large_as_the_image_is_the_whole_image() -> None:
    image, seen = random(1, 2, 30, 40), []

    def run(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return x.sin()

    assert torch.equal(tiled(run, image, Layout.fitting(40, 8, 8, 8)), image.sin())
    assert len(seen) == 1
    assert torch.equal(seen[0], image)


def blurred(x: torch.Tensor, radius: int) -> torch.Tensor:
    """A network whose receptive field reaches `radius` pixels, with zeros around the image."""
    kernel = random(1, 1, 2 * radius + 1, 2 * radius + 1, dtype=x.dtype) - 0.5
    return F.conv2d(x, kernel / radius, padding=radius).tanh()


@pytest.mark.parametrize("size", [(100, 90), (64, 200), (33, 128)], ids=str)
def test_equals_the_whole_image_where_the_receptive_field_is_a_quarter_of_the_overlap(size: tuple[int, int]) -> None:
    image, layout = random(1, 1, *size, dtype=torch.float64), Layout.fitting(64, 32, 8, 8)
    torch.testing.assert_close(tiled(lambda x: blurred(x, 8), image, layout), blurred(image, 8), rtol=0, atol=1e-12)
    beyond = (tiled(lambda x: blurred(x, 16), image, layout) - blurred(image, 16)).abs().max()
    assert beyond > 1e-3


ERRORS = [
    MemoryError(),
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
]


def limited(most: int, error: Exception) -> tuple[Callable[[torch.Tensor], torch.Tensor], list[torch.Tensor]]:
    """The identity, for tiles of up to `most` pixels a side once three tiles are done; and what it was given."""
    seen: list[torch.Tensor] = []

    def run(x: torch.Tensor) -> torch.Tensor:
        if max(x.shape[-2:]) > most and len(seen) >= 3:
            raise error
        seen.append(x)
        return x

    return run, seen


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: str(error)[:12])
def test_running_out_of_memory_halves_the_tile_and_keeps_finished_rows(error: Exception) -> None:
    image, done = random(1, 1, 150, 100), []
    run, seen = limited(16, error)
    with pytest.warns(
        UserWarning, match="out of memory with tiles of (64 pixels, going on with 32|32 .* with 16)"
    ) as notes:
        out = tiled(run, image, Layout.fitting(64, 16, 8, 8), done.append)
    assert torch.equal(out, image)
    assert len(notes) == 2
    assert [tuple(x.shape[-2:]) for x in seen[:4]] == [(64, 64), (64, 60), (64, 64), (16, 16)]
    assert torch.equal(seen[3], image[..., 56:72, :16])  # 8 above the end of the strip that is finished
    assert (done[-1], min(done)) == (150 * 100, 64 * 64)


def test_memory_that_does_not_suffice_for_the_smallest_tile_is_an_error() -> None:
    run, _ = limited(0, MemoryError())
    with pytest.warns(UserWarning, match="going on with 32"), pytest.raises(MemoryError):
        tiled(run, random(1, 1, 90, 90), Layout.fitting(64, 16, 32, 8))


def test_other_errors_pass() -> None:
    run, _ = limited(0, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        tiled(run, random(1, 1, 90, 90), Layout.fitting(64, 16))
    assert not is_out_of_memory(ValueError("no"))


def test_progress_counts_every_pixel_once() -> None:
    done: list[int] = []
    tiled(lambda x: x, random(1, 3, 100, 70), Layout.fitting(32, 8), done.append)
    assert len(done) == 4 * 3
    assert done == sorted(set(done))
    assert done[-1] == 100 * 70


@pytest.mark.parametrize(("numbers", "words"), [((8, 8), "overlap 8"), ((8, -1), "overlap -1"), ((0, 0), "tile 0")])
def test_impossible_layouts_are_refused(numbers: tuple[int, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Layout.fitting(*numbers)


@pytest.mark.parametrize(
    ("shape", "free", "tile"),
    [
        ((1, 3, 1000, 800), 2 * 80_000_000, 1000),  # half of it is 800,000 pixels
        ((1, 3, 1000, 801), 2 * 80_000_000, 512),  # the largest tile
        ((2, 3, 1000, 800), 2 * 80_000_000, 512),
        ((1, 3, 1000, 800), 2 * 10_000_000, 256),  # 316 at most
        ((1, 3, 1000, 800), 0, 64),
        ((1, 3, 2048, 2048), 2**40, 2048),
        ((1, 3, 2048, 2049), 2**40, 512),  # too large a picture, whatever the memory
    ],
    ids=str,
)
def test_the_tile_follows_free_memory(shape: tuple[int, ...], free: int, tile: int) -> None:
    assert tile_for_memory(torch.Size(shape), 100, free, 64) == tile


def test_free_memory_of_this_machine() -> None:
    assert 2**20 < free_memory(torch.device("cpu")) < 2**50


def test_free_memory_of_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit, used = tmp_path / "memory.max", tmp_path / "memory.current"
    monkeypatch.setattr(tiling, "CGROUP", ((limit, used), (tmp_path / "absent", used)))
    used.write_text("1000\n")
    limit.write_text("max\n")
    assert free_memory(torch.device("cpu")) > 2**20
    (tmp_path / "memory.stat").write_text("anon 900\ninactive_file 30\nactive_file 20\n")
    limit.write_text("70000\n")
    assert free_memory(torch.device("cpu")) == 69030  # what is only cached can be given back
    used.write_text("80000\n")
    assert free_memory(torch.device("cpu")) == 0


def test_free_memory_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (asked.append(device), (7, 9))[1])
    assert free_memory(torch.device("cuda:1")) == 7
    assert asked == [torch.device("cuda:1")]
