"""What drawing a few pictures and drawing many have in common: the models, a batch of pixels, the record of how."""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import nn

from iptv2_diffusion import __version__
from iptv2_diffusion.backbone import compiling
from iptv2_diffusion.cli.common import allow_tf32
from iptv2_diffusion.cli.load import find_model, load_pipeline
from iptv2_diffusion.cli.sample_config import METADATA_KEY, SampleConfig
from iptv2_diffusion.cli.sources import BUNDLED_VAE, vae_source
from iptv2_diffusion.diffusion.class_names import names_of
from iptv2_diffusion.diffusion.guidance import check_guidance, check_guidance_channels
from iptv2_diffusion.diffusion.latents import LatentCodec
from iptv2_diffusion.diffusion.schedule import (
    NOISE_SCHEDULE_KEYS,
    check_scheduler_name,
    default_steps,
    is_flow,
    make_scheduler,
    sampler_name,
    without_channel_cut,
)
from iptv2_diffusion.diffusion.sharing import shared_modulation
from iptv2_diffusion.engine import averages, read_run
from iptv2_diffusion.rng import derived_generator

PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
BUNDLED = "bundled"


@dataclass(frozen=True)
class Models:
    pipeline: Any
    guide: Any  # the worse transformer of autoguidance, or None
    digests: dict[str, str]  # of the weights as they were loaded, by the part of the record that they belong to


def load_models(config: SampleConfig, device: torch.device) -> Models:
    """On the device, checked against the settings. FileNotFoundError or ValueError where something does not fit."""
    if config.scheduler is not None:
        check_scheduler_name(config.scheduler)  # before the weights are read
    allow_tf32(config.tf32)
    pipeline: Any = load_pipeline(config.ckpt, config.vae, config.ema)
    guide = _guide(config, pipeline)
    if config.scheduler is not None:
        model = pipeline.transformer.config
        learned = model.out_channels == 2 * model.in_channels
        pipeline.scheduler = make_scheduler(config.scheduler, pipeline.scheduler.config, learned_sigma=learned)
    parts = {"weights": pipeline.transformer, "vae_weights": pipeline.vae, "guide_weights": guide}
    digests = {name: digest(part) for name, part in parts.items() if part is not None}
    for denoiser in [pipeline.transformer, *([] if guide is None else [guide])]:
        denoiser.fuse()  # after the digests: its products are rounded otherwise on other processors
        # Not diffusers' own `to`, which warns of modules that want fp32 though there are none.
        nn.Module.to(denoiser, device=device, dtype=getattr(torch, PRECISIONS[config.precision]))
        if config.compile:
            compiling.compile_layers(denoiser)
    pipeline.vae.to(device)
    return Models(pipeline, guide, digests)


def _guide(config: SampleConfig, pipeline: Any) -> Any:
    """The transformer that guides in the place of the null label, if one is asked for."""
    if config.guide is None and config.guide_ema is None:
        return None
    other: Any = load_pipeline(config.guide or config.ckpt, config.vae, config.guide_ema)
    own, others = pipeline.scheduler.config, other.scheduler.config
    if is_flow(own) != is_flow(others):
        raise ValueError("the guide is a rectified flow and the model is none, or the other way round")
    for key in NOISE_SCHEDULE_KEYS:
        if key in own and key in others and own[key] != others[key]:
            raise ValueError(f"the guide was trained with {key} {others[key]}, the model with {own[key]}")
    return other.transformer


def draw(config: SampleConfig, models: Models, labels: Sequence[int], seeds: Sequence[int]) -> np.ndarray:
    """(B, H, W, 3) uint8, each picture a function of its label and its seed alone, but for rounding.

    FloatingPointError where something overflowed.
    """
    latents = models.pipeline(
        list(labels),
        guidance_scale=config.cfg_scale,
        num_inference_steps=config.steps,
        generator=[derived_generator(seed) for seed in seeds],
        guidance_channels=config.guidance_channels,
        guidance_interval=config.guidance_interval,
        guide_transformer=models.guide,
        cache_interval=config.cache_interval,
        share_modulation=config.share_modulation,
        height=config.size,
        width=config.size,
        output_type="latent",
    ).images
    if not latents.isfinite().all():
        raise FloatingPointError(f"samples of {config.precision} are not finite: try --precision fp32 or bf16")
    pixels = LatentCodec(models.pipeline.vae).decode_uint8(latents, config.quantise)
    return pixels.permute(0, 2, 3, 1).cpu().numpy()


