"""The attentions of Section 3: FCSA (Eq. 2-3), GGSA (Eq. 4), and Restormer's MDTA for the ablations of Table 7.

Each maps (B, C, H, W) to the same shape, for any H and W: what padding is needed happens inside and changes nothing
for the real pixels (exactness is tested). L2 norms and softmax run in at least fp32.
"""

from collections.abc import Iterator
from itertools import product

import torch
import torch.nn.functional as F
from timm.layers.pos_embed_rel import RelPosBias
from torch import Tensor, nn

from iptv2_diffusion.layers.bands import on_rows, rows_at_once
from iptv2_diffusion.layers.conv import Depthwise, Pointwise, Variance
from iptv2_diffusion.layers.norm import autocasts
from iptv2_diffusion.layers.recompute import recomputed
from iptv2_diffusion.layers.windows import (
    from_cubbies,
    from_grid,
    from_windows,
    pad_to_multiple,
    to_cubbies,
    to_grid,
    to_windows,
)

SMALLEST_SQUARE = 1e-24  # of a norm that is divided by


def channel_attention(q: Tensor, k: Tensor, v: Tensor, temperature: Tensor) -> Tensor:
    """Attention between the d channels of a head (Eq. 2); tokens are (..., heads, n, d), temperature (heads, 1, 1)."""
    return v @ _scores(q, k, temperature).softmax(-1).to(v.dtype).mT


def _scores(q: Tensor, k: Tensor, temperature: Tensor) -> Tensor:
    """Temperature times the cosines between channels, (..., n, d) -> (..., d, d), in at least fp32.

    The norms divide whichever is smaller, tokens or product; in half precision the tokens, whose product may overflow.
    """
    half = q.dtype.itemsize < torch.float32.itemsize or autocasts(q.device.type)
    q, k = _at_least_fp32(q), _at_least_fp32(k)
    scale_q, scale_k = temperature * _inverse_norm(q), _inverse_norm(k)
    if half or q.shape[-2] < q.shape[-1]:
        return _at_least_fp32((q * scale_q).mT @ (k * scale_k))
    return q.mT @ k * scale_q.mT * scale_k


def _inverse_norm(tokens: Tensor) -> Tensor:
    """(..., n, d) -> (..., 1, d). Not `torch.norm`, which is slow along this axis on a CPU."""
    return tokens.square().sum(-2, keepdim=True).clamp_min(SMALLEST_SQUARE).rsqrt()


def _at_least_fp32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


class WindowBranch(nn.Module):
    """Channel self-attention inside windows, with a learned weight w_t for every token of a window (Eq. 2)."""

    def __init__(self, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.token_weight = nn.Parameter(torch.ones(heads, window, window))
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))  # 1 / alpha of Eq. 2

    def forward(self, qkv: Tensor, share: Tensor) -> Tensor:
        """(B, 3C, H, W) -> (B, C, H, W); sides are multiples of the window.

        `share` (1, heads, H, W) is the weight of each pixel in the merge. It acts on the values: attention between
        channels leaves pixels apart, so that is the same, and one product applies all weights.
        """
        shares = to_windows(share, self.window, self.heads)  # (1, 1, P, Q, heads, n, 1)
        weight = self.token_weight.flatten(1)[:, :, None].expand_as(shares)
        weights = torch.cat([weight, weight, shares]).to(qkv.dtype)
        q, k, v = to_windows(qkv, self.window, self.heads, parts=3) * weights
        return from_windows(channel_attention(q, k, v, self.temperature), self.window)


