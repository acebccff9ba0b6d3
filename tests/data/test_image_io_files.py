"""Rare kinds of files: plain TIFF that is turned, inverted gray, transparent values, several frames, sizes beyond Pillow's limit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from upright import UPRIGHT

from iptv2_diffusion.data.image_folder import read_rgb
from iptv2_diffusion.data.image_io import ORIENTATION, Photo, read_photo, read_pixels, write_photo


def pixels(channels: int = 3, bits: int = 8) -> np.ndarray:
    """(5, 7, channels), extremes included."""
    values = np.random.default_rng(channels * bits).integers(0, 2**bits, (5, 7, channels))
    values[0, 0], values[0, 1] = 0, 2**bits - 1
    return values.astype(np.uint8 if bits == 8 else np.uint16)


@pytest.mark.parametrize("orientation", [3, 5, 6, 8])
@pytest.mark.parametrize(("bits", "channels"), [(8, 1), (16, 1), (8, 4)])
def test_orientation_of_plain_tiff_is_applied(tmp_path: Path, bits: int, channels: int, orientation: int) -> None:
    """Uncompressed, one strip: the files that Pillow maps into memory."""
    stored, path = pixels(channels, bits), tmp_path / "x.tif"
    layout: dict[str, Any] = (
        {"photometric": "rgb", "extrasamples": ["unassalpha"]} if channels == 4 else {"photometric": "minisblack"}
    )
    tifffile.imwrite(
        path, stored.squeeze(), metadata=None, extratags=[(ORIENTATION, "H", 1, orientation, True)], **layout
    )
    photo, upright = read_photo(path), UPRIGHT[orientation](stored)
    planes = photo.pixels if photo.alpha is None else np.dstack([photo.pixels, photo.alpha])
    np.testing.assert_array_equal(planes, upright)
    if channels == 1:
        np.testing.assert_array_equal(read_pixels(path, gray=True), upright)
        np.testing.assert_array_equal(np.asarray(read_rgb(path))[..., :1], upright >> (bits - 8))


@pytest.mark.parametrize("bits", [8, 16])
def test_a_transparent_gray_value_becomes_alpha(tmp_path: Path, bits: int) -> None:
    stored, white = pixels(1, bits)[..., 0], 2**bits - 1
    Image.fromarray(stored).save(tmp_path / "x.png", transparency=white)
    photo = read_photo(tmp_path / "x.png")
    assert photo.alpha is not None
    np.testing.assert_array_equal(photo.pixels[..., 0], stored)
    np.testing.assert_array_equal(photo.alpha, np.where(stored == white, 0, white))


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("bits", [8, 16])
def test_white_may_be_zero(tmp_path: Path, bits: int, compression: str | None) -> None:
    stored = pixels(1, bits)
    tifffile.imwrite(tmp_path / "x.tif", stored[..., 0], photometric="miniswhite", compression=compression)
    np.testing.assert_array_equal(read_photo(tmp_path / "x.tif").pixels, 2**bits - 1 - stored)


@pytest.mark.parametrize("extension", [".webp", ".png", ".gif", ".tif"])
def test_further_frames_are_reported(tmp_path: Path, extension: str) -> None:
    first, *others = (Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue"))
    first.save(tmp_path / f"x{extension}", save_all=True, append_images=others, duration=100)
    with pytest.warns(UserWarning, match="holds 3 frames, of which only the first is read"):
        photo = read_photo(tmp_path / f"x{extension}")
    assert photo.pixels[0, 0].tolist() == pytest.approx([255, 0, 0], abs=2)


def test_photographs_may_have_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_photo(tmp_path / "x.tif", Photo(pixels()))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    np.testing.assert_array_equal(read_photo(tmp_path / "x.tif").pixels, pixels())
    with pytest.raises(ValueError, match="decompression bomb"):
        read_pixels(tmp_path / "x.tif")
