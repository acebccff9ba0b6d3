import pytest
import torch
from dummy import GaussianDenoiser

from iptv2_diffusion.diffusion.guidance import check_guidance_channels, guided

LABELS = torch.tensor([0, 3, 1])
NULL = 5
T = torch.tensor(500)


@pytest.fixture
def model() -> GaussianDenoiser:
    return GaussianDenoiser()


@pytest.fixture
def z() -> torch.Tensor:
    return torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def both(model: GaussianDenoiser, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    conditional, null = model(z, T, LABELS), model(z, T, torch.full_like(LABELS, NULL))
    model.rows.clear()
    return conditional.sample, null.sample  # type: ignore[union-attr]


@pytest.mark.parametrize(("channels", "count"), [(None, 4), (4, 4), (3, 3), (1, 1)])
def test_guidance_acts_on_noise_channels_only(
    model: GaussianDenoiser, z: torch.Tensor, channels: int | None, count: int
) -> None:
    conditional, null = both(model, z)
    prediction = guided(model, LABELS, NULL, 2.5, channels=channels)(z, T)
    expected = null[:, :count] + 2.5 * (conditional[:, :count] - null[:, :count])
    torch.testing.assert_close(prediction[:, :count], expected)
    assert torch.equal(prediction[:, count:], conditional[:, count:])
    assert model.rows == [6]
    assert not torch.allclose(conditional[:, 4:], null[:, 4:])  # so that the variance channels could tell


def test_both_halves_get_their_labels(model: GaussianDenoiser, z: torch.Tensor) -> None:
    guided(model, LABELS, NULL, 2.0)(z, T)
    assert model.labels[0].tolist() == [0, 3, 1, NULL, NULL, NULL]


def test_scale_one_is_the_model_itself_and_costs_one_forward(model: GaussianDenoiser, z: torch.Tensor) -> None:
    conditional, _ = both(model, z)
    assert torch.equal(guided(model, LABELS, NULL, 1.0)(z, T), conditional)
    assert model.rows == [3]


def test_scale_zero_is_unconditional(model: GaussianDenoiser, z: torch.Tensor) -> None:
    _, null = both(model, z)
    torch.testing.assert_close(guided(model, LABELS, NULL, 0.0)(z, T)[:, :4], null[:, :4])


@pytest.mark.parametrize(
    ("interval", "t", "guides"),
    [
        ((0.0, 1.0), 0, True),
        ((0.0, 1.0), 999, True),
        ((0.2, 0.5), 200, True),
        ((0.2, 0.5), 500, True),
        ((0.2, 0.5), 199, False),
        ((0.2, 0.5), 501, False),
        ((0.0, 0.0), 0, False),
        ((1.0, 1.0), 999, False),
        (None, 999, True),
    ],
)
def test_the_interval_decides_by_timestep(
    model: GaussianDenoiser, z: torch.Tensor, interval: tuple[float, float] | None, t: int, guides: bool
) -> None:
    guided(model, LABELS, NULL, 3.0, interval=interval)(z, torch.tensor(t))
    assert model.rows == [6 if guides else 3]


def test_combination_is_float32_in_a_half_precision_model(z: torch.Tensor) -> None:
    model = GaussianDenoiser()
    torch.nn.Module.to(model, torch.bfloat16)
    assert guided(model, LABELS, NULL, 3.0)(z.bfloat16(), T).dtype == torch.float32


@pytest.mark.parametrize("channels", [None, 3])
def test_a_guide_stands_in_the_place_of_the_null_label(
    model: GaussianDenoiser, z: torch.Tensor, channels: int | None
) -> None:
    guide = GaussianDenoiser(std=0.9, out_channels=4)  # without learned variance
    strong, weak = model(z, T, LABELS).sample, guide(z, T, LABELS).sample  # type: ignore[union-attr]
    model.rows.clear()
    prediction = guided(model, LABELS, NULL, 1.7, channels=channels, guide=guide)(z, T)
    count = channels or 4
    torch.testing.assert_close(prediction[:, :count], (weak + 1.7 * (strong[:, :4] - weak))[:, :count])
    assert torch.equal(prediction[:, count:], strong[:, count:])
    assert (model.rows, guide.rows) == ([3], [3, 3])
    assert guide.labels[1].tolist() == LABELS.tolist()


@pytest.mark.parametrize("scale", [0.0, 0.3, 1.5, 4.0])
def test_a_model_that_guides_itself_is_not_guided(model: GaussianDenoiser, z: torch.Tensor, scale: float) -> None:
    assert torch.equal(guided(model, LABELS, NULL, scale, guide=model)(z, T), both(model, z)[0])


def test_outside_the_interval_the_guide_does_not_run(model: GaussianDenoiser, z: torch.Tensor) -> None:
    guide = GaussianDenoiser(std=0.9)
    denoise = guided(model, LABELS, NULL, 3.0, interval=(0.2, 0.5), guide=guide)
    for t in (199, 501):
        denoise(z, torch.tensor(t))
    assert guide.rows == []
    denoise(z, torch.tensor(200))
    assert guide.rows == [3]


@pytest.mark.parametrize("interval", [(0.6, 0.4), (-0.1, 0.5), (0.5, 1.5), (0.5,)])
def test_bad_intervals_are_refused(model: GaussianDenoiser, interval: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="0 <= low <= high <= 1"):
        guided(model, LABELS, NULL, 2.0, interval=interval)


def test_bad_scales_and_channels_are_refused(model: GaussianDenoiser) -> None:
    with pytest.raises(ValueError, match="finite number, got nan"):
        guided(model, LABELS, NULL, float("nan"))
    for channels in (0, 5):
        with pytest.raises(ValueError, match=f"1 to 4, or None for all, got {channels}"):
            check_guidance_channels(channels, 4)
