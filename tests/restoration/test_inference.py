"""`restore`: every kind and size of image, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from tiny_restorer import CLOSE, identity, levels, make, random

ORIENTATION, ARTIST = 0x0112, 0x013B  # EXIF
MODES: list[dict[str, Any]] = [{}, {"tile": 8, "overlap": 3}, {"ensemble": True}, {"local": 8}]


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_the_identity_keeps_images_of_every_size(mode: dict[str, Any]) -> None:
    model = identity()
    for side in range(1, 21, 1 if mode == {} else 6):
        image = levels((np.uint8, np.uint16)[side % 2], side, 21 - side, 3)
        out = model.restore(image, **mode)
        assert out.dtype == image.dtype
        assert out.flags.c_contiguous
        np.testing.assert_array_equal(out, image)
    pixel = levels(np.uint8, 1, 1, 3)
    np.testing.assert_array_equal(model.restore(pixel, **mode), pixel)


IMAGES: dict[str, Callable[[], Any]] = {
    "array gray": lambda: levels(np.uint8, 9, 12),
    "array gray with an axis": lambda: levels(np.uint16, 9, 12, 1),
    "array big-endian": lambda: levels(np.uint16, 9, 12, 3).astype(">u2"),
    "array mirrored": lambda: levels(np.uint8, 9, 12, 3)[:, ::-1],
    "array float64": lambda: random(9, 12, 3).numpy().astype(np.float64),
    "array float16": lambda: random(9, 12).numpy().astype(np.float16),
    "array float32": lambda: random(9, 12, 3).numpy(),
    "tensor": lambda: random(3, 9, 12),
    "tensor batch": lambda: random(2, 3, 9, 12),
    "tensor gray": lambda: random(1, 9, 12),
    "tensor bfloat16": lambda: random(3, 9, 12).bfloat16(),
    "tensor transposed": lambda: random(3, 9, 12).mT,
    **{
        f"Pillow {mode}": lambda mode=mode, channels=channels: Image.fromarray(levels(np.uint8, 9, 12, *channels), mode)
        for mode, channels in {"L": (), "RGB": (3,), "RGBA": (4,), "LA": (2,)}.items()
    },
    "Pillow I;16": lambda: Image.fromarray(levels(np.uint16, 9, 12)),
}


def as_array(image: Any) -> np.ndarray:
    return image.float().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_image_comes_back_as_its_kind(channels: int, kind: str) -> None:
    image = IMAGES[kind]()
    before = as_array(image).copy()
    out = identity(in_channels=channels, out_channels=channels).restore(image)
    assert type(out) is type(image)
    for field in ("dtype", "device") if not isinstance(image, Image.Image) else ("mode", "size"):
        assert getattr(out, field) == getattr(image, field)
    # float64 passes a model in float32.
    np.testing.assert_allclose(as_array(out), before, rtol=1e-7 if kind.endswith("64") else 0, atol=0)
    np.testing.assert_array_equal(as_array(image), before)


@pytest.mark.parametrize("orientation", [1, 6])
def test_pillow_s_images_come_back_upright_with_what_belongs_to_them(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION], exif[ARTIST] = orientation, "Ada"
    pixels = levels(np.uint8, 9, 12, 3)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif, icc_profile=profile, dpi=(300, 300))
    with Image.open(tmp_path / "x.png") as picture:
        out = identity().restore(picture)
    np.testing.assert_array_equal(np.asarray(out), pixels if orientation == 1 else np.rot90(pixels, -1))
    assert (out.getexif()[ARTIST], out.getexif().get(ORIENTATION, 1)) == ("Ada", 1)
    assert out.info["icc_profile"] == profile
    assert out.info["dpi"] == pytest.approx((300, 300), abs=0.1)


@pytest.mark.parametrize(("shape", "transparent"), [((9, 12, 3), (255, 0, 7)), ((9, 12), 255)])
def test_a_transparent_colour_becomes_alpha(tmp_path: Path, shape: tuple[int, ...], transparent: Any) -> None:
    pixels = levels(np.uint8, *shape)
    pixels[:2, :2] = transparent
    Image.fromarray(pixels).save(tmp_path / "x.png", transparency=transparent)
    with Image.open(tmp_path / "x.png") as picture:
        planes = np.asarray(identity().restore(picture))
    opaque = (np.atleast_3d(pixels) != transparent).any(2)
    np.testing.assert_array_equal(planes, np.dstack([pixels, opaque * np.uint8(255)]))


def transparent_16_bit_gray() -> Image.Image:
    image = Image.new("I;16", (4, 4))
    image.info["transparency"] = 7
    return image


@torch.no_grad()
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_integers_are_clamped_and_rounded(dtype: Any) -> None:
    model, image = make(), levels(dtype, 13, 22, 3)
    full = np.iinfo(dtype).max
    x = torch.from_numpy(image.astype(np.float32) / full).permute(2, 0, 1)[None]
    expected = model(x)[0].permute(1, 2, 0).double().numpy() * full
    assert expected.min() < 0
    assert expected.max() > full
    error = np.abs(model.restore(image) - expected.clip(0, full))
    assert error.max() <= 0.5 + full * 1e-5  # sums in another order


@torch.no_grad()
def test_floats_are_clamped_and_inputs_may_exceed_the_range() -> None:
    model, image = make(), 3 * random(1, 3, 13, 22) - 1
    torch.testing.assert_close(model.restore(image), model(image).clamp(0, 1), rtol=0, atol=0)


@torch.no_grad()
def test_gray_passes_a_colour_model_as_three_equal_channels() -> None:
    model, image = make(), random(2, 1, 13, 22)
    expected = model(image.repeat(1, 3, 1, 1)).mean(1, keepdim=True).clamp(0, 1)
    torch.testing.assert_close(model.restore(image), expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_colour_passes_a_gray_model_channel_by_channel() -> None:
    model, image = make(in_channels=1, out_channels=1), random(2, 3, 13, 22)
    expected = torch.cat([model(channel) for channel in image.split(1, dim=1)], dim=1).clamp(0, 1)
    torch.testing.assert_close(model.restore(image), expected, **CLOSE)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("photo.png", "got str"),
        (np.zeros((4, 4, 3), np.int32), "int32"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"\(1, 4, 4, 3\)"),
        (np.zeros((4, 4, 4), np.uint8), "3 channels, got 4"),
        (np.zeros((0, 4, 3), np.uint8), "with pixels"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), "torch.uint8"),
        (torch.zeros(4, 4), r"\(4, 4\)"),
        (torch.full((3, 4, 4), 255.0), r"\[0, 1\], got 255 to 255"),
        (torch.full((3, 4, 4), torch.nan), "got nan"),
        (Image.new("P", (4, 4)), "got P"),
        (transparent_16_bit_gray(), "no transparent value in mode I;16"),
    ],
    ids=str,
)
def test_what_is_no_image_is_refused(image: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        identity().restore(image)


def test_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="overlap -1 and tile 32"):
        identity().restore(random(3, 8, 8), tile=32, overlap=-1)
    with pytest.raises(ValueError, match="multiple of 8"):
        identity().restore(random(3, 8, 8), local=12)
    with pytest.raises(ValueError, match=r"denoise-color, .*got 'denoise'"):
        make(task="denoise")
