"""What a backbone is made of, and the sizes of the paper (Table 10) and of the latent denoiser (Table 6)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

ATTENTIONS = ("fcsa", "ggsa", "mdta")
FEED_FORWARDS = ("rep_leffn", "leffn", "ffn", "gdfn")
SHIFTS = ("interior", "cyclic")
NORMS = ("centred", "bias_free")
INITS = ("torch", "xavier")
SMALLEST_WINDOW = 2  # in a window of one token the L2 norm would leave only signs


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    width: int  # channels C of the top level; level l has C * 2**l
    layers: Sequence[int]  # transformer layers of each level, the last one is the bottom of the U
    refinement: int = 0  # layers after the decoder
    heads: Sequence[int] = (1, 2, 4, 8)  # by level
    window: int = 32  # pixels, on the top level; halved on each level below
    grid: int = 8  # cubbies a side, the same on every level
    size: int | None = None  # pixels a side of the input, where it is fixed
    cond_dim: int | None = None  # width of the condition; None: plain residuals
    norm: str = "centred"  # of plain residuals
    init: str = "torch"
    attention: Sequence[str] = ("fcsa", "ggsa")  # repeated over the layers of a level
    parallel: bool = False  # each pair of layers side by side instead (Table 9)
    feed_forward: str = "rep_leffn"
    inner_ratio: float = 0.5  # of the stacked 1x1, over the hidden width
    resample_kernel: int = 3
    shift: str = "interior"
    relative_bias: bool = True
    fused: bool = False  # build the inference form of Rep-LeFFN

    def __post_init__(self) -> None:
        _one_of("feed_forward", self.feed_forward, FEED_FORWARDS)
        _one_of("shift", self.shift, SHIFTS)
        _one_of("norm", self.norm, NORMS)
        _one_of("init", self.init, INITS)
        for kind in self.attention:
            _one_of("attention", kind, ATTENTIONS)
        for field in ("heads", "width", "inner_ratio", "cond_dim", "size"):
            _positive(field, getattr(self, field))
        if not self.layers or min(*self.layers, self.refinement) < 0:
            raise ValueError(
                f"expected layers and refinement of 0 or more, got layers={self.layers}, refinement={self.refinement}"
            )
        if len(self.heads) != len(self.layers):
            raise ValueError(f"expected as many heads as levels, got heads={self.heads} and layers={self.layers}")
        if self.width % 2 or any(self.width * 2**level % h for level, h in enumerate(self.heads)):
            raise ValueError(f"expected an even width that heads={self.heads} divide on every level, got {self.width}")
        if self.window < SMALLEST_WINDOW or self.window & (self.window - 1):
            raise ValueError(f"expected a power of two of at least {SMALLEST_WINDOW} as window, got {self.window}")
        if self.grid < 1 or not self.attention or self.resample_kernel not in (1, 3):
            raise ValueError(
                "expected grid >= 1, at least one attention and resample_kernel 1 or 3, "
                f"got {self.grid}, {self.attention} and {self.resample_kernel}"
            )
        if self.parallel and (len(self.attention) != 2 or any(n % 2 for n in (*self.layers, self.refinement))):
            raise ValueError(f"parallel needs two attentions and even layers, got {self.attention} and {self.layers}")
        if self.size is not None and self.size % self.multiple:
            raise ValueError(f"expected a size that is a multiple of {self.multiple}, got {self.size}")

    @classmethod
    def within(cls, settings: Mapping[str, Any], **overrides: Any) -> "BackboneConfig":
        """The backbone's part of a model's settings."""
        return cls(**{field.name: settings[field.name] for field in fields(cls) if field.name in settings} | overrides)

    @property
    def levels(self) -> int:
        return len(self.layers)

    @property
    def out_width(self) -> int:
        """Channels that the head gets: the top level's skip is concatenated, unless it is the only level."""
        return self.width if self.levels == 1 else 2 * self.width

    @property
    def multiple(self) -> int:
        """Both sides of an input are multiples of this."""
        return 2 ** (self.levels - 1)

    def size_at(self, level: int) -> int | None:
        return None if self.size is None else self.size >> level

    def window_at(self, level: int) -> int:
        """p: half of it on each level, never under 2 nor over a fixed map."""
        window = max(SMALLEST_WINDOW, self.window >> level)
        size = self.size_at(level)
        return window if size is None else max(SMALLEST_WINDOW, min(window, size))

    def grid_at(self, level: int) -> int:
        size = self.size_at(level)
        return self.grid if size is None else min(self.grid, size)

    def has_bottom_branch(self, level: int) -> bool:
        """FCSA's displaced windows exist only where a map is larger than one window."""
        size = self.size_at(level)
        return size is None or size > self.window_at(level)


