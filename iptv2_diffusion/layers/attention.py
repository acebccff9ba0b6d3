"""The attentions of Section 3: FCSA (Eq. 2-3), GGSA (Eq. 4), and Restormer's MDTA for the ablations of Table 7.

Each maps (B, C, H, W) to the same shape, for any H and W: what padding is needed happens inside and changes nothing
for the real pixels (exactness is tested). L2 norms and softmax run in at least fp32.
"""

import torch
import torch.nn.functional as F
from timm.layers.pos_embed_rel import RelPosBias
from torch import Tensor, nn

from iptv2_diffusion.layers.bands import in_bands
from iptv2_diffusion.layers.conv import Depthwise, Pointwise, Variance
from iptv2_diffusion.layers.recompute import recomputed
from iptv2_diffusion.layers.windows import from_grid, from_windows, pad_to_multiple, to_grid, to_windows

SMALLEST_SQUARE = 1e-24  # of a norm that is divided by


def channel_attention(q: Tensor, k: Tensor, v: Tensor, temperature: Tensor) -> Tensor:
    """Attention between the d channels of a head (Eq. 2); tokens are (..., heads, n, d), temperature (heads, 1, 1)."""
    return v @ _scores(q, k, temperature).softmax(-1).to(v.dtype).mT


def _scores(q: Tensor, k: Tensor, temperature: Tensor) -> Tensor:
    """Temperature times the cosines between channels, (..., n, d) -> (..., d, d), in at least fp32.

    The norms divide whichever is smaller, tokens or product; in half precision the tokens, whose product may overflow.
    """
    half = q.dtype.itemsize < torch.float32.itemsize or _autocasts(q.device.type)
    q, k = _at_least_fp32(q), _at_least_fp32(k)
    scale_q, scale_k = temperature * _inverse_norm(q), _inverse_norm(k)
    if half or q.shape[-2] < q.shape[-1]:
        return _at_least_fp32((q * scale_q).mT @ (k * scale_k))
    return q.mT @ k * scale_q.mT * scale_k


def _inverse_norm(tokens: Tensor) -> Tensor:
    """(..., n, d) -> (..., 1, d). Not `torch.norm`, which is slow along this axis on a CPU."""
    return tokens.square().sum(-2, keepdim=True).clamp_min(SMALLEST_SQUARE).rsqrt()


def _autocasts(device: str) -> bool:
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


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
        return in_bands(self._attend, qkv, share, widest=qkv.shape[1], unit=self.window)

    def _attend(self, qkv: Tensor, share: Tensor) -> Tensor:
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
        self.merge = {"interior": self._interior, "cyclic": self._cyclic}[shift]
        share = 0.5 if bottom else 1.0
        self.weight_top = nn.Parameter(torch.full((heads, window, window), share))
        self.weight_bottom = nn.Parameter(torch.full((heads, window, window), share)) if bottom else None
        self.project = Pointwise(width, width, init=init)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return self.project(recomputed(lambda qkv: self._attend(self.local(qkv)), self.qkv(x)))
        qkv = in_bands(lambda x: self.local(self.qkv(x)), x, widest=3 * x.shape[1], reach=1)
        return self.project(self._attend(qkv))

    def _attend(self, qkv: Tensor) -> Tensor:
        height, width = qkv.shape[-2:]
        # Zeros that come after the depthwise convolution change neither a norm nor a product: padding is exact.
        return self._merged(pad_to_multiple(qkv, self.window))[..., :height, :width]

    def _merged(self, qkv: Tensor) -> Tensor:
        """w_top * F_top + w_bottom * F_bottom (Eq. 3)."""
        repeats = (1, 1, qkv.shape[-2] // self.window, qkv.shape[-1] // self.window)
        share_top = self.weight_top.repeat(repeats)
        if self.bottom is None or self.weight_bottom is None:
            return self.top(qkv, share_top)
        # The paper does not say where w_bottom lies; we lay both over the windows of the top branch.
        return self.merge(self.bottom, qkv, share_top, self.weight_bottom.repeat(repeats))

    def _interior(self, bottom: nn.Module, qkv: Tensor, share_top: Tensor, share_bottom: Tensor) -> Tensor:
        if min(qkv.shape[-2:]) <= self.window:
            return self.top(qkv, share_top + share_bottom)
        half = self.window // 2
        inside = (..., slice(half, -half), slice(half, -half))
        border = share_bottom.clone()
        border[inside] = 0
        merged = self.top(qkv, share_top + border)
        merged[inside].add_(bottom(qkv[inside], share_bottom[inside]))
        return merged

    def _cyclic(self, bottom: nn.Module, qkv: Tensor, share_top: Tensor, share_bottom: Tensor) -> Tensor:
        half = self.window // 2
        rolled = (x.roll((-half, -half), (-2, -1)) for x in (qkv, share_bottom))
        return self.top(qkv, share_top) + bottom(*rolled).roll((half, half), (-2, -1))


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
        qkv = pad_to_multiple(self.qkv(x), self.grid)
        q, k, v = to_grid(qkv, self.grid, self.heads, parts=3)
        if qkv.shape[-2:] == x.shape[-2:]:
            out = self._attend(q, k, v, self.grid, self.grid)
        else:
            out = self._attend_real(q, k, v, height, width)
        return self.project(from_grid(out, self.grid)[..., :height, :width])

    def _attend_real(self, q: Tensor, k: Tensor, v: Tensor, height: int, width: int) -> Tensor:
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

    def _corner(self, tokens: Tensor, rows: int, columns: int) -> Tensor:
        return tokens.unflatten(4, (self.grid, self.grid))[..., :rows, :columns, :].flatten(4, 5)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, rows: int, columns: int) -> Tensor:
        """softmax(q k^T / sqrt(d) + B) v for groups of rows x columns tokens."""
        groups = [tokens.flatten(0, 2) for tokens in (q, k, v)]  # (B * groups, heads, n, d)
        out = F.scaled_dot_product_attention(*groups, attn_mask=self._bias(rows, columns, q.dtype))
        return out.unflatten(0, q.shape[:3])

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
        self.qkv = Pointwise(width, 3 * width, init=init)
        self.local = Depthwise(3 * width, 3, init=init)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.project = Pointwise(width, width, init=init)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.local(self.qkv(x))
        q, k, v = (part.flatten(2).unflatten(1, (self.heads, -1)).mT for part in qkv.chunk(3, dim=1))
        out = channel_attention(q, k, v, self.temperature)  # (B, heads, HW, d)
        return self.project(out.mT.flatten(1, 2).unflatten(2, x.shape[-2:]))
