"""`python -m eval.lam` on a photograph."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from eval.lam import main
from iptv2_diffusion import IPTV2Restorer
from iptv2_diffusion.restoration.attribution import local_attribution
from iptv2_diffusion.restoration.model_files import load_restorer, save_weights

TINY: dict[str, Any] = {"width": 4, "layers": (1, 2), "heads": (1, 2), "window": 8, "grid": 4}
RED = (255, 0, 0)


@pytest.fixture
def folder(tmp_path: Path, real_images: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a photograph and two restorers."""
    crop = real_images["cat"][:, 90:150, 130:194].permute(1, 2, 0).numpy()
    Image.fromarray(crop).save(tmp_path / "cat.png")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_weights(IPTV2Restorer(**TINY), tmp_path / "colour.safetensors")
        IPTV2Restorer(**TINY, attention=("fcsa",)).save_pretrained(tmp_path / "focal")
        save_weights(IPTV2Restorer(**TINY, in_channels=1, out_channels=1), tmp_path / "gray.safetensors")
        save_weights(IPTV2Restorer(**TINY, in_channels=6), tmp_path / "dual.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, *flags: object) -> None:
    monkeypatch.setattr(sys, "argv", ["eval.lam", *map(str, flags)])
    main()


FLAGS = ("--image", "cat.png", "--patch", 20, 30, "--fold", 4, "--output", "lam.png")


def test_draws_the_patch_and_one_map_for_each_restorer(folder, monkeypatch, capsys):
    call(monkeypatch, "--ckpt", "colour.safetensors", "focal", *FLAGS, "--batch-size", 2)
    lines = capsys.readouterr().out.splitlines()
    image = torch.from_numpy(np.asarray(Image.open("cat.png")).astype(np.float32) / 255).permute(2, 0, 1)
    expected = local_attribution(load_restorer("colour.safetensors").fuse(), image, (20, 30), fold=4)
    assert f"colour.safetensors: diffusion index {expected.diffusion_index:.2f}" in lines[0]
    assert lines[1].startswith("focal: diffusion index")
    with Image.open("lam.png") as picture:
        pixels = np.asarray(picture)
    rows, columns = np.nonzero((pixels == RED).all(-1))
    zoom, gap, width = 4, 4, 4 * 64
    assert (rows.min(), rows.max()) == (gap + 20 * zoom, gap + 36 * zoom - 1)
    for panel in range(3):
        left = gap + panel * (width + gap) + 30 * zoom
        assert {left, left + 16 * zoom - 1} <= set(columns.tolist())


def test_gray_restorers_read_gray(folder, monkeypatch, capsys):
    call(monkeypatch, "--ckpt", "gray.safetensors", *FLAGS)
    assert "gray.safetensors: diffusion index" in capsys.readouterr().out


def test_dual_pixel_restorers_read_two_views(folder, monkeypatch, capsys):
    left = np.asarray(Image.open("cat.png"))
    Image.fromarray(np.roll(left, 1, 1)).save("right.png")
    call(monkeypatch, "--ckpt", "dual.safetensors", *FLAGS, "--image", "cat.png", "right.png")
    views = np.concatenate([left, np.roll(left, 1, 1)], axis=2).astype(np.float32) / 255
    image = torch.from_numpy(views).permute(2, 0, 1)
    expected = local_attribution(load_restorer("dual.safetensors").fuse(), image, (20, 30), fold=4)
    assert f"diffusion index {expected.diffusion_index:.2f}" in capsys.readouterr().out
    with Image.open("lam.png") as picture:
        assert picture.height >= 256


def test_gray_and_colour_restorers_share_a_picture(folder, monkeypatch, capsys):
    call(monkeypatch, "--ckpt", "gray.safetensors", "colour.safetensors", *FLAGS)
    assert capsys.readouterr().out.count("diffusion index") == 2


def test_restorers_of_the_hub_and_of_a_run(folder, monkeypatch, capsys):
    model = load_restorer("colour.safetensors")
    model.save_pretrained(folder / "run" / "checkpoint-00000003" / "model")
    (folder / "run" / "checkpoint-00000003" / "run.json").write_text("{}")
    report = {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": []}
    monkeypatch.setattr(IPTV2Restorer, "from_pretrained", lambda source, **options: (model, report))
    call(monkeypatch, "--ckpt", "somebody/restorer", "run", *FLAGS)
    lines = [line.split(": ") for line in capsys.readouterr().out.splitlines()]
    assert [name for name, *_ in lines[:2]] == ["somebody/restorer", "run"]
    assert lines[0][1] == lines[1][1]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (FLAGS, "needs --ckpt"),
        (("--ckpt", "absent", *FLAGS), "absent"),
        (("--ckpt", "dual.safetensors", *FLAGS), "expected 2 --image for 6 input channels, got 1"),
        (
            ("--ckpt", "focal", *FLAGS, "--image", "cat.png", "cat.png"),
            "expected 1 --image for 3 input channels, got 2",
        ),
        (("--ckpt", "focal", *FLAGS, "--image", *["cat.png"] * 3), "expected one --image or two views, got 3"),
        (("--ckpt", "focal", *FLAGS, "--image", "no.png"), "no.png"),
        (("--ckpt", "focal", *FLAGS, "--patch", 50, 0), "corner at (50, 0)"),
        (("--ckpt", "focal", *FLAGS, "--output", "lam.jpg"), ".png"),
        (("--ckpt", "focal", *FLAGS, "--output", "cat.png"), "exists already"),
        (("--ckpt", "focal", *FLAGS, "--fold", 0), "--fold"),
    ],
)
def test_mistakes_end_with_one_line(folder, monkeypatch, capsys, flags, words):
    before = sorted(entry.name for entry in folder.iterdir())
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, *flags)
    assert stop.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert words in line
    assert sorted(entry.name for entry in folder.iterdir()) == before
