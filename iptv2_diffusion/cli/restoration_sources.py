"""The data behind the flags of restoration training: clean photographs to degrade, or pairs."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

from iptv2_diffusion.cli.common import say
from iptv2_diffusion.cli.restoration_config import RestorationConfig
from iptv2_diffusion.data.degradations import Compose, Degradation, parse_degradations
from iptv2_diffusion.data.hold_out import Origin, origin_of, origins_of_pairs
from iptv2_diffusion.data.pairs import PairedPictures, PictureList, pair_folders
from iptv2_diffusion.data.patches import Chosen, CleanPatches, PairedPatches
from iptv2_diffusion.data.photographs import in_words, photographs_below
from iptv2_diffusion.data.restoration_sets import open_set, spec_of
from iptv2_diffusion.data.set_layouts import is_place_of
from iptv2_diffusion.data.tiles import CLEAN, INDEX, open_tiles
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
        return _split(config, *_pairs(config), PairedPatches, {"held_out": PairedPatches}, None)
    degradations = parse_degradations(text)
    pictures, names, origins = clean_pictures(config.data_path, gray=spec.channels[0] == 1)
    levels = _noise_levels(degradations) if spec.noise else {"held_out": degradations}
    sources = {name: _degraded(level) for name, level in levels.items()}
    return _split(config, pictures, names, origins, _degraded(degradations), sources, str(degradations))


def clean_pictures(folders: Sequence[Path], *, gray: bool = False) -> tuple[PictureList, list[str], list[Origin]]:
    """All photographs of the folders, with their names, which begin with the number of the folder, and what they show."""
    found = [_found(number, folder) for number, folder in enumerate(folders)]
    pictures = PictureList([file for files, _, _ in found for file in files], gray=gray)
    return pictures, [n for _, names, _ in found for n in names], [o for _, _, origins in found for o in origins]


def _found(number: int, folder: Path) -> tuple[list[Path], list[str], list[Origin]]:
    """Photographs, their names, the same on any machine, and what they show. One name: one picture, in two formats."""
    files, left_out = photographs_below(folder)
    if left_out:
        say(f"Left out of {folder}: pictures {in_words(left_out)}; {len(files)} remain.")
    tiled = (folder / INDEX).is_file()
    root = folder / CLEAN if tiled else folder
    names = [f"{number}/{file.relative_to(root).with_suffix('').as_posix()}" for file in files]
    return files, names, [origin_of(name, file, tiled=tiled) for name, file in zip(names, files, strict=True)]


def _degraded(degradations: Compose) -> Callable[[Any], CleanPatches]:
    return partial(CleanPatches, degrade=degradations)


def _noise_levels(degradations: Compose) -> dict[str, Compose]:
    """What a denoiser is validated on: the level it is for, or those of the tables that are within its range."""
    (noise,) = degradations.steps
    assert isinstance(noise, Degradation)
    low, high = noise.low, noise.high
    levels = [low] if low == high else [level for level in BLIND_LEVELS if low <= level <= high] or [(low + high) / 2]
    return {f"{level:g}": Compose((Degradation("awgn", level, level),)) for level in levels}


def _pairs(config: RestorationConfig) -> tuple[PairedPictures, Sequence[str], list[Origin]]:
    pairs = _fitting(config, _opened(config))
    tiled = (config.data_path[0] / INDEX).is_file()
    return pairs, pairs.names, origins_of_pairs(pairs.pairs, tiled=tiled)


def _fitting(config: RestorationConfig, pairs: Any) -> PairedPictures:
    root, views = config.data_path[0], max(TASKS[config.task].channels[0] // 3, 1)
    if not isinstance(pairs, PairedPictures):
        raise ValueError(f"--task {config.task}: expected pairs, {root} holds clean photographs only; see --degrade")
    if (found := len(pairs.pairs[0].degraded)) != views:
        raise ValueError(f"--task {config.task}: expected {views} degraded to a clean picture, {root} has {found}")
    return pairs


def _opened(config: RestorationConfig) -> Any:
    if len(config.data_path) != 1:
        raise ValueError(f"--data-path: expected one data set of pairs, got {len(config.data_path)} folders")
    root, spec = config.data_path[0], TASKS[config.task]
    if (root / INDEX).is_file() and spec.train_set is None:
        return open_tiles(root)
    published = None if spec.train_set is None else spec_of(spec.train_set)
    whole = published is not None and is_place_of(published, root)  # counted, as where it is named from further up
    if not whole and not (root / INDEX).is_file() and (root / INPUT).is_dir() and (root / TARGET).is_dir():
        pairs = pair_folders(root / INPUT, root / TARGET)
        return PairedPictures(pairs, gray=spec.channels[0] == 1, bits=published.bits if published else None)
    if spec.train_set is not None:
        return open_set(spec.train_set, root)
    raise FileNotFoundError(f"expected pairs in {root / INPUT} and {root / TARGET}, or --degrade for clean photographs")


def _split(
    config: RestorationConfig,
    pictures: Any,
    names: Sequence[str],
    origins: Sequence[Origin],
    train: Callable[[Any], Any],
    validate: dict[str, Callable[[Any], Any]],
    degradations: str | None,
) -> RestorationData:
    """Holds out scenes, with all of their pictures and tiles; one tile of `hold_out` pictures is measured."""
    rest, held_out = split_scenes(origins, config.hold_out)
    return RestorationData(
        train(Chosen(pictures, rest)),
        {name: make(Chosen(pictures, held_out)) for name, make in validate.items()} if held_out else {},
        _fingerprint(names),
        degradations,
    )


def split_scenes(origins: Sequence[Origin], count: int) -> tuple[list[int], list[int]]:
    """Places of what is trained on and of what is measured: as few whole scenes as have that many pictures."""
    scenes: dict[str, dict[str, list[int]]] = {}
    for index, (scene, picture) in enumerate(origins):
        scenes.setdefault(scene, {}).setdefault(picture, []).append(index)
    shuffled = [list(scenes.values())[place] for place in permutation(len(scenes), count).tolist()]
    reached = [0, *accumulate(map(len, shuffled))]
    held = next((number for number, pictures in enumerate(reached) if pictures >= count), len(scenes))
    if held == len(scenes):
        whole = f", of {len(scenes)} scenes that are held out whole" if len(scenes) < reached[-1] else ""
        raise ValueError(f"--hold-out: expected fewer than the {reached[-1]} pictures{whole}, got {count}")
    first = sorted(tiles[0] for pictures in shuffled[:held] for tiles in pictures.values())
    rest = sorted(index for pictures in shuffled[held:] for tiles in pictures.values() for index in tiles)
    return rest, [first[number * len(first) // count] for number in range(count)]


def _fingerprint(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
