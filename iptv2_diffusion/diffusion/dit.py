"""DiT, the baseline of Table 6: diffusers' transformer, with the conditioning and the initialisation of DiT's paper.

diffusers' own class is made for inference: every layer has an embedding of timestep and label of its own, which drops
labels once more. DiT has one embedding, and here it is the same module as in our denoiser.
"""

from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from torch import nn

from iptv2_diffusion.diffusion.inputs import check_inputs
from iptv2_diffusion.layers.embedding import LabelEmbedding, TimestepEmbedding

STACKED = 0.5**0.5  # Xavier's bound for one matrix (3D, D) over that for three (D, D): sqrt(2D) / sqrt(4D)


class DiTDenoiser(ModelMixin, ConfigMixin):
    """Class-conditional denoiser of (B, in_channels, H, H) latents, H a multiple of the patch.

    Null label and learned variance are those of `IPTV2Transformer2DModel`, in whose place it trains and samples.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["BasicTransformerBlock"]  # noqa: RUF012 - diffusers reads a plain list
    _repeated_blocks = ["BasicTransformerBlock"]  # noqa: RUF012
    _skip_layerwise_casting_patterns = ["time_embedding", "label_embedding", "pos_embed", "norm"]  # noqa: RUF012

    @register_to_config
    def __init__(
        self,
        sample_size: int = 32,
        in_channels: int = 4,
        out_channels: int = 8,
        num_classes: int = 1000,
        patch_size: int = 2,
        num_layers: int = 12,
        num_attention_heads: int = 6,
        attention_head_dim: int = 64,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"expected at least one class, got num_classes={num_classes}")
        if sample_size % patch_size:
            raise ValueError(f"expected a sample_size in multiples of {patch_size}, got {sample_size}")
        width = num_attention_heads * attention_head_dim
        self.time_embedding = TimestepEmbedding(width)
        self.label_embedding = LabelEmbedding(num_classes, width)
        self.transformer: Any = DiTTransformer2DModel(
            sample_size=sample_size,
            in_channels=in_channels,
            out_channels=out_channels,
            patch_size=patch_size,
            num_layers=num_layers,
            num_attention_heads=num_attention_heads,
            attention_head_dim=attention_head_dim,
            norm_eps=1e-6,
            num_embeds_ada_norm=1,  # of embeddings that are replaced
        )
        for block in self.transformer.transformer_blocks:
            block.norm1.emb = _Given()
        _initialise(self.transformer)

    @property
    def null_label(self) -> int:
        return self.label_embedding.null_label

    @property
    def size_multiple(self) -> int:
        return self.config["patch_size"]

    def fuse(self) -> "DiTDenoiser":
        """Nothing to do: it has one form."""
        return self

    def unfuse(self) -> "DiTDenoiser":
        """Nothing to do: it has one form."""
        return self

    def forward(
        self,
        hidden_states: torch.Tensor,
        timestep: torch.Tensor | float,
        class_labels: torch.Tensor,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[torch.Tensor]:
        """`timestep`: a scalar or (B,), in steps of the training schedule; `class_labels`: (B,), null_label included."""
        timestep = check_inputs(hidden_states, timestep, class_labels, self.config["in_channels"])
        height, width = hidden_states.shape[-2:]
        if height != width or height % self.size_multiple:
            raise ValueError(f"expected square latents in multiples of {self.size_multiple}, got {height}x{width}")
        cond = self.time_embedding(timestep) + self.label_embedding(class_labels)
        return self.transformer(hidden_states, timestep=cond, return_dict=return_dict)


class _Given(nn.Module):
    """In the place of a layer's own embedding: the condition itself, which comes as the layer's `timestep`."""

    def forward(self, cond: torch.Tensor, class_labels: None, hidden_dtype: torch.dtype) -> torch.Tensor:
        return cond


def _initialise(transformer: Any) -> None:
    """As DiT does: Xavier for everything (a patch is one vector, q, k and v are one matrix), then adaLN-Zero."""
    for module in transformer.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(module.weight.data.flatten(1))
            module.bias.data.zero_()  # pyright: ignore[reportOptionalMemberAccess]
    for block in transformer.transformer_blocks:
        for linear in (block.attn1.to_q, block.attn1.to_k, block.attn1.to_v):
            nn.init.xavier_uniform_(linear.weight, gain=STACKED)
        _zero(block.norm1.linear)
    _zero(transformer.proj_out_1)
    _zero(transformer.proj_out_2)


def _zero(linear: nn.Linear) -> None:
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)


DiTDenoiser.__module__ = "iptv2_diffusion"  # what saved pipelines record, so that files may move
