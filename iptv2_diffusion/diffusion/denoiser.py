"""The latent denoiser: IPT-V2 in the place of DiT's transformer (Section 4, image generation)."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from iptv2_diffusion.backbone.config import DENOISERS, BackboneConfig, preset
from iptv2_diffusion.backbone.u_shape import UShape
from iptv2_diffusion.diffusion.dit import DiTDenoiser
from iptv2_diffusion.diffusion.dit_sizes import DITS
from iptv2_diffusion.diffusion.inputs import check_inputs
from iptv2_diffusion.layers.conv import INITS, Conv
from iptv2_diffusion.layers.embedding import LabelEmbedding, TimestepEmbedding
from iptv2_diffusion.layers.norm import BareNorm
from iptv2_diffusion.layers.reparam import Fusable
from iptv2_diffusion.layers.residual import modulate, zero_linear


class IPTV2Transformer2DModel(ModelMixin, ConfigMixin, Fusable):
    """Class-conditional denoiser of (B, in_channels, H, W) latents.

    `sample_size` fixes windows and grids; other sizes, square or not, run too, in multiples of `size_multiple`.
    `window=None` means half of `sample_size` (the power of two below it): 2x2 windows and a displaced one on every
    level. The null label, for "no class", is `num_classes`. With `out_channels == 2 * in_channels` the second half is
    the learned variance.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["TransformerLayer", "ParallelLayers"]  # noqa: RUF012 - diffusers reads a plain list
    _repeated_blocks = ["TransformerLayer"]  # noqa: RUF012
    _skip_layerwise_casting_patterns = ["time_embedding", "label_embedding", "norm"]  # noqa: RUF012

    @register_to_config
    def __init__(
        self,
        sample_size: int = 32,
        in_channels: int = 4,
        out_channels: int = 8,
        num_classes: int = 1000,
        cond_dim: int = 576,
        width: int = 88,
        layers: Sequence[int] = (4, 6, 6, 8),
        refinement: int = 0,
        heads: Sequence[int] = (1, 2, 4, 8),
        window: int | None = None,
        grid: int = 8,
        attention: Sequence[str] = ("fcsa", "ggsa"),
        parallel: bool = False,
        feed_forward: str = "rep_leffn",
        inner_ratio: float = 0.5,
        resample_kernel: int = 3,
        shift: str = "interior",
        relative_bias: bool = True,
        fused: bool = False,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"expected at least one class, got num_classes={num_classes}")
        config = BackboneConfig.within(
            self.config,
            window=_half(sample_size) if window is None else window,
            size=sample_size,
            init="xavier",
        )
        self.stem = Conv(in_channels, width, 3, init=INITS["xavier"])
        self.time_embedding = TimestepEmbedding(cond_dim)
        self.label_embedding = LabelEmbedding(num_classes, cond_dim)
        self.backbone = UShape(config)
        self.head_norm = BareNorm()
        self.head_modulation = zero_linear(cond_dim, 2 * config.out_width)
        self.head = Conv(config.out_width, out_channels, 3, init=INITS["xavier"])
        nn.init.zeros_(self.head.weight)

    @property
    def null_label(self) -> int:
        return self.label_embedding.null_label

    @property
    def size_multiple(self) -> int:
        return self.backbone.config.multiple

    def forward(
        self,
        hidden_states: torch.Tensor,
        timestep: torch.Tensor | float,
        class_labels: torch.Tensor,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[torch.Tensor]:
        """`timestep`: a scalar or (B,), in steps of the training schedule; `class_labels`: (B,), null_label included."""
        timestep = check_inputs(hidden_states, timestep, class_labels, self.config["in_channels"])
        cond = F.silu(self.time_embedding(timestep) + self.label_embedding(class_labels))
        x = self.backbone(self.stem(hidden_states), cond)
        shift, scale = self.head_modulation(cond)[:, :, None, None].chunk(2, dim=1)
        sample = self.head(modulate(self.head_norm(x), shift, scale)).contiguous()
        return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)


def _half(size: int) -> int:
    """The largest power of two that is no more than half of it."""
    return 1 << max(1, (size // 2).bit_length() - 1)


def create_denoiser(name: str = "IPTV2-S", **overrides: Any) -> Any:
    """One of the presets, randomly initialised; any argument of the model can be overridden.

    An `IPTV2Transformer2DModel`, or a `DiTDenoiser` where the name is one of DiT's.
    """
    model_class: Any = DiTDenoiser if name in DITS else IPTV2Transformer2DModel
    return model_class(**(preset(DENOISERS | DITS, name) | overrides))


IPTV2Transformer2DModel.__module__ = "iptv2_diffusion"  # what saved pipelines record, so that files may move
