"""Models for use elsewhere: weights for inference or for training on, written whole or not at all."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from iptv2_diffusion.restoration.model_files import SUFFIX, save_weights


def _save_folder(model: Any, path: Path) -> None:
    model.save_pretrained(path)


class Format(NamedTuple):
    suffix: str  # of the file; empty: a folder
    save: Callable[[Any, Path], None]


FORMATS: Mapping[str, Format] = {
    "safetensors": Format(SUFFIX, save_weights),
    "diffusers": Format("", _save_folder),
}


def export(model: Any, path: Path, format: str) -> None:
    """Writes whole or not at all; FileExistsError where something has that name, ValueError for another suffix."""
    chosen = FORMATS[format]
    if not path.name.endswith(chosen.suffix):
        raise ValueError(f"expected a name that ends with {chosen.suffix} for {format}, got {path.name}")
    with written_whole(path) as unfinished:
        chosen.save(model, unfinished)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A hidden path, for a file or a folder, that gets its name when the block ends and vanishes when it fails."""
    if path.exists():
        raise FileExistsError(f"{path} exists already: remove it or choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}")
    _remove(hidden)
    try:
        yield hidden
        hidden.rename(path)
    finally:
        _remove(hidden)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
