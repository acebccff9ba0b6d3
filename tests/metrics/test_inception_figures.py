"""`python -m eval.fid` with the Inception network itself, of random weights."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from random_inception import random_inception

from eval import fid


@pytest.mark.slow  # a minute: roots of 2048 x 2048 covariances
@pytest.mark.usefixtures("fresh_accelerate")
def test_every_figure(tmp_path: Path, real_images: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """From images, and from the statistics that were written of them; such weights give no FID."""
    monkeypatch.chdir(tmp_path)
    torch.save(random_inception().state_dict(), "random.pth")
    for name, photograph, count in (("samples", "cat", 6), ("real", "coffee", 5)):
        pixels = real_images[photograph].permute(1, 2, 0).numpy()
        np.savez(
            f"{name}.npz", arr_0=np.stack([pixels[30 * i : 30 * i + 64, 40 * i : 40 * i + 64] for i in range(count)])
        )
    flags = ["--samples", "samples.npz", "--inception-weights", "random.pth", "--cache", "cache", "--device", "cpu"]
    figures = []
    for reference, more in (("real.npz", ["--write-stats", "stats.npz"]), ("stats.npz", [])):
        output = f"{reference}.json"
        monkeypatch.setattr(sys, "argv", ["eval.fid", *flags, "--reference", reference, "--output", output, *more])
        fid.main()
        figures.append(json.loads(Path(output).read_text())["figures"])
    found, again = figures
    assert again == pytest.approx(found, rel=1e-9)
    assert found["frechet_distance[inception-v3-adm]@6"] > 1
    assert found["spatial_frechet_distance[inception-v3-adm]@6"] > 0
    assert 1 <= found["inception_score[inception-v3-adm]@6"] <= 6
    assert set(found) >= {"precision[inception-v3-adm]@6", "recall[inception-v3-adm]@6"}
    with np.load("stats.npz") as arrays:
        assert [arrays[name].shape for name in ("mu", "sigma_s")] == [(2048,), (2023, 2023)]
