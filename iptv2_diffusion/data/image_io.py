"""Pictures in and out for restoration, as arrays (H, W, C), uint8 or uint16, R before B.

Bit depth is kept: 16-bit gray and colour come as uint16, everything else as uint8. Pictures are upright: the EXIF
orientation is applied. `read_pixels` gives what a network reads, `read_photo` and `write_photo` what has to survive a
restoration beside the pixels: transparency, EXIF, ICC profile. Of several frames or pages the first counts.
"""

import math
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageFile, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from iptv2_diffusion.data.image_folder import opened, to_rgb
from iptv2_diffusion.data.image_writers import ENCODERS, EXIF_PREFIX, write_bytes

BITS_PER_SAMPLE, PHOTOMETRIC, ORIENTATION, PLANAR_CONFIGURATION = 0x0102, 0x0106, 0x0112, 0x011C  # TIFF, EXIF tags
WHITE_IS_ZERO = 0
EXIF_IFD, GPS_IFD = 0x8769, 0x8825
# What a TIFF says about the photograph: description, make, model, software, date, artist, copyright. The rest of its
# tags describe how the file is laid out.
DESCRIPTIVE_TAGS = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)
MOST_PIXELS = {"JPEG": 65_500, "WEBP": 16_383}  # a side
MOST_EXIF = 65_533  # bytes in JPEG's one segment for them
LUMA = np.array([19595, 38470, 7471], np.uint32)  # ITU-R 601 in 1/65536, the integers that Pillow's "L" uses
FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}  # extension -> format that `write_photo` writes


@dataclass(frozen=True, eq=False)
class Photo:
    """A picture with what belongs to it; `format` is Pillow's name of the one it was read from."""

    pixels: np.ndarray  # (H, W, 1 | 3) uint8 | uint16
    alpha: np.ndarray | None = None  # (H, W) of the same type, not premultiplied
    exif: bytes | None = None  # begins with "Exif\0\0"; its orientation, if any, is 1
    icc: bytes | None = None
    format: str = "PNG"


def read_pixels(path: str | Path, *, gray: bool = False) -> np.ndarray:
    """(H, W, 3), or (H, W, 1) if `gray`; uint8 or uint16; upright, transparency on white.

    Gray files get three equal channels. `gray` of a colour file is ITU-R 601 luma, rounded, full range: Pillow's "L",
    and the same formula for 16 bits. (Other libraries' conversions differ by 1 here and there.)
    ValueError naming the file where it cannot be decoded.
    """
    with opened(path) as picture:
        if not _has_16_bits(picture):
            rgb = to_rgb(picture)
            return np.array(rgb.convert("L"))[..., None] if gray else np.array(rgb)
        photo = _photo(path, picture)
    pixels = photo.pixels if photo.alpha is None else _on_white(photo.pixels, photo.alpha)
    if gray:
        return pixels if pixels.shape[2] == 1 else _luma(pixels)
    return pixels if pixels.shape[2] == 3 else pixels.repeat(3, axis=2)


def read_photo(path: str | Path) -> Photo:
    """Gray stays gray; palettes, CMYK and the like become RGB. Of any number of pixels.

    A UserWarning says that further frames are left out. ValueError naming the file that cannot be decoded.
    """
    with any_size(), opened(path) as picture:
        photo, frames = _photo(path, picture), getattr(picture, "n_frames", 1)
    if frames > 1:
        warnings.warn(f"it holds {frames} frames, of which only the first is read", stacklevel=2)
    return photo


