from pathlib import Path

import numpy as np
import pytest

from iptv2_diffusion.data.dpdd import match_views, read_labels

SOURCES = {name: Path(f"source/{name}.png") for name in ("1P0A0917", "1P0A0921", "1P0A1003")}
TARGETS = {name: Path(f"target/{name}.png") for name in ("1P0A0916", "1P0A0920", "1P0A1002")}


def test_the_camera_s_numbers_decide_where_the_names_differ(tmp_path: Path) -> None:
    pairs = match_views([SOURCES, SOURCES], TARGETS, tmp_path / "file_names/test")
    assert [(pair.name, pair.clean.stem) for pair in pairs] == list(zip(SOURCES, TARGETS, strict=True))
    assert pairs[0].degraded == (Path("source/1P0A0917.png"),) * 2


def test_equal_names_come_first(tmp_path: Path) -> None:
    clean = {name: Path(f"target/{name}.tif") for name in reversed(SOURCES)}
    pairs = match_views([SOURCES], clean, tmp_path / "test")
    assert [pair.clean.stem for pair in pairs] == list(SOURCES)


@pytest.mark.parametrize("prefix", ["", "./dd_dp_dataset_canon/test_c/source/"])
def test_the_authors_lists_come_before_numbers(tmp_path: Path, prefix: str) -> None:
    shuffled = ["1P0A1002", "1P0A0916", "1P0A0920"]
    np.save(tmp_path / "test_src.npy", np.array([f"{prefix}{name}.png" for name in SOURCES]))
    np.save(tmp_path / "test_trg.npy", np.array([f"{name}.png" for name in shuffled]))
    pairs = match_views([SOURCES], TARGETS, tmp_path / "test")
    assert [pair.clean.stem for pair in pairs] == shuffled


def test_what_cannot_be_matched_is_refused(tmp_path: Path) -> None:
    fewer = dict(list(TARGETS.items())[:2])
    with pytest.raises(ValueError, match="as many blurred as sharp pictures, got 3 and 2"):
        match_views([SOURCES], fewer, tmp_path / "test")
    with pytest.raises(ValueError, match="the same names in every view"):
        match_views([SOURCES, fewer], TARGETS, tmp_path / "test")
    np.save(tmp_path / "test_src.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"expected a list of names in .*test_src\.npy"):
        match_views([SOURCES], TARGETS, tmp_path / "test")
    np.save(tmp_path / "test_src.npy", np.array(list(SOURCES)))
    np.save(tmp_path / "test_trg.npy", np.array(list(fewer)))
    with pytest.raises(ValueError, match=r"lists of one length, .* have 3 and 2 names"):
        match_views([SOURCES], TARGETS, tmp_path / "test")


def named(folder: str, *names: str) -> dict[str, Path]:
    return {name: Path(f"{folder}/{name}.png") for name in names}


@pytest.mark.parametrize(
    ("sources", "targets", "message"),
    [
        # The second scene's blurred and the third one's sharp picture are missing: order alone would pair strangers.
        (
            ("1P0A0907", "1P0A0927"),
            ("1P0A0906", "1P0A0916"),
            r"got 1P0A0927 and 1P0A0916 \(1 of 2 in order\): .*_src\.npy",
        ),
        (("1P0A0907", "1P0A0911"), ("1P0A0906", "1P0A0908"), "got 1P0A0911 and 1P0A0908"),
        (("1P0A0907",), ("1P0B0906",), "got 1P0A0907 and 1P0B0906"),
        (("blurred",), ("sharp",), "got blurred and sharp"),
        (("1P0A0907", "1P0A0909"), ("1P0A0907", "1P0A0911"), r"in source only: 1P0A0909; in target only: 1P0A0911"),
    ],
)
def test_missing_counterparts_are_refused(tmp_path: Path, sources, targets, message) -> None:
    with pytest.raises(ValueError, match=message):
        match_views([named("source", *sources)], named("target", *targets), tmp_path / "test")


@pytest.mark.parametrize("name", ["indoor.npy", "indoor.txt"])
def test_labels_count_from_one(tmp_path: Path, name: str) -> None:
    numbers = np.array([1, 5, 76])
    if name.endswith("npy"):
        np.save(tmp_path / name, numbers)
    else:
        np.savetxt(tmp_path / name, numbers, fmt="%d")
    assert read_labels(tmp_path / name).tolist() == [0, 4, 75]


@pytest.mark.parametrize("numbers", [[0, 1], [1, 77], [2, 2], []])
def test_labels_out_of_range_are_refused(tmp_path: Path, numbers: list[int]) -> None:
    np.save(tmp_path / "indoor.npy", np.array(numbers, np.int64))
    with pytest.raises(ValueError, match="different numbers from 1 to 76"):
        read_labels(tmp_path / "indoor.npy")
