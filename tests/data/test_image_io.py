import struct
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from upright import UPRIGHT

from iptv2_diffusion.data.image_folder import read_rgb
from iptv2_diffusion.data.image_io import FORMATS, Photo, read_photo, read_pixels, write_photo

ORIENTATION, ARTIST, EXIF_IFD, EXPOSURE, MAKER_NOTE, GPS_IFD, LATITUDE = 274, 315, 0x8769, 33434, 37500, 0x8825, 2
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GRAY = SRGB[:16] + b"GRAY" + SRGB[20:]
LOSSLESS = [".png", ".tif", ".tiff"]


def pixels(channels: int = 3, bits: int = 8, height: int = 5, width: int = 7) -> np.ndarray:
    """Every value different from its neighbours', extremes included."""
    generator = np.random.default_rng(channels * bits)
    values = generator.integers(0, 2**bits, (height, width, channels))
    values[0, 0], values[0, 1] = 0, 2**bits - 1
    return values.astype(np.uint8 if bits == 8 else np.uint16)


def exif(orientation: int = 1) -> bytes:
    tags = Image.Exif()
    tags[ORIENTATION], tags[ARTIST] = orientation, "Ada"
    tags.get_ifd(EXIF_IFD).update({EXPOSURE: 0.25, MAKER_NOTE: b"\x01\x02secret"})
    tags.get_ifd(GPS_IFD)[LATITUDE] = (48.0, 8.0, 0.0)
    return tags.tobytes()


def bgr(planes: np.ndarray) -> np.ndarray:
    return planes[..., [2, 1, 0, 3][: planes.shape[2]]] if planes.shape[2] > 2 else planes


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("extension", [".png", ".tif", ".pnm"])
def test_other_libraries_files_are_read_exactly(tmp_path: Path, extension: str, bits: int, channels: int) -> None:
    extension = extension.replace("n", "g" if channels == 1 else "p") if extension == ".pnm" else extension
    stored, path = pixels(channels, bits), tmp_path / f"x{extension}"
    assert cv2.imwrite(str(path), bgr(stored))
    read = read_pixels(path)
    assert read.dtype == stored.dtype
    np.testing.assert_array_equal(read, np.broadcast_to(stored, (5, 7, 3)))
    if channels == 1:
        np.testing.assert_array_equal(read_pixels(path, gray=True), stored)


@pytest.mark.parametrize(
    "options", [{}, {"byteorder": ">"}, {"compression": "zlib"}, {"tile": (16, 16)}, {"bigtiff": True}]
)
def test_every_kind_of_16_bit_tiff_is_read(tmp_path: Path, options: dict[str, Any]) -> None:
    stored = pixels(3, 16, 20, 33)
    tifffile.imwrite(tmp_path / "x.tif", stored, photometric="rgb", **options)
    np.testing.assert_array_equal(read_pixels(tmp_path / "x.tif"), stored)


@pytest.mark.parametrize("bits", [8, 16])
def test_gray_of_a_colour_file_is_luma(tmp_path: Path, bits: int) -> None:
    colour = pixels(3, bits, 40, 40)
    write_photo(tmp_path / "x.png", Photo(colour))
    gray = read_pixels(tmp_path / "x.png", gray=True)
    assert gray.shape == (40, 40, 1)
    luma = colour @ np.array([0.299, 0.587, 0.114])
    assert np.abs(gray[..., 0] - luma).max() < (0.51 if bits == 8 else 1.5)  # the weights are rounded to 1/65536
    if bits == 8:
        np.testing.assert_array_equal(gray[..., 0], np.asarray(Image.fromarray(colour).convert("L")))


def test_16_bit_luma_of_gray_pixels_is_their_value(tmp_path: Path) -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    write_photo(tmp_path / "x.png", Photo(values.repeat(3, axis=2)))
    np.testing.assert_array_equal(read_pixels(tmp_path / "x.png", gray=True), values)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("extension", [".png", ".tif"])
def test_orientation_is_applied(tmp_path: Path, extension: str, bits: int, orientation: int) -> None:
    stored, path = pixels(3, bits), tmp_path / f"x{extension}"
    if extension == ".png":
        write_photo(path, Photo(stored, exif=exif(orientation)))
    else:
        tifffile.imwrite(path, stored, photometric="rgb", extratags=[(ORIENTATION, "H", 1, orientation, True)])
    np.testing.assert_array_equal(read_pixels(path), UPRIGHT[orientation](stored))
    photo = read_photo(path)
    np.testing.assert_array_equal(photo.pixels, UPRIGHT[orientation](stored))
    if extension == ".png":
        assert photo.exif == exif(1)


@pytest.mark.parametrize("orientation", [3, 6])
def test_orientation_of_16_bit_gray_is_applied(tmp_path: Path, orientation: int) -> None:
    stored = pixels(1, 16)
    write_photo(tmp_path / "x.png", Photo(stored, exif=exif(orientation)))
    np.testing.assert_array_equal(read_photo(tmp_path / "x.png").pixels, UPRIGHT[orientation](stored))