class FCSA(nn.Module):
    """Focal context self-attention (Section 3.3): a top branch on windows, a bottom branch on displaced ones.

    `bottom=False` makes no bottom branch: for maps of a known size that is no larger than one window.
    `shift="interior"` displaces without wrap-around, as the paper's FLOPs demand: on the border, half a window wide,
    and on maps no larger than a window, F_bottom takes F_top's values. `"cyclic"` wraps around, as Swin.
    """

    def __init__(
        self, width: int, heads: int, window: int, *, init: Variance, shift: str = "interior", bottom: bool = True
    ) -> None:
        super().__init__()
        self.window, self.heads = window, heads
        self.qkv = Pointwise(width, 3 * width, init=init)
        self.local = Depthwise(3 * width, 3, init=init)
        self.top = WindowBranch(heads, window)
        self.bottom = WindowBranch(heads, window) if bottom else None
        self.merge = self._top_only if not bottom else {"interior": self._interior, "cyclic": self._cyclic}[shift]
        share = 0.5 if bottom else 1.0
        self.weight_top = nn.Parameter(torch.full((heads, window, window), share))
        self.weight_bottom = nn.Parameter(torch.full((heads, window, window), share)) if bottom else None
        self.project = Pointwise(width, width, init=init)

    def forward(self, x: Tensor) -> Tensor:
        rows = rows_at_once(x, widest=3 * x.shape[1])
        if rows is not None and self.merge == self._interior and min(x.shape[-2:]) > self.window:
            return self.project(self._in_bands(x, max(2, rows // self.window) * self.window))
        return self.project(recomputed(lambda qkv: self._attend(self.local(qkv)), self.qkv(x)))

    def _attend(self, qkv: Tensor) -> Tensor:
        """w_top * F_top + w_bottom * F_bottom (Eq. 3)."""
        height, width = qkv.shape[-2:]
        # Zeros that come after the depthwise convolution change neither a norm nor a product: padding is exact.
        return self.merge(pad_to_multiple(qkv, self.window))[..., :height, :width]

    def _top_only(self, qkv: Tensor) -> Tensor:
        return self.top(qkv, self._everywhere(self.weight_top, qkv))

    def _interior(self, qkv: Tensor) -> Tensor:
        half = self.window // 2
        share_top, share_bottom = self._shares(qkv)
        merged = self.top(qkv, share_top)
        if min(qkv.shape[-2:]) > self.window:
            self._add_bottom(merged, qkv[..., half:-half, :], share_bottom, half)
        return merged

    def _in_bands(self, x: Tensor, rows: int) -> Tensor:
        """`_interior` of large maps, with queries, keys and values of some rows at a time."""
        half = self.window // 2
        out = pad_to_multiple(torch.empty_like(x), self.window)
        share_top, share_bottom = self._shares(out)
        above = None  # half a window, which begins the displaced windows on the seam of two bands
        for start in range(0, x.shape[2], rows):
            qkv = on_rows(lambda x: self.local(self.qkv(x)), start, min(start + rows, x.shape[2]), x, reach=1)
            qkv = pad_to_multiple(qkv, self.window)
            band = slice(start, start + qkv.shape[2])
            out[..., band, :] = self.top(qkv, share_top[..., band, :])
            if above is not None:
                seam = torch.cat([above, qkv[..., :half, :]], dim=2)
                self._add_bottom(out, seam, share_bottom, start - half)
            if qkv.shape[2] > self.window:
                self._add_bottom(out, qkv[..., half:-half, :], share_bottom, start + half)
            above = qkv[..., -half:, :].clone()
        return out[..., : x.shape[2], : x.shape[3]]

    def _add_bottom(self, out: Tensor, qkv: Tensor, share: Tensor, first: int) -> None:
        """F_bottom of some rows, counted from `first`, without the border to the left and right."""
        assert self.bottom is not None
        half = self.window // 2
        inside = (..., slice(first, first + qkv.shape[2]), slice(half, -half))
        out[inside].add_(self.bottom(qkv[..., half:-half], share[inside]))

    def _shares(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """w_top and w_bottom for every pixel; on the border, F_top stands in for F_bottom."""
        half = self.window // 2
        top, bottom = (self._everywhere(weight, x) for weight in (self.weight_top, self.weight_bottom))
        border = bottom.clone()
        border[..., half:-half, half:-half] = 0
        return top + border, bottom

    def _cyclic(self, qkv: Tensor) -> Tensor:
        assert self.bottom is not None
        half = self.window // 2
        top, bottom = (self._everywhere(weight, qkv) for weight in (self.weight_top, self.weight_bottom))
        rolled = (x.roll((-half, -half), (-2, -1)) for x in (qkv, bottom))
        return self.top(qkv, top) + self.bottom(*rolled).roll((half, half), (-2, -1))

    def _everywhere(self, weight: nn.Parameter | None, x: Tensor) -> Tensor:
        """(heads, window, window) -> (1, heads, H, W)."""
        # The paper does not say where w_bottom lies; we lay both over the windows of the top branch.
        assert weight is not None
        return weight.repeat(1, 1, x.shape[2] // self.window, x.shape[3] // self.window)


class GGSA(nn.Module):
    """Global grid self-attention (Section 3.4): pixels at one place of every cubby attend to each other (Eq. 4)."""

    def __init__(self, width: int, heads: int, grid: int, *, init: Variance, relative_bias: bool = True) -> None:
        super().__init__()
        self.heads, self.grid = heads, grid
        self.qkv = Pointwise(width, 3 * width, init=init)
        self.position = RelPosBias((grid, grid), heads) if relative_bias else None
        self.project = Pointwise(width, width, init=init)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        parts = list(product(self._bands(x), _spans(width, self.grid)))
        if len(parts) == 1:
            [((rows, _), (columns, _))] = parts
            return self._attend(x, rows, columns)
        # A group's real tokens are the leading rows x columns of its grid, and there are at most 2 x 2 such shapes: so
        # we cut the padded tokens away rather than mask them.
        padded = pad_to_multiple(x, self.grid)
        out = torch.zeros_like(padded)
        for (rows, above), (columns, left) in parts:
            place = (slice(None), slice(rows), above, slice(columns), left)
            tokens, target = (to_cubbies(x, self.grid, self.grid)[place] for x in (padded, out))
            attended = self._attend(from_cubbies(tokens), rows, columns)
            target.copy_(to_cubbies(attended, rows, columns))
        return out[..., :height, :width]

    def _bands(self, x: Tensor) -> list[tuple[int, slice]]:
        """As `_spans` of the height; on large maps in inference of a few places at a time."""
        spans = _spans(x.shape[2], self.grid)
        most = rows_at_once(x, widest=3 * x.shape[1])
        return spans if most is None else [band for span in spans for band in _split(*span, max(1, most // span[0]))]

    def _attend(self, x: Tensor, rows: int, columns: int) -> Tensor:
        """Of a map with rows x columns cubbies, all pixels real: softmax(q k^T / sqrt(d) + B) v."""
        tokens = to_grid(self.qkv(x), (rows, columns), self.heads, parts=3)
        groups = [part.flatten(0, 2) for part in tokens]  # (B * groups, heads, n, d)
        out = F.scaled_dot_product_attention(*groups, attn_mask=self._bias(rows, columns, x.dtype))
        return self.project(from_grid(out.unflatten(0, tokens.shape[1:4]), (rows, columns)))

    def _bias(self, rows: int, columns: int, dtype: torch.dtype) -> Tensor | None:
        if self.position is None:
            return None
        bias = self.position.get_bias()  # (1, heads, n, n)
        if (rows, columns) != (self.grid, self.grid):
            bias = bias.unflatten(3, (self.grid, self.grid)).unflatten(2, (self.grid, self.grid))
            bias = bias[:, :, :rows, :columns, :rows, :columns].flatten(4, 5).flatten(2, 3)
        return bias.to(dtype)


def _spans(size: int, grid: int) -> list[tuple[int, slice]]:
    """For a side of `size` pixels padded to grid cubbies: (number of real tokens, places in a cubby that have it)."""
    if size % grid == 0:
        return [(grid, slice(0, size // grid))]
    cubby = -(-size // grid)
    most = -(-size // cubby)  # tokens of the first places
    full = size - (most - 1) * cubby  # this many places have `most` tokens, the others one less
    spans = [(most, slice(0, full)), (most - 1, slice(full, cubby))]
    return [(tokens, places) for tokens, places in spans if places.start < places.stop]


def _split(tokens: int, places: slice, step: int) -> Iterator[tuple[int, slice]]:
    for start in range(places.start, places.stop, step):
        yield tokens, slice(start, min(start + step, places.stop))


class MDTA(nn.Module):
    """Restormer's multi-Dconv head transposed attention: channel attention over all pixels at once."""

    def __init__(self, width: int, heads: int, *, init: Variance) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Pointwise(width, 3 * width, init=init)
        self.local = Depthwise(3 * width, 3, init=init)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.project = Pointwise(width, width, init=init)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.local(self.qkv(x))
        q, k, v = (part.flatten(2).unflatten(1, (self.heads, -1)).mT for part in qkv.chunk(3, dim=1))
        out = channel_attention(q, k, v, self.temperature)  # (B, heads, HW, d)
        return self.project(out.mT.flatten(1, 2).unflatten(2, x.shape[-2:]))
