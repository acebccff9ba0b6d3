"""What is trained on and what is measured, of every kind of folder."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from iptv2_diffusion.cli.restoration_config import RestorationConfig
from iptv2_diffusion.cli.restoration_sources import RestorationData, restoration_data, split_scenes
from iptv2_diffusion.data import restoration_sets
from iptv2_diffusion.data.hold_out import Origin
from iptv2_diffusion.data.image_io import Photo, write_photo
from iptv2_diffusion.data.pairs import PictureList
from iptv2_diffusion.data.tiles import prepare_tiles


def write(root: Path, *names: str) -> None:
    """Pictures that differ."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16, 3), number, np.uint8)).save(root / name)


def opened(root: Path, **settings: Any) -> RestorationData:
    return restoration_data(RestorationConfig(data_path=(root,), **settings))


def names(source: Any) -> set[str]:
    chosen = source.pictures
    files = getattr(chosen.pictures, "files", None) or [pair.clean for pair in chosen.pictures.pairs]
    return {str(files[index]) for index in chosen.indices}


def scenes(files: Iterable[str], tail: str) -> set[str]:
    return {Path(file).stem.split(tail)[0] for file in files}


@pytest.mark.parametrize("tail", ["_s", "-"])
def test_crops_of_one_picture_are_on_one_side(tmp_path: Path, tail: str) -> None:
    crops = [f"000{picture}{tail}{crop:03d}.png" for picture in range(5) for crop in range(4)]
    write(tmp_path, *(f"{side}_crops/{name}" for side in ("input", "target") for name in crops))
    data = opened(tmp_path, task="denoise-real", hold_out=2)
    trained, measured = names(data.training), names(data.held_out["held_out"])
    assert (len(trained), len(measured)) == (12, 2)
    assert scenes(trained, tail).isdisjoint(scenes(measured, tail))


