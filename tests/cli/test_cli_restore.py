"""`iptv2-restore` over folders of all kinds of pictures, with networks that change nothing and one that blackens."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from iptv2_diffusion import IPTV2Restorer
from iptv2_diffusion.data.image_io import Photo, read_photo, write_photo
from iptv2_diffusion.restoration.model_files import save_weights

TINY: dict[str, Any] = {"width": 4, "layers": (2, 2), "heads": (1, 2), "window": 8, "grid": 4}
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
ORIENTATION, ARTIST, TURNED = 0x0112, 0x013B, 6  # EXIF: to be shown turned by 90 degrees


def identity(**fields: Any) -> IPTV2Restorer:
    model = IPTV2Restorer(**(TINY | fields))
    torch.nn.init.zeros_(model.head.weight)
    return model


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("identity") / "model"
    identity(task="denoise-color").save_pretrained(folder)
    return folder


def values(dtype: Any, *shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Gray, RGBA, 16 bits, EXIF, other formats, sub-folders; what is no picture lies beside them."""
    root = tmp_path / "pictures"
    (root / "deep" / "deeper").mkdir(parents=True)
    (root / ".hidden").mkdir()
    Image.fromarray(values(np.uint8, 9, 7)).save(root / "gray.png")
    Image.fromarray(values(np.uint8, 9, 7, 4)).save(root / "deep" / "alpha.webp", lossless=True, exact=True)
    exif = Image.Exif()
    exif[ORIENTATION], exif[ARTIST] = TURNED, "somebody"
    Image.fromarray(values(np.uint8, 9, 7, 3)).save(root / "deep" / "turned.png", exif=exif, icc_profile=SRGB)
    write_photo(root / "deep" / "deeper" / "16 bit.tif", Photo(values(np.uint16, 1, 30, 3)))
    write_photo(root / "16 bit gray.png", Photo(values(np.uint16, 5, 6, 1)))
    Image.fromarray(values(np.uint8, 20, 21, 3)).save(root / "photo.jpg")
    Image.fromarray(values(np.uint8, 1, 1, 3)).save(root / "old.bmp")
    Image.fromarray(values(np.uint8, 3, 3)).save(root / ".hidden" / "thumbnail.png")
    (root / "notes.txt").write_text("no picture")
    return root


KEPT = ["16 bit gray.png", "gray.png", "deep/alpha.webp", "deep/turned.png", "deep/deeper/16 bit.tif"]
CHANGED = {"photo.jpg": "photo.jpg", "old.bmp": "old.png"}  # JPEG loses, BMP is not written


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("flags", [(), ("--tile", 8, "--overlap", 3, "--local", 8), ("--ensemble",)], ids=str)
def test_a_folder_keeps_names_pixels_and_metadata(command, ckpt, pictures, tmp_path, capsys, flags):
    command("restore", pictures, "--output", tmp_path / "out", "--ckpt", ckpt, "--task", "denoise-color", *flags)
    said = capsys.readouterr()
    assert f"7 restored in {tmp_path / 'out'}" in said.out
    assert "MP/s" in said.err
    assert names(tmp_path / "out") == {*KEPT, *CHANGED.values()}
    for name in [*KEPT, "old.bmp"]:
        before, after = read_photo(pictures / name), read_photo(tmp_path / "out" / CHANGED.get(name, name))
        assert after.pixels.dtype == before.pixels.dtype
        np.testing.assert_array_equal(after.pixels, before.pixels)
        assert (before.alpha is None) == (after.alpha is None)
        if before.alpha is not None:
            np.testing.assert_array_equal(after.alpha, before.alpha)
        assert (after.exif, after.icc) == (before.exif, before.icc)
    turned = read_photo(tmp_path / "out" / "deep" / "turned.png")
    np.testing.assert_array_equal(turned.pixels, np.rot90(values(np.uint8, 9, 7, 3), -1))
    assert turned.icc == SRGB
    assert b"somebody" in (turned.exif or b"")
    photo, again = (read_photo(folder / "photo.jpg").pixels.astype(int) for folder in (pictures, tmp_path / "out"))
    assert 0 < np.abs(photo - again).mean() < 3  # quality 95, on noise


