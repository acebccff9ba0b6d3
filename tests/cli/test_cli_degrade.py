"""`iptv2-data degrade`: pairs of clean photographs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from iptv2_diffusion.cli.restoration_config import RestorationConfig
from iptv2_diffusion.cli.restoration_sources import restoration_data
from iptv2_diffusion.data.degradations import parse_degradations
from iptv2_diffusion.data.image_io import Photo, read_photo, write_photo

DEGRADE = "motion:5,awgn:2-9"
COUNT = 6


@pytest.fixture
def photographs(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders of noise, of which each picture is another scene."""
    folders = tmp_path / "a", tmp_path / "b"
    for folder in folders:
        for index in range(COUNT // 2):
            pixels = np.random.default_rng(index).integers(0, 256, (24, 31, 3), np.uint8)
            path = folder / f"{folder.name}{index}.png"
            path.parent.mkdir(exist_ok=True)
            write_photo(path, Photo(pixels))
    return folders


def pixels(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: read_photo(path).pixels for path in sorted(folder.iterdir())}


def test_pairs_are_the_photographs_and_what_the_degradation_makes_of_them(command, photographs, tmp_path, capsys):
    output = tmp_path / "pairs"
    command("data", "degrade", "--data-path", *photographs, "--degrade", DEGRADE, "--output", output)
    assert f"{COUNT} pairs, motion:5,awgn:2-9, are in {output}" in capsys.readouterr().out
    degraded, clean = pixels(output / "input"), pixels(output / "target")
    assert list(degraded) == list(clean) == [f"{n}-{folder}{i}.png" for n, folder in enumerate("ab") for i in range(3)]
    margin = parse_degradations(DEGRADE).margin
    for name, image in clean.items():
        source = read_photo(next(tmp_path.glob(f"[ab]/{name[2:]}"))).pixels
        np.testing.assert_array_equal(image, source[margin:-margin, margin:-margin])
        assert degraded[name].shape == image.shape
        assert (degraded[name] != image).mean() > 0.9
    assert (degraded["0-a0.png"] != degraded["1-b0.png"]).any()  # equal photographs, streams of their own


def test_a_stopped_run_goes_on_and_others_are_refused(command: Callable[..., None], refused, photographs, tmp_path):
    flags = ("--data-path", *photographs, "--degrade", DEGRADE, "--output")
    for name in ("whole", "parts"):
        command("data", "degrade", *flags, tmp_path / name)
    (tmp_path / "parts/target/0-a1.png").unlink()
    (tmp_path / "parts/input/1-b2.png").unlink()
    command("data", "degrade", *flags, tmp_path / "parts")
    for kind in ("input", "target"):
        whole, parts = pixels(tmp_path / "whole" / kind), pixels(tmp_path / "parts" / kind)
        assert whole.keys() == parts.keys()
        assert all(np.array_equal(whole[name], parts[name]) for name in whole)
    assert "other pictures or settings" in refused("data", "degrade", *flags, tmp_path / "parts", "--seed", 1)
    assert "already holds something" in refused("data", "degrade", *flags, photographs[0])
    assert "unknown" in refused("data", "degrade", "--data-path", *photographs, "--degrade", "no", "--output", "x")


def test_only_what_training_leaves_out(command: Callable[..., None], photographs, tmp_path: Path) -> None:
    output = tmp_path / "pairs"
    command(
        "data", "degrade", "--data-path", *photographs, "--degrade", "quantize", "--output", output, "--hold-out", 2
    )
    config = RestorationConfig(task="paired", data_path=photographs, degrade="quantize", hold_out=2, model="IPTV2-Ti")
    held_out = restoration_data(config).held_out["held_out"]
    expected = [held_out.patch(i, None, torch.Generator(), centred=True)["clean"] for i in range(len(held_out))]
    clean = [torch.from_numpy(image).permute(2, 0, 1).float() / 255 for image in pixels(output / "target").values()]
    assert len(clean) == len(expected) == 2
    assert all(torch.equal(a, b) for a, b in zip(clean, expected, strict=True))


def test_photographs_that_changed_share_a_name_or_are_too_small_are_refused(command, refused, photographs, tmp_path):
    flags = ("degrade", "--data-path", *photographs, "--degrade", DEGRADE, "--output", tmp_path / "pairs")
    command("data", *flags)
    changed = photographs[0] / "a1.png"
    write_photo(changed, Photo(read_photo(changed).pixels[::-1].copy()), overwrite=True)
    assert "other pictures or settings" in refused("data", *flags)
    (photographs[0] / "x").mkdir()
    for name in ("x/y.png", "x-y.png"):
        write_photo(photographs[0] / name, Photo(np.full((4, 40, 3), 9, np.uint8)))
    flags = (*flags[:-1], tmp_path / "more")
    assert "1 pairs would have the name of another, the first 0-x-y.png" in refused("data", *flags)
    (photographs[0] / "x/y.png").unlink()
    assert "x-y.png: expected a float32 image (C, H, W) of 5 pixels at least" in refused("data", *flags)
