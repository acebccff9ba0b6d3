"""The attentions of the paper as loops over windows, groups and heads: the reference of the tests.

Weights come from the module under test, the mathematics from the paper. Maps are (C, H, W), one image at a time. Only
real pixels are gathered, or padded keys masked by their position: nothing relies on zeros.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F

from iptv2_diffusion.layers.attention import FCSA, GGSA, MDTA


def randomise(module: torch.nn.Module, seed: int = 0, scale: float = 0.6) -> None:
    """Every parameter from N(0, scale), so that none keeps a value at which it does not act."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * scale
        parameter.data.copy_(values)


def channel_attention(qkv: list[torch.Tensor], weight: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    """One head of one window, (d, n) each, weight (n,): every channel attends to every channel (Eq. 2)."""
    q, k, v = qkv
    out = torch.zeros_like(v)
    for a in range(len(q)):
        query = q[a] * weight
        keys = [k[b] * weight for b in range(len(k))]
        scores = torch.stack([query @ key / (query.norm() * key.norm()) for key in keys])
        for share, value in zip((scores * temperature).softmax(0), v, strict=True):
            out[a] += share * value
    return out


def windows(corners: list[tuple[int, int]], side: int, real: tuple[int, int], padded: tuple[int, int]) -> Iterator:
    """For each window: (places in it, pixels of the map) of its real pixels, both ready to index the last two axes."""
    for top, left in corners:
        rows = [(i, (top + i) % padded[0]) for i in range(side) if (top + i) % padded[0] < real[0]]
        columns = [(j, (left + j) % padded[1]) for j in range(side) if (left + j) % padded[1] < real[1]]
        (i, y), (j, x) = torch.tensor(rows).T, torch.tensor(columns).T
        yield (i[:, None], j), (y[:, None], x)


def window_branch(qkv: torch.Tensor, out: torch.Tensor, branch: Any, corners: list, padded: tuple) -> None:
    """Channel attention inside each window, written into `out`."""
    q, k, v = qkv.chunk(3)
    depth = len(q) // branch.heads
    for (i, j), (y, x) in windows(corners, branch.window, (q.shape[1], q.shape[2]), padded):
        for head in range(branch.heads):
            channels = slice(head * depth, (head + 1) * depth)
            tokens = [part[channels][:, y, x].flatten(1) for part in (q, k, v)]
            weight = branch.token_weight[head, i, j].flatten()
            attended = channel_attention(tokens, weight, branch.temperature[head, 0, 0])
            for channel, values in zip(range(channels.start, channels.stop), attended, strict=True):
                out[channel, y, x] = values.view(len(y), x.shape[-1])


def fcsa(module: FCSA, image: torch.Tensor, shift: str) -> torch.Tensor:
    height, width = image.shape[1:]
    side, half = module.window, module.window // 2
    padded = (-(-height // side) * side, -(-width // side) * side)
    qkv = F.conv2d(image[None], module.qkv.weight)
    qkv = F.conv2d(qkv, module.local.weight, padding=1, groups=qkv.shape[1])[0]
    top = torch.full_like(image, torch.nan)
    window_branch(qkv, top, module.top, list(product(range(0, padded[0], side), range(0, padded[1], side))), padded)
    bottom = top.clone()
    if module.bottom is not None:
        last = 0 if shift == "cyclic" else side  # without wrap-around there is one window less a side
        corners = list(product(range(half, padded[0] - last, side), range(half, padded[1] - last, side)))
        window_branch(qkv, bottom, module.bottom, corners, padded)
    merged = torch.zeros_like(image)
    depth = len(image) // module.heads
    for channel, y, x in product(range(len(image)), range(height), range(width)):
        place = (channel // depth, y % side, x % side)
        merged[channel, y, x] = module.weight_top[place] * top[channel, y, x]
        if module.weight_bottom is not None:
            merged[channel, y, x] += module.weight_bottom[place] * bottom[channel, y, x]
    return F.conv2d(merged[None], module.project.weight)[0]


def position_bias(module: GGSA) -> torch.Tensor:
    """(heads, n, n) from Swin's table of (2g - 1)^2 relative positions."""
    g = module.grid
    if module.position is None:
        return torch.zeros(module.heads, g * g, g * g, dtype=torch.float64)
    table = module.position.relative_position_bias_table.view(2 * g - 1, 2 * g - 1, module.heads)
    places = [
        (query // g - key // g + g - 1, query % g - key % g + g - 1) for query, key in product(range(g * g), repeat=2)
    ]
    rows, columns = torch.tensor(places).T
    return table[rows, columns].T.view(module.heads, g * g, g * g)


def ggsa(module: GGSA, image: torch.Tensor) -> torch.Tensor:
    """Padding holds garbage, and padded keys are masked by position."""
    channels, height, width = image.shape
    g, depth, bias = module.grid, channels // module.heads, position_bias(module)
    rows, columns = -(-height // g), -(-width // g)  # of a cubby
    qkv = torch.full((3 * channels, g * rows, g * columns), 1e3, dtype=image.dtype)
    qkv[:, :height, :width] = F.conv2d(image[None], module.qkv.weight)[0]
    out = torch.full((channels, g * rows, g * columns), torch.nan, dtype=image.dtype)
    i, j = torch.arange(g)[:, None], torch.arange(g)
    for a, b, head in product(range(rows), range(columns), range(module.heads)):
        y, x = i * rows + a, j * columns + b
        real = ((y < height) & (x < width)).flatten()
        q, k, v = (part[head * depth : (head + 1) * depth, y, x].flatten(1).T for part in qkv.chunk(3))
        scores = q @ k.T / depth**0.5 + bias[head]
        attended = scores.masked_fill(~real, -torch.inf).softmax(1) @ v
        for channel in range(depth):
            out[head * depth + channel, y, x] = attended[:, channel].view(g, g)
    return F.conv2d(out[None, :, :height, :width], module.project.weight)[0]


def mdta(module: MDTA, image: torch.Tensor) -> torch.Tensor:
    qkv = F.conv2d(image[None], module.qkv.weight)
    qkv = F.conv2d(qkv, module.local.weight, padding=1, groups=qkv.shape[1])[0]
    q, k, v = (part.flatten(1) for part in qkv.chunk(3))
    depth, ones = len(q) // module.heads, torch.ones_like(q[0])
    heads = [
        channel_attention([part[h * depth : (h + 1) * depth] for part in (q, k, v)], ones, module.temperature[h, 0, 0])
        for h in range(module.heads)
    ]
    return F.conv2d(torch.cat(heads).view(1, *image.shape), module.project.weight)[0]