@pytest.mark.parametrize(
    ("flags", "options"), [((), {}), (("--ensemble", "--tile", "none"), {"ensemble": True, "tile": None})], ids=str
)
def test_weights_change_pixels(command, pictures, tmp_path, flags, options):
    model = identity()
    model.head.weight.data.fill_(1)
    model.save_pretrained(tmp_path / "model")
    flags = ("--output", tmp_path / "out", "--ckpt", tmp_path / "model", *flags)
    command("restore", pictures / "gray.png", *flags)
    image = read_photo(pictures / "gray.png").pixels
    expected = IPTV2Restorer.from_pretrained(tmp_path / "model").eval().restore(image, **options)
    assert (expected != image).any()
    difference = read_photo(tmp_path / "out" / "gray.png").pixels.astype(int) - expected
    assert np.abs(difference).max() <= 1  # the command fuses


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("pictures/**/*.png", {"16 bit gray.png", "gray.png", "deep/turned.png"}),
        ("pictures/*/*.png", {"deep/turned.png"}),
        ("pictures/deep", {"alpha.webp", "turned.png", "deeper/16 bit.tif"}),
        ("pictures/deep/turned.png", {"turned.png"}),
        ("pictures/g*", {"gray.png"}),
    ],
)
def test_patterns_keep_the_folders_below_their_fixed_part(
    command, ckpt, pictures, tmp_path, monkeypatch, pattern, expected
):
    monkeypatch.chdir(tmp_path)
    command("restore", pattern, "pictures/gray.png", "--output", "out", "--ckpt", ckpt)
    assert names(tmp_path / "out") == expected | {"gray.png"}


def test_one_bad_picture_does_not_stop_the_others(command, ckpt, pictures, tmp_path, capsys):
    (pictures / "broken.png").write_bytes((pictures / "gray.png").read_bytes()[:60])
    (pictures / "deep" / "empty.jpg").touch()
    with pytest.raises(SystemExit) as stop:
        command("restore", pictures, "--output", tmp_path / "out", "--ckpt", ckpt)
    failed, *lines = str(stop.value.code).splitlines()  # on stderr, with exit status 1
    assert failed == "2 failed:"
    assert [line.split(":")[0] for line in lines] == [
        str(pictures / "broken.png"),
        str(pictures / "deep" / "empty.jpg"),
    ]
    assert names(tmp_path / "out") == {*KEPT, *CHANGED.values()}
    assert "7 restored" in capsys.readouterr().out


def test_a_format_that_cannot_hold_a_picture_is_a_failure_of_that_picture(command, ckpt, pictures, tmp_path):
    inputs = (pictures / "*gray.png", pictures / "deep" / "alpha.webp")
    flags = ("--output", tmp_path / "out", "--ckpt", ckpt, "--format", "jpeg", "--suffix", "_clean")
    with pytest.raises(SystemExit, match=r"2 failed:\n.*8 bits per channel.*\n.*no transparency"):
        command("restore", *inputs, *flags)
    assert names(tmp_path / "out") == {"gray_clean.jpg"}


def test_results_are_refused_skipped_or_replaced(command, refused, ckpt, pictures, tmp_path, capsys):
    flags = (pictures / "deep", "--output", tmp_path / "out", "--ckpt", ckpt)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "turned.png").write_bytes(b"precious")
    message = refused("restore", *flags)
    assert "1 results exist" in message
    assert "turned.png" in message
    assert names(tmp_path / "out") == {"turned.png"}
    command("restore", *flags, "--skip-existing")
    assert "2 restored" in (shown := capsys.readouterr().out)
    assert "1 skipped" in shown
    assert (tmp_path / "out" / "turned.png").read_bytes() == b"precious"
    command("restore", *flags, "--overwrite")
    assert read_photo(tmp_path / "out" / "turned.png").pixels.shape == (7, 9, 3)
    command("restore", *flags, "--skip-existing")
    assert "0 restored" in capsys.readouterr().out


def test_results_inside_the_input_folder_are_no_inputs(command, ckpt, pictures, capsys):
    for expected in ("7 restored", "0 restored"):
        command("restore", pictures, "--output", pictures / "out", "--ckpt", ckpt, "--skip-existing")
        assert expected in capsys.readouterr().out
    assert len(names(pictures / "out")) == 7


def test_inputs_are_never_replaced(refused, ckpt, pictures):
    before = {name: (pictures / name).read_bytes() for name in names(pictures)}
    assert "is an input" in refused("restore", pictures, "--output", pictures, "--ckpt", ckpt, "--overwrite")
    assert {name: (pictures / name).read_bytes() for name in names(pictures)} == before


def test_two_pictures_of_one_name_are_refused(refused, ckpt, pictures, tmp_path):
    shutil.copy(pictures / "gray.png", pictures / "photo.png")
    message = refused("restore", pictures, "--output", tmp_path / "out", "--ckpt", ckpt, "--format", "png")
    assert "photo.jpg and" in message
    assert not (tmp_path / "out").exists()


def test_weights_in_every_kind_of_place(command, refused, pictures, tmp_path):
    model = identity(task="derain")
    run = tmp_path / "run"
    for step, what in ((1, "foreign"), (2, "ours")):
        model.save_pretrained(run / f"checkpoint-0000000{step}" / "model")
        record = {"step": step, "seconds": 0, "config": {}, "info": {"what": what}}
        (run / f"checkpoint-0000000{step}" / "run.json").write_text(json.dumps(record))
    (run / "checkpoint-00000001" / "model" / "config.json").unlink()
    save_weights(model.fuse(), tmp_path / "fused.safetensors")
    for number, place in enumerate((run, run / "checkpoint-00000002", tmp_path / "fused.safetensors")):
        output = tmp_path / str(number)
        command("restore", pictures / "gray.png", "--output", output, "--ckpt", place, "--task", "derain")
        assert names(output) == {"gray.png"}
        flags = ("--output", tmp_path / "new", "--ckpt", place, "--task", "denoise-gray")
        assert f"{place} was trained for derain" in refused("restore", pictures / "gray.png", *flags)
    assert not (tmp_path / "new").exists()


