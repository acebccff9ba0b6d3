"""The settings of sampling, for a grid of a few pictures and for a set of many."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from iptv2_diffusion.config import arg, from_flags
from iptv2_diffusion.diffusion.protocols import GUIDANCE, PROTOCOLS, find_protocol

METADATA_KEY = "iptv2"  # of the record in a PNG
MOST_IN_A_GRID = 100  # pictures; more are a set
USUAL_SET = 50_000
LARGEST_SET = 10**6  # file names have six digits


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    ckpt: str | None = arg(None, "training run, checkpoint folder, saved pipeline or hub id; none: the bundled model")
    vae: str | None = arg(None, "hub id or folder of a VAE, instead of the one the checkpoint names")
    ema: str | None = arg(None, "averaged weights of a checkpoint, 0.9999 or power-0.05 for instance; none: its first")
    classes: tuple[str, ...] = arg((), "ids or names, taken in turn, or drawn from for a set; none: all classes")
    num_samples: int | None = arg(None, "pictures; none: one for each of --classes, or 9, or 50000 for a set")
    cfg_scale: float = arg(4.0, "guidance scale; 1: none, at half the cost; of a set to be given")
    guidance_channels: int | None = arg(None, "guide the first channels only (3: as DiT); none: all")
    guidance_interval: tuple[float, float] | None = arg(None, "guide at noise levels t/1000 from LOW to HIGH only")
    guide: str | None = arg(None, "a worse model, named as --ckpt, in the place of the null label: autoguidance")
    guide_ema: str | None = arg(None, "its averaged weights; without --guide those of --ckpt guide")
    cache_interval: int = arg(1, "run the inner levels of the U on one step of so many only; 1: on all, exactly")
    share_modulation: bool = arg(False, "compute modulations once for rows of one label; equal but for rounding")
    scheduler: str | None = arg(
        None, "ddpm, ddim, dpm++, unipc, euler or flow; none: the one stored with the checkpoint"
    )
    steps: int | None = arg(None, "none: the scheduler's usual number, 250 for ddpm")
    seed: int = arg(0, "seed of the first picture")
    size: int | None = arg(None, "pixels a side; none: what the model was made for")
    quantise: Literal["round", "truncate"] = arg("round", "to 8 bits as diffusers (round) or as ADM and DiT (truncate)")
    batch_size: int = arg(16, "pictures drawn at once, by each process")
    precision: Literal["fp32", "bf16", "fp16"] = arg("fp32", "of the denoiser")
    tf32: bool = arg(False, "let GPUs round factors of float32 products to 10 bits; much faster")
    compile: bool = arg(False, "torch.compile every layer first, for many pictures")
    device: str | None = arg(None, "none: a GPU where there is one")
    output: Path | None = arg(None, "new or empty folder, or a set to go on with; none: the next free samples/NNN")
    format: Literal["png", "npz", "both"] | None = arg(None, "a set of PNGs, one .npz as ADM's, or both; none: a grid")
    class_draw: Literal["random", "balanced"] | None = arg(None, "labels of a set: independent, or each as often")
    protocol: str | None = arg(None, f"draw a set as one of {', '.join(PROTOCOLS)} does")

    def __post_init__(self) -> None:
        for name in ("num_samples", "steps", "size", "batch_size", "cache_interval"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"expected --{name.replace('_', '-')} of at least 1, got {value}")
        self._check_guidance()
        if self.share_modulation and self.compile:
            raise ValueError("--share-modulation and --compile exclude each other")
        if not 0 <= self.seed < 2**62:
            raise ValueError(f"expected --seed from 0 to 2**62 - 1, got {self.seed}")
        if self.is_set and not (self.num_samples or USUAL_SET) <= LARGEST_SET:
            raise ValueError(f"expected --num-samples of at most {LARGEST_SET}, got {self.num_samples}")
        if self.is_set and self.output is None:
            raise ValueError("a set of samples needs a folder: pass --output")

    def _check_guidance(self) -> None:
        """A protocol may say how it would guide; nobody else should."""
        given = [name for name in sorted(GUIDANCE) if getattr(self, name) is not None]
        if given and self.cfg_scale == 1 and self.protocol is None:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise ValueError(f"{flags} without effect: --cfg-scale 1 is no guidance")

    @property
    def is_set(self) -> bool:
        """Whether a resumable set of many pictures is asked for, not a grid of a few."""
        asked = any(value is not None for value in (self.format, self.class_draw, self.protocol))
        return asked or (self.num_samples or 0) > MOST_IN_A_GRID


def read_config(flags: argparse.Namespace) -> SampleConfig:
    """What the flags say; a --protocol decides what it can, and ValueError names the flags that contradict it.

    A set is to be scored, so its guidance has to be said.
    """
    name = getattr(flags, "protocol", None)
    if name is None:
        config = from_flags(SampleConfig, flags)
        if config.is_set and not hasattr(flags, "cfg_scale"):
            raise ValueError("a set of samples needs --cfg-scale or --protocol: the paper's Table 6 has 1.0 and 1.5")
        return config
    fixed = _fixed_by(name)
    wrong = [field for field, value in fixed.items() if getattr(flags, field, value) != value]
    if wrong:
        given = ", ".join(f"--{field.replace('_', '-')} {getattr(flags, field)}, not {fixed[field]}" for field in wrong)
        raise ValueError(f"--protocol {name} contradicts {given}")
    return from_flags(SampleConfig, flags, base=fixed)


def _fixed_by(name: str) -> dict[str, Any]:
    """All that decides the distribution of the pictures but the weights and the VAE."""
    protocol = find_protocol(name)
    return {
        "scheduler": protocol.sampler,
        "steps": protocol.steps,
        "cfg_scale": protocol.cfg_scale,
        "guidance_channels": protocol.guidance_channels,
        "guidance_interval": protocol.guidance_interval,
        "guide": None,
        "guide_ema": None,
        "cache_interval": 1,
        "precision": protocol.precision,
        "quantise": protocol.quantise,
        "class_draw": protocol.class_draw,
        "classes": (),
        "size": None,
    }
