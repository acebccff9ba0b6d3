"""Prepare and check data sets: latents for training the denoiser, tiles and pairs for restorers.

iptv2-data latents --data-path imagenet/train --output latents/imagenet256
accelerate launch -m iptv2_diffusion.cli.data latents --data-path imagenet/train --output latents/imagenet256
iptv2-data check --input latents/imagenet256
iptv2-data check --dataset gopro-train --input GOPRO_Large
iptv2-data prepare --dataset gopro-train --input GOPRO_Large --output tiles/gopro
iptv2-data prepare --input photographs --output tiles/photographs
iptv2-data prepare --input blurred --clean sharp --output tiles/pairs
iptv2-data check --input tiles/gopro
iptv2-data degrade --data-path photographs --degrade motion:9-31,awgn:1-2 --output pairs/shaken
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from iptv2_diffusion.cli.common import run, say
from iptv2_diffusion.cli.degrade import DegradeConfig, write_pairs
from iptv2_diffusion.config import add_flags, arg, from_flags
from iptv2_diffusion.data.latent_format import is_latent_folder
from iptv2_diffusion.data.latent_shards import check_latents
from iptv2_diffusion.data.pairs import PairedPictures, PictureList, pair_folders
from iptv2_diffusion.data.photographs import in_words, photographs_below
from iptv2_diffusion.data.restoration_sets import RESTORATION_SETS, open_set, spec_of
from iptv2_diffusion.data.tiles import INDEX, check_tiles, prepare_tiles

DATASETS = ", ".join(RESTORATION_SETS)
OVERLAP = 96  # pixels, of pictures that are no published set


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    input: Path = arg(help="folder of the data set, of photographs, or of degraded pictures if there is --clean")
    output: Path = arg(help="new folder for the tiles, or one that was left unfinished")
    dataset: str | None = arg(None, f"published set: {DATASETS}")
    clean: Path | None = arg(None, "clean counterparts of --input, of the same names")
    count: int | None = arg(None, "pictures there are, if it is a part of a published set only")
    size: int = arg(512, "pixels a side")
    overlap: int | None = arg(None, f"pixels that neighbours share; none: as the set is usually cut, or {OVERLAP}")
    workers: int = arg(1, "threads")

    def __post_init__(self) -> None:
        for name in ("size", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected --{name} of at least 1, got {getattr(self, name)}")
        if self.dataset is not None and self.clean is not None:
            raise ValueError("expected --dataset or --clean, not both: a published set has its own clean pictures")


@dataclass(frozen=True, kw_only=True)
class LatentsConfig:
    data_path: Path = arg(
        help="folder with one folder of pictures per class, WebDataset tar file or folder of them, or data set of "
        "Hugging Face's datasets (save_to_disk, parquet, or pictures beside metadata.csv)"
    )
    layout: Literal["folders", "tars", "datasets"] | None = arg(None, "of --data-path, where more than one would fit")
    output: Path = arg(help="new folder for the shards, or one that was left unfinished")
    vae: str = arg("stabilityai/sd-vae-ft-ema", "hub id or local folder of a diffusers VAE, or bundled")
    image_size: int = arg(256, "pixels a side of the centre crop")
    flip: bool = arg(True, "encode the mirror images, too")
    dtype: Literal["float16", "float32"] = arg("float16", "of the stored moments")
    classes: Path | None = arg(None, "text file of class names, one a line, for tar files that hold numbers only")
    split: str = arg("train", "of a Hugging Face data set")
    hold_out: int | None = arg(None, "keep every N-th picture for measuring, out of training; none: train on all")
    shard_size: int = arg(4096, "pictures per file")
    batch_size: int = arg(32, "pictures encoded at once")
    workers: int = arg(4, "processes that decode pictures, for each process that encodes")

    def __post_init__(self) -> None:
        least = {"image_size": 1, "shard_size": 1, "batch_size": 1, "workers": 0, "hold_out": 2}
        for name, minimum in least.items():
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise ValueError(f"expected --{name.replace('_', '-')} of at least {minimum}, got {value}")


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    input: Path = arg(help="folder of the data set, of latents or of tiles; of these two every file is read again")
    dataset: str | None = arg(None, f"published set; not needed for latents and tiles: {DATASETS}")
    count: int | None = arg(None, "pictures there are, if it is a part of a published set only")


def main() -> None:
    run(_run)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="iptv2-data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_flags(
        commands.add_parser("latents", help="encode labelled pictures; resumes where it was stopped"), LatentsConfig
    )
    add_flags(
        commands.add_parser("prepare", help="cut pictures into tiles; resumes where it was stopped"), PrepareConfig
    )
    add_flags(commands.add_parser("degrade", help="make pairs of clean photographs"), DegradeConfig)
    add_flags(commands.add_parser("check", help="count, match and, for latents and tiles, read again"), CheckConfig)
    return parser


def _run() -> None:
    flags = make_parser().parse_args()
    if flags.command == "latents":
        _latents(from_flags(LatentsConfig, flags))
    elif flags.command == "prepare":
        _prepare(from_flags(PrepareConfig, flags))
    elif flags.command == "degrade":
        write_pairs(from_flags(DegradeConfig, flags))
    else:
        _check(from_flags(CheckConfig, flags))


def _latents(config: LatentsConfig) -> None:
    from iptv2_diffusion.cli.latents import encode_latents  # waits until the flags are known to be right

    encode_latents(config)


def _prepare(config: PrepareConfig) -> None:
    pictures = _pictures(config)
    usual = OVERLAP if config.dataset is None else spec_of(config.dataset).overlap
    overlap = usual if config.overlap is None else config.overlap
    count = prepare_tiles(pictures, config.output, size=config.size, overlap=overlap, workers=config.workers)
    say(f"{count} tiles of {len(pictures)} pictures are in {config.output}")


def _pictures(config: PrepareConfig) -> PairedPictures | PictureList:
    if config.dataset is not None:
        pictures = open_set(config.dataset, config.input, count=config.count)
        if not isinstance(pictures, (PairedPictures, PictureList)):
            raise ValueError(f"{config.dataset} in {config.input} comes as blocks or joined pairs, which are not cut")
        return pictures
    if config.clean is not None:
        return PairedPictures(pair_folders(config.input, config.clean))
    files, left_out = photographs_below(config.input)
    if left_out:
        say(f"Left out of {config.input}: pictures {in_words(left_out)}; {len(files)} remain.")
    return PictureList(files, root=config.input)


def _check(config: CheckConfig) -> None:
    if is_latent_folder(config.input):
        header = check_latents(config.input)
        say(f"{config.input}: {header.count} pictures in {header.shards} shards of latents, all of them whole")
    elif (config.input / INDEX).is_file():
        say(f"{config.input}: {check_tiles(config.input)} tiles, all of them whole")
    elif config.dataset is None:
        raise ValueError(f"expected latents or tiles ({INDEX}) in {config.input}, or --dataset")
    else:
        pictures = open_set(config.dataset, config.input, count=config.count)
        say(f"{spec_of(config.dataset).title}: {len(pictures)} in {config.input}, complete and matched by name")


if __name__ == "__main__":
    main()
