"""The restorers that ship: figures on two photographs that come with scikit-image, which a refactor must not change."""

from collections.abc import Callable

import numpy as np
import pytest
from skimage import data

from iptv2_diffusion import load_restorer
from iptv2_diffusion.data.degradations import degrade_picture
from iptv2_diffusion.metrics.fidelity import psnr, to_uint8
from iptv2_diffusion.restoration.bundled import FOLDER, bundled_tasks, bundled_weights
from iptv2_diffusion.restoration.protocols import noisy
from iptv2_diffusion.rng import derived_generator

PARTS = {"astronaut": (0, 110), "coffee": (60, 200), "camera": (60, 180), "coins": (20, 40)}  # top, left
SIDE = 128  # pixels
MB = 10**6


Pair = tuple[np.ndarray, np.ndarray]


def noise(sigma: float) -> Callable[[np.ndarray], Pair]:
    return lambda picture: (noisy(picture, sigma), picture.astype(np.float32) / 255)


def degraded(text: str) -> Callable[[np.ndarray], Pair]:
    return lambda picture: degrade_picture(text, picture, derived_generator(0))


PINNED = {  # task: what is done to the photographs, and the PSNR of the restored parts, in dB
    "denoise-color": (noise(25), {"astronaut": 32.72, "coffee": 35.32}),
    "denoise-gray": (noise(25), {"camera": 29.92, "coins": 29.25}),
    "derain": (degraded("rain:0.1,quantize"), {"astronaut": 33.46, "coffee": 34.16}),
    "motion-deblur": (degraded("linear:16,awgn:1,quantize"), {"astronaut": 26.89, "coffee": 30.61}),
}
SHAKEN = {"astronaut": 27.24, "coffee": 27.30}


def part(name: str, side: int = SIDE) -> np.ndarray:
    """(side, side, channels), uint8."""
    top, left = PARTS[name]
    image: np.ndarray = getattr(data, name)()[top : top + side, left : left + side]
    return image.reshape(side, side, -1)


def test_every_shipped_restorer_is_pinned_small_and_says_its_task() -> None:
    assert set(bundled_tasks()) == set(PINNED) == {path.stem for path in FOLDER.glob("*.safetensors")}
    for task in PINNED:
        path = bundled_weights(task)
        assert path is not None
        assert path.stat().st_size <= 4.1 * MB  # 2 M parameters in half precision
        restorer = load_restorer(task)
        assert (restorer.config["task"], restorer.config["fused"]) == (task, True)


@pytest.mark.parametrize(
    ("task", "name", "expected"),
    [(task, *figure) for task, (_, figures) in PINNED.items() for figure in figures.items()],
)
def test_restored_parts_are_what_they_were(task: str, name: str, expected: float) -> None:
    check(task, *PINNED[task][0](part(name)), expected)


@pytest.mark.parametrize(("name", "expected"), SHAKEN.items())
def test_the_deblurrer_undoes_shake_in_windows_of_every_level(name: str, expected: float) -> None:
    """Parts of 256 pixels: only there its windows of 64 squares of two pixels are displaced, too."""
    check("motion-deblur", *degraded("motion:17,awgn:1,quantize")(part(name, 2 * SIDE)), expected)


def check(task: str, before: np.ndarray, clean: np.ndarray, expected: float) -> None:
    restored = to_uint8(load_restorer(task).restore(before, tile=None))
    found = psnr(restored, to_uint8(clean), peak=255)
    assert found == pytest.approx(expected, abs=0.02)
    assert found > psnr(to_uint8(before), to_uint8(clean), peak=255) + 3
