"""Local GGSA: at run time, the grid attention inside macro-tiles of about the size of a training patch.

GGSA has the same grid on any map, so on large photographs its tokens lie further apart than in training. As TLC does
for other global operations (Chu et al. 2022), each level's map is cut into overlapping macro-tiles, and their results
are averaged. Convolutions still see the whole image.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from iptv2_diffusion.layers.attention import GGSA


@contextmanager
def local_attention(model: Any, base: int | None) -> Iterator[None]:
    """Inside the block every GGSA of a restorer stays within `base` pixels of the image; None changes nothing.

    On level l, macro-tiles are base / `model.pixels_at(l)` a side; a map that is no larger is attended to globally. The
    paper's largest patch, 384, is a good start. ValueError unless the grid divides the macro-tiles of every level.
    """
    if base is None:
        yield
        return
    multiple = model.backbone.config.grid * model.size_multiple
    if base < 1 or base % multiple:
        raise ValueError(f"expected a multiple of {multiple} pixels for local attention, got {base}")
    found = list(_grid_attentions(model.backbone))
    try:
        for level, parent, name, attention in found:
            setattr(parent, name, _Local(attention, base // model.pixels_at(level)))
        yield
    finally:
        for _, parent, name, attention in found:
            setattr(parent, name, attention)


def _grid_attentions(backbone: Any) -> Iterator[tuple[int, nn.Module, str, GGSA]]:
    """(level, parent, name in it, attention)."""
    levels = [*enumerate([*backbone.encoder, backbone.bottom]), *enumerate(backbone.decoder), (0, backbone.refinement)]
    for level, layers in levels:
        for parent in layers.modules():
            for name, child in parent.named_children():
                if isinstance(child, GGSA):
                    yield level, parent, name, child


class _Local(nn.Module):
    def __init__(self, attention: GGSA, side: int) -> None:
        super().__init__()
        self.attention, self.side = attention, side

    def forward(self, x: Tensor) -> Tensor:
        return averaged(self.attention, x, self.side)


def averaged(body: Callable[[Tensor], Tensor], x: Tensor, side: int) -> Tensor:
    """`body` on macro-tiles of (B, C, H, W), averaged where they overlap; `side` pixels, or the map's if less."""
    height, width = x.shape[-2:]
    places = list(product(spans(height, side), spans(width, side)))
    if len(places) == 1:
        return body(x)
    total, count = torch.zeros_like(x), x.new_zeros(height, width)
    for rows, columns in places:
        total[..., rows, columns] += body(x[..., rows, columns])
        count[rows, columns] += 1
    return total / count


def spans(size: int, side: int) -> list[slice]:
    """The fewest spans of `side` that cover `size`, evenly spaced, the last one at the end."""
    if size <= side:
        return [slice(0, size)]
    count = -(-size // side)
    step = -(-(size - side) // (count - 1))
    starts = [min(i * step, size - side) for i in range(count)]
    return [slice(start, start + side) for start in starts]
