import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder as ReferenceImageFolder
from upright import UPRIGHT

from iptv2_diffusion.data.emoji import composite_on_white
from iptv2_diffusion.data.image_folder import EXTENSIONS, ImageFolder, read_rgb, scan

ORIENTATION = 0x0112  # EXIF tag


def save(picture: Image.Image, path: Path, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)
    return path


def gradient(height: int = 4, width: int = 6) -> np.ndarray:
    """(height, width, 3) uint8, every pixel different."""
    return (np.arange(height * width * 3) * 255 // (height * width * 3 - 1)).astype(np.uint8).reshape(height, width, 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, one with a nested folder, and things that must be ignored."""
    picture = Image.fromarray(gradient())
    for name in ("b cat/2.png", "b cat/10.PNG", "b cat/deeper/1.jpg", "a dog/x.webp", "a dog/y.bmp", "a dog/z.tif"):
        save(picture, tmp_path / name)
    save(picture, tmp_path / "beside.png")
    (tmp_path / "a dog" / "notes.txt").write_text("no picture")
    return tmp_path


def test_classes_files_and_labels_are_torchvisions(folder: Path) -> None:
    listing, reference = scan(folder), ReferenceImageFolder(folder)
    assert listing.classes == tuple(reference.classes) == ("a dog", "b cat")
    assert list(zip(listing.files, listing.labels, strict=True)) == reference.samples
    assert listing.labels == (0, 0, 0, 1, 1, 1)
    assert set(EXTENSIONS) == set(reference.extensions or ())


def test_hidden_files_and_folders_are_ignored(folder: Path) -> None:
    before = scan(folder)
    for name in (".cache/x.png", "a dog/._x.png", "a dog/.thumbnails/x.png"):
        save(Image.new("RGB", (2, 2)), folder / name)
    assert scan(folder) == before


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"root/<class name>/<picture>.*absent"):
        scan(tmp_path / "absent")


def test_folder_without_classes_is_refused(tmp_path: Path) -> None:
    save(Image.new("RGB", (2, 2)), tmp_path / "x.png")
    with pytest.raises(ValueError, match="expected one folder per class"):
        scan(tmp_path)


def test_classes_without_pictures_are_named(folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match=r"expected pictures .* found none in 1 of them: empty"):
        ImageFolder(folder)


@pytest.mark.parametrize("extension", [".bmp", ".png", ".ppm", ".tif", ".tiff"])
def test_lossless_formats_come_back_exactly(tmp_path: Path, extension: str) -> None:
    path = save(Image.fromarray(gradient()), tmp_path / f"x{extension}")
    np.testing.assert_array_equal(np.asarray(read_rgb(path)), gradient())


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(gradient()).convert(mode)
    path = save(picture, tmp_path / ("x.tif" if mode == "CMYK" else "x.png"))
    np.testing.assert_array_equal(np.asarray(read_rgb(path)), np.asarray(picture.convert("RGB")))


def test_alpha_is_composited_on_white(tmp_path: Path) -> None:
    path = save(Image.new("RGBA", (2, 3), (0, 100, 200, 51)), tmp_path / "x.png")
    assert read_rgb(path).getpixel((0, 0)) == (204, 224, 244)  # 255 + (value - 255) / 5


@pytest.mark.parametrize(("mode", "clear"), [("RGB", (0, 0, 0)), ("L", 0), ("P", 0)])
def test_a_transparent_colour_becomes_white(tmp_path: Path, mode: str, clear: int | tuple[int, int, int]) -> None:
    picture = Image.new(mode, (2, 1), clear)
    if mode == "P":
        picture.putpalette([0, 0, 0, 10, 20, 30])
    picture.putpixel((1, 0), {"RGB": (10, 20, 30), "L": 77, "P": 1}[mode])
    read = read_rgb(save(picture, tmp_path / "x.png", transparency=clear))
    assert read.getpixel((0, 0)) == (255, 255, 255)
    assert read.getpixel((1, 0)) == ((77, 77, 77) if mode == "L" else (10, 20, 30))


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.pgm"])
def test_16_bit_gray_is_scaled_not_clipped(tmp_path: Path, name: str) -> None:
    values = np.array([[0, 255, 257, 32768, 65535]], np.uint16)
    read = np.asarray(read_rgb(save(Image.fromarray(values), tmp_path / name)))
    np.testing.assert_array_equal(read, (values >> 8).astype(np.uint8)[..., None].repeat(3, axis=2))