def _one_of(field: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"expected {field} to be one of {', '.join(allowed)}, got {value!r}")


def _positive(field: str, value: float | Sequence[float] | None) -> None:
    numbers = value if isinstance(value, Sequence) else [1 if value is None else value]
    if any(number <= 0 for number in numbers):
        raise ValueError(f"expected {field} above 0, got {value}")


_LITE = {"width": 32, "layers": (0, 2, 4), "heads": (1, 2, 4), "refinement": 0, "grid": 8}
_SMALL = {"layers": (4, 6, 6, 8), "refinement": 0}
_BASE = {"layers": (4, 6, 6, 8), "refinement": 4}
_BASE_PLUS = {"layers": (6, 8, 8, 10), "refinement": 6}

RESTORERS: dict[str, dict] = {  # Table 10; parameters of the fused form without relative bias
    "IPTV2-Ti": {"width": 16, "layers": (2, 2, 2, 2), "refinement": 0, "grid": 8},  # 1.19 M, ours, for CPUs
    # 1.48 M, ours: the best of the short trials on a CPU (docs/models.md), where the top level only resamples.
    "IPTV2-Lite": _LITE,
    # The same on squares of two pixels a side, ours: a quarter of the cost, twice the reach, for blurs.
    "IPTV2-Lite/2": {**_LITE, "unshuffle": 2},
    # 1.94 M, ours: deeper, in wider windows.
    "IPTV2-Lite+/2": {**_LITE, "layers": (0, 2, 6), "window": 64, "unshuffle": 2},
    "IPTV2-S": {"width": 32, **_SMALL, "grid": 8},  # 11.76 M
    "IPTV2-B": {"width": 48, **_BASE, "grid": 16},  # 26.49 M
    "IPTV2-B+": {"width": 48, **_BASE_PLUS, "grid": 16},  # 33.04 M
}

# Table 6 prints only the cost of IPTV2-S, 6.24 G. Of the layouts of Table 10, Small's, widened to 88, lands there: so
# our IPTV2-S is inferred, and the other sizes are ours, matched to the cost of DiT-B/2, DiT-L/2 and DiT-XL/2.
DENOISERS: dict[str, dict] = {  # parameters of the fused form
    "IPTV2-Ti": {"width": 32, "layers": (2, 2, 2, 2), "heads": (1, 2, 4, 8), "grid": 8, "cond_dim": 192},  # 6.55 M
    "IPTV2-S": {"width": 88, **_SMALL, "heads": (1, 2, 4, 8), "grid": 8, "cond_dim": 576},  # 132.4 M
    "IPTV2-B": {"width": 152, **_BASE, "heads": (2, 4, 8, 16), "grid": 16, "cond_dim": 768},  # 370.7 M
    "IPTV2-L": {"width": 240, **_BASE_PLUS, "heads": (4, 8, 16, 32), "grid": 16, "cond_dim": 1024},  # 1109 M
    "IPTV2-XL": {"width": 296, **_BASE_PLUS, "heads": (4, 8, 16, 32), "grid": 16, "cond_dim": 1152},  # 1643 M
    # Ours, for 128-pixel pictures (4x16x16 latents) on a CPU.
    "IPTV2-Ti-16": {
        "sample_size": 16,
        "width": 48,
        "layers": (2, 2, 4),
        "heads": (1, 2, 4),
        "grid": 8,
        "cond_dim": 256,
    },
}


def preset(table: dict[str, dict], name: str) -> dict:
    """A copy of one row; an unknown name raises ValueError with those that exist."""
    if name not in table:
        raise ValueError(f"unknown model {name!r}, expected one of {', '.join(table)}")
    return dict(table[name])
