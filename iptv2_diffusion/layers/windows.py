"""Pure partitions of a map into windows or grids, and their inverses.

Maps are (..., C, H, W), best in channels-last memory. Token sets are (..., P, Q, heads, n, d): P x Q groups of n tokens,
C = heads * d.
"""

import torch
import torch.nn.functional as F


def pad_to_multiple(x: torch.Tensor, unit: int) -> torch.Tensor:
    """Zeros at the bottom and right, up to multiples of `unit`."""
    height, width = x.shape[-2:]
    if height % unit or width % unit:
        x = F.pad(x, (0, -width % unit, 0, -height % unit))
    return x


def split_qkv(qkv: torch.Tensor) -> torch.Tensor:
    """(B, 3C, H, W) -> (3, B, C, H, W), a view: so that one copy lays out queries, keys and values."""
    return qkv.unflatten(1, (3, -1)).transpose(0, 1)


def to_windows(x: torch.Tensor, window: int, heads: int) -> torch.Tensor:
    """Every window's pixels, in reading order: n = window**2."""
    x = x.movedim(-3, -1).unflatten(-1, (heads, -1))  # (..., H, W, heads, d)
    x = x.unflatten(-3, (-1, window)).unflatten(-5, (-1, window))  # (..., P, i, Q, j, heads, d)
    return x.transpose(-5, -4).movedim(-2, -4).contiguous().flatten(-3, -2)


def from_windows(tokens: torch.Tensor, window: int) -> torch.Tensor:
    batch, rows, columns, heads, _, depth = tokens.shape
    x = tokens.unflatten(4, (window, window)).permute(0, 1, 4, 2, 5, 3, 6)
    return x.reshape(batch, rows * window, columns * window, heads * depth).permute(0, 3, 1, 2)


def to_grid(x: torch.Tensor, grid: int, heads: int) -> torch.Tensor:
    """Cut the map into grid x grid cubbies; the pixels at one place of every cubby are one group: n = grid**2."""
    x = x.movedim(-3, -1).unflatten(-1, (heads, -1))  # (..., H, W, heads, d)
    x = x.unflatten(-3, (grid, -1)).unflatten(-5, (grid, -1))  # (..., i, P, j, Q, heads, d)
    return x.transpose(-6, -5).movedim(-3, -5).movedim(-2, -4).contiguous().flatten(-3, -2)


def from_grid(tokens: torch.Tensor, grid: int) -> torch.Tensor:
    batch, rows, columns, heads, _, depth = tokens.shape
    x = tokens.unflatten(4, (grid, grid)).permute(0, 4, 1, 5, 2, 3, 6)
    return x.reshape(batch, grid * rows, grid * columns, heads * depth).permute(0, 3, 1, 2)
