"""Pure partitions of a map into windows or grids, and their inverses.

Maps are (B, C, H, W) in channels-last memory. Token sets are (parts, B, P, Q, heads, n, d): P x Q groups of n tokens,
C = parts * heads * d, where queries, keys and values are parts of one map. One copy each way, forward and backward: the
channels are split on the channels-last view, so that gradients come back in that layout.
"""

import torch
import torch.nn.functional as F


def pad_to_multiple(x: torch.Tensor, unit: int) -> torch.Tensor:
    """Zeros at the bottom and right, up to multiples of `unit`."""
    height, width = x.shape[-2:]
    if height % unit or width % unit:
        x = F.pad(x, (0, -width % unit, 0, -height % unit))
    return x


def to_windows(x: torch.Tensor, window: int, heads: int, parts: int = 1) -> torch.Tensor:
    """Every window's pixels, in reading order: n = window**2."""
    x = x.permute(0, 2, 3, 1).unflatten(3, (parts, heads, -1))
    x = x.unflatten(2, (-1, window)).unflatten(1, (-1, window))  # (B, P, i, Q, j, parts, heads, d)
    return x.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(5, 6)


def from_windows(tokens: torch.Tensor, window: int) -> torch.Tensor:
    """Of one part, (B, P, Q, heads, n, d)."""
    return from_cubbies(tokens.unflatten(4, (window, window)).permute(0, 1, 4, 2, 5, 3, 6).flatten(5))


def to_cubbies(x: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """The map cut into rows x columns cubbies of P x Q places: a view (B, rows, P, columns, Q, C)."""
    return x.permute(0, 2, 3, 1).unflatten(2, (columns, -1)).unflatten(1, (rows, -1))


def from_cubbies(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def to_grid(x: torch.Tensor, grid: tuple[int, int], heads: int, parts: int = 1) -> torch.Tensor:
    """Of rows x columns cubbies; the pixels at one place of every cubby are one group: n = rows * columns."""
    x = to_cubbies(x, *grid).unflatten(5, (parts, heads, -1))  # (B, i, P, j, Q, parts, heads, d)
    return x.permute(5, 0, 2, 4, 6, 1, 3, 7).flatten(5, 6)


def from_grid(tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Of one part, (B, P, Q, heads, n, d)."""
    return from_cubbies(tokens.unflatten(4, grid).permute(0, 4, 1, 5, 2, 3, 6).flatten(5))
