"""Inference on large maps, some rows at a time.

The temporaries of a layer are several times as large as its input. In bands they stay small: that saves memory, and
time where the allocator hands large blocks back to the system after every use, as it does on CPUs.
"""

from collections.abc import Callable

import torch
from torch import Tensor

LARGE = 2**23  # values of a temporary, 32 MiB in fp32


def in_bands(body: Callable[..., Tensor], *maps: Tensor, widest: int, reach: int = 0, unit: int = 1) -> Tensor:
    """`body(*maps)`, computed on bands of rows of (..., C, H, W) maps and joined; values do not change.

    `widest`: channels of the largest temporary, `reach`: rows beyond its own that an output row depends on, where
    zeros surround the map; bands are multiples of `unit` rows. With gradients, where the temporary is not large, and on
    other devices than CPUs the body runs once.
    """
    batch, (height, width) = len(maps[0]), maps[0].shape[-2:]
    if maps[0].device.type != "cpu" or torch.is_grad_enabled() or batch * widest * height * width <= LARGE:
        return body(*maps)
    rows = max(LARGE // 2 // (batch * widest * width), 4 * reach) // unit * unit or unit
    bands = []
    for start in range(0, height, rows):
        first, end = max(0, start - reach), min(start + rows, height)
        band = body(*(x[..., first : end + reach, :] for x in maps))
        bands.append(band[..., start - first : end - first, :])
    return torch.cat(bands, dim=-2)
