"""`benchmarks.denoise_bm3d` with a stand-in for the package, which is for non-commercial use and no dependency."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import denoise_bm3d


def test_scores_what_bm3d_makes_of_the_same_noise(
    shared_data: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = []

    def bm3d_rgb(noisy: np.ndarray, sigma: float) -> np.ndarray:
        told.append(sigma * 255)
        return noisy

    monkeypatch.setitem(sys.modules, "bm3d", SimpleNamespace(bm3d_rgb=bm3d_rgb, __spec__=object()))
    monkeypatch.setattr(denoise_bm3d, "version", lambda name: f"{name} 4")
    output = tmp_path / "bm3d.json"
    flags = ("--benchmark", "cbsd68-25", "--data-path", shared_data("cbsd68"), "--limit", 2, "--output", output)
    monkeypatch.setattr(sys, "argv", ["denoise_bm3d", *map(str, flags)])
    denoise_bm3d.main()
    (record,) = json.loads(output.read_text())
    assert told == [pytest.approx(25)] * 2
    assert record["means"]["psnr"] == pytest.approx(20.2, abs=0.7)  # of noise of 25, clipped
    assert record["packages"]["bm3d"] == "bm3d 4"
    assert "BM3D" in capsys.readouterr().out


def test_says_how_to_get_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "bm3d", None)
    monkeypatch.setattr(denoise_bm3d, "find_spec", lambda name: None)
    flags = ("--benchmark", "cbsd68-25", "--data-path", str(tmp_path), "--output", str(tmp_path / "x.json"))
    monkeypatch.setattr(sys, "argv", ["denoise_bm3d", *flags])
    with pytest.raises(SystemExit) as stop:
        denoise_bm3d.main()
    assert stop.value.code == 2
    assert "pip install bm3d" in capsys.readouterr().err
