"""What is timed: `WORKLOADS[work](settings)` builds a contender, whose `step()` does the work once.

Nothing here imports the package before a contender needs it, so that a worker can be pointed at another version of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import torch

LAYERS = {"TransformerLayer", "BasicTransformerBlock"}  # what is compiled one by one, ours and DiT's


@dataclass
class Contender:
    step: Callable[[], object]
    parameters: int
    macs: int  # of a step; training counts three times the forward pass of the fused form


def _macs(build: Callable[[], Any], *inputs: torch.Tensor) -> int:
    """Of one forward pass."""
    from iptv2_diffusion.metrics.complexity import macs

    with torch.device("meta"):
        return macs(build().eval(), *(x.to("meta") for x in inputs))


def _compiled(model: Any, settings: dict[str, Any]) -> Any:
    if settings.get("compile"):
        torch._dynamo.config.cache_size_limit = 64  # more kinds of layers than the default allows
        for layer in model.modules():
            if type(layer).__name__ in LAYERS:
                layer.compile(dynamic=False)
    return model


def _autocast(settings: dict[str, Any]) -> Any:
    enabled = settings.get("precision") == "bf16"
    return torch.autocast(settings["device"].split(":")[0], torch.bfloat16, enabled=enabled)


def _denoiser(settings: dict[str, Any], fused: bool = False) -> Any:
    """IPTV2 preset or DiT of diffusers, both with 1000 classes and learned variance.

    "DiT-7x180" stands for 7 layers 180 wide with heads of about 64 and patches of 2; DiT-S/2 is DiT-12x384.
    """
    name, size = settings["model"], settings["size"]
    if name.startswith("DiT"):
        from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel

        layers, width = (int(n) for n in name.replace("S/2", "12x384").removeprefix("DiT-").split("x"))
        heads = round(width / 64)
        shape: dict[str, Any] = {
            "num_attention_heads": heads,
            "attention_head_dim": width // heads,
            "num_layers": layers,
        }
        return DiTTransformer2DModel(sample_size=size, patch_size=2, in_channels=4, out_channels=8, **shape)
    from iptv2_diffusion import create_denoiser

    return create_denoiser(name, sample_size=size, fused=fused)


def _latents(settings: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Distinct timesteps and labels for every row."""
    batch, size = settings["batch"], settings["size"]
    return {
        "hidden_states": torch.randn(batch, 4, size, size, device=settings["device"]),
        "timestep": torch.arange(batch, device=settings["device"]) * 37 % 1000,
        "class_labels": torch.arange(batch, device=settings["device"]) * 13 % 1000,
    }


def denoiser_forward(settings: dict[str, Any]) -> Contender:
    model = _compiled(_denoiser(settings, fused=True).to(settings["device"]).eval(), settings)
    inputs = _latents(settings)

    def step() -> None:
        with torch.inference_mode(), _autocast(settings):
            model(**inputs)

    macs = _macs(partial(_denoiser, settings, fused=True), *inputs.values())
    return Contender(step, sum(p.numel() for p in model.parameters()), macs)


def denoiser_backward(settings: dict[str, Any]) -> Contender:
    """Forward and backward of a mean square."""
    model = _compiled(_denoiser(settings).to(settings["device"]).train(), settings)
    inputs = _latents(settings)

    def step() -> None:
        model.zero_grad()
        with _autocast(settings):
            loss = model(**inputs).sample.square().mean()
        loss.backward()

    macs = 3 * _macs(partial(_denoiser, settings, fused=True), *inputs.values())
    return Contender(step, sum(p.numel() for p in model.parameters()), macs)


def denoiser_update(settings: dict[str, Any]) -> Contender:
    """A whole training step: forward, backward, clipping, fused AdamW, EMA."""
    from iptv2_diffusion.engine.ema import EMA

    model = _denoiser(settings).to(settings["device"]).train()
    if settings.get("checkpointing"):
        model.enable_gradient_checkpointing()
    ema = EMA(model, "0.9999")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0, fused=True)
    _compiled(model, settings)
    inputs = _latents(settings)

    def step() -> None:
        with _autocast(settings):
            loss = model(**inputs).sample.square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.update(model)

    macs = 3 * _macs(partial(_denoiser, settings, fused=True), *inputs.values())
    return Contender(step, sum(p.numel() for p in model.parameters()), macs)


def restorer(name: str) -> Any:
    if name == "Restormer":
        arch = import_module("spandrel_extra_arches.architectures.Restormer.__arch.restormer_arch")
        return arch.Restormer(LayerNorm_type="BiasFree")
    if name == "NAFNet":
        arch = import_module("spandrel.architectures.NAFNet.__arch.NAFNet_arch")
        return arch.NAFNet(width=32, middle_blk_num=12, enc_blk_nums=[2, 2, 4, 8], dec_blk_nums=[2, 2, 2, 2])
    from iptv2_diffusion import create_restorer

    return create_restorer(name, fused=True)


def _image(settings: dict[str, Any]) -> torch.Tensor:
    return torch.rand(settings["batch"], 3, settings["size"], settings["size"], device=settings["device"])


def restorer_forward(settings: dict[str, Any]) -> Contender:
    model = _compiled(restorer(settings["model"]).to(settings["device"]).eval(), settings)
    image = _image(settings)

    def step() -> None:
        with torch.inference_mode(), _autocast(settings):
            model(image)

    macs = _macs(partial(restorer, settings["model"]), image)
    return Contender(step, sum(p.numel() for p in model.parameters()), macs)


def restorer_backward(settings: dict[str, Any]) -> Contender:
    from iptv2_diffusion import create_restorer

    model = _compiled(create_restorer(settings["model"]).to(settings["device"]).train(), settings)
    image = _image(settings)

    def step() -> None:
        model.zero_grad()
        with _autocast(settings):
            loss = (model(image) - image).abs().mean()
        loss.backward()

    macs = 3 * _macs(partial(restorer, settings["model"]), image)
    return Contender(step, sum(p.numel() for p in model.parameters()), macs)


def matmul(settings: dict[str, Any]) -> Contender:
    """A product of two square matrices: the physical limit."""
    a, b = torch.randn(2, settings["size"], settings["size"], device=settings["device"])
    return Contender(lambda: a @ b, 0, settings["size"] ** 3)


WORKLOADS: dict[str, Callable[[dict[str, Any]], Contender]] = {
    "denoiser-forward": denoiser_forward,
    "denoiser-backward": denoiser_backward,
    "denoiser-update": denoiser_update,
    "restorer-forward": restorer_forward,
    "restorer-backward": restorer_backward,
    "matmul": matmul,
}
