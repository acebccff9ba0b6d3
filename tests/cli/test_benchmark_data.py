"""Where a benchmark's pictures come from, and what is written for those who look and for servers."""

import base64
import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from held import INPUT, Held
from scipy.io import loadmat

from iptv2_diffusion.cli.benchmark_data import Pictures, make_writer, open_folders
from iptv2_diffusion.cli.scoring import evaluate, identity
from iptv2_diffusion.data.image_io import Photo, write_photo
from iptv2_diffusion.restoration.protocols import BENCHMARKS


@pytest.fixture
def folders(tmp_path: Path, clean: np.ndarray) -> dict[str, Path]:
    """Two 16-bit pictures in each: left, right, clean."""
    for index, folder in enumerate(("left", "right", "clean")):
        (tmp_path / folder).mkdir()
        for name in ("x", "y"):
            deep = clean.astype(np.uint16) * 257 - np.minimum(clean, 9 * index)
            write_photo(tmp_path / folder / f"{name}.png", Photo(deep))
    return {folder.name: folder for folder in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("benchmark", "names", "channels", "depth"),
    [
        ("dpdd-dual", ("left", "right", "clean"), 6, np.uint16),
        ("dpdd-single", ("left", "clean"), 3, np.uint8),
    ],
)
def test_folders_in_place_of_the_layout(
    folders: dict[str, Path], benchmark: str, names: tuple[str, ...], channels: int, depth: type
) -> None:
    pictures = open_folders(BENCHMARKS[benchmark], [folders[name] for name in names])
    degraded, clean = pictures.read(1)
    assert pictures.names == ("x", "y")
    assert (degraded.shape[2], degraded.dtype, clean.dtype) == (channels, depth, depth)


def test_gray_noise_benchmarks_read_gray(folders: dict[str, Path], clean: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "photographs").mkdir()
    cv2.imwrite(str(tmp_path / "photographs" / "x.png"), clean[..., ::-1])
    pictures = open_folders(BENCHMARKS["set12-25"], [tmp_path / "photographs"])
    assert pictures.read(0).shape == (48, 56, 1)


@pytest.mark.parametrize(
    ("benchmark", "names", "message"),
    [
        ("gopro", ("clean",), "expected DEGRADED CLEAN for gopro, got 1 folders"),
        ("dpdd-dual", ("left", "clean"), "expected LEFT RIGHT CLEAN for dpdd-dual, got 2 folders"),
        ("cbsd68-15", ("left", "clean"), "expected CLEAN for cbsd68-15, got 2 folders"),
        ("dnd", ("left", "clean"), "dnd is not made of picture files"),
    ],
)
def test_other_folders_are_refused(
    folders: dict[str, Path], benchmark: str, names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        open_folders(BENCHMARKS[benchmark], [folders[name] for name in names])


def written(benchmark: str, pictures: Pictures, folder: Path) -> Path:
    entry = BENCHMARKS[benchmark]
    evaluate(entry, pictures, identity, INPUT, writer=make_writer(entry, folder))
    return folder / benchmark


def opened(path: Path) -> np.ndarray:
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    return pixels[..., ::-1]


def test_pictures_are_written_in_the_depth_of_the_clean_ones(clean: np.ndarray, tmp_path: Path) -> None:
    deep = clean.astype(np.uint16) * 257 - np.minimum(clean, 9)
    folder = written("dpdd-dual", Held(("a/x",), ((np.dstack([deep, deep]), clean.astype(np.uint16)),)), tmp_path)
    assert np.array_equal(opened(folder / "a/x.png"), deep)
    folder = written("rain100h", Held(("x",), ((clean, clean[::-1]),)), tmp_path)
    assert np.array_equal(opened(folder / "x.png"), clean)


def test_sidd_blocks_are_written(clean: np.ndarray, tmp_path: Path) -> None:
    blocks = (clean, clean[::-1])
    folder = written("sidd-val", Held(("00_00", "00_01"), tuple((b, b) for b in blocks)), tmp_path)
    assert np.array_equal(loadmat(folder / "DenoisedBlocksSrgb.mat")["DenoisedBlocksSrgb"], np.stack(blocks))
    folder = written("sidd-bench", Held(("0000", "0001"), blocks), tmp_path)
    with (folder / "SubmitSrgb.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["ID"] for row in rows] == ["0", "1"]
    assert base64.b64decode(rows[1]["BLOCK"]) == blocks[1].tobytes()


def test_dnd_bundles_are_written(clean: np.ndarray, tmp_path: Path) -> None:
    boxes = tuple((clean[:8, :6] / 255 + index / 100).astype(np.float32) for index in range(40))
    folder = written("dnd", Held(tuple(f"{i // 20 + 1:04d}_{i % 20 + 1:02d}" for i in range(40)), boxes), tmp_path)
    assert sorted(file.name for file in folder.iterdir()) == ["0001.mat", "0002.mat"]
    content = loadmat(folder / "0002.mat", squeeze_me=True)
    assert (content["Idenoised"].shape, content["israw"], content["eval_version"]) == ((20,), 0, "1.0")
    assert np.array_equal(content["Idenoised"][3], np.clip(boxes[23], 0, 1))


def test_folders_that_hold_something_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "gopro").mkdir()
    make_writer(BENCHMARKS["gopro"], tmp_path)
    (tmp_path / "gopro" / "mine.png").touch()
    with pytest.raises(FileExistsError, match="expected a new or empty folder"):
        make_writer(BENCHMARKS["gopro"], tmp_path)
