"""Rain: it only adds light, as much as asked for, along streaks; and compares with Rain100H's."""

from collections.abc import Callable
from math import atan2, degrees
from pathlib import Path

import numpy as np
import pytest
import torch

from iptv2_diffusion.data.degradations import parse_degradations
from iptv2_diffusion.data.image_folder import read_rgb
from iptv2_diffusion.data.rain import rain, streak

HEAVY = "rain:0.1-0.35"  # as Rain100H
PICTURES = 20


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def read(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(read_rgb(path))).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize("seed", range(4))
def test_rain_only_adds_gray_light(real_images: dict[str, torch.Tensor], seed: int) -> None:
    image = real_images["rocket photograph"][:, 100:260, 200:400] / 255
    rainy = rain(image, 0.3, seeded(seed))
    assert (rainy >= image).all()
    assert rainy.max() <= 1
    added = torch.where(rainy < 1, rainy - image, torch.nan)
    spread = added.amax(0) - added.amin(0)
    assert spread.nan_to_num().max() < 1e-6
    assert rain(image, 0, seeded(seed)).equal(image)


@pytest.mark.parametrize("amount", [0.05, 0.2])
def test_the_amount_is_the_mean_light(amount: float) -> None:
    light = torch.stack([rain(torch.full((1, 300, 300), -9.0), amount, seeded(seed)) + 9 for seed in range(6)])
    assert light.mean() == pytest.approx(amount, rel=0.05)
    borders = torch.cat([light[..., :20, :].flatten(), light[..., -20:, :].flatten()])
    assert borders.mean() == pytest.approx(amount, rel=0.1)  # streaks enter from outside


@pytest.mark.parametrize("seed", range(4))
def test_streaks_run_downwards(seed: int) -> None:
    light = rain(torch.zeros(1, 200, 200), 0.1, seeded(seed))
    across, along = light.diff(dim=-1).square().mean(), light.diff(dim=-2).square().mean()
    assert across > 3 * along


@pytest.mark.parametrize("angle", [-25, -8, 0, 15, 30])
def test_a_streak_lies_at_its_angle(angle: float) -> None:
    shape = streak(40, 2, angle)
    offsets = torch.arange(len(shape)) - len(shape) // 2.0
    y, x = offsets[:, None], offsets
    assert shape.max() == 1
    assert shape.sum() == pytest.approx(40 * 2, rel=0.02)
    tilt = 0.5 * atan2(2 * float((shape * x * y).sum()), float((shape * (y**2 - x**2)).sum()))
    assert degrees(tilt) == pytest.approx(angle, abs=0.5)


def test_heavy_rain_is_like_rain100h(shared_data: Callable[[str], Path]) -> None:
    folder = shared_data("rain100h_first50")
    names = sorted(path.name for path in (folder / "input").iterdir())[:PICTURES]
    real = [read(folder / "input" / name) - read(folder / "target" / name) for name in names]
    photographs = sorted(shared_data("photos_bsds500").joinpath("test").iterdir())[:PICTURES]
    degradations = parse_degradations(HEAVY)
    ours = [
        degraded - clean
        for seed, path in enumerate(photographs)
        for degraded, clean in [degradations(read(path), seeded(seed))]
    ]
    for statistic in (torch.mean, torch.std):
        expected, got = (torch.stack([statistic(light) for light in lights]).mean() for lights in (real, ours))
        assert got == pytest.approx(float(expected), rel=0.15)
