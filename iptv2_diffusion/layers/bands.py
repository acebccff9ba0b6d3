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
    batch, (height, width) = len(maps[0]), maps[0].shape[-2:]
    if _in_one_piece(maps[0]) or batch * widest * height * width <= LARGE:
        return body(*maps)
    rows = max(LARGE // 2 // (batch * widest * width), 4 * reach) // unit * unit or unit
    out = None
    for start in range(0, height, rows):
        first, end = max(0, start - reach), min(start + rows, height)
        band = body(*(x[..., first : end + reach, :] for x in maps))
        if out is None:
            shape = (*band.shape[:2], height, width)
            out = torch.empty(shape, dtype=band.dtype, memory_format=torch.channels_last)
        out[..., start:end, :] = band[..., start - first : end - first, :]
    assert out is not None
    return out


def _in_one_piece(x: Tensor) -> bool:
    return x.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling()
