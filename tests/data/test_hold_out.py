"""Tiles of one picture, frames of one video and shots of one scene belong together, whoever cut and named them."""

from pathlib import Path

import pytest

from iptv2_diffusion.data.hold_out import origin_of


@pytest.mark.parametrize(
    ("folder", "name", "scene", "picture"),
    [
        ("target_crops", "0001_s001", "0001", "0001"),  # BasicSR
        ("target_crops", "0001-12", "0001", "0001"),  # Restormer
        ("target_crops", "12_34", "12", "12"),  # MPRNet
        ("DIV2K_train_HR_sub", "0/0801_s012", "0/0801", "0/0801"),
        ("anything", "0/0801_s012", "0/0801", "0/0801"),
        ("DFWB", "0/100075-3", "0/100075", "0/100075"),
        ("target_crops", "0007_NOISY_SRGB_011_s003", "0007", "0007_NOISY_SRGB_011"),
        ("Data", "0007_003_010", "003", "0007_003_010"),
        ("target", "0007_010", "0007", "0007_010"),
        ("target_crops", "GOPR0372_07_00-000047-1", "GOPR0372_07_00", "GOPR0372_07_00-000047"),
        ("target", "GOPR0372_07_00-000047", "GOPR0372_07_00", "GOPR0372_07_00-000047"),
        ("sharp", "GOPR0372_07_00/000047", "GOPR0372_07_00", "GOPR0372_07_00/000047"),
        ("photos", "0/holiday-12", "0/holiday-12", "0/holiday-12"),  # may be twelve different pictures
        ("photos", "0/2024_05", "0/2024_05", "0/2024_05"),
    ],
)
def test_what_belongs_together(folder: str, name: str, scene: str, picture: str) -> None:
    assert origin_of(name, Path(folder, "file.png"), tiled=False) == (scene, picture)


def test_tiles_of_our_own() -> None:
    file = Path("target/file.png")
    assert origin_of("deep/a_0_256", file, tiled=True) == ("deep/a", "deep/a")
    assert origin_of("GOPR0372_07_00/000047_0_256", file, tiled=True) == ("GOPR0372_07_00", "GOPR0372_07_00/000047")
