"""What is timed: `WORKLOADS[work](settings)` builds a contender, whose `step()` does the work once.

Nothing here imports the package before a contender needs it, so that a worker can be pointed at another version of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch


@dataclass
class Contender:
    step: Callable[[], object]
    parameters: int


def _denoiser(settings: dict[str, Any]) -> Any:
    """IPTV2 preset or DiT of diffusers, both with 1000 classes and learned variance."""
    if settings["model"] == "DiT-S/2":
        from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel

        shape: dict[str, Any] = {"num_attention_heads": 6, "attention_head_dim": 64, "num_layers": 12}
        return DiTTransformer2DModel(sample_size=settings["size"], patch_size=2, in_channels=4, out_channels=8, **shape)
    from iptv2_diffusion import create_denoiser

    return create_denoiser(settings["model"], sample_size=settings["size"])


def _latents(settings: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Distinct timesteps and labels for every row."""
    batch, size = settings["batch"], settings["size"]
    return {
        "hidden_states": torch.randn(batch, 4, size, size, device=settings["device"]),
        "timestep": torch.arange(batch, device=settings["device"]) * 37 % 1000,
        "class_labels": torch.arange(batch, device=settings["device"]) * 13 % 1000,
    }


def denoiser_forward(settings: dict[str, Any]) -> Contender:
    model = _denoiser(settings).to(settings["device"]).eval()
    if hasattr(model, "fuse"):
        model.fuse()
    inputs, parameters = _latents(settings), sum(p.numel() for p in model.parameters())
    run = torch.compile(model) if settings["compile"] else model

    def step() -> None:
        with torch.inference_mode():
            run(**inputs)

    return Contender(step, parameters)


def denoiser_backward(settings: dict[str, Any]) -> Contender:
    """Forward and backward of a mean square."""
    model = _denoiser(settings).to(settings["device"]).train()
    inputs = _latents(settings)
    run = torch.compile(model) if settings["compile"] else model

    def step() -> None:
        model.zero_grad()
        run(**inputs).sample.square().mean().backward()

    return Contender(step, sum(p.numel() for p in model.parameters()))


def denoiser_update(settings: dict[str, Any]) -> Contender:
    """A whole training step: forward, backward, clipping, fused AdamW, EMA."""
    from iptv2_diffusion.engine.ema import EMA

    model = _denoiser(settings).to(settings["device"]).train()
    if settings.get("checkpointing"):
        model.enable_gradient_checkpointing()
    ema = EMA(model, 0.9999)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0, fused=True)
    inputs = _latents(settings)

    def step() -> None:
        model(**inputs).sample.square().mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.update(model)

    return Contender(step, sum(p.numel() for p in model.parameters()))


def _restorer(name: str) -> Any:
    if name == "Restormer":
        arch = import_module("spandrel_extra_arches.architectures.Restormer.__arch.restormer_arch")
        return arch.Restormer(LayerNorm_type="BiasFree")
    if name == "NAFNet":
        arch = import_module("spandrel.architectures.NAFNet.__arch.NAFNet_arch")
        return arch.NAFNet(width=32, middle_blk_num=12, enc_blk_nums=[2, 2, 4, 8], dec_blk_nums=[2, 2, 2, 2])
    from iptv2_diffusion import create_restorer

    return create_restorer(name).fuse()


def restorer_forward(settings: dict[str, Any]) -> Contender:
    model = _restorer(settings["model"]).to(settings["device"]).eval()
    image = torch.rand(settings["batch"], 3, settings["size"], settings["size"], device=settings["device"])

    def step() -> None:
        with torch.inference_mode():
            model(image)

    return Contender(step, sum(p.numel() for p in model.parameters()))


def restorer_backward(settings: dict[str, Any]) -> Contender:
    from iptv2_diffusion import create_restorer

    model = create_restorer(settings["model"]).to(settings["device"]).train()
    image = torch.rand(settings["batch"], 3, settings["size"], settings["size"], device=settings["device"])

    def step() -> None:
        model.zero_grad()
        (model(image) - image).abs().mean().backward()

    return Contender(step, sum(p.numel() for p in model.parameters()))


def matmul(settings: dict[str, Any]) -> Contender:
    """A product of two square matrices: 2 * size**3 operations, the physical limit."""
    a, b = torch.randn(2, settings["size"], settings["size"], device=settings["device"])
    return Contender(lambda: a @ b, 0)


WORKLOADS: dict[str, Callable[[dict[str, Any]], Contender]] = {
    "denoiser-forward": denoiser_forward,
    "denoiser-backward": denoiser_backward,
    "denoiser-update": denoiser_update,
    "restorer-forward": restorer_forward,
    "restorer-backward": restorer_backward,
    "matmul": matmul,
}
