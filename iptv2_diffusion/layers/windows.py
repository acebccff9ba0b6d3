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
    x = tokens.unflatten(4, (window, window)).permute(0, 1, 4, 2, 5, 3, 6)
    return _to_map(x)


def to_grid(x: torch.Tensor, grid: int, heads: int, parts: int = 1) -> torch.Tensor:
    """Cut the map into grid x grid cubbies; the pixels at one place of every cubby are one group: n = grid**2."""
    x = x.permute(0, 2, 3, 1).unflatten(3, (parts, heads, -1))
    x = x.unflatten(2, (grid, -1)).unflatten(1, (grid, -1))  # (B, i, P, j, Q, parts, heads, d)
    return x.permute(5, 0, 2, 4, 6, 1, 3, 7).flatten(5, 6)


def from_grid(tokens: torch.Tensor, grid: int) -> torch.Tensor:
    """Of one part, (B, P, Q, heads, n, d)."""
    return _to_map(tokens.unflatten(4, (grid, grid)).permute(0, 4, 1, 5, 2, 3, 6))


def _to_map(x: torch.Tensor) -> torch.Tensor:
    """(B, rows, rows, columns, columns, heads, d) -> (B, C, H, W)."""
    return x.flatten(5).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)
