"""Real images for the tests, and the slow and gpu marks."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from skimage import data as skimage_data

from iptv2_diffusion.data.emoji import load_emoji

REPOSITORY = Path(__file__).resolve().parents[1]
EMOJI = REPOSITORY / "tests" / "assets" / "fluent_emoji_3d"

torch.set_num_threads(1)  # the tests' tensors are small: threads that wait for each other cost more than they win


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow") and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow: runs with --slow"))
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Path of a folder of the shared data by its name; skips the test where it is absent."""
    root = Path(os.environ.get("IPTV2_DATA", REPOSITORY.parent / "shared" / "data"))

    def find(name: str) -> Path:
        if not (root / name).exists():
            pytest.skip(f"needs {root / name}; IPTV2_DATA names the folder of shared data")
        return root / name

    return find


@pytest.fixture(scope="session")
def emoji_folder() -> Path:
    """A dozen emoji in the layout of the full set."""
    return EMOJI


@pytest.fixture(scope="session")
def real_images() -> dict[str, torch.Tensor]:
    """Name -> uint8 (3, H, W): the dozen emoji at 128x128 and photographs that scikit-image's wheel contains."""
    emoji = load_emoji(EMOJI, size=128)
    photographs = {
        "astronaut": skimage_data.astronaut(),
        "cat": skimage_data.chelsea(),
        "coffee": skimage_data.coffee(),
        "rocket photograph": skimage_data.rocket(),
    }
    pixels = {name: torch.from_numpy(photograph).permute(2, 0, 1) for name, photograph in photographs.items()}
    return dict(zip(emoji.names, emoji.images, strict=True)) | pixels


@pytest.fixture
def fresh_accelerate(monkeypatch: pytest.MonkeyPatch):
    """It otherwise remembers the precision of the first run in a process."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
