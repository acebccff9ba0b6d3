import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iptv2_diffusion.data import tiles
from iptv2_diffusion.data.image_io import Photo, read_pixels, write_photo
from iptv2_diffusion.data.pairs import Pair, PairedPictures, PictureList, pair_folders
from iptv2_diffusion.data.tiles import check_tiles, open_tiles, prepare_tiles, starts

SIZES = {"wide": (20, 45), "deep/tall": (50, 16), "tiny": (3, 5)}  # height, width


def pixels(name: str, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([len(name), seed]).integers(0, 65536, (*SIZES[name], 3)).astype(np.uint16)


@pytest.fixture
def pairs(tmp_path: Path) -> PairedPictures:
    """16 bits in the degraded pictures, 8 in the clean ones."""
    for name in SIZES:
        for folder, stored in (("in", pixels(name)), ("out", (pixels(name, 1) >> 8).astype(np.uint8))):
            path = tmp_path / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_photo(path, Photo(stored))
    return PairedPictures(pair_folders(tmp_path / "in", tmp_path / "out"))


def stitched(root: Path, folder: str, name: str, template: np.ndarray) -> np.ndarray:
    """The picture that the tiles make up; where they overlap they must agree. Uncovered pixels stay 77."""
    whole, covered = np.full_like(template, 77), np.zeros(template.shape[:2], bool)
    for path in (root / folder).glob(f"{name}_*.png"):
        top, left = map(int, path.stem.split("_")[-2:])
        tile = read_pixels(path)
        place = np.s_[top : top + tile.shape[0], left : left + tile.shape[1]]
        np.testing.assert_array_equal(whole[place][covered[place]], tile[covered[place]])
        whole[place], covered[place] = tile, True
    return whole


@pytest.mark.parametrize(
    ("length", "size", "overlap", "expected"),
    [
        (1280, 512, 256, [0, 256, 512, 768]),
        (720, 512, 256, [0, 208]),
        (512, 512, 96, [0]),
        (513, 512, 0, [0, 1]),
        (1024, 512, 0, [0, 512]),
        (3, 512, 96, [0]),
    ],
)
def test_where_tiles_begin(length: int, size: int, overlap: int, expected: list[int]) -> None:
    assert starts(length, size, overlap) == expected


def test_gopro_gives_as_many_tiles_as_restormers_preparation() -> None:
    assert 2103 * len(starts(720, 512, 256)) * len(starts(1280, 512, 256)) == 16824


@pytest.mark.parametrize("workers", [1, 3])
def test_tiles_make_up_the_pictures(pairs: PairedPictures, tmp_path: Path, workers: int) -> None:
    output = tmp_path / "tiles"
    count = prepare_tiles(pairs, output, size=16, overlap=4, workers=workers)
    assert count == 2 * 4 + 4 * 1 + 1 == check_tiles(output)
    assert len(list(output.rglob("*.png"))) == 2 * count
    assert sorted(path.name for path in output.iterdir()) == ["index.json", "input", "target"]
    for index, name in enumerate(pairs.names):
        degraded, clean = pairs.read(index)
        np.testing.assert_array_equal(stitched(output, "input", name, degraded), pixels(name))
        np.testing.assert_array_equal(stitched(output, "target", name, clean), pixels(name, 1) >> 8)
    prepared = open_tiles(output)
    assert isinstance(prepared, PairedPictures)
    assert len(prepared) == count
    position = prepared.names.index("wide_4_12")
    degraded, clean = prepared.read(position)
    np.testing.assert_array_equal(degraded, pixels("wide")[4:20, 12:28])
    np.testing.assert_array_equal(clean, pixels("wide", 1)[4:20, 12:28] >> 8)


def test_clean_pictures_alone(pairs: PairedPictures, tmp_path: Path) -> None:
    count = prepare_tiles(PictureList.below(tmp_path / "out"), tmp_path / "tiles", size=16, overlap=0)
    prepared = open_tiles(tmp_path / "tiles", gray=True)
    assert isinstance(prepared, PictureList)
    assert len(prepared) == count == 2 * 3 + 4 + 1
    assert prepared.names[-1] == "wide_4_29"
    assert prepared.read(0).shape == (16, 16, 1)


def test_views_stay_apart(pairs: PairedPictures, tmp_path: Path) -> None:
    dual = PairedPictures([Pair(pair.name, pair.degraded * 2, pair.clean) for pair in pairs.pairs])
    prepare_tiles(dual, tmp_path / "tiles", size=16, overlap=0)
    prepared = open_tiles(tmp_path / "tiles")
    assert isinstance(prepared, PairedPictures)
    degraded, clean = prepared.read(0)
    assert (degraded.shape, clean.shape) == ((16, 16, 6), (16, 16, 3))
    assert sorted(path.name for path in (tmp_path / "tiles").iterdir()) == ["index.json", "input1", "input2", "target"]


@pytest.mark.parametrize("torn", ["", '{"name": "wi'])
def test_an_interrupted_preparation_goes_on(
    pairs: PairedPictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: str
) -> None:
    prepare_tiles(pairs, tmp_path / "whole", size=16, overlap=4)
    cut, names = tiles._cut, []

    def interrupted(source: tiles.Source, *arguments: Any) -> dict[str, Any]:
        names.append(source.name)
        if names.count(source.name) == 1 and source.name == "tiny":
            raise KeyboardInterrupt
        return cut(source, *arguments)

    monkeypatch.setattr(tiles, "_cut", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare_tiles(pairs, tmp_path / "tiles", size=16, overlap=4)
    assert not (tmp_path / "tiles/index.json").exists()
    with (tmp_path / "tiles/.journal.jsonl").open("a") as journal:
        journal.write(torn)
    with pytest.raises(FileExistsError, match="unfinished tiles of other settings"):
        prepare_tiles(pairs, tmp_path / "tiles", size=16, overlap=0)
    prepare_tiles(pairs, tmp_path / "tiles", size=16, overlap=4)
    assert names.count("deep/tall") == 1  # done before the interruption, and not again
    assert contents(tmp_path / "tiles") == contents(tmp_path / "whole")
    names.clear()
    assert prepare_tiles(pairs, tmp_path / "tiles", size=16, overlap=4) == 13
    assert names == []


@pytest.mark.parametrize("finished", [True, False])
def test_lost_tiles_are_cut_again(pairs: PairedPictures, tmp_path: Path, finished: bool) -> None:
    root = tmp_path / "tiles"
    prepare_tiles(pairs, root, size=16, overlap=4)
    whole = contents(root)
    if not finished:
        index = json.loads((root / "index.json").read_text())
        settings = {name: value for name, value in index.items() if name != "sources"}
        lines = [settings, *index["sources"][:2]]
        (root / ".journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (root / "index.json").unlink()
    (root / "target/wide_4_12.png").unlink()
    (root / "input/deep/tall_0_0.png").unlink()
    assert prepare_tiles(pairs, root, size=16, overlap=4) == 13
    assert contents(root) == whole


@pytest.mark.parametrize("finished", [True, False])
def test_pictures_that_changed_are_refused(pairs: PairedPictures, tmp_path: Path, finished: bool) -> None:
    root = tmp_path / "tiles"
    prepare_tiles(pairs, root, size=16, overlap=4)
    if not finished:
        index = json.loads((root / "index.json").read_text())
        lines = [{name: value for name, value in index.items() if name != "sources"}, *index["sources"][:2]]
        (root / ".journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (root / "index.json").unlink()
    before = contents(root)
    changed = tmp_path / "in/deep/tall.png"
    write_photo(changed, Photo(pixels("deep/tall") ^ 1), overwrite=True)  # of the same size
    with pytest.raises(FileExistsError, match=r"tiles of 1 pictures as they were before .*the first is deep/tall"):
        prepare_tiles(pairs, root, size=16, overlap=4)
    assert contents(root) == before
    write_photo(changed, Photo(pixels("deep/tall")), overwrite=True)
    assert prepare_tiles(pairs, root, size=16, overlap=4) == 13


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_damaged_and_missing_tiles_are_found(pairs: PairedPictures, tmp_path: Path) -> None:
    root = tmp_path / "tiles"
    prepare_tiles(pairs, root, size=16, overlap=4)
    damaged = root / "input/wide_0_0.png"
    damaged.write_bytes(damaged.read_bytes()[:100])
    (root / "target/wide_4_29.png").rename(root / "target/wide_4_12.png")
    write_photo(root / "input/tiny_0_0.png", Photo(pixels("tiny")[:2]), overwrite=True)
    with pytest.raises(
        ValueError, match=r"^3 of 26 tiles .*tiny_0_0\.png is 5x2, not 5x3.*cannot read .*no .*wide_4_29"
    ):
        check_tiles(root)
    with pytest.raises(ValueError, match=r"1 tiles of .* missing, the first is .*wide_4_29"):
        open_tiles(root)


def test_what_is_in_the_way_is_refused(pairs: PairedPictures, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="new or empty folder for tiles"):
        prepare_tiles(pairs, tmp_path / "in")
    prepare_tiles(pairs, tmp_path / "tiles", size=16, overlap=4)
    before = contents(tmp_path / "tiles")
    for other, size in ((pairs, 8), (PairedPictures(pairs.pairs[:2]), 16)):
        with pytest.raises(FileExistsError, match="already holds tiles of other"):
            prepare_tiles(other, tmp_path / "tiles", size=size, overlap=4)
    assert contents(tmp_path / "tiles") == before
    assert json.loads(before["index.json"])["overlap"] == 4


def test_pictures_of_other_sizes_or_equal_names_are_refused(pairs: PairedPictures, tmp_path: Path) -> None:
    first, second = pairs.pairs[:2]
    with pytest.raises(ValueError, match=r"one size, got 5x3 in .*tiny\.png and 16x50 in .*tall\.png"):
        prepare_tiles(PairedPictures([Pair("x", second.degraded, first.clean)]), tmp_path / "a")
    with pytest.raises(ValueError, match="different names, got deep/tall 2 times"):
        prepare_tiles(PairedPictures([first, first]), tmp_path / "b")
    with pytest.raises(ValueError, match="overlap from 0 to 15 of tiles of 16 pixels, got 16"):
        prepare_tiles(pairs, tmp_path / "c", size=16, overlap=16)
    with pytest.raises(ValueError, match="expected at least one picture"):
        prepare_tiles(PairedPictures([]), tmp_path / "d")


@pytest.mark.parametrize("call", [open_tiles, check_tiles])
def test_folders_without_index_are_refused(tmp_path: Path, call: Callable[[Path], object]) -> None:
    with pytest.raises(ValueError, match=r"expected tiles with index\.json"):
        call(tmp_path)
