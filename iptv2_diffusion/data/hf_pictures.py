"""Labelled pictures in data sets of Hugging Face's `datasets`, an optional package.

A folder of `save_to_disk`, a folder of parquet files, or pictures with a `metadata.csv`, `.jsonl` or `.parquet` beside them.
The pictures are in the only column of images, the labels in the column of class labels or, without one, in "label".
`datasets` copies parquet files into its own cache (HF_DATASETS_CACHE) before the first picture is read.
"""

import os
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from PIL import Image

from iptv2_diffusion.data.image_folder import read_rgb
from iptv2_diffusion.data.labelled_pictures import decode_rgb, number_classes

SAVED = ("state.json", "dataset_dict.json")  # of one split, of several
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


class HFPictures:
    """One split; of a set without splits all of it.

    OSError where `datasets` is missing, ValueError where the columns are not as above or there is no such split.
    """

    def __init__(self, root: str | Path, split: str = "train", classes: Sequence[str] | None = None) -> None:
        datasets = _datasets()
        rows = _split(_load(datasets, Path(root)), split)
        image, label = _columns(datasets, rows.features)
        names = getattr(rows.features[label], "names", None)
        self.classes, self._labels = number_classes(list(rows[label]), classes or names)
        self._rows = rows.select_columns([image]).cast_column(image, datasets.Image(decode=False))
        self._names = [
            _relative(path or "", Path(root)) or f"{split}/{index:08d}"
            for index, path in enumerate(_paths(self._rows, image))
        ]
        self._image = image

    def __len__(self) -> int:
        return len(self._labels)

    def name(self, index: int) -> str:
        return self._names[index]

    def label(self, index: int) -> int:
        return self._labels[index]

    def picture(self, index: int) -> Image.Image:
        stored = self._rows[index][self._image]
        return read_rgb(stored["path"]) if stored["bytes"] is None else decode_rgb(stored["bytes"], self.name(index))


def hf_files(root: Path) -> list[str]:
    """Names of the files by which `root` is such a folder; none where it is something else."""
    named = [name for name in (*SAVED, *METADATA) if (root / name).is_file()]
    return named or sorted(path.name for path in root.glob("*.parquet"))


def _datasets() -> Any:
    try:
        return import_module("datasets")
    except ImportError as error:
        raise OSError(f'this data set needs another package: pip install "iptv2-diffusion[hf]" ({error})') from error


def _load(datasets: Any, root: Path) -> Any:
    """A data set, or a mapping of them by their splits."""
    if any((root / name).is_file() for name in SAVED):
        return datasets.load_from_disk(str(root))
    kind = "imagefolder" if any((root / name).is_file() for name in METADATA) else "parquet"
    return datasets.load_dataset(kind, data_dir=str(root))


def _split(data: Any, split: str) -> Any:
    if not isinstance(data, dict):
        return data
    if split not in data:
        raise ValueError(f"expected a split of {', '.join(data)}, got {split}")
    return data[split]


def _columns(datasets: Any, features: Any) -> tuple[str, str]:
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    labels = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    labels = labels or [name for name in features if name == "label"]
    if len(images) != 1 or len(labels) != 1:
        raise ValueError(
            f"expected one column of images and one of class labels, or 'label', got {', '.join(features)}"
        )
    return images[0], labels[0]


def _paths(rows: Any, image: str) -> Iterator[str | None]:
    """Of every picture, without reading any."""
    for table in rows.with_format("arrow").iter(1000):
        yield from table.flatten()[f"{image}.path"].to_pylist()


def _relative(path: str, root: Path) -> str:
    return path.removeprefix(os.path.join(root.resolve(), "")).replace(os.sep, "/")
