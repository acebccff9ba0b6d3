"""Rain: it only adds light, as much as asked for, along streaks of the shapes that are documented."""

from math import atan2, degrees

import pytest
import torch
from torch.nn.functional import avg_pool2d

from iptv2_diffusion.data import rain as module
from iptv2_diffusion.data.rain import rain, streak


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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


@pytest.mark.parametrize("amount", [0.02, 0.2])
def test_the_amount_is_the_mean_light(amount: float) -> None:
    """Streaks are large and differ much in brightness: the means are of many pictures."""
    light = torch.stack([rain(torch.full((1, 200, 200), -9.0), amount, seeded(seed)) + 9 for seed in range(120)])
    assert light.mean() == pytest.approx(amount, rel=0.05)
    borders = torch.cat([light[..., :20, :].flatten(), light[..., -20:, :].flatten()])
    assert borders.mean() == pytest.approx(amount, rel=0.1)  # streaks enter from outside


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float, float]]:
    """Length, width and angle of every streak that is asked for."""
    shapes: list[tuple[float, float, float]] = []
    monkeypatch.setattr(module, "streak", lambda *shape: shapes.append(shape) or streak(*shape))
    return shapes


def test_shapes_fill_the_documented_ranges(drawn: list[tuple[float, float, float]]) -> None:
    for seed in range(300):
        rain(torch.zeros(1, 4, 4), 0.1, seeded(seed))
    length, width, angle = torch.tensor(drawn).T
    assert 600 < len(drawn) < 900  # 1 to 4 layers a picture
    for values, low, high in ((width, 1, 4), (length / width, 8, 50), (angle, -50, 50)):
        assert low <= values.min() < low + (high - low) * 0.05
        assert high >= values.max() > high - (high - low) * 0.05
        assert values.mean() == pytest.approx((low + high) / 2, abs=(high - low) * 0.03)


@pytest.mark.parametrize("seed", range(6))
def test_streaks_of_a_layer_lie_at_its_angle(
    drawn: list[tuple[float, float, float]], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(module, "MOST_LAYERS", 1)
    light = rain(torch.zeros(1, 300, 300), 0.05, seeded(seed))
    down, right = torch.gradient(avg_pool2d(light, 5, stride=1)[0])
    direction = 0.5 * atan2(-2 * float((down * right).sum()), float((right**2 - down**2).sum()))
    ((_, _, angle),) = drawn
    assert degrees(direction) == pytest.approx(angle, abs=3)


def test_streaks_are_as_bright_as_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they are so few that they hardly ever cross: their brightest pixels."""
    monkeypatch.setattr(module, "MOST_LAYERS", 1)
    peaks = torch.stack([rain(torch.zeros(1, 100, 100), 2e-4, seeded(seed)).max() for seed in range(600)])
    peaks = peaks[peaks > 0.01].sort().values
    assert len(peaks) > 50
    assert 0.02 < peaks[0] < 0.1
    assert 0.45 < peaks[-1] < 0.5


@pytest.mark.parametrize("angle", [-25, -8, 0, 15, 30])
def test_a_streak_lies_at_its_angle(angle: float) -> None:
    shape = streak(40, 2, angle)
    offsets = torch.arange(len(shape)) - len(shape) // 2.0
    y, x = offsets[:, None], offsets
    assert shape.max() == 1
    assert shape.sum() == pytest.approx(40 * 2, rel=0.02)
    tilt = 0.5 * atan2(2 * float((shape * x * y).sum()), float((shape * (y**2 - x**2)).sum()))
    assert degrees(tilt) == pytest.approx(angle, abs=0.5)