def test_8_bit_pixels_are_those_of_the_folder_reader(tmp_path: Path) -> None:
    palette = Image.fromarray(pixels()).quantize(8)
    palette.save(tmp_path / "x.png", transparency=3)
    np.testing.assert_array_equal(read_pixels(tmp_path / "x.png"), np.asarray(read_rgb(tmp_path / "x.png")))
    photo = read_photo(tmp_path / "x.png")
    assert photo.alpha is not None
    np.testing.assert_array_equal(photo.pixels, np.asarray(palette.convert("RGB")))
    np.testing.assert_array_equal(photo.alpha == 0, np.asarray(palette) == 3)


@pytest.mark.parametrize("bits", [8, 16])
def test_pixels_take_one_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int) -> None:
    write_photo(tmp_path / "x.png", Photo(pixels(3, bits)))
    openings, original = [], Image.open
    monkeypatch.setattr(Image, "open", lambda path: openings.append(path) or original(path))
    read_pixels(tmp_path / "x.png")
    assert openings == [tmp_path / "x.png"]


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_transparency_becomes_white(tmp_path: Path, channels: int) -> None:
    alpha = np.array([[0, 65535, 13107]], np.uint16)  # none, full, a fifth
    colour = np.full((1, 3, channels), 10000, np.uint16)
    write_photo(tmp_path / "x.png", Photo(colour, alpha))
    np.testing.assert_array_equal(read_pixels(tmp_path / "x.png")[0, :, 0], [65535, 10000, 54428])


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("extension", LOSSLESS)
def test_lossless_photographs_survive(tmp_path: Path, extension: str, bits: int, channels: int, alpha: bool) -> None:
    planes = pixels(channels + alpha, bits)
    photo = Photo(
        planes[..., :channels], planes[..., -1] if alpha else None, exif(), SRGB if channels == 3 else GRAY, "PNG"
    )
    path = tmp_path / f"x{extension}"
    write_photo(path, photo)
    read = read_photo(path)
    if extension != ".png" and bits == 16 and planes.shape[2] == 2:
        photo = replace(photo, pixels=photo.pixels.repeat(3, axis=2), icc=None)
        planes = planes[..., [0, 0, 0, 1]]
    np.testing.assert_array_equal(read.pixels, photo.pixels)
    assert (read.pixels.dtype, read.icc, read.format) == (planes.dtype, photo.icc, FORMATS[extension])
    if photo.alpha is None:
        assert read.alpha is None
    else:
        np.testing.assert_array_equal(read.alpha, photo.alpha)
    assert_same_exif(read.exif)
    assert_others_agree(path, planes)


def assert_same_exif(content: bytes | None) -> None:
    tags = Image.Exif()
    tags.load(content or b"")
    assert tags[ARTIST] == "Ada"
    assert tags.get(ORIENTATION, 1) == 1
    assert tags.get_ifd(EXIF_IFD) == {EXPOSURE: 0.25, MAKER_NOTE: b"\x01\x02secret"}
    assert tags.get_ifd(GPS_IFD) == {LATITUDE: (48.0, 8.0, 0.0)}


