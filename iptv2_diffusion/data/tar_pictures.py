"""Labelled pictures in WebDataset's tar files: one file, or all `*.tar` of a folder in the order of their names.

The members of a sample share their path up to the first dot of the file name: `n01/x.jpg` and `n01/x.cls`. The label is
the text of `.cls`, or the entry "label" of `.json`: a class id, or a class's name. Samples without a picture are ignored.
"""

import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image

from iptv2_diffusion.data.image_folder import EXTENSIONS
from iptv2_diffusion.data.labelled_pictures import decode_rgb, number_classes

MEMBER = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)")  # key, extension
Members = dict[str, tarfile.TarInfo]  # extension -> member


class _Sample(NamedTuple):
    name: str
    offset: int  # bytes from the beginning of the tar file
    size: int  # bytes
    label: int | str


class TarPictures:
    """Tar files are listed once; pictures are then read from where they lie, in any order.

    ValueError for a tar file that is compressed, damaged, or has a picture without a label.
    """

    def __init__(self, path: str | Path, classes: Sequence[str] | None = None) -> None:
        self._tars = tar_files(Path(path))
        samples = [(number, sample) for number, tar in enumerate(self._tars) for sample in _samples(tar)]
        if not samples:
            raise ValueError(f"expected pictures ({', '.join(EXTENSIONS)}) in the tar files of {path}, found none")
        self.classes, self._labels = number_classes([sample.label for _, sample in samples], classes)
        self._names = [sample.name for _, sample in samples]
        self._places = np.array([(number, sample.offset, sample.size) for number, sample in samples])

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return f"{self._tars[self._places[index, 0]].name}/{self._names[index]}"

    def label(self, index: int) -> int:
        return self._labels[index]

    def picture(self, index: int) -> Image.Image:
        number, offset, size = self._places[index].tolist()
        with self._tars[number].open("rb") as file:
            file.seek(offset)
            return decode_rgb(file.read(size), self.name(index))


def tar_files(path: Path) -> list[Path]:
    """The tar files that `path` is or holds; none where it is something else."""
    return [path] if path.is_file() and path.suffix == ".tar" else sorted(path.glob("*.tar"))


def _samples(path: Path) -> Iterator[_Sample]:
    try:
        with tarfile.open(path, "r:") as archive:
            for key, members in _grouped(archive).items():
                pictures = [member for extension, member in members.items() if f".{extension}" in EXTENSIONS]
                if len(pictures) > 1:
                    raise ValueError(f"expected one picture in the sample {key}, got {len(pictures)}")
                for member in pictures:
                    yield _Sample(member.name, member.offset_data, member.size, _label(archive, key, members))
    except (tarfile.TarError, ValueError) as error:
        raise ValueError(f"cannot read {path} as an uncompressed tar file of labelled pictures: {error}") from error


def _grouped(archive: tarfile.TarFile) -> dict[str, Members]:
    samples: dict[str, Members] = {}
    for member in archive:
        match = MEMBER.fullmatch(member.name)
        if match is None or not member.isfile():
            continue
        key, extension = match[1], match[2].lower()
        if extension in samples.setdefault(key, {}):
            raise ValueError(f"it holds {member.name} twice")
        samples[key][extension] = member
    return samples


def _label(archive: tarfile.TarFile, key: str, members: Members) -> int | str:
    if "cls" in members:
        text = _read(archive, members["cls"]).decode().strip()
        return int(text) if text.lstrip("-").isdecimal() else text
    label = json.loads(_read(archive, members["json"])).get("label") if "json" in members else None
    if not isinstance(label, (int, str)):
        raise ValueError(f"expected {key}.cls, or {key}.json with a label that is a number or a name")
    return label


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file: IO[bytes] | None = archive.extractfile(member)
    assert file is not None  # only regular files are listed
    return file.read()
