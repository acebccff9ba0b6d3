"""The optimizer and the learning rate of each step."""

import math
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from iptv2_diffusion.engine.settings import TrainConfig


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW, or timm's Muon with its steps as large as AdamW's ("Muon is Scalable for LLM Training", 2025, Eq. 4).

    Muon leaves to Adam what is no matrix of four rows and columns at least, such as norms, biases and depthwise kernels;
    other convolution kernels are one of (output, input x height x width). It multiplies them in bfloat16, or in float32
    on a processor where that is many times faster.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    shared: dict[str, Any] = {"lr": config.lr, "betas": config.betas, "weight_decay": config.weight_decay}
    if config.optimizer == "muon":
        return _muon(multiplies_bfloat16(trained[0].device))(trained, nesterov=True, **shared)
    return torch.optim.AdamW(trained, fused=True, **shared)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether PyTorch has fast products for it there: on x86 processors they need AVX-512."""
    if device.type != "cpu":
        return True
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _muon(bfloat16: bool) -> type[Any]:
    from timm.optim import muon  # timm takes seconds to import

    if bfloat16:
        return muon.Muon

    class Float32Muon(muon.Muon):
        """timm's function takes a type, its optimizer does not hand one on."""

        def step(self, closure: Any = None) -> Any:
            iterate = partial(muon.zeropower_via_newtonschulz, dtype=torch.float32)
            with patch.object(muon, "zeropower_via_newtonschulz", iterate):
                return super().step(closure)

    return Float32Muon


def learning_rate(config: TrainConfig, step: int) -> float:
    """The rate of update `step` = 0, 1, ..., steps - 1. A pure function, so that resuming needs no scheduler state.

    Warm-up rises linearly and reaches `lr` at its last update; cosine falls from `lr` at the first update after it
    to `lr_final` at the very last one.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    final = config.lr_final or 0.0
    falling = max(config.steps - 1 - config.warmup_steps, 1)
    progress = min((step - config.warmup_steps) / falling, 1.0)
    return final + (config.lr - final) * (1 + math.cos(math.pi * progress)) / 2
