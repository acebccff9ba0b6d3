"""Miniatures of every layout that the sets are had in; the real ones where the shared data has them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from iptv2_diffusion.data.image_io import Photo, write_photo
from iptv2_diffusion.data.pairs import JoinedPictures, PairedPictures, PictureList
from iptv2_diffusion.data.restoration_sets import RESTORATION_SETS, open_set
from iptv2_diffusion.data.tiles import prepare_tiles

PUBLISHED = {  # pictures of the paper's tables and training sets
    "cbsd68": 68,
    "kodak24": 24,
    "mcmaster": 18,
    "urban100": 100,
    "set12": 12,
    "bsd68": 68,
    "div2k": 800,
    "flickr2k": 2650,
    "wed": 4744,
    "bsd400": 400,
    "sidd-train": 320,
    "gopro-train": 2103,
    "gopro-test": 1111,
    "hide": 2025,
    "dpdd-train": 350,
    "dpdd-val": 74,
    "dpdd-test": 76,
    "dpdd-dual-train": 350,
    "dpdd-dual-val": 74,
    "dpdd-dual-test": 76,
    "rain13k": 13712,
    "rain100h": 100,
    "rain100l": 100,
    "test100": 100,
    "test1200": 1200,
    "test2800": 2800,
}
# Set, layout of the degraded and of the clean files ({} is 1, 2 or 3), names of the scenes.
PAIRED = [
    ("gopro-train", "GOPRO_Large/train/GOPR1_2/blur/00000{}.png", "GOPRO_Large/train/GOPR1_2/sharp/00000{}.png", "GOPR1_2/00000{}"),
    ("gopro-test", "test/GOPR{}/blur/000001.png", "test/GOPR{}/sharp/000001.png", "GOPR{}/000001"),
    ("gopro-test", "test/GoPro/input/{}.png", "test/GoPro/target/{}.png", "{}"),
    ("gopro-train", "train/GoPro/input_crops/{}-0.png", "train/GoPro/target_crops/{}-0.png", "{}-0"),
    ("hide", "HIDE_dataset/test/test-close-ups/{}fromGOPR.png", "HIDE_dataset/GT/{}fromGOPR.png", "{}fromGOPR"),
    ("hide", "test/HIDE/input/{}.png", "test/HIDE/target/{}.png", "{}"),
    (
        "sidd-train",
        "SIDD_Medium_Srgb/Data/000{}_001_S6_00100_N/000{}_NOISY_SRGB_010.PNG",
        "SIDD_Medium_Srgb/Data/000{}_001_S6_00100_N/000{}_GT_SRGB_010.PNG",
        "000{}_001_010",
    ),
    (
        "sidd-train",
        "Data/0001_004_S6_00100_00060_3200_L/0001_NOISY_SRGB_01{}.PNG",
        "Data/0001_004_S6_00100_00060_3200_L/0001_GT_SRGB_01{}.PNG",
        "0001_004_01{}",
    ),
    ("sidd-train", "train/SIDD/input_crops/{}.png", "train/SIDD/target_crops/{}.png", "{}"),
    ("polyu", "CroppedImages/Canon5D2_chair_{}_real.JPG", "CroppedImages/Canon5D2_chair_{}_mean.JPG", "Canon5D2_chair_{}"),
    ("polyu", "PolyU/input/{}.png", "PolyU/target/{}.png", "{}"),
    ("dpdd-test", "dd_dp_dataset_canon/test_c/source/1P0A09{}7.png", "dd_dp_dataset_canon/test_c/target/1P0A09{}6.png", "1P0A09{}7"),
    ("dpdd-val", "val/DPDD/inputC/{}.png", "val/DPDD/target/{}.png", "{}"),
    ("rain13k", "train/Rain13K/input/{}.jpg", "train/Rain13K/target/{}.png", "{}"),
    ("rain100h", "Rain100H/rainy/rain-00{}.png", "Rain100H/norain-00{}.png", "00{}"),
    ("rain100l", "rain/rain-00{}.png", "norain/norain-00{}.png", "00{}"),
    ("rain100l", "test/Rain100L/input/{}.png", "test/Rain100L/target/{}.png", "{}"),
    ("test100", "test/Test100/input/{}.png", "test/Test100/target/{}.jpg", "{}"),
    ("test1200", "Test1200/input/{}.png", "Test1200/target/{}.png", "{}"),
    ("test2800", "input/{}.png", "target/{}.png", "{}"),
    ("test2800", "rainy_image_dataset/testing/rainy_image/90{}_1.jpg", "rainy_image_dataset/testing/ground_truth/90{}.jpg", "90{}_1"),
]  # fmt: skip
CLEAN = [
    ("cbsd68", "CBSD68/original_png/000{}.png"),
    ("kodak24", "test/Kodak/kodim0{}.png"),
    ("kodak24", "Kodak24/kodim0{}.png"),
    ("mcmaster", "McM/{}.tif"),
    ("urban100", "test/Urban100/img_00{}.png"),
    ("urban100", "data/Urban100/image_SRF_2/img_00{}_SRF_2_HR.png"),
    ("set12", "Set12/0{}.png"),
    ("bsd68", "test00{}.png"),
    ("div2k", "DIV2K_train_HR/000{}.png"),
    ("flickr2k", "Flickr2K/Flickr2K_HR/00000{}.png"),
    ("wed", "exploration_database_and_code/pristine_images/0000{}.bmp"),
    ("bsd400", "BSDS500/data/images/train/{}.jpg"),
    ("bsd400", "BSD400/{}.png"),
    ("dfwb", "train/DFWB/{}.png"),
]


def save(path: Path, value: int, dtype: type = np.uint8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".bmp":
        write_photo(path.with_suffix(".png"), Photo(np.full((2, 3, 3), value, dtype)))
        path.with_suffix(".png").rename(path)  # what a file is called does not change how it is decoded
    else:
        write_photo(path, Photo(np.full((2, 3, 3), value, dtype)))


def fill(root: Path, template: str, first: int = 0, numbers: tuple[int, ...] = (1, 2, 3)) -> None:
    for number in numbers:
        save(root / template.replace("{}", str(number)), first + number)


def test_published_numbers() -> None:
    """Tiles, which are the last layout of two sets, have numbers of their own."""
    numbers = {name: {layout.count for layout in spec.layouts} for name, spec in RESTORATION_SETS.items()}
    tiles = {"gopro-train": {16824}, "sidd-train": {None}}
    assert numbers == {name: {count} | tiles.get(name, set()) for name, count in PUBLISHED.items()} | {
        "dfwb": {None},
        "sidd-val": set(),
        "sidd-bench": set(),
        "dnd": set(),
        "polyu": {None},
    }
    assert all(spec.home.startswith("https://") for name, spec in RESTORATION_SETS.items() if name != "dfwb")


@pytest.mark.parametrize(("name", "degraded", "clean", "scenes"), PAIRED)
def test_pairs_of_every_layout(tmp_path: Path, name: str, degraded: str, clean: str, scenes: str) -> None:
    fill(tmp_path, clean, 100, (3, 1, 2))
    fill(tmp_path, degraded, 0)
    save(tmp_path / Path(degraded.replace("{}", "4")).with_name("._hidden.png"), 9)
    pictures = open_set(name, tmp_path, count=3)
    assert isinstance(pictures, PairedPictures)
    assert pictures.names == tuple(scenes.replace("{}", str(number)) for number in (1, 2, 3))
    for index in range(3):
        values = [int(picture[0, 0, 0]) for picture in pictures.read(index)]
        assert values == pytest.approx([index + 1, index + 101], abs=2 if ".jpg" in degraded + clean else 0)


@pytest.mark.parametrize(("name", "template"), CLEAN)
def test_clean_pictures_of_every_layout(tmp_path: Path, name: str, template: str) -> None:
    fill(tmp_path, template)
    pictures = open_set(name, tmp_path, count=3)
    assert isinstance(pictures, PictureList)
    values = [int(pictures.read(index)[0, 0, 0]) for index in range(len(pictures))]
    assert values == pytest.approx([1, 2, 3], abs=2 if template.endswith("jpg") else 0)
    gray = open_set(name, tmp_path, count=3, gray=True)
    assert isinstance(gray, PictureList)
    assert gray.read(0).shape == (2, 3, 1)


def test_one_clean_picture_has_many_rainy_ones(tmp_path: Path) -> None:
    fill(tmp_path, "rainy_image/901_{}.png")
    fill(tmp_path, "rainy_image/902_{}.png", 10)
    fill(tmp_path, "ground_truth/90{}.png", 100)
    pictures = open_set("test2800", tmp_path, count=6)
    assert [tuple(int(p[0, 0, 0]) for p in pictures.read(index)) for index in (0, 2, 3)] == [
        (1, 101),
        (3, 101),
        (11, 102),
    ]
    (tmp_path / "ground_truth/902.png").unlink()
    with pytest.raises(ValueError, match=r"rainy_image/\* only: 902_1, 902_2, 902_3"):
        open_set("test2800", tmp_path, count=6)


@pytest.mark.parametrize(
    ("name", "template", "rain"), [("test1200", "DID-MDN-test/{}.png", 0), ("test100", "rain/test_syn/{}.png", 2)]
)
def test_both_pictures_in_one_file(tmp_path: Path, name: str, template: str, rain: int) -> None:
    for number in (1, 2, 3):
        path = tmp_path / template.replace("{}", str(number))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_photo(path, Photo(np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)))
    pictures = open_set(name, tmp_path, count=3)
    assert isinstance(pictures, JoinedPictures)
    assert pictures.names == ("1", "2", "3")
    rainy, clean = pictures.read(1)
    assert (rainy.shape, int(rainy[0, 0, 0]), int(clean[1, 1, 2])) == ((2, 2, 3), 3 * rain, 23 - 3 * rain)
    with pytest.raises(ValueError, match=rf"expected {PUBLISHED[name]} .* found 3 as \*"):
        open_set(name, tmp_path)
    (tmp_path / template.replace("{}", "2")).unlink()
    save(tmp_path / template.replace("{}", "2"), 5)
    with pytest.raises(ValueError, match=r"two pictures side by side in .*2\.png, got 3x2"):
        pictures.read(1)


def test_low_resolutions_beside_urban100_are_not_of_it(tmp_path: Path) -> None:
    for part in ("HR", "LR"):
        fill(tmp_path, f"img_00{{}}_SRF_2_{part}.png")
    assert len(open_set("urban100", tmp_path, count=3)) == 3


def test_gopro_reads_blur_not_blur_gamma(tmp_path: Path) -> None:
    for folder, first in (("blur_gamma", 50), ("blur", 0), ("sharp", 100)):
        fill(tmp_path, f"test/GOPR{{}}/{folder}/000001.png", first)
    pictures = open_set("gopro-test", tmp_path, count=3)
    assert [int(pictures.read(index)[0][0, 0, 0]) for index in range(3)] == [1, 2, 3]


def test_hide_has_clean_pictures_of_its_training_part_too(tmp_path: Path) -> None:
    fill(tmp_path, "test/test-close-ups/{}.png", numbers=(1,))
    fill(tmp_path, "test/test-long-shot/{}.png", numbers=(5,))
    fill(tmp_path, "GT/{}.png", 100, (1, 2, 3, 4, 5))
    pictures = open_set("hide", tmp_path, count=2)
    assert [tuple(int(p[0, 0, 0]) for p in pictures.read(index)) for index in range(2)] == [(1, 101), (5, 105)]


def test_dual_pixels_are_six_channels_of_16_bits_and_the_single_picture_has_8(tmp_path: Path) -> None:
    for folder, name, value in (("l", 7, 0x0102), ("r", 7, 0x0304), ("c", 7, 0x0506)):
        save(tmp_path / f"test_{folder}/source/1P0A000{name}.png", value, np.uint16)
    save(tmp_path / "test_c/target/1P0A0006.png", 0xFFFE, np.uint16)
    degraded, clean = open_set("dpdd-dual-test", tmp_path, count=1).read(0)
    assert degraded.dtype == clean.dtype == np.uint16
    np.testing.assert_array_equal(degraded[0, 0], [0x0102] * 3 + [0x0304] * 3)
    np.testing.assert_array_equal(clean[0, 0], [0xFFFE] * 3)
    degraded, clean = open_set("dpdd-test", tmp_path, count=1).read(0)
    assert (degraded[0, 0].tolist(), clean[0, 0].tolist(), degraded.dtype) == ([5] * 3, [255] * 3, np.uint8)


def test_the_training_photographs_are_the_sum_of_four_sets(tmp_path: Path) -> None:
    for folder in ("DIV2K", "Flickr2K", "WaterlooED", "BSD400"):
        fill(tmp_path, folder + "/{}.png")
    pictures = open_set("dfwb", tmp_path, count=3)
    assert isinstance(pictures, PictureList)
    assert len(pictures) == len(set(pictures.names)) == 12
    assert pictures.names[3] == "Flickr2K/1"
    with pytest.raises(ValueError, match=r"DIV2K: expected 800 .* found 3 as DIV2K/\*; .* https://data\.vision"):
        open_set("dfwb", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"DIV2K: found no pictures .*DIV2K_train_HR/\*.*had at https"):
        open_set("dfwb", tmp_path / "Flickr2K" / "absent")


def test_incomplete_sets_say_what_is_missing_and_where_it_is_had(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"GoPro \(test\): found no pictures .* test/GoPro/target/\*.* https://seungjunnah"
    ):
        open_set("gopro-test", tmp_path)
    fill(tmp_path, "test/GOPR{}/blur/000001.png")
    with pytest.raises(
        ValueError,
        match=r"expected 1111 .* found 3 as test/\*/blur/\*, 0 as test/\*/sharp/\*, "
        r"not of all kinds GOPR1/000001, GOPR2/000001, GOPR3/000001; .* https://seungjunnah",
    ):
        open_set("gopro-test", tmp_path)
    fill(tmp_path, "test/GOPR{}/sharp/000001.png", numbers=(2, 3, 4))
    with pytest.raises(
        ValueError, match=r"blur/\* only: GOPR1/000001; .*sharp/\* only: GOPR4/000001; .* https://seungjunnah"
    ):
        open_set("gopro-test", tmp_path, count=3)
    with pytest.raises(ValueError, match=r"expected a data set of cbsd68, .*; got 'gopro'"):
        open_set("gopro", tmp_path)


def test_tiles_of_a_set_are_read_in_its_place(tmp_path: Path) -> None:
    save(tmp_path / "set/train_c/source/1P0A0007.png", 0x0506, np.uint16)
    save(tmp_path / "set/train_c/target/1P0A0006.png", 0x0708, np.uint16)
    pictures = open_set("dpdd-train", tmp_path / "set", count=1)
    assert isinstance(pictures, PairedPictures)
    assert prepare_tiles(pictures, tmp_path / "tiles", size=2, overlap=0) == 2
    tiles = open_set("dpdd-train", tmp_path / "tiles")
    assert [int(picture[0, 0, 0]) for picture in tiles.read(1)] == [5, 7]  # the high bytes


@pytest.mark.parametrize(("name", "folder"), [("cbsd68", "cbsd68"), ("bsd68", "bsd68"), ("set12", "set12")])
def test_real_test_sets(shared_data: Callable[[str], Path], name: str, folder: str) -> None:
    pictures = open_set(name, shared_data(folder), gray=name != "cbsd68")
    assert isinstance(pictures, PictureList)
    assert len(pictures) == PUBLISHED[name]
    assert pictures.read(0).dtype == np.uint8


def test_real_training_photographs(shared_data: Callable[[str], Path]) -> None:
    pictures = open_set("bsd400", shared_data("photos_bsds500"))
    assert isinstance(pictures, PictureList)
    assert len(pictures) == 400
    assert {pictures.read(index).shape for index in (0, 399)} <= {(321, 481, 3), (481, 321, 3)}


def test_real_rain(shared_data: Callable[[str], Path]) -> None:
    pictures = open_set("rain100h", shared_data("rain100h_first50"), count=50)
    rainy, clean = pictures.read(7)
    assert rainy.shape == clean.shape
    assert rainy.mean() > clean.mean()  # rain is added light
