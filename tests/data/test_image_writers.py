import os
from pathlib import Path

import pytest

from iptv2_diffusion.data.image_writers import write_bytes


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(b"old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "x", b"new", overwrite=True)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x", b"old")]


def test_existing_files_are_kept_unless_asked(tmp_path: Path) -> None:
    write_bytes(tmp_path / "x", b"first")
    with pytest.raises(FileExistsError, match="exists already"):
        write_bytes(tmp_path / "x", b"second")
    assert (tmp_path / "x").read_bytes() == b"first"
    write_bytes(tmp_path / "x", b"third", overwrite=True)
    assert (tmp_path / "x").read_bytes() == b"third"