def test_shots_of_one_sidd_scene_are_on_one_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten scenes were taken by several telephones, in different light."""
    kinds = ("NOISY", "GT")
    folders = [f"{instance:04d}_{1 + instance % 3:03d}_S6_00100_00060_3200_L" for instance in range(6)]
    write(tmp_path, *(f"Data/{name}/{name[:4]}_{kind}_SRGB_{shot}.PNG" for kind in kinds for name in folders for shot in ("010", "011")))  # fmt: skip
    find = restoration_sets.find_pairs
    monkeypatch.setattr(restoration_sets, "find_pairs", lambda spec, root, count: find(spec, root, 12))
    data = opened(tmp_path, task="denoise-real", hold_out=4)
    trained, measured = names(data.training), names(data.held_out["held_out"])
    taken = [{Path(file).parent.name[5:8] for file in files} for files in (trained, measured)]
    assert (len(trained), len(measured), len(taken[1])) == (8, 4, 1)
    assert taken[0].isdisjoint(taken[1])


def test_published_sets_are_counted_wherever_they_are_named(tmp_path: Path) -> None:
    write(tmp_path, *(f"train/Rain13K/{side}/{name}.png" for side in ("input", "target") for name in "abc"))
    for folder in ("", "train/Rain13K"):
        with pytest.raises(
            ValueError, match=r"Rain13K: expected 13712 .* found 3 as input/\*, 3 as target/\*; .* https"
        ):
            opened(tmp_path / folder, task="derain", hold_out=1)
    (tmp_path / "train/Rain13K").rename(tmp_path / "mine")
    assert len(opened(tmp_path / "mine", task="derain", hold_out=1).training) == 2


def test_deep_pairs_are_read_as_the_task_takes_them(tmp_path: Path) -> None:
    for side in ("input", "target"):
        (tmp_path / side).mkdir()
        for low, name in enumerate("abc"):
            write_photo(tmp_path / side / f"{name}.png", Photo(np.full((16, 16, 3), 0x0500 + low, np.uint16)))
    read = [
        opened(tmp_path, task=task, hold_out=1).training.pictures.read(0)[0] for task in ("defocus-deblur", "paired")
    ]
    assert [pixels.dtype for pixels in read] == [np.uint8, np.uint16]
    assert [int(read[0][0, 0, 0]), int(read[1][0, 0, 0]) >> 8] == [5, 5]


def test_frames_of_one_video_are_on_one_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [f"train/GOPR037{video}_07_00/{side}/00000{frame}.png" for video in range(3) for side in ("blur", "sharp") for frame in range(6)]  # fmt: skip
    write(tmp_path, *frames)
    find = restoration_sets.find_pairs
    monkeypatch.setattr(restoration_sets, "find_pairs", lambda spec, root, count: find(spec, root, 18))
    data = opened(tmp_path, task="motion-deblur", hold_out=3)
    trained, measured = names(data.training), names(data.held_out["held_out"])
    videos = [{Path(file).parts[-3] for file in files} for files in (trained, measured)]
    assert (len(trained), len(measured), [len(video) for video in videos]) == (12, 3, [2, 1])
    assert videos[0].isdisjoint(videos[1])
    with pytest.raises(ValueError, match="fewer than the 18 pictures, of 3 scenes that are held out whole, got 13"):
        opened(tmp_path, task="motion-deblur", hold_out=13)


def test_one_clean_picture_under_many_names_is_on_one_side(tmp_path: Path) -> None:
    for picture in range(5):
        numbers = range(7 * picture, 7 * picture + 7)
        write(tmp_path, *(f"input/{number}.png" for number in numbers))
        shade = np.full((16, 16, 3), picture, np.uint8)
        (tmp_path / "target").mkdir(exist_ok=True)
        for number in numbers:
            Image.fromarray(shade).save(tmp_path / f"target/{number}.png")
    data = opened(tmp_path, task="paired", hold_out=3)
    trained, measured = ({int(Path(file).stem) // 7 for file in names(part)} for part in (data.training, data.held_out["held_out"]))  # fmt: skip
    assert (len(data.training), len(data.held_out["held_out"])) == (28, 3)
    assert (len(trained), len(measured)) == (4, 1)
    assert trained.isdisjoint(measured)


def test_as_few_scenes_as_have_enough_pictures_and_one_tile_of_each() -> None:
    origins = [Origin(f"video{index // 8}", f"picture{index // 2}") for index in range(32)]
    rest, held_out = split_scenes(origins, 4)
    assert len(rest) == 24
    assert [index - held_out[0] for index in held_out] == [0, 2, 4, 6]
    assert split_scenes(origins, 0) == (list(range(32)), [])


def test_equal_stems_are_two_files_of_one_picture(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "a.jpg", "b.png")
    data = opened(tmp_path, task="denoise-color", sigma="25", hold_out=1)
    trained, measured = names(data.training), names(data.held_out["25"])
    assert scenes(trained, ".").isdisjoint(scenes(measured, "."))
    assert len(opened(tmp_path, task="denoise-color", sigma="25", hold_out=0).training) == 3


@pytest.mark.parametrize(
    "settings", [{"task": "paired", "degrade": "awgn:25"}, {"task": "denoise-color", "sigma": "25"}]
)
def test_of_pairs_the_clean_side_is_degraded_and_that_is_said(tmp_path: Path, capsys, settings: dict[str, str]) -> None:
    write(tmp_path, *(f"{side}/{number}.png" for side in ("input", "target") for number in range(3)))
    data = opened(tmp_path, **settings, hold_out=0)
    assert names(data.training) == {str(tmp_path / f"target/{number}.png") for number in range(3)}
    said = capsys.readouterr().out
    assert said == f"Left out of {tmp_path}: pictures 3 degraded, beside clean ones; 3 remain.\n"


def test_bsds500_serves_without_the_test_pictures(tmp_path: Path, capsys) -> None:
    write(tmp_path, *(f"BSR/BSDS500/data/images/{part}/{part}.jpg" for part in ("train", "test", "val")))
    data = opened(tmp_path / "BSR", task="denoise-color", sigma="25", hold_out=0)
    assert {Path(file).stem for file in names(data.training)} == {"train", "test"}
    assert "1 of BSDS500's val part, from which CBSD68 and BSD68 are taken; 2 remain" in capsys.readouterr().out


@pytest.mark.parametrize("task", ["derain", "paired"])
def test_tiles_of_photographs_are_no_pairs(tmp_path: Path, task: str) -> None:
    write(tmp_path / "photos", "a.png", "b.png")
    prepare_tiles(PictureList.below(tmp_path / "photos"), tmp_path / "tiles", size=16, overlap=0)
    with pytest.raises(ValueError, match=rf"--task {task}: expected pairs, .* clean photographs only; see --degrade"):
        opened(tmp_path / "tiles", task=task)


def test_two_views_are_asked_for_where_the_model_takes_two(tmp_path: Path) -> None:
    write(tmp_path, *(f"{side}/{number}.png" for side in ("input", "target") for number in range(3)))
    with pytest.raises(
        ValueError, match=r"--task defocus-deblur-dual: expected 2 degraded to a clean picture, .* has 1"
    ):
        opened(tmp_path, task="defocus-deblur-dual")
