"""The data behind the flags of restoration training: clean photographs to degrade, or pairs."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from iptv2_diffusion.cli.restoration_config import RestorationConfig
from iptv2_diffusion.data.degradations import Compose, Degradation, parse_degradations
from iptv2_diffusion.data.pairs import PairedPictures, PictureList, list_pictures, pair_folders
from iptv2_diffusion.data.patches import Chosen, CleanPatches, PairedPatches
from iptv2_diffusion.data.restoration_sets import open_set
from iptv2_diffusion.data.tiles import CLEAN, INDEX, open_tiles, picture_of
from iptv2_diffusion.metrics.fidelity import psnr, ssim
from iptv2_diffusion.restoration.tasks import TASKS
from iptv2_diffusion.rng import permutation

BLIND_LEVELS = (15, 25, 50)  # the paper's noise levels, where the range of --sigma includes them
INPUT, TARGET = "input", "target"

SCORES = {"psnr": partial(psnr, peak=255), "ssim": partial(ssim, peak=255, method="wang")}


@dataclass(frozen=True)
class RestorationData:
    training: Any
    held_out: dict[str, Any]  # by the name of its figures
    content: str  # identifies the pictures
    degradations: str | None  # of clean photographs


def restoration_data(config: RestorationConfig) -> RestorationData:
    """ValueError or FileNotFoundError, of one line, where there is nothing usable."""
    spec = TASKS[config.task]
    text = f"awgn:{config.sigma}" if spec.noise else config.degrade
    if text is None:
        pairs = _pairs(config)
        return _split(config, pairs, pairs.names, PairedPatches, {"held_out": PairedPatches}, None)
    degradations = parse_degradations(text)
    photographs = {
        name: file for number, folder in enumerate(config.data_path) for name, file in _found(number, folder)
    }
    pictures = PictureList(list(photographs.values()), gray=spec.channels[0] == 1)
    levels = _noise_levels(degradations) if spec.noise else {"held_out": degradations}
    sources = {name: _degraded(level) for name, level in levels.items()}
    return _split(config, pictures, list(photographs), _degraded(degradations), sources, str(degradations))


def _found(number: int, folder: Path) -> Iterator[tuple[str, Path]]:
    """Names, unique over all folders and the same on any machine, and photographs: of tiles the clean ones."""
    root = folder / CLEAN if (folder / INDEX).is_file() else folder
    for file in list_pictures(root):
        yield f"{number}/{file.relative_to(root).with_suffix('').as_posix()}", file


def _degraded(degradations: Compose) -> Callable[[Any], CleanPatches]:
    return partial(CleanPatches, degrade=degradations)


def _noise_levels(degradations: Compose) -> dict[str, Compose]:
    """What a denoiser is validated on: the level it is for, or those of the tables that are within its range."""
    (noise,) = degradations.steps
    assert isinstance(noise, Degradation)
    low, high = noise.low, noise.high
    levels = [low] if low == high else [level for level in BLIND_LEVELS if low <= level <= high] or [(low + high) / 2]
    return {f"{level:g}": Compose((Degradation("awgn", level, level),)) for level in levels}


def _pairs(config: RestorationConfig) -> Any:
    if len(config.data_path) != 1:
        raise ValueError(f"--data-path: expected one data set of pairs, got {len(config.data_path)} folders")
    root, spec = config.data_path[0], TASKS[config.task]
    if (root / INDEX).is_file() and spec.train_set is None:
        return open_tiles(root)
    if not (root / INDEX).is_file() and (root / INPUT).is_dir() and (root / TARGET).is_dir():
        return PairedPictures(pair_folders(root / INPUT, root / TARGET), gray=spec.channels[0] == 1)
    if spec.train_set is not None:
        return open_set(spec.train_set, root)
    raise FileNotFoundError(f"expected pairs in {root / INPUT} and {root / TARGET}, or --degrade for clean photographs")


def _split(
    config: RestorationConfig,
    pictures: Any,
    names: Sequence[str],
    train: Callable[[Any], Any],
    validate: dict[str, Callable[[Any], Any]],
    degradations: str | None,
) -> RestorationData:
    """Holds out pictures, with all tiles that were cut from them; one tile of each is measured."""
    scenes = _scenes(config.data_path, names)
    if config.hold_out >= len(scenes):
        raise ValueError(f"--hold-out: expected fewer than the {len(scenes)} pictures, got {config.hold_out}")
    order = permutation(len(scenes), config.hold_out).tolist()
    held_out = sorted(scenes[scene][0] for scene in order[: config.hold_out])
    rest = sorted(index for scene in order[config.hold_out :] for index in scenes[scene])
    return RestorationData(
        train(Chosen(pictures, rest)),
        {name: make(Chosen(pictures, held_out)) for name, make in validate.items()} if held_out else {},
        _fingerprint(names),
        degradations,
    )


def _scenes(folders: Sequence[Path], names: Sequence[str]) -> list[list[int]]:
    """The pictures, or the tiles of each picture, by their places in `names`."""
    tiled = any((folder / INDEX).is_file() for folder in folders)
    scenes: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        scenes.setdefault(picture_of(name) if tiled else name, []).append(index)
    return list(scenes.values())


def _fingerprint(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
