from collections.abc import Callable
from itertools import product

import pytest
import torch

from iptv2_diffusion.layers.windows import from_grid, from_windows, pad_to_multiple, to_grid, to_windows

FOUR_BY_FOUR = torch.arange(16).view(1, 1, 4, 4)


def test_windows_of_a_4x4_map() -> None:
    expected = [[[0, 1, 4, 5], [2, 3, 6, 7]], [[8, 9, 12, 13], [10, 11, 14, 15]]]
    assert to_windows(FOUR_BY_FOUR, 2, 1).squeeze().tolist() == expected


def test_grid_of_a_4x4_map() -> None:
    """Cubbies are 2x2 pixels; a group takes the same pixel of each."""
    expected = [[[0, 2, 8, 10], [1, 3, 9, 11]], [[4, 6, 12, 14], [5, 7, 13, 15]]]
    assert to_grid(FOUR_BY_FOUR, (2, 2), 1).squeeze().tolist() == expected


@pytest.mark.parametrize(("size", "side", "heads"), [((6, 9), 3, 2), ((8, 4), 4, 1), ((4, 4), 4, 4), ((5, 3), 1, 2)])
def test_tokens_are_where_the_definition_says(size: tuple[int, int], side: int, heads: int) -> None:
    """Windows: token (i, j) of window (P, Q) is pixel (P p + i, Q p + j). Grids: of group (a, b), (i H/g + a, ...)."""
    height, width = size
    x = torch.arange(2 * 4 * height * width).view(2, 4, height, width)
    windows, grids = to_windows(x, side, heads), to_grid(x, (side, side), heads)
    rows, columns, depth = height // side, width // side, 4 // heads
    assert windows.shape == grids.shape == (1, 2, rows, columns, heads, side**2, depth)
    for p, q, h, i, j in product(range(rows), range(columns), range(heads), range(side), range(side)):
        channels = slice(h * depth, (h + 1) * depth)
        assert torch.equal(windows[0, :, p, q, h, i * side + j], x[:, channels, p * side + i, q * side + j])
        assert torch.equal(grids[0, :, p, q, h, i * side + j], x[:, channels, i * rows + p, j * columns + q])


@pytest.mark.parametrize(("partition", "side"), [(to_windows, 4), (to_grid, (4, 2))])
def test_parts_are_blocks_of_channels(partition: Callable[..., torch.Tensor], side: int | tuple[int, int]) -> None:
    x = torch.randn(2, 12, 8, 4, generator=torch.Generator().manual_seed(0))
    parts = partition(x, side, 2, parts=3)
    for part, block in zip(parts, x.chunk(3, dim=1), strict=True):
        assert torch.equal(part, partition(block, side, 2)[0])


@pytest.mark.parametrize("shape", [(2, 6, 8, 12), (1, 3, 4, 4), (3, 6, 20, 8), (1, 12, 28, 4)], ids=str)
@pytest.mark.parametrize("heads", [1, 3])
def test_merging_undoes_partitioning(shape: tuple[int, ...], heads: int) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(from_windows(to_windows(x, 4, heads)[0], 4), x)
    assert torch.equal(from_grid(to_grid(x, (4, 2), heads)[0], (4, 2)), x)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 8), (7, 4)], ids=str)
def test_padding_adds_zeros_at_the_bottom_and_right_only(size: tuple[int, int]) -> None:
    x = torch.ones(1, 2, *size)
    padded = pad_to_multiple(x, 4)
    expected = torch.zeros(1, 2, *(4 * -(-side // 4) for side in size))
    expected[..., : size[0], : size[1]] = 1
    torch.testing.assert_close(padded, expected)