@pytest.mark.parametrize(
    "values", [np.array([[0.5]], np.float32), np.array([[-1]], np.int32), np.array([[70000]], np.int32)]
)
def test_other_depths_are_refused_by_name(tmp_path: Path, values: np.ndarray) -> None:
    path = save(Image.fromarray(values), tmp_path / "deep.tif")
    with pytest.raises(ValueError, match=r"deep\.tif.*expected 8 or 16 bits per channel"):
        read_rgb(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = save(Image.fromarray(gradient()), tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(np.asarray(read_rgb(path)), UPRIGHT[orientation](gradient()))


@pytest.mark.parametrize("extension", [".bmp", ".jpg", ".png", ".ppm", ".tif", ".webp"])
def test_truncated_pictures_are_refused_by_name(tmp_path: Path, extension: str) -> None:
    whole = save(Image.fromarray(gradient(64, 64)), tmp_path / f"x{extension}").read_bytes()
    for name, content in {"empty": b"", "header": whole[:20], "half": whole[: len(whole) // 2]}.items():
        path = tmp_path / f"{name}{extension}"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"cannot read .*{name}\\{extension} as a picture"):
            read_rgb(path)


def test_a_damaged_png_header_is_refused_by_name(tmp_path: Path) -> None:
    path = save(Image.fromarray(gradient()), tmp_path / "damaged.png")
    content = bytearray(path.read_bytes())
    content[16:20] = struct.pack(">I", 5)  # the width: its checksum no longer fits
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read .*damaged\.png"):
        read_rgb(path)


def test_an_unreadable_picture_stops_at_its_position_only(folder: Path) -> None:
    (folder / "a dog" / "x.webp").write_text("no picture")
    pictures = ImageFolder(folder)
    assert pictures[1][1] == 0
    with pytest.raises(ValueError, match=r"x\.webp"):
        pictures[0]


def test_items_are_uint8_tensors_with_their_label(folder: Path) -> None:
    pictures = ImageFolder(folder)
    pixels, label = pictures[1]  # a dog/y.bmp
    assert len(pictures) == 6
    assert label == 0
    assert pixels.is_contiguous()
    torch.testing.assert_close(pixels, torch.from_numpy(gradient()).permute(2, 0, 1))


def test_transform_sees_rgb_and_makes_batches_possible(tmp_path: Path) -> None:
    for index, mode in enumerate(("L", "RGBA", "P")):
        save(Image.new(mode, (5 + index, 9)), tmp_path / "only" / f"{index}.png")
    modes = []

    def crop(picture: Image.Image) -> Image.Image:
        modes.append(picture.mode)
        return picture.crop((0, 0, 4, 8))

    batch, labels = next(iter(DataLoader(ImageFolder(tmp_path, crop), batch_size=3)))
    assert modes == ["RGB"] * 3
    assert batch.shape == (3, 3, 8, 4)
    assert labels.tolist() == [0, 0, 0]


def test_emoji_read_as_the_emoji_reader_does(emoji_folder: Path) -> None:
    pictures = ImageFolder(emoji_folder)
    assert pictures.classes == ("images",)
    for index, file in enumerate(pictures.files):
        pixels, _ = pictures[index]
        with Image.open(file) as picture:
            expected = composite_on_white(picture, picture.width).copy()
        torch.testing.assert_close(pixels, torch.from_numpy(expected).permute(2, 0, 1))


def test_photographs_read(shared_data: Callable[[str], Path]) -> None:
    """Colour and 8-bit gray files as they come, against torchvision's reader."""
    root = shared_data("set12").parent
    for name in ("cbsd68", "set12"):
        file = min((root / name).glob("*.png"))
        with Image.open(file) as picture:
            np.testing.assert_array_equal(np.asarray(read_rgb(file)), np.asarray(picture.convert("RGB")))