def check_request(config: SampleConfig, models: Models) -> None:
    """ValueError for what the pipeline would refuse, before anything is written."""
    pipeline, scheduler = models.pipeline, without_channel_cut(models.pipeline.scheduler)
    shape = pipeline.latent_shape(1, config.size, config.size)
    check_guidance(config.cfg_scale, config.guidance_interval)
    check_guidance_channels(config.guidance_channels, shape[1])
    pipeline.check_models(models.guide, config.cache_interval)
    with shared_modulation([m for m in (pipeline.transformer, models.guide) if m and config.share_modulation]):
        pass  # refuses what has none
    pipeline.check_inputs(scheduler, config.steps or default_steps(scheduler), shape, None, None, "latent", ())


def describe(config: SampleConfig, models: Models) -> dict[str, Any]:
    """All that went into the pictures, as JSON has it: the settings, defaults resolved, the weights, the versions."""
    pipeline, scheduler = models.pipeline, models.pipeline.scheduler
    record = asdict(config) | {
        "ckpt": config.ckpt or BUNDLED,
        **_checkpoint(config),
        "vae": _vae_id(config, pipeline),
        "model": _own(pipeline.transformer.config),
        "sampler": sampler_name(scheduler) or type(scheduler).__name__,
        "steps": config.steps or default_steps(scheduler),
        "scheduler": type(scheduler).__name__,
        "scheduler_config": _own(scheduler.config),
        "size": config.size or pipeline.transformer.config.sample_size * LatentCodec(pipeline.vae).factor,
        "device": str(pipeline.device),
        "version": __version__,
        "versions": {name: version(name) for name in ("torch", "diffusers")},
        **models.digests,
    }
    return json.loads(json.dumps(record, default=str))


def named_labels(config: SampleConfig, pipeline: Any) -> list[int]:
    """Ids of --classes; ValueError for a number that may be an id or the name of another class."""
    if not config.classes:
        return []
    names = names_of(pipeline.id2label)
    for number in filter(str.isdecimal, config.classes):
        if others := [index for index in names.get(number, []) if index != int(number)]:
            own = pipeline.id2label.get(int(number), "not there")
            raise ValueError(
                f"--classes {number} may mean class {number}, whose name is {own}, "
                f"or class {others[0]}, whose name is {number}"
            )
    return pipeline.label_ids([int(name) if name.isdecimal() else name for name in config.classes])


def captions(pipeline: Any, labels: Sequence[int]) -> list[str]:
    """The first name of every label's class."""
    return [pipeline.id2label.get(label, f"class {label}").split(",")[0] for label in labels]


def _checkpoint(config: SampleConfig) -> dict[str, Any]:
    """Of a training run: which checkpoint was the newest, after how many steps, and which average is its first."""
    folder = Path() if config.ckpt is None else find_model(Path(config.ckpt)).parent
    if not (folder / "run.json").is_file():
        return {}
    steps = read_run(folder)["step"]
    return {"checkpoint": folder.name, "training_steps": steps, "ema": config.ema or next(iter(averages(folder)))}


def _vae_id(config: SampleConfig, pipeline: Any) -> str:
    folder = config.vae or pipeline.vae.config.get("_name_or_path") or config.ckpt
    return BUNDLED_VAE if folder in (None, vae_source(BUNDLED_VAE)) else str(folder)


def _own(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without what diffusers adds to a configuration, and without infinities, which JSON has not."""
    finite = {name: str(value) if value in (math.inf, -math.inf) else value for name, value in config.items()}
    return {name: value for name, value in finite.items() if not name.startswith("_")}


def digest(module: nn.Module) -> str:
    """Sixteen hexadecimal digits that tell these weights from others."""
    content = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(module.state_dict().items()):
        content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        content.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return content.hexdigest()


def save_png(pixels: np.ndarray | Image.Image, path: Path, record: dict[str, Any]) -> None:
    """The file appears whole or not at all, the record in its metadata."""
    info = PngInfo()
    info.add_text(METADATA_KEY, json.dumps(record))
    picture = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    unfinished = path.with_name(f".{path.name}")
    picture.save(unfinished, format="PNG", pnginfo=info)
    os.replace(unfinished, path)
