"""The attentions of Section 3: FCSA (Eq. 2-3), GGSA (Eq. 4), and Restormer's MDTA for the ablations of Table 7.

Each maps (B, C, H, W) to the same shape, for any H and W: what padding is needed happens inside and changes nothing
for the real pixels (exactness is tested). L2 norms and softmax run in at least fp32.
"""

import torch
import torch.nn.functional as F
from timm.layers.pos_embed_rel import RelPosBias
from torch import nn

from iptv2_diffusion.layers.conv import Variance, depthwise, pointwise
from iptv2_diffusion.layers.windows import from_grid, from_windows, pad_to_multiple, to_grid, to_windows


def channel_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    """Attention between the d channels of a head (Eq. 2); tokens are (..., heads, n, d), temperature (heads, 1, 1)."""
    scores = _normalised(q).transpose(-2, -1) @ _normalised(k)  # (..., heads, d, d)
    weights = (_at_least_fp32(scores) * temperature).softmax(-1).to(v.dtype)
    return v @ weights.transpose(-2, -1)


def _normalised(tokens: torch.Tensor) -> torch.Tensor:
    return F.normalize(_at_least_fp32(tokens), dim=-2)


def _at_least_fp32(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


class WindowBranch(nn.Module):
    """Channel self-attention inside windows, with a learned weight w_t for every token of a window (Eq. 2)."""

    def __init__(self, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.token_weight = nn.Parameter(torch.ones(heads, window, window))
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))  # 1 / alpha of Eq. 2

    def forward(self, qkv: torch.Tensor) -> torch.Tensor:
        """(B, 3C, H, W) -> (B, C, H, W); sides are multiples of the window."""
        q, k, v = (to_windows(part, self.window, self.heads) for part in qkv.chunk(3, dim=1))
        weight = self.token_weight.flatten(1)[:, :, None]  # (heads, n, 1)
        return from_windows(channel_attention(q * weight, k * weight, v, self.temperature), self.window)


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
        self.qkv = pointwise(width, 3 * width, init=init)
        self.local = depthwise(3 * width, 3, init=init)
        self.top = WindowBranch(heads, window)
        self.bottom = WindowBranch(heads, window) if bottom else None
        self.displaced = {"interior": self._interior, "cyclic": self._cyclic}[shift]
        share = 0.5 if bottom else 1.0
        self.weight_top = nn.Parameter(torch.full((heads, window, window), share))
        self.weight_bottom = nn.Parameter(torch.full((heads, window, window), share)) if bottom else None
        self.project = pointwise(width, width, init=init)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[-2:]
        # Zeros that come after the depthwise convolution change neither a norm nor a product: padding is exact.
        qkv = pad_to_multiple(self.local(self.qkv(x)), self.window)
        return self.project(self._merge(qkv)[..., :height, :width])

    def _merge(self, qkv: torch.Tensor) -> torch.Tensor:
        """w_top * F_top + w_bottom * F_bottom (Eq. 3)."""
        top = self.top(qkv)
        if self.bottom is None or self.weight_bottom is None:
            return top * self._tiled(self.weight_top, top)
        bottom = self.displaced(self.bottom, qkv, top)
        # The paper does not say where w_bottom lies; we lay both over the windows of the top branch.
        merged = bottom * self._tiled(self.weight_bottom, top)
        return torch.addcmul(merged, top, self._tiled(self.weight_top, top))

    def _interior(self, branch: nn.Module, qkv: torch.Tensor, top: torch.Tensor) -> torch.Tensor:
        half = self.window // 2
        if min(qkv.shape[-2:]) <= self.window:
            return top
        inside = branch(qkv[..., half:-half, half:-half])
        bottom = top.clone()
        bottom[..., half:-half, half:-half] = inside
        return bottom

    def _cyclic(self, branch: nn.Module, qkv: torch.Tensor, top: torch.Tensor) -> torch.Tensor:
        half = self.window // 2
        return branch(qkv.roll((-half, -half), (-2, -1))).roll((half, half), (-2, -1))

    def _tiled(self, weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """(heads, p, p), the same for every channel of a head and every window -> (C, H, W)."""
        rows, columns = x.shape[-2] // self.window, x.shape[-1] // self.window
        return weight.repeat(1, rows, columns).repeat_interleave(x.shape[1] // self.heads, 0)


class GGSA(nn.Module):
    """Global grid self-attention (Section 3.4): pixels at one place of every cubby attend to each other (Eq. 4)."""

    def __init__(self, width: int, heads: int, grid: int, *, init: Variance, relative_bias: bool = True) -> None:
        super().__init__()
        self.heads, self.grid = heads, grid
        self.qkv = pointwise(width, 3 * width, init=init)
        self.position = RelPosBias((grid, grid), heads) if relative_bias else None
        self.project = pointwise(width, width, init=init)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[-2:]
        qkv = pad_to_multiple(self.qkv(x), self.grid)
        q, k, v = (to_grid(part, self.grid, self.heads) for part in qkv.chunk(3, dim=1))
        if qkv.shape[-2:] == x.shape[-2:]:
            out = self._attend(q, k, v, self.grid, self.grid)
        else:
            out = self._attend_real(q, k, v, height, width)
        return self.project(from_grid(out, self.grid)[..., :height, :width])

    def _attend_real(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Attend among real pixels only.

        A group's real tokens are the leading rows x columns of its grid, and there are at most 2 x 2 such shapes: so
        we cut the padded tokens away rather than mask them.
        """
        out = torch.zeros_like(v)
        for rows, place_rows in _spans(height, self.grid):
            for columns, place_columns in _spans(width, self.grid):
                place = (slice(None), place_rows, place_columns)
                q_real, k_real, v_real = (self._corner(tokens[place], rows, columns) for tokens in (q, k, v))
                target = out[place].unflatten(4, (self.grid, self.grid))
                target[..., :rows, :columns, :] = self._attend(q_real, k_real, v_real, rows, columns).unflatten(
                    4, (rows, columns)
                )
        return out

    def _corner(self, tokens: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        return tokens.unflatten(4, (self.grid, self.grid))[..., :rows, :columns, :].flatten(4, 5)

    def _attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        """softmax(q k^T / sqrt(d) + B) v for groups of rows x columns tokens."""
        groups = [tokens.flatten(0, 2) for tokens in (q, k, v)]  # (B * groups, heads, n, d)
        out = F.scaled_dot_product_attention(*groups, attn_mask=self._bias(rows, columns, q.dtype))
        return out.unflatten(0, q.shape[:3])

    def _bias(self, rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor | None:
        if self.position is None:
            return None
        bias = self.position.get_bias()  # (1, heads, n, n)
        if (rows, columns) != (self.grid, self.grid):
            bias = bias.unflatten(3, (self.grid, self.grid)).unflatten(2, (self.grid, self.grid))
            bias = bias[:, :, :rows, :columns, :rows, :columns].flatten(4, 5).flatten(2, 3)
        return bias.to(dtype)


def _spans(size: int, grid: int) -> list[tuple[int, slice]]:
    """For a side of `size` pixels padded to grid cubbies: (number of real tokens, places in a cubby that have it)."""
    cubby = -(-size // grid)
    most = -(-size // cubby)  # tokens of the first places
    full = size - (most - 1) * cubby  # this many places have `most` tokens, the others one less
    spans = [(most, slice(0, full)), (most - 1, slice(full, cubby))]
    return [(tokens, places) for tokens, places in spans if places.start < places.stop]


class MDTA(nn.Module):
    """Restormer's multi-Dconv head transposed attention: channel attention over all pixels at once."""

    def __init__(self, width: int, heads: int, *, init: Variance) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = pointwise(width, 3 * width, init=init)
        self.local = depthwise(3 * width, 3, init=init)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.project = pointwise(width, width, init=init)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        qkv = self.local(self.qkv(x))
        q, k, v = (part.flatten(2).unflatten(1, (self.heads, -1)).mT for part in qkv.chunk(3, dim=1))
        out = channel_attention(q, k, v, self.temperature)  # (B, heads, HW, d)
        return self.project(out.mT.flatten(1, 2).unflatten(2, x.shape[-2:]))
