"""What is not trained on, though it lies in the folder."""

from pathlib import Path

import pytest

from iptv2_diffusion.data.photographs import photographs_below

VAL = "of BSDS500's val part, from which CBSD68 and BSD68 are taken"


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize(
    ("kept", "left_out", "reason"),
    [
        (("train/1.jpg", "test/2.jpg"), ("val/3.jpg",), None),
        (("BSR/BSDS500/data/images/train/1.jpg", "BSR/BSDS500/data/images/test/2.jpg"), ("BSR/BSDS500/data/images/val/3.jpg",), VAL),
        (("photos_bsds500/train/1.jpg",), ("photos_bsds500/val/3.jpg",), VAL),
        (("train/DFWB/1.png",), ("test/CBSD68/1.png", "test/Kodak24/2.png", "test/McMaster/3.tif"), "of a test set"),
        (("train/a.png",), ("Urban100/b.png", "GOPRO_Large/test/GOPR1/sharp/c.png"), "of a test set"),
        (("DIV2K_train_HR/1.png", "WaterlooED/1.bmp"), ("DIV2K_train_LR_bicubic/X2/1x2.png", "Flickr2K_LR/2.png"), "in low resolution"),
        (("pairs/target/1.png",), ("pairs/input/1.png",), "degraded, beside clean ones"),
        (("train/GOPR1/sharp/1.png",), ("train/GOPR1/blur/1.png", "train/GOPR1/blur_gamma/1.png"), "degraded, beside clean ones"),
        (("Data/s/1_GT_SRGB_010.PNG",), ("Data/s/1_NOISY_SRGB_010.PNG",), "noisy"),
        (("input/1.png",), (), "degraded, beside clean ones"),
    ],
)  # fmt: skip
def test_what_is_left_out_and_why(tmp_path: Path, kept, left_out, reason) -> None:
    touch(tmp_path, *kept, *left_out)
    files, reasons = photographs_below(tmp_path)
    if reason is None:  # a val part of something else
        assert (len(files), reasons) == (3, {})
        return
    assert [file.relative_to(tmp_path).as_posix() for file in files] == sorted(kept)
    assert reasons == ({reason: len(left_out)} if left_out else {})


@pytest.mark.parametrize(
    ("name", "part", "message"),
    [
        ("cbsd68/1.png", "cbsd68", "found 1 of a test set only"),
        ("BSR/images/val/1.jpg", "BSR/images/val", "found 1 of BSDS500's val part"),
        ("pairs/input/1.png", "pairs/input", "found 1 degraded, beside clean ones only"),
    ],
)
def test_nothing_left_is_refused(tmp_path: Path, name: str, part: str, message: str) -> None:
    touch(tmp_path, name, "pairs/target/1.png")
    with pytest.raises(ValueError, match=message):
        photographs_below(tmp_path / part)
