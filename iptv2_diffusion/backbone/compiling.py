"""torch.compile, layer by layer."""

from typing import Any

import torch
from torch import nn

from iptv2_diffusion.backbone.block import ParallelLayers, TransformerLayer

MOST_GRAPHS = 64  # kinds and widths of layers that one process may compile


def compile_layers(model: nn.Module, **options: Any) -> None:
    """Compile every transformer layer by itself, in place: one graph for each kind and width of layer.

    Also those that a diffusers model names in `_repeated_blocks`.

    That takes a fraction of the time that compiling the whole model takes. Shapes are static, since a symbolic size
    would be slower everywhere; a new image size or batch size compiles anew. `options` go to `torch.compile`.
    """
    config = torch._dynamo.config  # pyright: ignore[reportPrivateImportUsage]
    config.cache_size_limit = max(config.cache_size_limit, MOST_GRAPHS)  # 8 by default: fewer than our layers need
    named = getattr(model, "_repeated_blocks", None) or ()
    for layer in model.modules():
        if isinstance(layer, TransformerLayer | ParallelLayers) or type(layer).__name__ in named:
            layer.compile(**({"dynamic": False} | options))
