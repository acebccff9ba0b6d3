"""A pipeline from whatever --ckpt names: a saved pipeline, a training run, one of its checkpoints, or a hub id."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from iptv2_diffusion.cli.sources import EMOJI, vae_source
from iptv2_diffusion.diffusion.denoiser import IPTV2Transformer2DModel
from iptv2_diffusion.diffusion.model_files import first_line, load_fitting
from iptv2_diffusion.diffusion.pipeline import IPTV2Pipeline
from iptv2_diffusion.diffusion.task import CLASS_NAMES
from iptv2_diffusion.diffusion.vae_files import HUB_ID, load_vae
from iptv2_diffusion.engine import newest, read_run

PIPELINE_INDEX = "model_index.json"
DEVICES = ("cpu", "cuda", "mps", "xpu")


def load_pipeline(ckpt: str | None, vae: str | None = None) -> IPTV2Pipeline:
    """In fp32, on the CPU, fused. `vae` (hub id or folder) replaces the one that the checkpoint names.

    FileNotFoundError or ValueError, of one line, where there is nothing usable.
    """
    source = EMOJI if ckpt is None else Path(ckpt).expanduser()
    if (source / PIPELINE_INDEX).is_file():
        pipeline = _saved(str(source), vae)
    elif source.is_dir():
        pipeline = _trained(_checkpoint(source), vae)
    elif ckpt is not None and HUB_ID.fullmatch(ckpt) and not source.exists():
        pipeline = _saved(ckpt, vae)
    else:
        raise FileNotFoundError(f"expected a training run, a checkpoint, a saved pipeline or a hub id, got {source}")
    return pipeline.fuse()


def _checkpoint(folder: Path) -> Path:
    if (folder / "run.json").is_file():
        return folder
    checkpoint = newest(folder)
    if checkpoint is None:
        raise FileNotFoundError(f"{folder} holds neither {PIPELINE_INDEX} nor run.json nor a checkpoint-* folder")
    return checkpoint


def _saved(source: str, vae: str | None) -> IPTV2Pipeline:
    parts = {"transformer": _transformer(source, subfolder="transformer")}
    if vae is not None:
        parts["vae"] = load_vae(vae)
    try:
        return IPTV2Pipeline.from_pretrained(source, use_safetensors=True, **parts)
    except Exception as error:  # diffusers raises many kinds for a missing, truncated or foreign file
        raise ValueError(f"cannot load a pipeline from {source}: {first_line(error)}") from error


def _transformer(source: str | Path, **where: Any) -> IPTV2Transformer2DModel:
    # The frugal way of loading fails without a word of explanation where weights are missing.
    return load_fitting(IPTV2Transformer2DModel, source, "denoiser", low_cpu_mem_usage=False, **where)


def _trained(checkpoint: Path, vae: str | None) -> IPTV2Pipeline:
    """The averaged weights of a training checkpoint, with its scheduler and class names."""
    recorded = read_run(checkpoint)["info"].get("vae")
    if vae is None and recorded is None:
        raise ValueError(f"{checkpoint} does not say which VAE it was trained with: pass --vae")
    try:
        names = json.loads((checkpoint / CLASS_NAMES).read_text(encoding="utf-8"))
        scheduler: Any = DDPMScheduler.from_pretrained(checkpoint / "scheduler")
    except Exception as error:  # diffusers raises many kinds
        raise ValueError(f"cannot load {checkpoint}: {first_line(error)}") from error
    return IPTV2Pipeline(
        transformer=_transformer(checkpoint / "model"),
        vae=load_vae(vae or vae_source(recorded)),
        scheduler=scheduler,
        id2label=dict(enumerate(names)),
    )


def choose_device(name: str | None) -> torch.device:
    """The device of that name, or the best there is; ValueError for one that is not there."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in DEVICES:
            raise RuntimeError(f"expected one of {', '.join(DEVICES)}")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {name!r} is not available here: {first_line(error)}") from None
    return device
