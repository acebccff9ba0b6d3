"""Draw class-conditional pictures: a labelled grid and single PNGs, each with its seed and settings in its metadata.

Without --ckpt the bundled emoji model draws. Picture i has the seed SEED + i and is the same in any batch.
"""

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    compile: bool = arg(False, "torch.compile every layer first, for many pictures")
    device: str | None = arg(None, "none: a GPU where there is one")
    output: Path | None = arg(None, "new or empty folder; none: the next free samples/NNN")

    def __post_init__(self) -> None:
        for name in ("num_samples", "steps", "size", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"expected --{name.replace('_', '-')} of at least 1, got {value}")
        if not 0 <= self.seed < 2**62:
            raise ValueError(f"expected --seed from 0 to 2**62 - 1, got {self.seed}")


def main() -> None:
    run(_sample)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(parser, SampleConfig)
    return parser


def _sample() -> None:
    config = from_flags(SampleConfig, make_parser().parse_args())
    _check_empty(config.output)
    if config.ckpt is None:
        say("No --ckpt: the bundled emoji model draws.")
    pipeline = _pipeline(config)
    labels = _labels(config, pipeline)
    with _claimed(config.output) as output:
        _draw(config, pipeline, labels, output)
    say(f"{len(labels)} pictures and grid.png are in {output}")


def _check_empty(output: Path | None) -> None:
    if output is not None and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"expected a new or empty folder as --output, {output} already holds something")


@contextmanager
def _claimed(output: Path | None) -> Iterator[Path]:
    """The folder to write to, made here (the first free samples/NNN if none is given); removed if it stays empty."""
    folder = output or _next_free(Path("samples"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        if not any(folder.iterdir()):
            folder.rmdir()


def _next_free(parent: Path) -> Path:
    """Made at once, so that no other run takes the same."""
    parent.mkdir(exist_ok=True)
    for number in range(10**6):
        with suppress(FileExistsError):
            folder = parent / f"{number:03d}"
            folder.mkdir()
            return folder
    raise FileExistsError(f"{parent} is full")


def _pipeline(config: SampleConfig) -> Any:
    import torch

    from iptv2_diffusion.backbone.compiling import compile_layers
    from iptv2_diffusion.cli.load import choose_device, load_pipeline
    from iptv2_diffusion.diffusion.schedule import check_scheduler_name, make_scheduler

    device = choose_device(config.device)
    if config.scheduler is not None:
        check_scheduler_name(config.scheduler)  # before the weights are read
    pipeline = load_pipeline(config.ckpt, config.vae)
    if config.scheduler is not None:
        model = pipeline.transformer.config
        learned = model.out_channels == 2 * model.in_channels
        pipeline.scheduler = make_scheduler(config.scheduler, pipeline.scheduler.config, learned_sigma=learned)
    # Not diffusers' own `to`, which warns of modules that want fp32 though there are none.
    torch.nn.Module.to(pipeline.transformer, device=device, dtype=getattr(torch, PRECISIONS[config.precision]))
    pipeline.vae.to(device)
    if config.compile:
        compile_layers(pipeline.transformer)
    return pipeline


def _labels(config: SampleConfig, pipeline: Any) -> list[int]:
    classes, count = pipeline.num_classes, config.num_samples
    if not config.classes:
        count = count or 9
        return [index * classes // count if count <= classes else index % classes for index in range(count)]
    named = pipeline.label_ids([int(name) if name.isdecimal() else name for name in config.classes])
    return [named[index % len(named)] for index in range(count or len(named))]


def _draw(config: SampleConfig, pipeline: Any, labels: list[int], output: Path) -> None:
    """Writes every batch as soon as it is drawn, and the grid at the end."""
    from iptv2_diffusion.pictures import grid

    names = [pipeline.id2label.get(label, f"class {label}").split(",")[0] for label in labels]
    settings = _settings(config, pipeline)
    pictures: list[Any] = []
    for start in range(0, len(labels), config.batch_size):
        stop = min(start + config.batch_size, len(labels))
        pipeline.set_progress_bar_config(desc=f"pictures {start + 1} to {stop} of {len(labels)}")
        pictures += _draw_batch(config, pipeline, labels[start:stop], config.seed + start)
        for index in range(start, stop):
            own = {"seed": config.seed + index, "label": labels[index], "name": names[index]}
            _save(pictures[index], output / f"{index:06d}.png", settings | own)
    _save(grid(pictures, names), output / "grid.png", settings | {"labels": labels})


def _draw_batch(config: SampleConfig, pipeline: Any, labels: list[int], seed: int) -> list[Any]:
    from iptv2_diffusion.rng import derived_generator

    return pipeline(
        labels,
        guidance_scale=config.cfg_scale,
        num_inference_steps=config.steps,
        generator=[derived_generator(seed + i) for i in range(len(labels))],
        guidance_channels=config.guidance_channels,
        guidance_interval=config.guidance_interval,
        height=config.size,
        width=config.size,
    ).images


def _settings(config: SampleConfig, pipeline: Any) -> dict[str, Any]:
    """Everything that went into a picture but its own seed and label; defaults resolved."""
    from iptv2_diffusion.diffusion.schedule import default_steps

    scheduler = pipeline.scheduler
    return json.loads(json.dumps(asdict(config), default=str)) | {
        "ckpt": config.ckpt or "bundled",
        "steps": config.steps or default_steps(scheduler),
        "scheduler": type(scheduler).__name__,
        "scheduler_config": dict(scheduler.config),
        "device": str(pipeline.device),
        "version": __version__,
    }


def _save(picture: Any, path: Path, settings: dict[str, Any]) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text(METADATA_KEY, json.dumps(settings))
    unfinished = path.with_name(f".{path.name}")
    picture.save(unfinished, format="PNG", pnginfo=info)
    os.replace(unfinished, path)


if __name__ == "__main__":
    main()
