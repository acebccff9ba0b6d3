"""`sample.py` with the bundled model and with broken input."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iptv2_diffusion.cli.sample_config import METADATA_KEY
from iptv2_diffusion.cli.sources import EMOJI

FAST = ("--scheduler", "ddim", "--steps", 2)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture).astype(int)


def test_draws_a_grid_and_pictures_that_carry_their_settings(command, tmp_path, capsys):
    command("sample", *FAST, "--classes", "flags", 3, "--num-samples", 3, "--seed", 5, "--output", tmp_path / "new")
    assert "bundled" in capsys.readouterr().out.splitlines()[0]
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
        "000000.png",
        "000001.png",
        "000002.png",
        "grid.png",
    ]
    with Image.open(tmp_path / "new" / "000002.png") as picture:
        assert picture.size == (128, 128)
        settings = json.loads(picture.info[METADATA_KEY])
    assert (settings["seed"], settings["label"], settings["name"], settings["steps"]) == (7, 2, "Flags", 2)
    assert (settings["scheduler"], settings["device"]) == ("DPMSolverMultistepScheduler", "cpu")
    with Image.open(tmp_path / "new" / "000001.png") as picture:
        assert json.loads(picture.info[METADATA_KEY])["name"] == "Food & Drink"


def test_a_picture_depends_on_its_seed_not_on_its_batch(command, tmp_path):
    flags = (*FAST, "--classes", "Objects", "--num-samples", 3)
    command("sample", *flags, "--batch-size", 3, "--share-modulation", "--output", tmp_path / "whole")
    command("sample", *flags, "--batch-size", 2, "--output", tmp_path / "split")
    command("sample", *FAST, "--classes", "Objects", "--seed", 2, "--output", tmp_path / "single")
    for i in range(3):
        name = f"{i:06d}.png"
        assert np.abs(pixels(tmp_path / "whole" / name) - pixels(tmp_path / "split" / name)).max() <= 1
    alone = pixels(tmp_path / "single" / "000000.png")
    np.testing.assert_array_equal(alone, pixels(tmp_path / "split" / "000002.png"))  # batches of one, both
    assert np.abs(alone - pixels(tmp_path / "split" / "000000.png")).mean() > 1


def test_takes_the_next_free_folder_by_itself(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        command("sample", *FAST, "--num-samples", 1)
    assert sorted(p.name for p in (tmp_path / "samples").iterdir()) == ["000", "001"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--classes", "dragon"), "dragon"),
        (("--classes", "106"), "0 to 105"),
        (("--scheduler", "plms"), "ddpm, ddim, dpm++, unipc, euler"),
        (("--ckpt", "no/such/place"), "no/such/place"),
        (("--steps", "0"), "--steps"),
        (("--steps", "2000"), "2000"),
        (("--size", "136"), "multiples of 32"),
        (("--classes", "0", "1", "199", "--batch-size", "1"), "199"),
        (("--seed", str(2**63)), "--seed"),
        (("--device", "meta"), "meta"),
        (("--num-samples", "0"), "--num-samples"),
        (("--device", "cuda:99"), "cuda:99"),
        (("--device", "nonsense"), "nonsense"),
        (("--guidance-channels", "5"), "5"),
        (("--guidance-interval", "0.9", "0.1"), "0.9"),
        (("--cfg-scale", "nan"), "finite"),
        (("--share-modulation", "--compile"), "exclude each other"),
        (("--vae", "no-such-folder"), "no-such-folder"),
        (("--cfg-scale", "1", "--guidance-channels", "3"), "--guidance-channels without effect: --cfg-scale 1"),
        (("--cfg-scale", "1", "--guidance-interval", "0", "1", "--guide", "x"), "--guidance-interval, --guide without"),
    ],
)
def test_refuses_bad_flags_in_one_line_and_writes_nothing(refused, tmp_path, flags, words):
    message = refused("sample", "--output", tmp_path / "new", *flags)
    assert words in message
    assert not (tmp_path / "new").exists()


def test_refuses_an_output_folder_that_holds_something(refused: Callable[..., str], tmp_path: Path):
    (tmp_path / "precious.png").write_bytes(b"")
    assert "already holds" in refused("sample", *FAST, "--output", tmp_path)


def test_refuses_damaged_weights(refused: Callable[..., str], tmp_path: Path):
    shutil.copytree(EMOJI, tmp_path / "ckpt")
    weights = next((tmp_path / "ckpt" / "transformer").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "cannot load" in refused("sample", *FAST, "--ckpt", tmp_path / "ckpt")
    weights.unlink()
    assert "cannot load" in refused("sample", *FAST, "--ckpt", tmp_path / "ckpt")


@pytest.mark.parametrize(
    "change", [{"width": 64}, {"layers": [2, 2, 2]}, {"layers": [2, 2, 6]}, {"fused": False}], ids=str
)
def test_refuses_weights_of_another_configuration(refused: Callable[..., str], tmp_path: Path, change: dict):
    shutil.copytree(EMOJI, tmp_path / "ckpt")
    config = tmp_path / "ckpt" / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    assert "cannot load" in refused("sample", *FAST, "--ckpt", tmp_path / "ckpt")


def test_compile_reaches_the_model(command, tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr("iptv2_diffusion.backbone.compiling.compile_layers", compiled.append)
    command("sample", *FAST, "--num-samples", 1, "--compile", "--output", tmp_path / "new")
    assert [type(model).__name__ for model in compiled] == ["IPTV2Transformer2DModel"]
