"""The restorer: degraded image in, restored image out (Section 3.2)."""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin

from iptv2_diffusion.backbone.config import RESTORERS, BackboneConfig, preset
from iptv2_diffusion.backbone.u_shape import UShape
from iptv2_diffusion.layers.conv import INITS, Conv, Pointwise
from iptv2_diffusion.layers.reparam import Fusable
from iptv2_diffusion.restoration.inference import restore
from iptv2_diffusion.restoration.tasks import TASKS
from iptv2_diffusion.restoration.tiling import LARGEST_TILE, OVERLAP

T = TypeVar("T")


class IPTV2Restorer(ModelMixin, ConfigMixin, Fusable):
    """(B, in_channels, H, W) in [0, 1] -> (B, out_channels, H, W), not clamped, for any H and W.

    With as many output as input channels the network predicts a residual to its input. With others (dual-pixel
    deblurring: 6 -> 3) there is none; a 1x1 convolution carries the shallow features past the U instead, as Restormer.
    `norm="bias_free"` is for denoising, `"centred"` for the other tasks. `task` is what the weights were trained for.
    `unshuffle` n folds every n x n pixels into the channels of one, as FFDNet (Zhang et al. 2018) does: not the paper's,
    for CPUs and for blurs that are long beside the windows.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["TransformerLayer", "ParallelLayers"]  # noqa: RUF012 - diffusers reads a plain list
    _repeated_blocks = ["TransformerLayer"]  # noqa: RUF012

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        width: int = 32,
        layers: Sequence[int] = (4, 6, 6, 8),
        refinement: int = 0,
        heads: Sequence[int] = (1, 2, 4, 8),
        window: int = 32,
        grid: int = 8,
        norm: str = "bias_free",
        attention: Sequence[str] = ("fcsa", "ggsa"),
        parallel: bool = False,
        feed_forward: str = "rep_leffn",
        inner_ratio: float = 0.5,
        resample_kernel: int = 3,
        shift: str = "interior",
        relative_bias: bool = True,
        fused: bool = False,
        unshuffle: int = 1,
        task: str | None = None,
    ) -> None:
        super().__init__()
        if unshuffle < 1:
            raise ValueError(f"expected unshuffle of at least 1, got {unshuffle}")
        if task not in (None, *TASKS):
            raise ValueError(f"expected task to be one of {', '.join(TASKS)}, got {task!r}")
        config = BackboneConfig.within(self.config)
        init = INITS[config.init]
        self.stem = Conv(in_channels * unshuffle**2, width, 3, init=init)
        self.backbone = UShape(config)
        self.skip = None if in_channels == out_channels else Pointwise(width, config.out_width, init=init)
        self.head = Conv(config.out_width, out_channels * unshuffle**2, 3, init=init)

    @property
    def size_multiple(self) -> int:
        """Images are padded, by reflection, to multiples of this, and the result is cropped."""
        return self.backbone.config.multiple * self.unshuffle

    @property
    def unshuffle(self) -> int:
        """Pixels of the image along a side of one of the backbone's."""
        return self.config["unshuffle"]

    def pixels_at(self, level: int) -> int:
        """Pixels of the image along a side of one on that level of the backbone."""
        return self.unshuffle << level

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        channels = self.config["in_channels"]
        if image.ndim != 4 or image.shape[1] != channels or 0 in image.shape:
            raise ValueError(f"expected images (B, {channels}, H, W), got {tuple(image.shape)}")
        height, width = image.shape[-2:]
        padded = reflect_to_multiple(image, self.size_multiple)
        shallow = self.stem(F.pixel_unshuffle(padded, self.unshuffle))
        features = self.backbone(shallow)
        if self.skip is not None:
            features = features + self.skip(shallow)
        restored = F.pixel_shuffle(self.head(features), self.unshuffle)
        if self.skip is None:
            restored = restored + padded
        return restored[..., :height, :width].contiguous()

    def restore(self, image: T, **options: Any) -> T:
        """An image of Pillow, NumPy or torch, of any size, restored: see `inference.restore`, also for the options."""
        return restore(self, image, **options)

    def restore_tiled(self, image: T, tile: int = LARGEST_TILE, overlap: int = OVERLAP, **options: Any) -> T:
        """The same in tiles of about `tile` pixels a side, whatever the memory."""
        return restore(self, image, tile=tile, overlap=overlap, **options)


def create_restorer(name: str = "IPTV2-S", **overrides: Any) -> IPTV2Restorer:
    """One of the presets, randomly initialised; any argument of the model can be overridden."""
    return IPTV2Restorer(**(preset(RESTORERS, name) | overrides))


def unshuffled(model: IPTV2Restorer, factor: int) -> IPTV2Restorer:
    """The same network for pictures `factor` times as large, whose `factor` x `factor` means it sees as pixels.

    Its residual goes to all pixels of a square alike: where training a network with `unshuffle` may begin. ValueError
    for a model that has an `unshuffle` already.
    """
    if model.unshuffle != 1:
        raise ValueError(f"expected a restorer without unshuffle, got one of {model.unshuffle}")
    config: dict[str, Any] = dict(model.config) | {"unshuffle": factor}
    folded, area = IPTV2Restorer(**config), factor**2
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    weights["stem.weight"] = weights["stem.weight"].repeat_interleave(area, 1) / area
    weights["head.weight"] = weights["head.weight"].repeat_interleave(area, 0)
    folded.load_state_dict(weights, assign=True)  # keeps their precision
    return folded


def reflect_to_multiple(image: torch.Tensor, multiple: int) -> torch.Tensor:
    """Pad at the bottom and right: by reflection as far as the image reaches, by its last row and column beyond."""
    missing = [-size % multiple for size in image.shape[-2:]]
    reflected = [min(gap, size - 1) for gap, size in zip(missing, image.shape[-2:], strict=True)]
    if any(reflected):
        image = F.pad(image, (0, reflected[1], 0, reflected[0]), mode="reflect")
    if reflected != missing:
        image = F.pad(image, (0, missing[1] - reflected[1], 0, missing[0] - reflected[0]), mode="replicate")
    return image


IPTV2Restorer.__module__ = "iptv2_diffusion"  # what saved pipelines record, so that files may move
