"""Two small sets of pictures, and `eval.fid` that compares them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from in_process import Call, printed_by, refusal_of
from PIL import Image
from toy_features import COUNT, toy

from eval import fid
from iptv2_diffusion.metrics import extractors, inception
from iptv2_diffusion.metrics.extractors import Extractor


@pytest.fixture
def stands_for_inception(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Its weights; the network behind them is the toy."""
    (tmp_path / "weights.pth").write_bytes(b"weights")

    def make(weights: Path, device: torch.device) -> Extractor:
        return toy(inception.NAME, device, inception.PUBLISHED_SHA256)

    monkeypatch.setattr(inception, "inception_extractor", make)
    return tmp_path / "weights.pth"


@pytest.fixture
def sets(tmp_path: Path, real_images: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> Path:
    """`samples` and `real`: parts of two photographs, as pictures; `real.npz` holds the same. `toy` is registered."""
    monkeypatch.setitem(extractors.EXTRACTORS, "toy", lambda device: toy("toy", device))
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
    return printed_by(fid.main, ("eval.fid", "--device", "cpu", "--cache", "cache"), monkeypatch, capsys)


@pytest.fixture
def fid_refused(fid_of: Call, capsys: pytest.CaptureFixture[str]) -> Call:
    return refusal_of(fid_of, capsys)
