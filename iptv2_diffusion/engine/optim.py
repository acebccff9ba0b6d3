"""The optimizer and the learning rate of each step."""

import math

import torch
from torch import nn

from iptv2_diffusion.engine.settings import TrainConfig


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW, or timm's Muon with its steps as large as AdamW's ("Muon is Scalable for LLM Training", 2025, Eq. 4).

    Muon leaves to Adam what is no matrix of four rows and columns at least, such as norms, biases and depthwise kernels;
    other convolution kernels are one of (output, input x height x width).
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if config.optimizer == "muon":
        from timm.optim.muon import Muon  # timm takes seconds to import

        return Muon(trained, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, nesterov=True)
    return torch.optim.AdamW(trained, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True)


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
