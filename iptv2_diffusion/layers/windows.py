"""Pure partitions of a map into windows or grids, and their inverses.

Maps are (B, C, H, W). Token sets are (B, P, Q, heads, n, d): P x Q groups of n tokens, C = heads * d.
"""

import torch
import torch.nn.functional as F


def pad_to_multiple(x: torch.Tensor, unit: int) -> torch.Tensor:
    """Zeros at the bottom and right until both sides are multiples of `unit`."""
    height, width = x.shape[-2:]
    if height % unit == 0 and width % unit == 0:
        return x
    return F.pad(x, (0, -width % unit, 0, -height % unit))


def to_windows(x: torch.Tensor, window: int, heads: int) -> torch.Tensor:
    """Every window's pixels, in reading order: n = window**2."""
    batch, channels, height, width = x.shape
    rows, columns = height // window, width // window
    x = x.permute(0, 2, 3, 1).reshape(batch, rows, window, columns, window, heads, channels // heads)
    return x.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 5)


def from_windows(tokens: torch.Tensor, window: int) -> torch.Tensor:
    batch, rows, columns, heads, _, depth = tokens.shape
    x = tokens.unflatten(4, (window, window)).permute(0, 1, 4, 2, 5, 3, 6)
    return x.reshape(batch, rows * window, columns * window, heads * depth).permute(0, 3, 1, 2)


def to_grid(x: torch.Tensor, grid: int, heads: int) -> torch.Tensor:
    """Cut the map into grid x grid cubbies; the pixels at one place of every cubby are one group: n = grid**2."""
    batch, channels, height, width = x.shape
    rows, columns = height // grid, width // grid
    x = x.permute(0, 2, 3, 1).reshape(batch, grid, rows, grid, columns, heads, channels // heads)
    return x.permute(0, 2, 4, 5, 1, 3, 6).flatten(4, 5)


def from_grid(tokens: torch.Tensor, grid: int) -> torch.Tensor:
    batch, rows, columns, heads, _, depth = tokens.shape
    x = tokens.unflatten(4, (grid, grid)).permute(0, 4, 1, 5, 2, 3, 6)
    return x.reshape(batch, grid * rows, grid * columns, heads * depth).permute(0, 3, 1, 2)
