"""Command lines run in this process: `command("sample", "--steps", "1")`."""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from encoding import SHARD, SIZE
from in_process import refusal_of
from PIL import Image
from small_train import small

from iptv2_diffusion.backbone.config import DENOISERS


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def call(name: str, *flags: object) -> None:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, flags)])
        import_module(f"iptv2_diffusion.cli.{name}").main()

    return call


@pytest.fixture
def refused(command: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one line that a refused command ends with."""
    return refusal_of(command, capsys)


@pytest.fixture
def small_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Denoisers that take milliseconds under the names of the presets."""
    for name, fields in small(DENOISERS).items():
        monkeypatch.setitem(DENOISERS, name, fields)


@pytest.fixture(scope="session")
def small_vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random autoencoder of factor 8, with four latent channels."""
    folder = tmp_path_factory.mktemp("vae")
    settings: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (8,) * 4,
        "latent_channels": 4,
        "norm_num_groups": 4,
    }
    AutoencoderKL(**settings).save_pretrained(folder)
    return folder


@pytest.fixture
def picture_folder(tmp_path: Path, emoji_folder: Path) -> Path:
    """The packaged emoji, sorted into two classes."""
    for index, path in enumerate(sorted((emoji_folder / "images").iterdir())):
        target = tmp_path / "pictures" / ("even", "odd")[index % 2] / f"{path.stem}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as picture:
            picture.resize((40, 36)).save(target)
    return tmp_path / "pictures"


@pytest.fixture(scope="session")
def clean(real_images: dict[str, torch.Tensor]) -> np.ndarray:
    """A part of a photograph, (48, 56, 3) uint8."""
    return real_images["cat"][:, 100:148, 130:186].permute(1, 2, 0).numpy().copy()


@pytest.fixture
def shard_settings(picture_folder: Path, small_vae: Path) -> dict[str, Any]:
    """Of `encoding.encode`: twelve pictures of two classes make three shards; the batches do not fill them evenly."""
    small = {"image_size": SIZE, "shard_size": SHARD, "batch_size": 3, "workers": 0}
    return {"data_path": picture_folder, "vae": str(small_vae), "dtype": "float32", **small}
