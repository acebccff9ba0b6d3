"""Restore photographs: with the small restorer of this package for a --task, or with whatever --ckpt has learned.

INPUT is a picture, a folder or a pattern such as 'photos/**/*.png'; --output gets the same names and sub-folders. Bit
depth, gray, transparency, EXIF and colour profile are kept. JPEG has quality 95, the other formats are lossless.
Of animations and files of several pages the first picture is restored, with a warning. With --suffix the results may
lie beside the inputs, which they are not taken for afterwards.
A picture that fails is reported, the others are restored, and the exit status is then 1.
"""

import argparse
import errno
import glob
import sys
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, NamedTuple

from iptv2_diffusion.cli.common import run, say
from iptv2_diffusion.config import add_flags, arg, from_flags
from iptv2_diffusion.files import check_place
from iptv2_diffusion.restoration.bundled import bundled_tasks, bundled_weights
from iptv2_diffusion.restoration.tasks import GROUPS, TASKS, serves

WRITTEN_AS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "tiff": ".tif"}
RIGHT = {"_L": "_R", "_l": "_r"}  # endings of the left and the right view's name
SHOWN = 5  # names in a message
BAR = "{l_bar}{bar}| {n:.2f}/{total:.2f} MP [{elapsed}<{remaining}, {rate_noinv_fmt}]"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # on the disk
FAILURES = (ValueError, OSError, RuntimeError, MemoryError)  # of one picture


class Picture(NamedTuple):
    sources: tuple[Path, ...]  # the picture, or its left and right view
    name: Path  # below --output, without --suffix and --format


class Job(NamedTuple):
    sources: tuple[Path, ...]
    target: Path


@dataclass(frozen=True, kw_only=True)
class RestoreConfig:
    output: Path = arg(Path("restored"), "folder for the results")
    task: str | None = arg(None, f"one of {', '.join((*GROUPS, *TASKS))}; weights for another task are refused")
    ckpt: str | None = arg(
        None,
        "training run, checkpoint, saved model, .safetensors file or hub id; none: the weights that come with this",
    )
    tile: str = arg(
        "auto", "pixels a side; auto: as memory allows, whole up to 4 megapixels; none: the whole picture at once"
    )
    overlap: int = arg(64, "pixels that neighbouring tiles share at least, up to half a tile")
    ensemble: bool = arg(False, "average over the 8 flips and turns, at 8 times the cost")
    local: int | None = arg(None, "pixels a side that the grid attention stays within, 384 for instance")
    input_right: Path | None = arg(None, "folder of the right views, for dual-pixel models; none: NAME_L, NAME_R pairs")
    suffix: str = arg("", "appended to the names of the results")
    format: Literal["png", "jpeg", "webp", "tiff"] | None = arg(None, "of the results; none: as the input")
    overwrite: bool = arg(False, "replace results that exist")
    skip_existing: bool = arg(False, "leave out pictures whose result exists")
    device: str | None = arg(None, "none: a GPU where there is one")

    def __post_init__(self) -> None:
        if self.tile not in ("auto", "none") and not (self.tile.isdecimal() and int(self.tile)):
            raise ValueError(f"expected --tile auto, none or a number of pixels, got {self.tile}")
        if self.task not in (None, *GROUPS, *TASKS):
            raise ValueError(f"expected --task to be one of {', '.join((*GROUPS, *TASKS))}, got {self.task}")
        if self.overlap < 0:
            raise ValueError(f"expected --overlap of 0 or more, got {self.overlap}")
        if self.overwrite and self.skip_existing:
            raise ValueError("expected --overwrite or --skip-existing, got both")
        if self.output.exists() and not self.output.is_dir():
            raise ValueError(f"expected a folder as --output, got the file {self.output}")
        if self.ckpt is None and self.task is None:
            raise ValueError(f"expected --task {', '.join(bundled_tasks())}, or --ckpt, got neither")
        if self.ckpt is None and not bundled_tasks(self.task):
            raise ValueError(f"no weights for {self.task} are bundled: pass --ckpt, a training run or a saved model")

    @property
    def tile_pixels(self) -> int | str | None:
        return int(self.tile) if self.tile.isdecimal() else {"auto": "auto", "none": None}[self.tile]


def main() -> None:
    run(_restore)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="iptv2-restore"
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="picture, folder or pattern")
    add_flags(parser, RestoreConfig)
    return parser


