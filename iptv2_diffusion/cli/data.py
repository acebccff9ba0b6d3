"""Check data sets for restoration and cut them into tiles for training.

iptv2-data check --dataset gopro-train --input GOPRO_Large
iptv2-data prepare --dataset gopro-train --input GOPRO_Large --output tiles/gopro
iptv2-data prepare --input photographs --output tiles/photographs
iptv2-data prepare --input blurred --clean sharp --output tiles/pairs
iptv2-data check --input tiles/gopro
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from iptv2_diffusion.cli.common import run, say
from iptv2_diffusion.config import add_flags, arg, from_flags
from iptv2_diffusion.data.pairs import PairedPictures, PictureList, pair_folders
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
class CheckConfig:
    input: Path = arg(help="folder of the data set, or of tiles, every one of which is read again")
    dataset: str | None = arg(None, f"published set; not needed for tiles: {DATASETS}")
    count: int | None = arg(None, "pictures there are, if it is a part of a published set only")


def main() -> None:
    run(_run)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="iptv2-data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_flags(
        commands.add_parser("prepare", help="cut pictures into tiles; resumes where it was stopped"), PrepareConfig
    )
    add_flags(commands.add_parser("check", help="count, match and, for tiles, read again"), CheckConfig)
    return parser


def _run() -> None:
    flags = make_parser().parse_args()
    if flags.command == "prepare":
        _prepare(from_flags(PrepareConfig, flags))
    else:
        _check(from_flags(CheckConfig, flags))


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
            raise ValueError(f"{config.dataset} comes as blocks of a fixed size, there is nothing to cut")
        return pictures
    if config.clean is not None:
        return PairedPictures(pair_folders(config.input, config.clean))
    return PictureList.below(config.input)


def _check(config: CheckConfig) -> None:
    if (config.input / INDEX).is_file():
        say(f"{config.input}: {check_tiles(config.input)} tiles, all of them whole")
    elif config.dataset is None:
        raise ValueError(f"expected tiles ({INDEX}) in {config.input}, or --dataset")
    else:
        pictures = open_set(config.dataset, config.input, count=config.count)
        say(f"{spec_of(config.dataset).title}: {len(pictures)} in {config.input}, complete and matched by name")


if __name__ == "__main__":
    main()
