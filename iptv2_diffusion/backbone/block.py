"""A transformer layer (Eq. 1), and the parallel pair of Table 9."""

import torch
from torch import nn

from iptv2_diffusion.backbone.config import BackboneConfig
from iptv2_diffusion.layers.attention import FCSA, GGSA, MDTA
from iptv2_diffusion.layers.conv import INITS, Pointwise
from iptv2_diffusion.layers.feed_forward import FFN, GDFN, LeFFN, RepLeFFN
from iptv2_diffusion.layers.residual import make_residual


def _fcsa(config: BackboneConfig, level: int, width: int) -> nn.Module:
    return FCSA(
        width,
        config.heads[level],
        config.window_at(level),
        init=INITS[config.init],
        shift=config.shift,
        bottom=config.has_bottom_branch(level),
    )


def _ggsa(config: BackboneConfig, level: int, width: int) -> nn.Module:
    grid, init = config.grid_at(level), INITS[config.init]
    return GGSA(width, config.heads[level], grid, init=init, relative_bias=config.relative_bias)


def _mdta(config: BackboneConfig, level: int, width: int) -> nn.Module:
    return MDTA(width, config.heads[level], init=INITS[config.init])


def _rep_leffn(config: BackboneConfig, width: int) -> nn.Module:
    return RepLeFFN(width, init=INITS[config.init], inner_ratio=config.inner_ratio, fused=config.fused)


ATTENTIONS = {"fcsa": _fcsa, "ggsa": _ggsa, "mdta": _mdta}
FEED_FORWARDS = {
    "rep_leffn": _rep_leffn,
    "leffn": lambda config, width: LeFFN(width, init=INITS[config.init]),
    "ffn": lambda config, width: FFN(width, init=INITS[config.init]),
    "gdfn": lambda config, width: GDFN(width, init=INITS[config.init]),
}


class TransformerLayer(nn.Module):
    """x = x + attention(LN(x)); x = x + ffn(LN(x)) (half of Eq. 1; two layers make one FGTB)."""

    def __init__(self, config: BackboneConfig, level: int, width: int, attention: str) -> None:
        super().__init__()
        residual = make_residual(config.cond_dim, config.norm)
        self.attention = residual(width, ATTENTIONS[attention](config, level, width))
        self.feed_forward = residual(width, FEED_FORWARDS[config.feed_forward](config, width))

    def forward(self, x: torch.Tensor, cond: torch.Tensor | None = None) -> torch.Tensor:
        return self.feed_forward(self.attention(x, cond), cond)


class ParallelLayers(nn.Module):
    """Two layers side by side on the same input, concatenated and merged by a 1x1 convolution (Figure 8c)."""

    def __init__(self, config: BackboneConfig, level: int, width: int) -> None:
        super().__init__()
        self.sides = nn.ModuleList(TransformerLayer(config, level, width, kind) for kind in config.attention)
        self.merge = Pointwise(2 * width, width, init=INITS[config.init])

    def forward(self, x: torch.Tensor, cond: torch.Tensor | None = None) -> torch.Tensor:
        return self.merge(torch.cat([side(x, cond) for side in self.sides], dim=1))


def make_layers(config: BackboneConfig, level: int, width: int, count: int) -> nn.ModuleList:
    """`count` transformer layers of one level, their attentions alternating."""
    if config.parallel:
        return nn.ModuleList(ParallelLayers(config, level, width) for _ in range(count // 2))
    kinds = (config.attention[i % len(config.attention)] for i in range(count))
    return nn.ModuleList(TransformerLayer(config, level, width, kind) for kind in kinds)