def _restore() -> None:
    flags = make_parser().parse_args()
    config = from_flags(RestoreConfig, flags)
    found = _found(flags.inputs, config)
    models = _models(config)
    jobs = _jobs(config, _with_views(found, config.input_right, max(models)))
    todo = [job for job in jobs if config.overwrite or not job.target.exists()]
    for target in {job.target.parent: job.target for job in todo}.values():
        check_place(target)
    failures = _restore_all(config, models, todo)
    skipped = f", {len(jobs) - len(todo)} skipped" if config.skip_existing else ""
    say(f"{len(todo) - len(failures)} restored in {config.output}{skipped}")
    if failures:
        sys.exit("\n".join([f"{len(failures)} failed:", *failures]))  # status 1


def _models(config: RestoreConfig) -> dict[int, Any]:
    """By the channels that they take: one, or those of this package for the task or the group of tasks."""
    # Not by the names of tasks, which may be those of files and folders here.
    sources = [str(bundled_weights(t)) for t in bundled_tasks(config.task)] if config.ckpt is None else [config.ckpt]
    models = [_model(config, source) for source in sources]
    return {model.config["in_channels"]: model for model in models}


def _model(config: RestoreConfig, source: str) -> Any:
    from iptv2_diffusion.cli.load import choose_device, load_restorer
    from iptv2_diffusion.restoration.local import local_attention

    device = choose_device(config.device)
    model = load_restorer(source)
    trained = model.config["task"]
    if config.task and not serves(trained, config.task):
        raise ValueError(f"--task {config.task}: {source} was trained for {trained}")
    with local_attention(model, config.local):
        pass  # refuses what does not fit the model before any work
    return model.fuse().to(device)


def _found(inputs: Sequence[str], config: RestoreConfig) -> list[Picture]:
    """Every picture once, but no earlier results: in folders and patterns what a folder --output holds, with --suffix
    what has it and lies in --output, if its source is found, too."""
    own = config.output.resolve()
    found = [picture for text in inputs for picture in _pictures(text, own)]
    sources = {picture.name.with_suffix("") for picture in found}
    return [picture for picture in dict.fromkeys(found) if not _is_result(config, picture, sources)]


def _is_result(config: RestoreConfig, picture: Picture, sources: Collection[Path]) -> bool:
    stem, name = picture.name.stem.removesuffix(config.suffix), picture.name
    if stem == name.stem or not stem or picture.sources[0].resolve() != (config.output / name).resolve():
        return False
    return any(name.with_name(stem + view) in sources for view in ("", *RIGHT))  # the suffix replaces _L and _R


def _pictures(text: str, output: Path) -> list[Picture]:
    from iptv2_diffusion.data.image_folder import EXTENSIONS
    from iptv2_diffusion.data.pairs import list_pictures

    path = Path(text).expanduser()
    if path.is_file():
        return [Picture((path,), Path(path.name))]
    if path.is_dir():
        root, files = path, list_pictures(path)
    else:
        root = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
        files = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
    if root.resolve() in output.parents:  # earlier results are not to be restored again
        files = [file for file in files if output not in file.resolve().parents]
    files = [file for file in files if file.suffix.lower() in EXTENSIONS]
    if not files:
        raise FileNotFoundError(f"expected a picture, a folder of pictures or a pattern that matches some, got {text}")
    return [Picture((file,), file.relative_to(root)) for file in files]


def _with_views(found: Sequence[Picture], right: Path | None, channels: int) -> list[Picture]:
    """Left views with their right ones, for a model that takes both; else what was found."""
    if channels != 6:
        if right is not None:
            raise ValueError(f"--input-right is for dual-pixel models of 6 channels, this one has {channels}")
        return list(found)
    if right is not None:
        pairs = [Picture((*left.sources, right / left.name), left.name) for left in found]
    else:
        pairs = [_named_pair(left) for left in found if left.name.stem[-2:].upper() != "_R"]
    if missing := [pair.sources[1] for pair in pairs if not pair.sources[1].is_file()]:
        raise FileNotFoundError(f"{len(missing)} right views are missing, first {missing[0]}")
    return pairs