def assert_others_agree(path: Path, planes: np.ndarray) -> None:
    """tifffile reads TIFF as it is. OpenCV repeats gray beside alpha; of 8-bit TIFF with alpha it changes the pixels."""
    if path.suffix != ".png":
        np.testing.assert_array_equal(np.atleast_3d(tifffile.imread(path)), planes)
    if path.suffix == ".png" or planes.dtype == np.uint16 or planes.shape[2] in (1, 3):
        read = cv2.imread(str(path), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
        assert read is not None
        np.testing.assert_array_equal(
            np.atleast_3d(read), bgr(planes if planes.shape[2] != 2 else planes[..., [0, 0, 0, 1]])
        )


@pytest.mark.parametrize("extension", [".jpg", ".jpeg", ".webp"])
def test_metadata_survives_in_8_bit_formats(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"x{extension}"
    write_photo(path, Photo(pixels(3, 8, 32, 32), exif=exif(), icc=SRGB))
    read = read_photo(path)
    assert (read.exif, read.icc, read.format) == (exif(), SRGB, FORMATS[extension])


def test_webp_is_lossless_even_where_it_is_transparent(tmp_path: Path) -> None:
    planes = pixels(4)
    planes[..., 3] = np.where(planes[..., 3] < 128, 0, planes[..., 3])
    write_photo(tmp_path / "x.webp", Photo(planes[..., :3], planes[..., 3]))
    read = read_photo(tmp_path / "x.webp")
    assert read.alpha is not None
    np.testing.assert_array_equal(np.dstack([read.pixels, read.alpha]), planes)


@pytest.mark.parametrize("alpha", [False, True])
def test_gray_webp_has_three_equal_channels(tmp_path: Path, alpha: bool) -> None:
    gray = pixels(1)
    write_photo(tmp_path / "x.webp", Photo(gray, gray[..., 0] | 1 if alpha else None, icc=GRAY))
    read = read_photo(tmp_path / "x.webp")
    np.testing.assert_array_equal(read.pixels, gray.repeat(3, axis=2))
    assert read.icc is None  # it describes one channel


def test_jpeg_has_quality_95_and_full_chroma(tmp_path: Path) -> None:
    write_photo(tmp_path / "x.jpg", Photo(pixels(3, 8, 32, 32)))
    write_photo(tmp_path / "gray.jpg", Photo(pixels(1, 8, 32, 32)))
    reference = BytesIO()
    Image.fromarray(pixels(3, 8, 32, 32)).save(reference, "JPEG", quality=95, subsampling=0)
    assert (tmp_path / "x.jpg").read_bytes() == reference.getvalue()
    assert read_photo(tmp_path / "gray.jpg").pixels.shape == (32, 32, 1)


def test_exif_keeps_every_byte_but_the_orientation(tmp_path: Path) -> None:
    """Entries of the first directory, big-endian, and something after it that no directory mentions."""
    entries = struct.pack(">HHLHxx", ORIENTATION, 3, 1, 6) + struct.pack(">HHLL", 0x0128, 3, 1, 2 << 16)
    original = b"Exif\0\0MM\0*" + struct.pack(">LH", 8, 2) + entries + struct.pack(">L", 0) + b"thumbnail"
    Image.fromarray(pixels()).save(tmp_path / "x.jpg", exif=original)
    changed = [
        i
        for i, pair in enumerate(zip(original, read_photo(tmp_path / "x.jpg").exif or b"", strict=True))
        if pair[0] != pair[1]
    ]
    assert changed == [original.index(b"\0\x06") + 1]


def test_a_profile_for_other_channels_is_left_out(tmp_path: Path) -> None:
    for name in ("x.png", "x.tif", "x.jpg"):
        write_photo(tmp_path / name, Photo(pixels(1), icc=SRGB))
        assert read_photo(tmp_path / name).icc is None


@pytest.mark.parametrize(
    ("name", "photo", "reason"),
    [
        ("x.gif", Photo(pixels()), r"a name that ends in \.png"),
        ("x.jpg", Photo(pixels(3, 16)), "JPEG holds 8 bits"),
        ("x.webp", Photo(pixels(3, 16)), "WEBP holds 8 bits"),
        ("x.jpg", Photo(pixels(), pixels(1)[..., 0]), "JPEG holds no transparency"),
        ("x.jpg", Photo(np.zeros((1, 65_501, 3), np.uint8)), r"JPEG holds 65500 pixels a side, got \(1, 65501\)"),
        ("x.webp", Photo(np.zeros((16_384, 1, 1), np.uint8)), r"WEBP holds 16383 pixels a side, got \(16384, 1\)"),
        ("x.jpg", Photo(pixels(), exif=bytes(65_534)), "JPEG holds 65533 bytes of EXIF, got 65534"),
        ("x.png", Photo(pixels().astype(np.float32)), r"uint8 or uint16, got \(5, 7, 3\) float32"),
        ("x.png", Photo(pixels(2)), r"pixels \(H, W, 1 or 3\)"),
        ("x.png", Photo(pixels(), pixels(1, 16)[..., 0]), r"alpha \(5, 7\) uint8, got \(5, 7\) uint16"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(tmp_path: Path, name: str, photo: Photo, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        write_photo(tmp_path / name, photo)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    write_photo(path, Photo(pixels()))
    with pytest.raises(FileExistsError, match=r"x\.png exists already"):
        write_photo(path, Photo(pixels(1)))
    np.testing.assert_array_equal(read_photo(path).pixels, pixels())
    write_photo(path, Photo(pixels(1)), overwrite=True)
    np.testing.assert_array_equal(read_photo(path).pixels, pixels(1))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("read", [read_pixels, read_photo])
@pytest.mark.parametrize("extension", LOSSLESS[:2])
def test_damaged_16_bit_pictures_are_refused_by_name(tmp_path: Path, extension: str, read: Callable) -> None:
    write_photo(tmp_path / f"whole{extension}", Photo(pixels(3, 16, 64, 64)))
    whole = (tmp_path / f"whole{extension}").read_bytes()
    for name, content in {"empty": b"", "header": whole[:20], "half": whole[: len(whole) // 2]}.items():
        path = tmp_path / f"{name}{extension}"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"cannot read .*{name}\\{extension} as a picture"):
            read(path)


def test_floating_point_is_refused_by_name(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.5]], np.float32)).save(tmp_path / "deep.tif")
    with pytest.raises(ValueError, match=r"deep\.tif.*expected 8 or 16 bits per channel"):
        read_photo(tmp_path / "deep.tif")


@pytest.mark.parametrize(
    "options", [{"planarconfig": "separate"}, {"planarconfig": "contig", "extrasamples": ["assocalpha"]}]
)
def test_16_bit_tiff_that_would_be_misread_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    stored = pixels(4 if "extrasamples" in options else 3, 16)
    planar = options["planarconfig"] == "separate"
    tifffile.imwrite(tmp_path / "x.tif", stored.transpose(2, 0, 1) if planar else stored, photometric="rgb", **options)
    with pytest.raises(ValueError, match=r"cannot read .*x\.tif .*16-bit channels side by side"):
        read_photo(tmp_path / "x.tif")
