"""What shows the same scene, by its name and by equal clean files: none of it may be trained on where some of it is measured."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from iptv2_diffusion.data.pairs import Pair
from iptv2_diffusion.data.tiles import picture_of

CROP = re.compile(r"[-_]s?\d+$")  # Restormer's and MPRNet's preparations, in folders of these names
CROP_FOLDER = re.compile(r"_crops$|_sub$|^DFWB$")
SUBIMAGE = re.compile(r"_s\d{3}$")  # BasicSR's preparation, in folders of any name
GOPRO_VIDEO = re.compile(r"GOPR\d+_\d+_\d+")
# Instance, scene (one of ten) and shot, as `restoration_sets` has them.
SIDD_SCENE = re.compile(r"(?:^|/)\d{4}_(\d{3})_01[01]$")
SIDD_INSTANCE = re.compile(r"(?:^|/)(\d{4})_(?:(?:NOISY|GT)_SRGB_)?01[01]$")  # re-packed names do not tell the scene

COMPARED = 4096  # last bytes of two files of one size; equal ones hold the same picture


class Origin(NamedTuple):
    scene: str  # a picture, or a video or series that it is of
    picture: str


def origin_of(name: str, file: Path, *, tiled: bool) -> Origin:
    """Of the picture or tile of that name in its set; `file` is the clean one, `tiled`: `data.tiles` made it."""
    suffix = CROP if CROP_FOLDER.search(file.parent.name) else SUBIMAGE
    picture = picture_of(name) if tiled else suffix.sub("", name)
    video, scene = GOPRO_VIDEO.search(picture), SIDD_SCENE.search(picture) or SIDD_INSTANCE.search(picture)
    return Origin(video[0] if video else scene[1] if scene else picture, picture)


def origins_of_pairs(pairs: Sequence[Pair], *, tiled: bool) -> list[Origin]:
    """As `origin_of`; pairs with equal clean files, several kinds of rain over one picture, are of one scene."""
    firsts: dict[tuple[int, bytes], str] = {}
    scenes = [firsts.setdefault(_ending(pair.clean), pair.name) for pair in pairs]
    origins = [origin_of(pair.name, pair.clean, tiled=tiled) for pair in pairs]
    scene_of = {pair.name: origin.scene for pair, origin in zip(pairs, origins, strict=True)}
    return [Origin(scene_of[first], origin.picture) for first, origin in zip(scenes, origins, strict=True)]


def _ending(file: Path) -> tuple[int, bytes]:
    size = file.stat().st_size
    with file.open("rb") as content:
        content.seek(-min(size, COMPARED), os.SEEK_END)
        return size, content.read()
