from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from iptv2_diffusion.data.image_io import Photo, write_photo
from iptv2_diffusion.data.pairs import PairedPictures, PictureList, list_pictures, pair_folders


def save(path: Path, value: int, *, height: int = 3, width: int = 4, dtype: type = np.uint8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_photo(path, Photo(np.full((height, width, 3), value, dtype)))
    return path


def fill(folder: Path, names: Iterable[str], first: int = 0) -> Path:
    for index, name in enumerate(names):
        save(folder / name, first + index)
    return folder


def test_pairs_are_matched_by_name_not_by_order(tmp_path: Path) -> None:
    """b is missing its neighbour in no listing, but sorts differently with its extension; c lies deeper."""
    fill(tmp_path / "degraded", ["b.tif", "a.png", "deep/c.png"])  # 0, 1, 2
    fill(tmp_path / "clean", ["deep/c.tif", "a.tif", "b.png"], 100)  # 100, 101, 102
    pictures = PairedPictures(pair_folders(tmp_path / "degraded", tmp_path / "clean"))
    assert pictures.names == ("a", "b", "deep/c")
    values = [tuple(int(picture[0, 0, 0]) for picture in pictures.read(index)) for index in range(len(pictures))]
    assert values == [(1, 101), (0, 102), (2, 100)]


@pytest.mark.parametrize(
    ("degraded", "clean", "message"),
    [
        (["a.png", "b.png", "c.png"], ["b.png"], r"in .*degraded only: a, c$"),
        (["a.png"], ["a.png", "z.png"], r"in .*clean only: z$"),
        (["a.png"], ["b.png"], r"in .*degraded only: a; in .*clean only: b$"),
        ([f"{i}.png" for i in range(9)], ["x.png"], r"degraded only: 0, 1, 2, 3, 4 and 4 more"),
        (["a.png", "a.tif"], ["a.png"], r"one picture of each name, found .*a\.png and .*a\.tif"),
    ],
)
def test_names_without_counterpart_are_listed(
    tmp_path: Path, degraded: list[str], clean: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pair_folders(fill(tmp_path / "degraded", degraded), fill(tmp_path / "clean", clean))


def test_views_become_channels(tmp_path: Path) -> None:
    left, right = fill(tmp_path / "l", ["1.png", "2.png"]), fill(tmp_path / "r", ["1.png", "2.png"], 10)
    pictures = PairedPictures(pair_folders([left, right], fill(tmp_path / "clean", ["1.png", "2.png"], 20)))
    degraded, clean = pictures.read(1)
    np.testing.assert_array_equal(degraded[0, 0], [1, 1, 1, 11, 11, 11])
    np.testing.assert_array_equal(clean[0, 0], [21, 21, 21])
    (right / "2.png").unlink()
    with pytest.raises(ValueError, match=r"in .*clean only: 2"):
        pair_folders([left, right], tmp_path / "clean")


def test_gray_has_one_channel(tmp_path: Path) -> None:
    fill(tmp_path / "degraded", ["a.png"])
    fill(tmp_path / "clean", ["a.png"])
    pairs = pair_folders(tmp_path / "degraded", tmp_path / "clean")
    assert [picture.shape for picture in PairedPictures(pairs, gray=True).read(0)] == [(3, 4, 1)] * 2


def test_8_bits_of_16_are_the_high_byte(tmp_path: Path) -> None:
    save(tmp_path / "degraded/a.png", 0x12FF, dtype=np.uint16)
    save(tmp_path / "clean/a.png", 0xFF00, dtype=np.uint16)
    pairs = pair_folders(tmp_path / "degraded", tmp_path / "clean")
    assert [int(picture[0, 0, 0]) for picture in PairedPictures(pairs).read(0)] == [0x12FF, 0xFF00]
    high = PairedPictures(pairs, bits=8).read(0)
    assert [(int(picture[0, 0, 0]), picture.dtype) for picture in high] == [(0x12, np.uint8), (0xFF, np.uint8)]


def test_different_sizes_and_depths_are_refused_by_name(tmp_path: Path) -> None:
    save(tmp_path / "l/a.png", 0)
    save(tmp_path / "r/a.png", 0, dtype=np.uint16)
    save(tmp_path / "clean/a.png", 0)
    save(tmp_path / "big/a.png", 0, width=5)
    with pytest.raises(ValueError, match=r"one size, got 4x3 in .*l/a\.png and 5x3 in .*big/a\.png"):
        PairedPictures(pair_folders(tmp_path / "l", tmp_path / "big")).read(0)
    with pytest.raises(ValueError, match=r"one depth, got uint16 in .*r/a\.png, uint8 in .*l/a\.png"):
        PairedPictures(pair_folders([tmp_path / "l", tmp_path / "r"], tmp_path / "clean")).read(0)


def test_a_list_is_recursive_sorted_and_skips_what_is_hidden(tmp_path: Path) -> None:
    fill(tmp_path, ["b.png", "a/z.png", ".hidden/x.png", ".y.png"])
    (tmp_path / "notes.txt").write_text("no picture")
    pictures = PictureList.below(tmp_path)
    assert pictures.names == ("a/z", "b")
    assert [int(pictures.read(index)[0, 0, 0]) for index in range(len(pictures))] == [1, 0]


def test_empty_and_absent_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"found no folder .*absent"):
        list_pictures(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"expected pictures .* found none"):
        list_pictures(tmp_path)


def test_real_pairs_agree_in_size_and_content(shared_data: Callable[[str], Path]) -> None:
    root = shared_data("gopro_pairs")
    pictures = PairedPictures(pair_folders(root / "blur", root / "sharp"))
    assert len(pictures) == 3
    blurred, sharp = pictures.read(0)
    assert blurred.shape == sharp.shape == (720, 1280, 3)
    error = np.square(blurred.astype(float) - sharp).mean()
    assert 20 < 10 * np.log10(255**2 / error) < 40  # dB: the same scene, not the same picture


def test_headers_tell_what_would_fail_late(tmp_path: Path) -> None:
    fill(tmp_path / "degraded", ["a.png", "b.png"])
    fill(tmp_path / "clean", ["a.png", "b.png"])
    pictures = PairedPictures(pair_folders(tmp_path / "degraded", tmp_path / "clean"))
    pictures.check()
    save(tmp_path / "clean/turned.png", 0, height=4, width=3).replace(tmp_path / "clean/b.png")
    pictures.check()  # EXIF may turn either
    save(tmp_path / "clean/wide.png", 0, width=5).replace(tmp_path / "clean/b.png")
    with pytest.raises(ValueError, match=r"one size, got sides of 3x4 in .*degraded/b\.png and 3x5 in .*clean/b\.png"):
        pictures.check()
    (tmp_path / "clean/b.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"cannot read .*clean/b\.png"):
        pictures.check()
