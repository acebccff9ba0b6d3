"""Degradations: their statistics, that their generator is their only randomness, their order, margins and text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from iptv2_diffusion.data.degradations import (
    KINDS,
    Compose,
    Degradation,
    awgn,
    cut,
    jpeg,
    parse_degradations,
    poisson,
    quantize,
)

EXACT: dict[str, Any] = {"rtol": 0, "atol": 0}
BLURS = ("motion:9-31", "linear:9-31", "bent:9-31", "defocus:1-5")
EXAMPLES = ("awgn:0-50", "poisson:30-300", "jpeg:30-95", *BLURS, "rain:0.1-0.4", "quantize")
DRAWN = EXAMPLES[:-1]  # quantize draws nothing that shows


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def photograph(real_images: dict[str, torch.Tensor]) -> torch.Tensor:
    """(3, 120, 140) float32 in [0, 1]."""
    return real_images["cat"][:, 60:180, 100:240].float() / 255


def test_there_is_an_example_of_every_kind() -> None:
    assert {example.split(":")[0] for example in EXAMPLES} == set(KINDS)


@pytest.mark.parametrize("text", EXAMPLES)
def test_the_generator_is_the_only_randomness(photograph: torch.Tensor, text: str) -> None:
    degradations, original = parse_degradations(text), photograph.clone()
    first, _ = degradations(photograph, seeded(1))
    torch.rand(7)
    state = torch.get_rng_state()
    other, _ = degradations(photograph, seeded(2))
    again, _ = degradations(photograph, seeded(1))
    assert torch.get_rng_state().equal(state)
    torch.testing.assert_close(again, first, **EXACT)
    torch.testing.assert_close(photograph, original, **EXACT)  # the input is not written to
    assert first.dtype == torch.float32
    assert other.equal(first) == (text not in DRAWN)


def test_gaussian_noise_is_neither_clipped_nor_quantised(photograph: torch.Tensor) -> None:
    noise = awgn(photograph, 25, seeded()) - photograph
    count = noise.numel()
    assert noise.mean().abs() < 5 * 25 / 255 / count**0.5
    assert abs(noise.std() * 255 / 25 - 1) < 5 / (2 * count) ** 0.5
    assert abs(noise.pow(4).mean() / noise.var() ** 2 - 3) < 5 * (24 / count) ** 0.5
    assert (awgn(torch.zeros(3, 50, 50), 25, seeded()) < 0).float().mean() == pytest.approx(0.5, abs=0.03)
    assert awgn(photograph, 25, seeded()).unique().numel() > count / 4
    standard = torch.randn(1, 9, 9, generator=seeded())
    torch.testing.assert_close(awgn(torch.zeros(1, 9, 9), 51, seeded()), standard / 5)


def test_the_sigma_of_noise_is_uniform_over_its_range() -> None:
    noise, generator = Degradation("awgn", 10, 40), seeded()
    sigmas = torch.stack([noise(torch.zeros(1, 64, 64), generator).std() * 255 for _ in range(400)]).sort().values
    expected = torch.linspace(10, 40, 400)
    assert (sigmas - expected).abs().max() < 30 * 1.63 / 400**0.5 + 1  # Kolmogorov's 1 %, and the error of sigma


@pytest.mark.parametrize("peak", [5.0, 100.0])
def test_photon_noise_has_variance_of_light_over_peak(peak: float) -> None:
    light = torch.tensor([0.0, 0.1, 0.5, 1.0])[:, None, None].expand(4, 200, 200)
    values = poisson(light, peak, seeded()).flatten(1)
    expected = light[:, 0, 0]
    torch.testing.assert_close(values.mean(1), expected, rtol=0, atol=5 * (1 / peak / 40000) ** 0.5)
    torch.testing.assert_close(values.var(1), expected / peak, rtol=0.05, atol=0)
    torch.testing.assert_close(values * peak, (values * peak).round(), rtol=1e-6, atol=1e-4)  # whole photons


def test_photon_noise_takes_negative_light_for_none() -> None:
    assert poisson(torch.full((1, 4, 4), -0.5), 10, seeded()).eq(0).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [10, 40, 95])
def test_jpeg_is_pillows_own_round_trip(real_images: Any, tmp_path: Path, channels: int, quality: int) -> None:
    pixels = real_images["coffee"][:channels, 100:163, 200:281]
    expected = pixels.permute(1, 2, 0).squeeze(-1).numpy() if channels == 1 else pixels.permute(1, 2, 0).numpy()
    Image.fromarray(expected).save(tmp_path / "picture.jpg", quality=quality)
    with Image.open(tmp_path / "picture.jpg") as picture:
        expected = torch.from_numpy(np.array(picture)).view(63, 81, channels).permute(2, 0, 1)
    torch.testing.assert_close(jpeg(pixels / 255, quality, seeded()), expected / 255, **EXACT)


def test_jpeg_clamps_and_rounds_first(photograph: torch.Tensor) -> None:
    noisy = awgn(photograph, 50, seeded())
    expected = jpeg(quantize(noisy, 0, seeded()), 80, seeded())
    torch.testing.assert_close(jpeg(noisy, 79.6, seeded()), expected, **EXACT)  # the quality is rounded, too
    with pytest.raises(ValueError, match=r"^expected 1 or 3 channels for JPEG, got 6$"):
        jpeg(torch.zeros(6, 16, 16), 80, seeded())


def test_quantising_rounds_and_clamps() -> None:
    image = torch.tensor([[[-0.2, 0.4 / 255, 0.6 / 255, 100.4 / 255, 1.2]]])
    torch.testing.assert_close(quantize(image, 0, seeded()), torch.tensor([[[0, 0, 1 / 255, 100 / 255, 1]]]), **EXACT)


@pytest.mark.parametrize("text", ["motion:1", "linear:1", "bent:1", "defocus:0", "defocus:0.5", "awgn:0"])
def test_nothing_is_done_by_the_weakest(photograph: torch.Tensor, text: str) -> None:
    degradations = parse_degradations(text)
    assert degradations.margin == 0
    torch.testing.assert_close(degradations(photograph, seeded())[0], photograph, rtol=0, atol=2e-6)


def test_degradations_follow_in_the_order_of_the_list(photograph: torch.Tensor) -> None:
    def levels_off(text: str) -> float:
        levels = parse_degradations(text)(photograph, seeded())[0] * 255
        return float((levels - levels.round()).abs().max())

    assert levels_off("awgn:10,quantize") < 1e-3
    assert levels_off("quantize,awgn:10") > 0.4
    steps = Degradation("motion", 3, 9), Degradation("awgn", 0, 10), Degradation("jpeg", 30, 95)
    generator, expected = seeded(), photograph
    for step in steps:
        expected = step(expected, generator)
    torch.testing.assert_close(Compose(steps)(photograph, seeded())[0], expected, **EXACT)


@pytest.mark.parametrize(
    ("text", "margin"),
    [
        ("awgn:0-50,jpeg:30,rain:0.2,quantize,poisson:9", 0),
        ("motion:9-31", 15),
        ("motion:30.5", 15),
        ("defocus:1-3.2", 3),
        ("defocus:3.6", 4),
        ("motion:9-31,defocus:1-5,motion:4", 22),
    ],
)
def test_margins_are_cut_from_both(photograph: torch.Tensor, text: str, margin: int) -> None:
    degradations = parse_degradations(text)
    assert degradations.margin == margin
    degraded, clean = degradations(photograph, seeded())
    assert degraded.shape == clean.shape == (3, 120 - 2 * margin, 140 - 2 * margin)
    torch.testing.assert_close(clean, photograph[:, margin : 120 - margin, margin : 140 - margin], **EXACT)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_drawn_blur_does_not_move_the_picture(seed: int) -> None:
    """A linear ramp stays as it is under a centred kernel of sum 1."""
    ramp = torch.linspace(0, 1, 90)[:, None] + torch.linspace(0, 2, 110)
    degraded, clean = parse_degradations("motion:3-31,defocus:0-4")(ramp.expand(3, 90, 110), seeded(seed))
    torch.testing.assert_close(degraded, clean, rtol=0, atol=2e-5)


def test_blurs_know_nothing_of_borders(photograph: torch.Tensor) -> None:
    degradations = parse_degradations("motion:15,defocus:2")
    whole, _ = degradations(photograph, seeded())
    part, _ = degradations(photograph[:, 20:100, 30:100], seeded())
    torch.testing.assert_close(part, whole[:, 20 : 20 + part.shape[1], 30 : 30 + part.shape[2]], rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("image", "got"),
    [
        (torch.zeros(3, 8, 9), "torch.float32 (3, 8, 9)"),
        (torch.zeros(1, 3, 20, 20), "torch.float32 (1, 3, 20, 20)"),
        (torch.zeros(3, 20, 20, dtype=torch.uint8), "torch.uint8 (3, 20, 20)"),
    ],
)
def test_images_of_other_forms_are_refused(image: torch.Tensor, got: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the whole message is compared
        parse_degradations("motion:9")(image, seeded())
    assert str(refused.value) == f"expected a float32 image (C, H, W) of 9 pixels at least for motion:9, got {got}"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("motion:9-31,awgn:0-10,jpeg:30-95", None),
        (" awgn:15.0 , quantize", "awgn:15,quantize"),
        ("awgn:15-15", "awgn:15"),
        ("rain:0.00001-0.40", "rain:0.00001-0.4"),
        ("awgn:0.1234567890123", None),
        ("poisson:100000-1000000", None),
    ],
)
def test_text_comes_back(text: str, canonical: str | None) -> None:
    degradations = parse_degradations(text)
    assert str(degradations) == (canonical or text)
    assert parse_degradations(str(degradations)) == degradations


JPEG_USAGE = "jpeg:low-high (quality; from 1 to 100)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("snow:1-2", "unknown degradation 'snow'; there are awgn:low-high (sigma, of 255 levels; from 0 to 255); "),
        ("", "unknown degradation ''; there are awgn"),
        ("awgn:5,", "unknown degradation ''; there are awgn"),
        ("kernels", "unknown degradation 'kernels'; there are awgn"),
        ("jpeg", f"expected {JPEG_USAGE}, got 'jpeg'"),
        ("jpeg:", f"expected {JPEG_USAGE}, got 'jpeg:'"),
        ("jpeg:low", f"expected {JPEG_USAGE}, got 'jpeg:low'"),
        ("jpeg:30-", f"expected {JPEG_USAGE}, got 'jpeg:30-'"),
        ("jpeg:-5", f"expected {JPEG_USAGE}, got 'jpeg:-5'"),
        ("jpeg:1e1", f"expected {JPEG_USAGE}, got 'jpeg:1e1'"),
        ("jpeg:nan", f"expected {JPEG_USAGE}, got 'jpeg:nan'"),
        ("jpeg:95-30", f"expected low-high for {JPEG_USAGE}, got 95-30"),
        ("jpeg:0-30", f"expected low-high for {JPEG_USAGE}, got 0-30"),
        ("jpeg:30-101", f"expected low-high for {JPEG_USAGE}, got 30-101"),
        ("quantize:8", "expected quantize (nothing to set), got 'quantize:8'"),
    ],
)
def test_wrong_lists_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the whole message is compared
        parse_degradations(text)
    assert str(refused.value).startswith(message)


def test_measured_kernels_are_drawn_from_a_file(photograph: torch.Tensor, shared_data: Callable[[str], Path]) -> None:
    pytest.importorskip("h5py")
    text = f"kernels:{shared_data('levin09_kernels.mat')},awgn:5"
    degradations = parse_degradations(text)
    assert str(degradations) == text
    assert degradations.margin == 14  # the largest of them, centred, is 29 x 29
    blurred = [degradations.steps[0](photograph, seeded(seed)) for seed in range(60)]
    assert len({float(image.std()) for image in blurred}) == 8
    clean = cut(photograph, 14)
    for image in blurred:
        assert image.shape == clean.shape
        assert image.std() < clean.std()
