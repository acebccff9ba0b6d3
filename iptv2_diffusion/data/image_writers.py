"""Encoders of pictures: planes (H, W, C), C = 1, 2, 3 or 4 (gray, gray and alpha, RGB, RGBA), into the bytes of a file.

Pillow writes 8 bits. It has no 16-bit colour, and OpenCV no metadata: 16-bit PNG and all TIFF are put together here.
"""

import os
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, TiffTags
from PIL.TiffImagePlugin import ImageFileDirectory_v2

EXIF_PREFIX = b"Exif\0\0"
JPEG_QUALITY = 95
WEBP_EFFORT = {"method": 1, "quality": 25}  # lossless all the same: 4 times as fast as the default, 7 % larger
DEFLATE_LEVEL = 3  # the low bytes of 16-bit photographs are noise, which more effort does not make smaller
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> colour type
COLOUR_SPACES = {b"GRAY": 1, b"RGB ": 3}  # of ICC profiles, bytes 16 to 19 -> channels

Encoder = Callable[[np.ndarray, bytes | None, bytes | None], bytes]  # planes, EXIF, ICC profile


def write_bytes(path: str | Path, content: bytes, *, overwrite: bool = False) -> None:
    """The file appears whole or not at all. FileExistsError where it exists, unless `overwrite`."""
    path = Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists already")
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_bytes(content)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def encode_png(planes: np.ndarray, exif: bytes | None = None, icc: bytes | None = None) -> bytes:
    icc = _matching(icc, planes)
    return _png_16(planes, exif, icc) if planes.dtype == np.uint16 else _pillow(planes, "PNG", exif, icc)


def encode_jpeg(planes: np.ndarray, exif: bytes | None = None, icc: bytes | None = None) -> bytes:
    return _pillow(planes, "JPEG", exif, _matching(icc, planes), quality=JPEG_QUALITY, subsampling="4:4:4")


def encode_webp(planes: np.ndarray, exif: bytes | None = None, icc: bytes | None = None) -> bytes:
    planes = _rgb(planes)
    return _pillow(planes, "WEBP", exif, _matching(icc, planes), lossless=True, exact=True, **WEBP_EFFORT)


def encode_tiff(planes: np.ndarray, exif: bytes | None = None, icc: bytes | None = None) -> bytes:
    """One strip, deflated after horizontal differencing."""
    if planes.dtype == np.uint16 and planes.shape[2] == 2:
        planes = _rgb(planes)  # neither Pillow nor OpenCV reads it as it is
    height, width, channels = planes.shape
    colours = 1 if channels < 3 else 3
    differences = np.diff(planes, axis=1, prepend=np.zeros_like(planes[:, :1]))  # modulo 2^bits
    strip = zlib.compress(differences.astype(planes.dtype.newbyteorder("<")).tobytes(), DEFLATE_LEVEL)
    ifd = ImageFileDirectory_v2()
    _add_exif(ifd, exif)
    layout: dict[str, Any] = {
        "ImageWidth": width,
        "ImageLength": height,
        "BitsPerSample": (8 * planes.itemsize,) * channels,
        "Compression": 8,  # deflate
        "PhotometricInterpretation": 2 if colours == 3 else 1,  # RGB | black is zero
        "StripOffsets": 0,  # from the end of the directory
        "SamplesPerPixel": channels,
        "RowsPerStrip": height,
        "StripByteCounts": len(strip),
        "PlanarConfiguration": 1,
        "Predictor": 2,
    }
    if channels > colours:
        layout["ExtraSamples"] = 2  # alpha, not premultiplied
    if profile := _matching(icc, planes):
        layout["ICCProfile"] = profile
    for name, value in layout.items():
        ifd[TAGS[name]] = value
    file = BytesIO()
    ifd.save(file)
    return file.getvalue() + strip


ENCODERS: dict[str, Encoder] = {"PNG": encode_png, "JPEG": encode_jpeg, "WEBP": encode_webp, "TIFF": encode_tiff}
TAGS = {info.name: tag for tag, info in TiffTags.TAGS_V2.items()}


def _rgb(planes: np.ndarray) -> np.ndarray:
    """Gray to three equal channels, with or without transparency."""
    return planes if planes.shape[2] > 2 else planes[..., [0, 0, 0, 1][: planes.shape[2] + 2]]


def _matching(icc: bytes | None, planes: np.ndarray) -> bytes | None:
    """The profile, if it describes this number of channels: readers refuse or misread others."""
    colours = 1 if planes.shape[2] < 3 else 3
    return icc if icc and COLOUR_SPACES.get(icc[16:20]) == colours else None


def _pillow(planes: np.ndarray, kind: str, exif: bytes | None, icc: bytes | None, **options: Any) -> bytes:
    options |= {"exif": exif} if exif else {}
    options |= {"icc_profile": icc} if icc else {}
    file = BytesIO()
    Image.fromarray(planes[..., 0] if planes.shape[2] == 1 else planes).save(file, kind, **options)
    return file.getvalue()


def _png_16(planes: np.ndarray, exif: bytes | None, icc: bytes | None) -> bytes:
    """PNG specification, 3rd edition: chunks of section 11, filter type 2 (up) of section 9."""
    height, width, channels = planes.shape
    rows = planes.astype(">u2").reshape(height, -1).view(np.uint8)
    filtered = np.full((height, 1 + rows.shape[1]), 2, np.uint8)  # each row begins with its filter type
    filtered[:, 1:] = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))
    header = struct.pack(">LLBBBBB", width, height, 16, PNG_COLOUR_TYPES[channels], 0, 0, 0)
    chunks = [(b"IHDR", header)]
    if icc:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(icc)))
    if exif:
        chunks.append((b"eXIf", exif.removeprefix(EXIF_PREFIX)))
    chunks += [(b"IDAT", zlib.compress(filtered.tobytes(), DEFLATE_LEVEL)), (b"IEND", b"")]
    return PNG_SIGNATURE + b"".join(_png_chunk(kind, content) for kind, content in chunks)


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))


def _add_exif(ifd: ImageFileDirectory_v2, exif: bytes | None) -> None:
    if not exif:
        return
    tags = Image.Exif()
    tags.load(exif)
    for tag in tags:
        ifd[tag] = tags.get_ifd(tag) if tag in TiffTags.TAGS_V2_GROUPS else tags[tag]
