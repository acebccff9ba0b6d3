"""Inference on large maps, some rows at a time.

The temporaries of a layer are several times as large as its input. In bands they stay small: that saves memory, and
time where the allocator hands large blocks back to the system after every use, as it does on CPUs.
"""

from collections.abc import Callable

import torch
from torch import Tensor

LARGE = 2**23  # values of a temporary, 32 MiB in fp32


def in_bands(body: Callable[..., Tensor], *maps: Tensor, widest: int, reach: int = 0, unit: int = 1) -> Tensor:
    """`body(*maps)`, computed on bands of rows of (..., C, H, W) maps; values do not change.

    `widest`: channels of the largest temporary, `reach`: rows beyond its own that an output row depends on, where
    zeros surround the map; bands are multiples of `unit` rows. The body runs once where the temporary is not large,
    with gradients, when it is compiled or exported, and on other devices than CPUs.
    """
    most = rows_at_once(maps[0], widest)
    if most is None:
        return body(*maps)
    height, width = maps[0].shape[-2:]
    rows = max(most, 4 * reach) // unit * unit or unit
    out = torch.empty(0)
    for start in range(0, height, rows):
        end = min(start + rows, height)
        band = on_rows(body, start, end, *maps, reach=reach)
        if start == 0:
            shape = (*band.shape[:2], height, width)
            out = torch.empty(shape, dtype=band.dtype, memory_format=torch.channels_last)
        out[..., start:end, :] = band
    return out


def on_rows(body: Callable[..., Tensor], start: int, end: int, *maps: Tensor, reach: int) -> Tensor:
    """Rows start to end of `body(*maps)`, from these and `reach` more on either side."""
    first = max(0, start - reach)
    band = body(*(x[..., first : end + reach, :] for x in maps))
    return band[..., start - first : end - first, :]


def rows_at_once(x: Tensor, widest: int) -> int | None:
    """How many rows of x a band has, possibly 0; None: all in one piece."""
    batch, _, height, width = x.shape
    if x.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return None
    row = batch * widest * width
    return None if row * height <= LARGE else LARGE // 2 // row
