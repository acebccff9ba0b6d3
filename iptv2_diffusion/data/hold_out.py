"""What shows the same scene, by name: none of it may be trained on where some of it is measured."""

import re
from pathlib import Path
from typing import NamedTuple

from iptv2_diffusion.data.tiles import picture_of

CROP = re.compile(r"[-_]s?\d+$")  # Restormer's and MPRNet's preparations, in folders of these names
CROP_FOLDER = re.compile(r"_crops$|_sub$|^DFWB$")
SUBIMAGE = re.compile(r"_s\d{3}$")  # BasicSR's preparation, in folders of any name
GOPRO_VIDEO = re.compile(r"GOPR\d+_\d+_\d+")
SIDD_SCENE = re.compile(r"(?:^|/)(\d{4})_(?:(?:NOISY|GT)_SRGB_)?01[01]$")  # two shots of each


class Origin(NamedTuple):
    scene: str  # a picture, or a video or series that it is of
    picture: str


def origin_of(name: str, file: Path, *, tiled: bool) -> Origin:
    """Of the picture or tile of that name in its set; `file` is the clean one, `tiled`: `data.tiles` made it."""
    if tiled:
        picture = picture_of(name)
    else:
        picture = (CROP if CROP_FOLDER.search(file.parent.name) else SUBIMAGE).sub("", name)
    video, scene = GOPRO_VIDEO.search(picture), SIDD_SCENE.search(picture)
    return Origin(video[0] if video else scene[1] if scene else picture, picture)
