"""The U-shaped encoder and decoder (Section 3.2, Figure 4), between a stem and a head that belong to the use."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from iptv2_diffusion.backbone.block import make_layers
from iptv2_diffusion.backbone.config import BackboneConfig
from iptv2_diffusion.layers.conv import INITS, Pointwise
from iptv2_diffusion.layers.resample import down, up


class UShape(nn.Module):
    """(B, C, H, W) -> (B, `config.out_width`, H, W); `cond` (B, cond_dim) where the configuration has a condition.

    H and W are multiples of `config.multiple`. The top level concatenates its skip without reducing it, so its decoder
    and the refinement are 2C wide. With one level there is no skip: the width stays C.
    """

    _gradient_checkpointing_func: Callable[..., torch.Tensor]  # set by diffusers' enable_gradient_checkpointing

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        init, last = INITS[config.init], config.levels - 1
        widths = [config.width * 2**level for level in range(config.levels)]
        out_widths = [config.out_width, *widths[1:]]  # of the decoder
        self.encoder = nn.ModuleList(
            make_layers(config, level, widths[level], config.layers[level]) for level in range(last)
        )
        self.downs = nn.ModuleList(down(widths[level], config.resample_kernel, init=init) for level in range(last))
        self.bottom = make_layers(config, last, widths[last], config.layers[last])
        self.ups = nn.ModuleList(up(widths[level + 1], config.resample_kernel, init=init) for level in range(last))
        self.reduces = nn.ModuleList(
            Pointwise(2 * widths[level], widths[level], init=init) if level else nn.Identity() for level in range(last)
        )
        self.decoder = nn.ModuleList(
            make_layers(config, level, out_widths[level], config.layers[level]) for level in range(last)
        )
        self.refinement = make_layers(config, 0, config.out_width, config.refinement)

    def forward(self, x: torch.Tensor, cond: torch.Tensor | None = None) -> torch.Tensor:
        self._check(x, cond)
        x = self._level(0, x.contiguous(memory_format=torch.channels_last), cond)
        return self._run(self.refinement, x, cond)

    def _level(self, level: int, x: torch.Tensor, cond: torch.Tensor | None) -> torch.Tensor:
        """The U from this level down, its own encoder and decoder included."""
        if level == len(self.encoder):
            return self._run(self.bottom, x, cond)
        x = self._run(self.encoder[level], x, cond)  # the skip, which nothing holds any longer than needed
        x = self.reduces[level](torch.cat([self.inner(level, x, cond), x], dim=1))
        return self._run(self.decoder[level], x, cond)

    def inner(self, level: int, x: torch.Tensor, cond: torch.Tensor | None) -> torch.Tensor:
        """What the levels below give back to this one, whose encoder gave x: of its shape. A feature cache sits here."""
        return self.ups[level](self._level(level + 1, self.downs[level](x), cond))

    def _run(self, layers: Any, x: torch.Tensor, cond: torch.Tensor | None) -> torch.Tensor:
        for layer in layers:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = self._gradient_checkpointing_func(layer, x, cond)
            else:
                x = layer(x, cond)
        return x

    def _check(self, x: torch.Tensor, cond: torch.Tensor | None) -> None:
        multiple = self.config.multiple
        if x.shape[-2] % multiple or x.shape[-1] % multiple:
            raise ValueError(f"expected height and width in multiples of {multiple}, got {tuple(x.shape[-2:])}")
        if (cond is None) != (self.config.cond_dim is None):
            raise ValueError(
                f"cond_dim is {self.config.cond_dim}, but cond is {'missing' if cond is None else 'given'}"
            )
