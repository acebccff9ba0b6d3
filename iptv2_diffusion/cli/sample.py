"""Draw class-conditional pictures: a labelled grid and single PNGs, each with its seed and settings in its metadata.

Without --ckpt the bundled emoji model draws. Picture i has the seed SEED + i and is the same in any batch.
"""

import argparse
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from iptv2_diffusion import __version__
from iptv2_diffusion.cli.common import run, say
from iptv2_diffusion.config import add_flags, arg, from_flags

PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
METADATA_KEY = "iptv2"


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    ckpt: str | None = arg(None, "training run, checkpoint folder, saved pipeline or hub id; none: the bundled model")
    vae: str | None = arg(None, "hub id or folder of a VAE, instead of the one the checkpoint names")
    classes: tuple[str, ...] = arg((), "ids or names, taken in turn; none: spread over all classes")
    num_samples: int | None = arg(None, "pictures; none: one for each of --classes, or 9")
    cfg_scale: float = arg(4.0, "guidance scale; 1: none, at half the cost")
    guidance_channels: int | None = arg(None, "guide the first channels only (3: as DiT); none: all")
    guidance_interval: tuple[float, float] | None = arg(None, "guide at noise levels t/1000 from LOW to HIGH only")
    scheduler: str | None = arg(None, "ddpm, ddim, dpm++, unipc or euler; none: the one stored with the checkpoint")
    steps: int | None = arg(None, "none: the scheduler's usual number, 250 for ddpm")
    seed: int = arg(0, "seed of the first picture")
    size: int | None = arg(None, "pixels a side; none: what the model was made for")
    batch_size: int = arg(16, "pictures drawn at once")
    precision: Literal["fp32", "bf16", "fp16"] = arg("fp32", "of the denoiser")
    device: str | None = arg(None, "none: a GPU where there is one")
    output: Path | None = arg(None, "new or empty folder; none: the next free samples/NNN")

    def __post_init__(self) -> None:
        for name in ("num_samples", "steps", "size", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"expected --{name.replace('_', '-')} of at least 1, got {value}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"expected --seed from 0 to 2**63 - 1, got {self.seed}")


def main() -> None:
    run(_sample)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(parser, SampleConfig)
    return parser


def _sample() -> None:
    config = from_flags(SampleConfig, make_parser().parse_args())
    output = _output_folder(config.output)
    if config.ckpt is None:
        say("No --ckpt: the bundled emoji model draws.")
    pipeline = _pipeline(config)
    labels = _labels(config, pipeline)
    pictures = _draw(config, pipeline, labels)
    _write(config, pipeline, labels, pictures, output)
    say(f"{len(pictures)} pictures and grid.png are in {output}")


def _output_folder(output: Path | None) -> Path:
    """The given folder if it holds nothing, or the first samples/NNN that does not exist."""
    if output is None:
        return next(folder for n in range(10**6) if not (folder := Path("samples") / f"{n:03d}").exists())
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"expected a new or empty folder as --output, {output} already holds something")
    return output


def _pipeline(config: SampleConfig) -> Any:
    import torch

    from iptv2_diffusion.cli.load import choose_device, load_pipeline
    from iptv2_diffusion.diffusion.schedule import SCHEDULERS, make_scheduler

    device = choose_device(config.device)
    if config.scheduler is not None and config.scheduler not in SCHEDULERS:
        raise ValueError(f"unknown scheduler {config.scheduler!r}: expected one of {', '.join(SCHEDULERS)}")
    pipeline = load_pipeline(config.ckpt, config.vae)
    if config.scheduler is not None:
        model = pipeline.transformer.config
        learned = model.out_channels == 2 * model.in_channels
        pipeline.scheduler = make_scheduler(config.scheduler, pipeline.scheduler.config, learned_sigma=learned)
    if config.precision != "fp32":
        pipeline.transformer.to(getattr(torch, PRECISIONS[config.precision]))
    pipeline.to(device)
    return pipeline


def _labels(config: SampleConfig, pipeline: Any) -> list[int]:
    classes, count = pipeline.num_classes, config.num_samples
    if not config.classes:
        count = count or 9
        return [index * classes // count if count <= classes else index % classes for index in range(count)]
    named = [int(name) if name.isdecimal() else pipeline.get_label_ids(name)[0] for name in config.classes]
    return [named[index % len(named)] for index in range(count or len(named))]


def _draw(config: SampleConfig, pipeline: Any, labels: list[int]) -> list[Any]:
    from iptv2_diffusion.rng import derived_generator

    pictures: list[Any] = []
    for start in range(0, len(labels), config.batch_size):
        batch = labels[start : start + config.batch_size]
        pipeline.set_progress_bar_config(desc=f"pictures {start + 1} to {start + len(batch)} of {len(labels)}")
        pictures += pipeline(
            batch,
            guidance_scale=config.cfg_scale,
            num_inference_steps=config.steps,
            generator=[derived_generator(config.seed + start + i) for i in range(len(batch))],
            guidance_channels=config.guidance_channels,
            guidance_interval=config.guidance_interval,
            height=config.size,
            width=config.size,
        ).images
    return pictures


def _write(config: SampleConfig, pipeline: Any, labels: list[int], pictures: list[Any], output: Path) -> None:
    from iptv2_diffusion.pictures import grid

    names = [pipeline.id2label.get(label, f"class {label}").split(",")[0] for label in labels]
    shared = json.loads(json.dumps(asdict(config), default=str))
    shared |= {"version": __version__, "scheduler_config": dict(pipeline.scheduler.config)}
    output.mkdir(parents=True, exist_ok=True)
    for index, (picture, label, name) in enumerate(zip(pictures, labels, names, strict=True)):
        own = {"seed": config.seed + index, "label": label, "name": name}
        _save(picture, output / f"{index:06d}.png", shared | own)
    _save(grid(pictures, names), output / "grid.png", shared | {"labels": labels})


def _save(picture: Any, path: Path, settings: dict[str, Any]) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text(METADATA_KEY, json.dumps(settings))
    unfinished = path.with_name(f".{path.name}")
    picture.save(unfinished, format="PNG", pnginfo=info)
    os.replace(unfinished, path)


if __name__ == "__main__":
    main()
