"""A set of samples on disk.

settings.json         how they are drawn, written first: nothing else may then be mixed in; under "sessions" what the
                      runs that filled it may have had different, the last of them above
images/000/000123.png sample 123 with its seed and label, a thousand to a folder
grid.png              the first of them
samples.npz           arr_0 (N, H, W, 3) uint8 and arr_1 (N,) int64 labels, as ADM's evaluator reads them; also alone
"""

import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from PIL import Image

from iptv2_diffusion.cli.drawing import save_png
from iptv2_diffusion.cli.generation_record import SETTINGS
from iptv2_diffusion.cli.image_sets import GRID, NPZ, PictureFolder, write_images
from iptv2_diffusion.cli.records import write_record
from iptv2_diffusion.cli.sample_config import SampleConfig
from iptv2_diffusion.files import written_whole
from iptv2_diffusion.pictures import grid

FOLDER = 1000  # pictures to a folder
IN_GRID = 64
# What may differ between the runs that fill a folder. Names of models may: their weights are compared.
FREE = {
    *("ckpt", "checkpoint", "training_steps", "vae", "guide", "protocol"),
    *("batch_size", "device", "version", "versions", "compile", "share_modulation"),
}


class SampleFolder:
    def __init__(self, path: Path, settings: Mapping[str, Any], labels: Sequence[int], names: Sequence[str]) -> None:
        """FileExistsError where the path holds something else, ValueError where it was begun with other settings.

        Of random classes there may be more than were asked for before.
        """
        self.path, self.labels, self._settings, self._names = path, labels, settings, names
        self._images = path / "images"
        self._npz = path / NPZ
        self._counts = dict.fromkeys(range(-(-len(labels) // FOLDER)), 0)  # samples in every folder
        self._begun: dict[str, Any] = {}
        self._check()

    def _check(self) -> None:
        if not (self.path / SETTINGS).is_file():
            if self.path.exists() and (not self.path.is_dir() or any(p.name[0] != "." for p in self.path.iterdir())):
                raise FileExistsError(
                    f"{self.path} already holds something that is no set of samples: choose a new --output"
                )
            return
        begun = json.loads((self.path / SETTINGS).read_text("utf-8"))
        self._begun = asdict(SampleConfig()) | begun  # older ones lack what was not there to be set
        free = FREE | {"sessions"} | ({"num_samples"} if self._grows else set())
        differences = [
            f"{name} {self._begun.get(name)} there and {self._settings.get(name)} here"
            for name in sorted((self._begun.keys() | self._settings.keys()) - free)
            if self._begun.get(name) != self._settings.get(name)
        ]
        if differences:
            raise ValueError(f"{self.path} was begun with other settings: {'; '.join(differences)}")
        if self._grows and self._npz_alone and self._npz.exists():
            raise ValueError(f"{self._npz} stands alone: without its pictures the set cannot grow")

    @property
    def _grows(self) -> bool:
        """Sample i of random classes is the same in a set of any size."""
        return self._settings["class_draw"] == "random" and self._begun.get("num_samples", math.inf) < len(self.labels)

    def begin(self) -> None:
        """Or go on. Nothing that is made of all samples may outlast their number."""
        self.path.mkdir(parents=True, exist_ok=True)
        if self._grows:
            for name in (GRID, NPZ):
                (self.path / name).unlink(missing_ok=True)
        former = [_free(self._begun)] if self._begun else []
        own = _free(self._settings)
        sessions = [*(other for other in self._begun.get("sessions", former) if other != own), own]
        write_record(self.path / SETTINGS, {**self._settings, "sessions": sessions}, overwrite=True)

    def missing(self) -> list[int]:
        """Indices of the samples that are not there, in order."""
        if self._npz_alone and self._npz.exists():
            return []
        there = {int(Path(name).stem) for folder in self._counts for name in self._pictures(folder)}
        return [index for index in range(len(self.labels)) if index not in there]

    def count(self) -> int:
        """Samples that are there, whoever drew them; a folder that is full is not looked into again."""
        for folder, count in self._counts.items():
            if count < FOLDER:
                self._counts[folder] = len(self._pictures(folder))
        return sum(self._counts.values())

    def add(self, index: int, pixels: np.ndarray) -> None:
        """One that is there already stays."""
        path = self._picture(index)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            seed, label = self._settings["seed"] + index, self.labels[index]
            save_png(pixels, path, {"seed": seed, "label": label, "name": self._names[index]})

    def finish(self, *, npz: bool) -> None:
        """The grid and, if asked for, the .npz, in whose favour the pictures go where it is to stand alone."""
        if not (self.path / GRID).exists():
            self._write_grid()
        if npz and not self._npz.exists():
            self._write_npz()
        if self._npz_alone and self._images.exists():
            shutil.rmtree(self._images)

    def _write_grid(self) -> None:
        first = range(min(IN_GRID, len(self.labels)))
        pictures = [Image.open(self._picture(index)) for index in first]
        save_png(grid(pictures, [self._names[index] for index in first]), self.path / GRID, dict(self._settings))

    def _write_npz(self) -> None:
        """Streamed: never more than a batch of pictures in memory. In order of index, so never sorted by class."""
        pictures = PictureFolder(self._images)
        if pictures.count != len(self.labels):
            raise ValueError(f"expected {len(self.labels)} pictures in {self._images}, found {pictures.count}")
        with written_whole(self._npz) as unfinished, ZipFile(unfinished, "w") as archive:
            write_images(archive, pictures, range(pictures.count))
            with archive.open("arr_1.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asarray(self.labels, np.int64))

    @property
    def _npz_alone(self) -> bool:
        return self._settings["format"] == "npz"

    def _picture(self, index: int) -> Path:
        return self._images / f"{index // FOLDER:03d}" / f"{index:06d}.png"

    def _pictures(self, folder: int) -> list[str]:
        try:
            names = os.listdir(self._images / f"{folder:03d}")
        except FileNotFoundError:
            return []
        return [name for name in names if name.endswith(".png") and name[:-4].isdecimal()]


def _free(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: settings[name] for name in sorted(FREE & settings.keys())}