@pytest.fixture
def dual(tmp_path: Path) -> Path:
    """Restores the mean of both views' first channel, which tells left from right."""
    model = identity(in_channels=6, out_channels=3, task="defocus-deblur-dual")
    model.save_pretrained(tmp_path / "dual")
    return tmp_path / "dual"


def test_both_views_of_dual_pixel_photographs(command, refused, dual, tmp_path, monkeypatch):
    seen: list[np.ndarray] = []
    whole = IPTV2Restorer.restore
    monkeypatch.setattr(
        IPTV2Restorer, "restore", lambda self, image, **options: (seen.append(image), whole(self, image, **options))[1]
    )
    views = [values(np.uint16, 9, 12, 3), values(np.uint16, 9, 12, 3)[::-1]]
    for place, view in zip(("l/a/1.png", "r/a/1.png"), views, strict=True):
        (tmp_path / place).parent.mkdir(parents=True)
        write_photo(tmp_path / place, Photo(view))
    command("restore", tmp_path / "l", "--input-right", tmp_path / "r", "--output", tmp_path / "out", "--ckpt", dual)
    assert names(tmp_path / "out") == {"a/1.png"}
    assert read_photo(tmp_path / "out" / "a" / "1.png").pixels.shape == (9, 12, 3)
    for end, view in zip("LR", views, strict=True):
        write_photo(tmp_path / f"scene_{end}.png", Photo(view))
    command("restore", tmp_path / "*.png", "--output", tmp_path / "out", "--ckpt", dual)
    assert names(tmp_path / "out") == {"a/1.png", "scene.png"}
    assert len(seen) == 2
    for image in seen:
        np.testing.assert_array_equal(image, np.concatenate(views, axis=2))
    (tmp_path / "scene_R.png").unlink()
    for flags, words in (
        ((tmp_path / "*.png",), "scene_R.png"),
        ((tmp_path / "l",), "NAME_L and NAME_R"),
        ((tmp_path / "scene_L.png", "--input-right", tmp_path / "r"), "right views are missing"),
    ):
        assert words in refused("restore", *flags, "--output", tmp_path / "new", "--ckpt", dual)


def test_tiles_that_are_not_finite_are_reported(command, ckpt, pictures, tmp_path, capsys, monkeypatch):
    def forward(self: Any, image: torch.Tensor) -> torch.Tensor:
        return torch.full_like(image, torch.nan)

    monkeypatch.setattr(IPTV2Restorer, "forward", forward)
    command("restore", pictures / "gray.png", "--output", tmp_path / "out", "--ckpt", ckpt)
    assert f"{pictures / 'gray.png'}: 1 tiles were not finite" in capsys.readouterr().err
    np.testing.assert_array_equal(
        read_photo(tmp_path / "out" / "gray.png").pixels, read_photo(pictures / "gray.png").pixels
    )


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--tile", "0"), "--tile"),
        (("--tile", "large"), "auto, none or a number"),
        (("--overlap", "-1"), "--overlap"),
        (("--local", "12"), "multiple of 8"),
        (("--task", "noise"), "denoise, denoise-color, "),
        (("--task", "motion-deblur"), "was trained for denoise-color"),
        (("--device", "nonsense"), "nonsense"),
        (("--input-right", "somewhere"), "dual-pixel"),
        (("--overwrite", "--skip-existing"), "got both"),
        (("--ckpt", "no/such/place"), "no/such/place"),
        (("--output", __file__), "folder as --output"),
        (("--ckpt", "none"), "expected --task denoise-color"),
        (
            ("--ckpt", "none", "--task", "defocus-deblur-dual"),
            "no weights for defocus-deblur-dual are bundled: pass --ckpt",
        ),
    ],
    ids=str,
)
def test_bad_flags_are_refused_in_one_line_before_any_work(refused, ckpt, pictures, tmp_path, flags, words):
    message = refused("restore", pictures, "--output", tmp_path / "new", "--ckpt", ckpt, *flags)
    assert words in message
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("missing", ["absent.png", "absent/*.png", "notes.*"])
def test_inputs_that_are_not_there_are_refused(refused, ckpt, pictures, tmp_path, missing):
    message = refused("restore", pictures / missing, "--output", tmp_path / "new", "--ckpt", ckpt)
    assert missing in message


def test_a_model_of_another_kind_is_refused(refused: Callable[..., str], pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    message = refused("restore", pictures, "--output", tmp_path / "new", "--ckpt", tmp_path / "model")
    assert "AutoencoderKL, expected IPTV2Restorer" in message