@contextmanager
def any_size() -> Iterator[None]:
    """Without Pillow's limit on pixels, which is a guard against strangers' files: these are named by the user."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def write_photo(path: str | Path, photo: Photo, *, overwrite: bool = False) -> None:
    """Writes the format that the extension names: PNG and TIFF (8 and 16 bit), JPEG and WebP (8 bit).

    PNG, TIFF and WebP are lossless; JPEG has quality 95 without chroma subsampling (4:4:4). Gray becomes three equal
    channels in WebP, which knows no gray, and with 16-bit transparency in TIFF, which few programs read otherwise.
    An ICC profile for another number of channels than are written is left out.
    The file appears whole or not at all. ValueError where the format cannot hold the photograph, FileExistsError
    where `path` exists, unless `overwrite`.
    """
    path = Path(path)
    check_writable(path, photo)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists already")
    planes = photo.pixels if photo.alpha is None else np.dstack([photo.pixels, photo.alpha])
    write_bytes(path, ENCODERS[_format(path)](planes, photo.exif, photo.icc), overwrite=overwrite)


def check_writable(path: Path, photo: Photo) -> None:
    """ValueError where `path` names no format that `write_photo` knows, or one that cannot hold the photograph."""
    kind, pixels, alpha = _format(path), photo.pixels, photo.alpha
    if (
        pixels.ndim != 3
        or pixels.shape[2] not in (1, 3)
        or 0 in pixels.shape
        or pixels.dtype not in (np.uint8, np.uint16)
    ):
        raise ValueError(f"{path}: expected pixels (H, W, 1 or 3), uint8 or uint16, got {pixels.shape} {pixels.dtype}")
    if alpha is not None and (alpha.shape != pixels.shape[:2] or alpha.dtype != pixels.dtype):
        raise ValueError(f"{path}: expected alpha {pixels.shape[:2]} {pixels.dtype}, got {alpha.shape} {alpha.dtype}")
    if pixels.dtype == np.uint16 and kind in ("JPEG", "WEBP"):
        raise ValueError(f"{path}: {kind} holds 8 bits per channel, these pixels have 16; PNG and TIFF hold both")
    if max(pixels.shape[:2]) > MOST_PIXELS.get(kind, math.inf):
        raise ValueError(
            f"{path}: {kind} holds {MOST_PIXELS[kind]} pixels a side, got {pixels.shape[:2]}; PNG and TIFF hold more"
        )
    if kind == "JPEG" and len(photo.exif or b"") > MOST_EXIF:
        raise ValueError(
            f"{path}: JPEG holds {MOST_EXIF} bytes of EXIF, got {len(photo.exif or b'')}; PNG and TIFF hold more"
        )
    if alpha is not None and kind == "JPEG":
        raise ValueError(f"{path}: JPEG holds no transparency; PNG, TIFF and WEBP do")


def _format(path: Path) -> str:
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"expected a name that ends in {', '.join(FORMATS)}, got {path}")
    return FORMATS[path.suffix.lower()]


def _photo(path: str | Path, picture: Image.Image) -> Photo:
    """Of a picture that is opened and not loaded yet."""
    deep, raw_mode = _has_16_bits(picture), _raw_mode(picture)
    icc, exif = picture.info.get("icc_profile"), _exif(picture)
    planes = _planes_16(path, picture, raw_mode) if deep else _planes_8(picture)
    colours = 1 if planes.shape[2] < 3 else 3
    return Photo(
        pixels=np.ascontiguousarray(planes[..., :colours]),
        alpha=np.ascontiguousarray(planes[..., -1]) if planes.shape[2] > colours else None,
        exif=exif,
        icc=icc,
        format="JPEG" if picture.format == "MPO" else picture.format or "PNG",
    )


def _has_16_bits(picture: Image.Image) -> bool:
    """Of an opened picture that is not loaded yet: Pillow decodes 16-bit colour to 8 bits."""
    if isinstance(picture, TiffImageFile):
        return 16 in picture.tag_v2.get(BITS_PER_SAMPLE, ()) or picture.mode == "I"
    raw_mode = _raw_mode(picture) if picture.format in ("PNG", "PPM") else ""
    return ";16" in raw_mode or "65535" in raw_mode  # the latter is the largest value of a PPM


def _raw_mode(picture: Image.Image) -> str:
    """How the file stores its pixels, as text; Pillow forgets it when it loads them."""
    return str(picture.tile[0][3]) if isinstance(picture, ImageFile.ImageFile) and picture.tile else ""


def _planes_8(picture: Image.Image) -> np.ndarray:
    """(H, W, C) uint8, C = 1, 2, 3 or 4: gray, gray and alpha, RGB, RGBA."""
    upright = ImageOps.exif_transpose(picture)
    if upright.mode == "F":
        raise ValueError("expected 8 or 16 bits per channel, it holds floating-point numbers")
    mode = "L" if upright.mode in ("1", "L", "LA", "La") else "RGB"
    pixels = np.array(upright.convert(mode + "A" if upright.has_transparency_data else mode))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _planes_16(path: str | Path, picture: Image.Image, raw_mode: str) -> np.ndarray:
    """The same in uint16."""
    if picture.mode.startswith("I"):
        return _gray_16(picture)
    if picture.mode not in ("RGB", "RGBA"):
        raise ValueError(f"expected 16-bit gray or RGB, it holds 16-bit {picture.mode}")
    if isinstance(picture, TiffImageFile) and (picture.tag_v2.get(PLANAR_CONFIGURATION, 1) != 1 or "RGBa" in raw_mode):
        raise ValueError("expected 16-bit channels side by side and not premultiplied with alpha")
    planes = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if planes is None or planes.dtype != np.uint16 or planes.ndim != 3:
        raise ValueError("its 16-bit pixels cannot be decoded")
    planes = planes[..., [2, 1, 0, 3][: planes.shape[2]]]  # BGR(A) -> RGB(A)
    planes = planes[..., 2:] if "LA" in raw_mode else planes  # cv2 repeats the gray channel
    return planes if picture.format == "TIFF" else _upright(planes, picture.getexif().get(ORIENTATION, 1))


def _gray_16(picture: Image.Image) -> np.ndarray:
    """(H, W, 1 | 2) uint16; what Pillow leaves to the reader, inverted gray and a transparent value, is taken in."""
    inverted = isinstance(picture, TiffImageFile) and picture.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO
    values, transparent = np.asarray(ImageOps.exif_transpose(picture)), picture.info.get("transparency")
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"expected 8 or 16 bits per channel, it holds values {values.min()} to {values.max()}")
    values = 65535 - values if inverted else values
    planes = [values] if transparent is None else [values, np.where(values == transparent, 0, 65535)]
    return np.dstack(planes).astype(np.uint16)


def _upright(planes: np.ndarray, orientation: int) -> np.ndarray:
    """The eight cases of the EXIF standard; others count as 1."""
    if orientation in (5, 6, 7, 8):  # rows and columns are exchanged
        planes = planes.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        planes = planes[:, ::-1]
    if orientation in (3, 4, 7, 8):
        planes = planes[::-1]
    return planes


def _on_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    weight = alpha[..., None].astype(np.uint32)
    mixed = pixels * weight + 65535 * (65535 - weight)  # at most 65535 * 65535, which 32 bits just hold
    return ((mixed + 32767) // 65535).astype(np.uint16)


def _luma(pixels: np.ndarray) -> np.ndarray:
    return ((pixels @ LUMA + np.uint32(32768)) >> 16).astype(np.uint16)[..., None]


def _exif(picture: Image.Image) -> bytes | None:
    """As the file has it, byte for byte, but for the orientation: maker notes do not survive being rewritten."""
    tags = picture.getexif() if picture.format != "TIFF" else _descriptive(picture.getexif())
    if not tags:
        return None
    raw = picture.info.get("exif") if picture.format != "TIFF" else None
    return EXIF_PREFIX + _with_orientation_1((raw or tags.tobytes()).removeprefix(EXIF_PREFIX))


def _descriptive(tags: Image.Exif) -> Image.Exif:
    kept = Image.Exif()
    kept.update({tag: tags[tag] for tag in DESCRIPTIVE_TAGS if tag in tags})
    kept.update({tag: values for tag in (EXIF_IFD, GPS_IFD) if (values := tags.get_ifd(tag))})
    return kept


def _with_orientation_1(tiff: bytes) -> bytes:
    """Patches the entry in the first directory: count (2 bytes), then (tag, type, count, value) of 12 bytes each."""
    order = "<" if tiff[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "L", tiff, 4)
    (count,) = struct.unpack_from(order + "H", tiff, start)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        if struct.unpack_from(order + "H", tiff, entry) == (ORIENTATION,):
            return tiff[: entry + 8] + struct.pack(order + "H", 1) + tiff[entry + 10 :]
    return tiff
