"""`iptv2-restore` run again beside its inputs, on files of several frames, of any size, and what it refuses early."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from iptv2_diffusion import IPTV2Restorer
from iptv2_diffusion.data import image_io

Call = Callable[..., None]


@pytest.fixture
def ckpt(tmp_path: Path) -> Callable[..., Path]:
    """Saves a restorer that changes nothing, of a task."""

    def save(task: str, **channels: int) -> Path:
        sizes: dict[str, Any] = {"width": 4, "layers": (1, 1), "heads": (1, 2), "window": 8, "grid": 4} | channels
        model = IPTV2Restorer(**sizes, task=task)
        torch.nn.init.zeros_(model.head.weight)
        model.save_pretrained(tmp_path / task)
        return tmp_path / task

    return save


def save_all(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for index, name in enumerate(names):
        Image.new("RGB", (5, 4), (index, 9, 200)).save(folder / name)


@pytest.mark.parametrize("flags", [("--skip-existing",), ("--overwrite",)], ids=str)
def test_results_beside_their_inputs_are_no_inputs(command: Call, ckpt, tmp_path: Path, capsys, flags) -> None:
    folder = tmp_path / "b"
    save_all(folder, "p 1.png", "q.jpg", "r_clean.png")  # the last is a picture of its own: there is no r
    expected = {"p 1_clean.png": 0, "q_clean.png": 1, "r_clean_clean.png": 2}
    options = ("--output", folder, "--ckpt", ckpt("paired"), "--suffix", "_clean", "--format", "png", *flags)
    for inputs, restored in (((folder,), 3), ((folder,), 0), (sorted(folder.iterdir()), 0)):
        command("restore", *inputs, *options)
        restored = 3 if "--overwrite" in flags else restored
        assert f"{restored} restored" in capsys.readouterr().out
        assert {path.name for path in folder.iterdir()} == {"p 1.png", "q.jpg", "r_clean.png", *expected}


def test_results_of_both_views_are_no_inputs(command: Call, ckpt, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "b"
    save_all(folder, "x_L.png", "x_R.png")
    model = ckpt("defocus-deblur-dual", in_channels=6)
    for restored in (1, 0):
        command("restore", folder, "--output", folder, "--ckpt", model, "--suffix", "_clean", "--skip-existing")
        assert f"{restored} restored" in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == {"x_L.png", "x_R.png", "x_clean.png"}


def test_frames_that_are_lost_are_reported(command: Call, ckpt, tmp_path: Path, capsys) -> None:
    save_all(tmp_path / "b", "still.webp")
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "lime")]
    frames[0].save(tmp_path / "b" / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    command("restore", tmp_path / "b", "--output", tmp_path / "out", "--ckpt", ckpt("paired"))
    lines = [line for line in capsys.readouterr().err.splitlines() if "frames" in line]
    assert lines == [f"{tmp_path / 'b' / 'moving.webp'}: it holds 2 frames, of which only the first is read"]
    with Image.open(tmp_path / "out" / "moving.webp") as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(frames[0]))


def test_pictures_may_have_any_size(command: Call, ckpt, tmp_path: Path, monkeypatch, capsys) -> None:
    save_all(tmp_path / "b", "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    command("restore", tmp_path / "b", "--output", tmp_path / "out", "--ckpt", ckpt("paired"))
    assert "1 restored" in capsys.readouterr().out
    assert Image.MAX_IMAGE_PIXELS == 5


def test_what_the_format_cannot_hold_is_refused_before_the_work(command: Call, ckpt, tmp_path, monkeypatch) -> None:
    def restore(self: Any, image: Any, **options: Any) -> Any:
        raise AssertionError("it was restored")

    (tmp_path / "b").mkdir()
    Image.new("RGBA", (5, 4), (1, 2, 3, 4)).save(tmp_path / "b" / "x.png")
    monkeypatch.setattr(IPTV2Restorer, "restore", restore)
    flags = ("--output", tmp_path / "out", "--ckpt", ckpt("paired"), "--format", "jpeg")
    with pytest.raises(SystemExit, match=r"x\.png.*no transparency"):
        command("restore", tmp_path / "b", *flags)


def test_places_that_take_no_results_are_refused_before_the_work(refused, ckpt, tmp_path: Path, monkeypatch) -> None:
    save_all(tmp_path / "b", "x.png")
    (tmp_path / "file").touch()
    flags = ("--ckpt", ckpt("paired"), "--output")
    assert "file is no folder" in refused("restore", tmp_path / "b", *flags, tmp_path / "file" / "out")
    monkeypatch.setattr("os.access", lambda path, mode: False)  # which holds for root, too
    assert f"{tmp_path} takes no new files" in refused("restore", tmp_path / "b", *flags, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_ends_the_work(refused, ckpt, tmp_path: Path, monkeypatch) -> None:
    tried: list[Path] = []

    def full(path: Path, photo: Any, **options: Any) -> None:
        tried.append(path)
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    save_all(tmp_path / "b", "x.png", "y.png")
    monkeypatch.setattr(image_io, "write_photo", full)
    message = refused("restore", tmp_path / "b", "--ckpt", ckpt("paired"), "--output", tmp_path / "out")
    assert "No space left on device" in message
    assert tried == [tmp_path / "out" / "x.png"]


def test_weights_of_pairs_serve_every_task(command: Call, refused, ckpt, tmp_path: Path) -> None:
    save_all(tmp_path / "b", "x.png")
    command("restore", tmp_path / "b", "--output", tmp_path / "out", "--ckpt", ckpt("paired"), "--task", "derain")
    flags = ("--output", tmp_path / "new", "--ckpt", ckpt("derain"), "--task", "paired")
    assert "was trained for derain" in refused("restore", tmp_path / "b", *flags)