def _named_pair(left: Picture) -> Picture:
    """NAME_L.png and NAME_R.png, restored as NAME.png."""
    (file,), stem = left.sources, left.name.stem
    if stem[-2:] not in RIGHT:
        raise ValueError(f"expected --input-right, or pairs named NAME_L and NAME_R, got {file}")
    partner = file.with_name(stem[:-2] + RIGHT[stem[-2:]] + file.suffix)
    return Picture((file, partner), left.name.with_name(stem[:-2] + file.suffix))


def _jobs(config: RestoreConfig, pictures: Sequence[Picture]) -> list[Job]:
    """Errors, before any work, for results that would replace anything that they are not meant to."""
    jobs = [Job(picture.sources, _target(config, picture.name)) for picture in pictures]
    makers: dict[Path, Path] = {}
    for job in jobs:
        if (other := makers.setdefault(job.target, job.sources[0])) != job.sources[0]:
            raise ValueError(f"{other} and {job.sources[0]} would both be restored as {job.target}")
    inputs = {source.resolve() for job in jobs for source in job.sources}
    if replaced := [job.target for job in jobs if job.target.resolve() in inputs]:
        raise ValueError(f"{replaced[0]} is an input: choose another --output or a --suffix")
    existing = [job.target for job in jobs if job.target.exists()]
    if existing and not (config.overwrite or config.skip_existing):
        shown = ", ".join(map(str, existing[:SHOWN]))
        raise FileExistsError(f"{len(existing)} results exist, pass --skip-existing or --overwrite: {shown}")
    return jobs


def _target(config: RestoreConfig, name: Path) -> Path:
    from iptv2_diffusion.data.image_io import FORMATS

    own = name.suffix if name.suffix.lower() in FORMATS else ".png"
    extension = WRITTEN_AS[config.format] if config.format else own
    return config.output / name.with_name(f"{name.stem}{config.suffix}{extension}")


def _restore_all(config: RestoreConfig, models: Mapping[int, Any], jobs: Sequence[Job]) -> list[str]:
    """One line for each picture that failed."""
    from tqdm import tqdm

    failures = []
    pixels = sum(_pixels(job.sources[0]) for job in jobs)
    with tqdm(total=pixels, unit="MP", unit_scale=1e-6, bar_format=BAR, disable=not jobs) as bar:
        for number, job in enumerate(jobs, 1):
            bar.set_description(f"{number}/{len(jobs)} {job.sources[0].name}")
            try:
                with _noted(bar, job.sources[0]):
                    _restore_one(config, models, job, partial(_advance, bar, bar.n))
            except FAILURES as error:
                if isinstance(error, OSError) and error.errno in NO_ROOM:
                    raise  # nor is there for the others
                failures.append(f"{job.sources[0]}: {' '.join(str(error).split()) or type(error).__name__}")
    return failures


def _restore_one(config: RestoreConfig, models: Mapping[int, Any], job: Job, on_progress: Any) -> None:
    import numpy as np

    from iptv2_diffusion.data.image_io import check_writable, read_photo, write_photo

    photos = [read_photo(source) for source in job.sources]
    check_writable(job.target, photos[0])
    if len({(photo.pixels.shape, photo.pixels.dtype) for photo in photos}) > 1:
        raise ValueError("expected views of one size and depth, got " + " and ".join(map(str, job.sources)))
    pixels = np.concatenate([photo.pixels for photo in photos], axis=2)
    model = models.get(pixels.shape[2], next(iter(models.values())))  # which takes other channels, too
    restored = model.restore(
        pixels,
        tile=config.tile_pixels,
        overlap=config.overlap,
        ensemble=config.ensemble,
        local=config.local,
        on_progress=on_progress,
    )
    job.target.parent.mkdir(parents=True, exist_ok=True)
    write_photo(job.target, replace(photos[0], pixels=restored), overwrite=config.overwrite)


@contextmanager
def _noted(bar: Any, source: Path) -> Iterator[None]:
    """Warnings become lines above the bar, with the name of the picture."""
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        yield
    for note in notes:
        bar.write(f"{source}: {note.message}", file=sys.stderr)


def _advance(bar: Any, before: int, pixels: int) -> None:
    bar.update(before + pixels - bar.n)


def _pixels(path: Path) -> int:
    """From the header; 0 for a file that is no picture, which fails in its turn."""
    from PIL import Image

    from iptv2_diffusion.data.image_io import any_size

    with suppress(Exception), any_size(), Image.open(path) as picture:
        return picture.width * picture.height
    return 0


if __name__ == "__main__":
    main()
