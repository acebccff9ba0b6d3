"""Draw class-conditional pictures: a labelled grid and single PNGs, each with its seed and settings in its metadata.

Without --ckpt the bundled emoji model draws. Picture i has the seed SEED + i and is the same in any batch.

More than 100 pictures, or --format, --class-draw or --protocol, make a set to be scored: classes drawn at random, a
thousand PNGs to a folder or one .npz, settings.json beside them. `accelerate launch` shares it among processes; the
same command goes on where it stopped.
"""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iptv2_diffusion.cli.common import run, say
from iptv2_diffusion.cli.sample_config import SampleConfig, read_config
from iptv2_diffusion.config import add_flags
from iptv2_diffusion.files import check_free

if TYPE_CHECKING:
    from iptv2_diffusion.cli.drawing import Models


def main() -> None:
    run(_sample)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(parser, SampleConfig)
    return parser


def _sample() -> None:
    config = read_config(make_parser().parse_args())
    if not config.is_set:
        _check_grid(config.output)
    if config.ckpt is None:
        say("No --ckpt: the bundled emoji model draws.")
    if config.is_set:
        from iptv2_diffusion.cli.sample_many import draw_many

        draw_many(config)
    else:
        _draw_grid(config)


def _check_grid(output: Path | None) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("a grid is drawn by one process: for a set that several share pass --format png")
    if output is not None:
        check_free(output, "as --output")


def _draw_grid(config: SampleConfig) -> None:
    from iptv2_diffusion.cli.drawing import load_models
    from iptv2_diffusion.cli.load import choose_device

    models = load_models(config, choose_device(config.device))
    labels = _labels(config, models.pipeline)
    with _claimed(config.output) as output:
        _draw(config, models, labels, output)
    say(f"{len(labels)} pictures and grid.png are in {output}")


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


def _labels(config: SampleConfig, pipeline: Any) -> list[int]:
    from iptv2_diffusion.cli.drawing import named_labels

    classes, count = pipeline.num_classes, config.num_samples
    if named := named_labels(config, pipeline):
        return [named[index % len(named)] for index in range(count or len(named))]
    count = count or 9
    return [index * classes // count if count <= classes else index % classes for index in range(count)]


def _draw(config: SampleConfig, models: "Models", labels: list[int], output: Path) -> None:
    """Writes every batch as soon as it is drawn, and the grid at the end."""
    from PIL import Image

    from iptv2_diffusion.cli.drawing import captions, describe, draw, save_png
    from iptv2_diffusion.pictures import grid

    names, settings = captions(models.pipeline, labels), describe(config, models)
    pictures: list[Any] = []
    for start in range(0, len(labels), config.batch_size):
        stop = min(start + config.batch_size, len(labels))
        models.pipeline.set_progress_bar_config(desc=f"pictures {start + 1} to {stop} of {len(labels)}")
        seeds = range(config.seed + start, config.seed + stop)
        pictures += map(Image.fromarray, draw(config, models, labels[start:stop], seeds))
        for index in range(start, stop):
            own = {"seed": config.seed + index, "label": labels[index], "name": names[index]}
            save_png(pictures[index], output / f"{index:06d}.png", settings | own)
    save_png(grid(pictures, names), output / "grid.png", settings | {"labels": labels})


if __name__ == "__main__":
    main()
