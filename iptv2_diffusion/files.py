"""Files and folders that appear whole or not at all."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A hidden path, for a file or a folder, that gets its name when the block ends and vanishes when it fails."""
    if path.exists():
        raise FileExistsError(f"{path} exists already: remove it or choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".unfinished-{path.name}")
    _remove(hidden)
    try:
        yield hidden
        hidden.rename(path)
    finally:
        _remove(hidden)


def file_sha256(path: Path) -> str:
    """Of its content, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_free(folder: Path, purpose: str) -> None:
    """FileExistsError unless the folder is new or empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"expected a new or empty folder {purpose}, {folder} already holds something")


def check_place(path: Path) -> None:
    """OSError where nothing new could be written as `path`, its folders included, before work that would be lost."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise NotADirectoryError(f"{path} cannot be written: {folder} is no folder")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{path} cannot be written: {folder} takes no new files")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
