"""PSNR, MAE, luma, rounding and the five SSIMs, against scikit-image and against their definitions in plain loops."""

import itertools
import math

import numpy as np
import pytest
from skimage import data as skimage_data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from skimage.util import img_as_ubyte

from iptv2_diffusion.metrics.fidelity import SSIM_METHODS, luma, mae, psnr, ssim, to_uint8

Pair = tuple[np.ndarray, np.ndarray]


def blurred(image: np.ndarray) -> np.ndarray:
    """3x3 mean in integers, so that it is the same everywhere; 2 pixels smaller."""
    height, width = image.shape[0] - 2, image.shape[1] - 2
    shifts = itertools.product(range(3), range(3))
    total = np.sum([image[y : y + height, x : x + width] for y, x in shifts], axis=0, dtype=int)
    return (total // 9).astype(np.uint8)


@pytest.fixture(scope="module", params=["gray", "colour"])
def pair(request: pytest.FixtureRequest) -> Pair:
    """The astronaut's face, 64x64, sharp and blurred."""
    face = skimage_data.astronaut()[79:145, 189:255]
    if request.param == "gray":
        face = face[..., 1]
    return face[1:-1, 1:-1], blurred(face)


def gaussian_window(axes: int) -> np.ndarray:
    offsets = np.indices((11,) * axes) - 5
    weights = np.exp(-(offsets**2).sum(0) / (2 * 1.5**2))
    return weights / weights.sum()


def ssim_in_loops(a: np.ndarray, b: np.ndarray, window: np.ndarray, padded: int = 0, factor: float = 1) -> float:
    """Mean over the window's positions, from covariances about the local means. `factor` is that of a sample."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    a, b = (np.pad(image.astype(float), padded, mode="edge") for image in (a, b))
    scores = []
    for corner in np.ndindex(*(size - side + 1 for size, side in zip(a.shape, window.shape, strict=True))):
        place = tuple(slice(start, start + side) for start, side in zip(corner, window.shape, strict=True))
        x, y = a[place], b[place]
        mean_x, mean_y = (window * x).sum(), (window * y).sum()
        variances = factor * (window * ((x - mean_x) ** 2 + (y - mean_y) ** 2)).sum()
        covariance = factor * (window * (x - mean_x) * (y - mean_y)).sum()
        luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
        scores.append(luminance * (2 * covariance + c2) / (variances + c2))
    return float(np.mean(scores))


def expected_ssim(a: np.ndarray, b: np.ndarray, method: str) -> float:
    if method == "matlab3d" and a.ndim == 3:
        return ssim_in_loops(a, b, gaussian_window(3), padded=5)
    if a.ndim == 3:
        return float(np.mean([expected_ssim(a[..., i], b[..., i], method) for i in range(3)]))
    if method.startswith("matlab"):
        return ssim_in_loops(a, b, gaussian_window(2), padded=5)
    if method == "sk7":
        return ssim_in_loops(a, b, np.full((7, 7), 1 / 49), factor=49 / 48)
    return ssim_in_loops(a, b, gaussian_window(2))


@pytest.mark.parametrize("method", SSIM_METHODS)
def test_ssim_is_its_definition(pair: Pair, method: str) -> None:
    a, b = (image[20:44, 20:48] for image in pair)  # the loops take their time
    assert ssim(a, b, peak=255, method=method) == pytest.approx(expected_ssim(a, b, method), abs=1e-9)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("sk7", {}),
        ("skgauss", {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}),
        ("wang", {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}),
    ],
)
def test_ssim_is_that_of_scikit_image(pair: Pair, method: str, options: dict) -> None:
    a, b = pair
    expected = structural_similarity(a, b, data_range=255, channel_axis=2 if a.ndim == 3 else None, **options)
    assert ssim(a, b, peak=255, method=method) == pytest.approx(expected, abs=1e-9)


GOLDEN = {  # of the 64x64 pair, gray and colour, by the loops above
    "wang": {2: 0.911145071, 3: 0.908569768},
    "matlab2d": {2: 0.912183697, 3: 0.909338099},
    "matlab3d": {2: 0.912183697, 3: 0.967212300},
    "sk7": {2: 0.927967795, 3: 0.926332026},
    "skgauss": {2: 0.911145071, 3: 0.908569768},
}


@pytest.mark.parametrize("method", SSIM_METHODS)
def test_ssim_keeps_its_numbers(pair: Pair, method: str) -> None:
    assert ssim(*pair, peak=255, method=method) == pytest.approx(GOLDEN[method][pair[0].ndim], abs=1e-6)


def test_the_methods_are_as_far_apart_as_others_measured() -> None:
    clean = skimage_data.coffee()
    noise = np.random.default_rng(0).normal(0, 3, clean.shape)
    noisy = np.rint(clean + noise).clip(0, 255).astype(np.uint8)
    expected = {"wang": 0.9374, "matlab2d": 0.9375, "matlab3d": 0.9941, "sk7": 0.9406}
    assert {method: round(ssim(clean, noisy, peak=255, method=method), 4) for method in expected} == expected


@pytest.mark.parametrize("method", SSIM_METHODS)
def test_ssim_of_equal_images_is_one_and_does_not_depend_on_order(pair: Pair, method: str) -> None:
    a, b = pair
    assert ssim(a, a, peak=255, method=method) == pytest.approx(1, abs=1e-12)
    assert ssim(a, b, peak=255, method=method) == ssim(b, a, peak=255, method=method)


def test_one_channel_is_gray(pair: Pair) -> None:
    a, b = (image.reshape(64, 64, -1)[..., :1] for image in pair)
    for method in SSIM_METHODS:
        gray = ssim(a[..., 0], b[..., 0], peak=255, method=method)
        assert ssim(a, b, peak=255, method=method) == pytest.approx(gray, abs=1e-12)
    volume, flat = (ssim(a, b, peak=255, method=method) for method in ("matlab3d", "matlab2d"))
    assert volume == pytest.approx(flat, abs=1e-12)  # MATLAB drops the third axis


@pytest.mark.parametrize("method", SSIM_METHODS)
def test_scores_follow_the_peak(pair: Pair, method: str) -> None:
    a, b = pair
    floats = a / 255, b / 255
    deep = a.astype(np.uint16) * 257, b.astype(np.uint16) * 257
    for score in (psnr, mae, lambda *images, peak: ssim(*images, peak=peak, method=method)):
        assert score(*floats, peak=1.0) == pytest.approx(score(a, b, peak=255), rel=1e-12)
        assert score(*deep, peak=65535) == pytest.approx(score(a, b, peak=255), rel=1e-12)


@pytest.mark.parametrize("method", SSIM_METHODS)
def test_ssim_of_small_images(method: str) -> None:
    side = {"wang": 11, "skgauss": 11, "sk7": 7}.get(method, 1)
    image = np.random.default_rng(0).integers(0, 256, (side, side + 3, 3), dtype=np.uint8)
    assert ssim(image, image, peak=255, method=method) == pytest.approx(1, abs=1e-12)
    if side > 1:
        with pytest.raises(ValueError, match=rf"at least {side}x{side} pixels for SSIM {method}, got \({side - 1}, "):
            ssim(image[1:], image[1:], peak=255, method=method)


def test_psnr(pair: Pair) -> None:
    a, b = pair
    assert psnr(a, b, peak=255) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=255), abs=1e-10)
    assert psnr(a, a, peak=255) == math.inf
    assert psnr(a * 0.0, a * 0.0 + 0.1, peak=1.0) == pytest.approx(20, abs=1e-12)


def test_psnr_pools_the_channels() -> None:
    black = np.zeros((4, 5, 3))
    red = black + np.array([0.3, 0, 0])
    assert psnr(black, red, peak=1.0) == pytest.approx(-10 * math.log10(0.03), abs=1e-12)


def test_pixels_that_are_not_finite_show_in_the_score() -> None:
    image = np.zeros((11, 11))
    for value in (math.nan, math.inf):
        assert not math.isfinite(psnr(image, image + value, peak=1.0))
        assert psnr(image, image + value, peak=1.0) != math.inf


def test_mae() -> None:
    a, b = np.array([[0, 255], [10, 10]], np.uint8), np.array([[51, 255], [10, 112]], np.uint8)
    assert mae(a, b, peak=255) == mae(b, a, peak=255) == pytest.approx((0.2 + 0.4) / 4)


@pytest.mark.parametrize(
    ("a", "b", "peak", "message"),
    [
        (np.zeros((4, 4)), np.zeros((4, 5)), 1.0, r"one shape.* got \(4, 4\) and \(4, 5\)"),
        (np.zeros((4, 4)), np.zeros((4, 4, 1)), 1.0, r"one shape.* got \(4, 4\) and \(4, 4, 1\)"),
        (np.zeros((1, 3, 4, 4)), np.zeros((1, 3, 4, 4)), 1.0, r"\(H, W\) or \(H, W, C\), got \(1, 3, 4, 4\)"),
        (np.zeros((0, 4)), np.zeros((0, 4)), 1.0, r"got \(0, 4\)"),
        (np.zeros((4, 4), np.uint8), np.zeros((4, 4)), 1.0, "value of white .* got 1.0 for uint8"),
        (np.zeros((4, 4)), np.zeros((4, 4), np.uint16), 255, "value of white .* got 255 for uint16"),
        (np.zeros((4, 4)), np.zeros((4, 4)), 0, "value of white .* got 0 for float64"),
        (np.zeros((4, 4)), np.zeros((4, 4)), math.nan, "value of white .* got nan for float64"),
    ],
)
def test_pairs_that_are_refused(a: np.ndarray, b: np.ndarray, peak: float, message: str) -> None:
    for score in (psnr, mae, lambda *images, peak: ssim(*images, peak=peak, method="matlab2d")):
        with pytest.raises(ValueError, match=message):
            score(a, b, peak=peak)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="out of wang, matlab2d, matlab3d, sk7, skgauss, got matlab"):
        ssim(np.zeros((16, 16)), np.zeros((16, 16)), peak=1.0, method="matlab")


def test_luma_of_the_primaries() -> None:
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert luma(colours).dtype == np.uint8
    assert luma(colours).tolist() == [[16, 235, 81, 145, 41]]
    exact = [[16, 235, 81.481, 144.553, 40.966]]
    np.testing.assert_allclose(luma(colours, rounded=False), exact, rtol=0, atol=1e-12)


def test_luma_is_rounded_with_halves_up() -> None:
    image = skimage_data.coffee()
    exact = 16 + (65.481 * image[..., 0] + 128.553 * image[..., 1] + 24.966 * image[..., 2]) / 255
    np.testing.assert_allclose(luma(image, rounded=False), exact, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(luma(image), np.floor(exact + 0.5))
    halves = np.array([[[0, 204, 68], [1, 173, 225], [2, 44, 141]]], np.uint8)
    assert luma(halves, rounded=False).tolist() == [[125.5, 125.5, 52.5]]
    assert luma(halves).tolist() == [[126, 126, 53]]


@pytest.mark.parametrize("decibels", [31.5, 34, 39])
def test_luma_that_is_not_rounded_reads_higher(decibels: float) -> None:
    """By what two roundings add to the squared error, 1/12 each: the known gap between MATLAB and Python."""
    clean = np.clip(skimage_data.chelsea(), 40, 215)
    sigma = 255 / 10 ** (decibels / 20) / math.hypot(65.481 / 255, 128.553 / 255, 24.966 / 255)
    noise = np.random.default_rng(0).normal(0, sigma, clean.shape)
    noisy = np.rint(clean + noise).clip(0, 255).astype(np.uint8)
    rounded, exact = (psnr(luma(clean, rounded=r), luma(noisy, rounded=r), peak=255) for r in (True, False))
    error = 255**2 / 10 ** (exact / 10)
    assert exact == pytest.approx(decibels, abs=0.2)
    assert exact - rounded == pytest.approx(10 * math.log10(1 + 1 / 6 / error), abs=0.005)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_to_uint8_rounds_as_scikit_image(dtype: type) -> None:
    halves = np.arange(511) / 510  # 0, 0.5, 1, ..., 255 out of 255
    image = np.concatenate([halves, np.random.default_rng(0).random(10_000)]).astype(dtype)
    assert to_uint8(image).dtype == np.uint8
    np.testing.assert_array_equal(to_uint8(image), img_as_ubyte(image))


def test_to_uint8_clamps() -> None:
    values = np.array([-math.inf, -0.1, 0, 0.5 / 255, 0.4, 1.5 / 255, 1, 1.1, math.inf])
    assert to_uint8(values).tolist() == [0, 0, 0, 0, 102, 2, 255, 255, 255]


def test_every_8_bit_value_survives_the_way_through_floats() -> None:
    values = np.arange(256, dtype=np.uint8)
    for dtype in (np.float32, np.float64):
        np.testing.assert_array_equal(to_uint8(values.astype(dtype) / 255), values)


@pytest.mark.parametrize(
    ("call", "image", "message"),
    [
        (to_uint8, np.zeros((4, 4), np.uint8), "floating-point image in .*, got uint8"),
        (to_uint8, np.full((4, 4), math.nan), "pixels that are not numbers"),
        (luma, np.zeros((4, 4, 3)), r"uint8 image \(H, W, 3\), got float64 \(4, 4, 3\)"),
        (luma, np.zeros((4, 4), np.uint8), r"uint8 image \(H, W, 3\), got uint8 \(4, 4\)"),
        (luma, np.zeros((4, 4, 4), np.uint8), r"got uint8 \(4, 4, 4\)"),
    ],
)
def test_images_that_are_refused(call, image: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(image)
