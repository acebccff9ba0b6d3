"""`iptv2-data`: preparing and checking."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from iptv2_diffusion.data.image_io import Photo, write_photo
from iptv2_diffusion.data.tiles import check_tiles


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """blurred/ and sharp/ in GoPro's layout."""
    for folder, value in (("blur", 1), ("sharp", 2)):
        for name in ("000001", "000002"):
            path = tmp_path / f"gopro/train/GOPR1/{folder}/{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_photo(path, Photo(np.full((20, 30, 3), value, np.uint8)))
    return tmp_path / "gopro"


def test_a_published_set_is_checked_and_cut(
    command: Callable[..., None], refused: Callable[..., str], pictures: Path, tmp_path: Path, capsys
) -> None:
    assert "expected 2103 pictures" in refused("data", "check", "--dataset", "gopro-train", "--input", pictures)
    flags = ("--dataset", "gopro-train", "--input", pictures, "--count", 2)
    command("data", "check", *flags)
    assert "GoPro (train): 2 in" in capsys.readouterr().out
    command("data", "prepare", *flags, "--output", tmp_path / "tiles", "--size", 20, "--overlap", 5)
    assert "4 tiles of 2 pictures" in capsys.readouterr().out
    command("data", "check", "--input", tmp_path / "tiles")
    assert "4 tiles, all of them whole" in capsys.readouterr().out


def test_own_pairs_and_photographs_are_cut(command: Callable[..., None], pictures: Path, tmp_path: Path) -> None:
    blurred, sharp = (pictures / "train/GOPR1" / name for name in ("blur", "sharp"))
    command(
        "data",
        "prepare",
        "--input",
        blurred,
        "--clean",
        sharp,
        "--output",
        tmp_path / "pairs",
        "--size",
        16,
        "--overlap",
        0,
    )
    command("data", "prepare", "--input", sharp, "--output", tmp_path / "photographs", "--size", 256, "--workers", 2)
    assert check_tiles(tmp_path / "pairs") == 2 * 2 * 2
    assert check_tiles(tmp_path / "photographs") == 2
    assert (tmp_path / "pairs/input").is_dir()
    assert not (tmp_path / "photographs/input").exists()


def test_test_pictures_are_not_cut(command: Callable[..., None], tmp_path: Path, capsys) -> None:
    for part in ("train", "val"):
        path = tmp_path / f"BSR/BSDS500/data/images/{part}/1.png"
        path.parent.mkdir(parents=True)
        write_photo(path, Photo(np.full((20, 30, 3), 1, np.uint8)))
    command("data", "prepare", "--input", tmp_path / "BSR/BSDS500/data/images", "--output", tmp_path / "tiles")
    assert [file.name for file in (tmp_path / "tiles/target").rglob("*.png")] == ["1_0_0.png"]
    assert "1 of BSDS500's val part" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("check", "--input", "."), "expected latents or tiles"),
        (("check", "--input", ".", "--dataset", "x"), "expected a data set of cbsd68"),
        (("prepare", "--input", ".", "--output", "x", "--workers", 0), "--workers of at least 1"),
        (("prepare", "--input", ".", "--output", "x", "--dataset", "hide", "--clean", "."), "not both"),
        (("prepare", "--input", "absent", "--output", "x"), "found no folder absent"),
    ],
)
def test_bad_requests_end_with_one_line(refused: Callable[..., str], flags: tuple, reason: str) -> None:
    assert reason in refused("data", *flags)
