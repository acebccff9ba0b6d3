"""Two small sets of pictures, and `eval.fid` that compares them."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toy_features import COUNT, Call, toy

from eval import fid
from iptv2_diffusion.metrics import extractors, inception
from iptv2_diffusion.metrics.extractors import Extractor


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(extractors.EXTRACTORS, "toy", lambda device: toy("toy", device))


@pytest.fixture
def stands_for_inception(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Its weights; the network behind them is the toy."""
    (tmp_path / "weights.pth").write_bytes(b"weights")

    def make(weights: Path, device: torch.device) -> Extractor:
        return toy(inception.NAME, device, inception.PUBLISHED_SHA256)

    monkeypatch.setattr(inception, "inception_extractor", make)
    return tmp_path / "weights.pth"


@pytest.fixture
def sets(
    tmp_path: Path, real_images: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch, registered: None
) -> Path:
    """`samples` and `real`: parts of two photographs, as pictures; `real.npz` holds the same."""
    for name, photograph in (("samples", "cat"), ("real", "coffee")):
        pixels = real_images[photograph].permute(1, 2, 0).numpy()
        parts = np.stack([pixels[9 * i : 9 * i + 64, 14 * i : 14 * i + 64] for i in range(COUNT)])
        (tmp_path / name).mkdir()
        for index, part in enumerate(parts):
            Image.fromarray(part).save(tmp_path / name / f"{index:06d}.png")
        np.savez_compressed(tmp_path / f"{name}.npz", arr_0=parts)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def fid_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """What it prints."""

    def run(*flags: object) -> str:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["eval.fid", "--device", "cpu", "--cache", "cache", *map(str, flags)])
        fid.main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def fid_refused(fid_of: Call, capsys: pytest.CaptureFixture[str]) -> Call:
    """The one line that it ends with."""

    def run(*flags: object) -> str:
        with pytest.raises(SystemExit) as stop:
            fid_of(*flags)
        assert stop.value.code == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        return line

    return run
