"""Choosing among the averages of a run, and making new ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sample_flags import flags_of

from iptv2_diffusion import IPTV2Transformer2DModel
from iptv2_diffusion.cli.drawing import digest, load_models
from iptv2_diffusion.cli.load import load_pipeline
from iptv2_diffusion.cli.sample_config import read_config
from iptv2_diffusion.diffusion.schedule import paper_scheduler
from iptv2_diffusion.engine.decay import gamma
from iptv2_diffusion.engine.posthoc import Profile, solve

TINY: dict[str, Any] = {"sample_size": 8, "num_classes": 2, "cond_dim": 8, "width": 4, "layers": (1,), "heads": (1,)}
AVERAGES = ["0.9999", "power-0.05", "power-0.1"]
STEPS = (10, 20)


def value_of(step: int, name: str) -> float:
    """Of every weight in that average."""
    return step + AVERAGES.index(name) / 4


@pytest.fixture
def run(tmp_path: Path, small_vae: Path) -> Path:
    model = IPTV2Transformer2DModel(**TINY, grid=4)
    record = {"seconds": 1.0, "config": {"ema": AVERAGES}, "info": {"vae": str(small_vae)}}
    for step in STEPS:
        folder = tmp_path / "run" / f"checkpoint-{step:08d}"
        for name in AVERAGES:
            for parameter in model.parameters():
                torch.nn.init.constant_(parameter, value_of(step, name))
            model.save_pretrained(folder / "model" if name == "0.9999" else folder / "ema" / name)
        (folder / "state").mkdir()
        paper_scheduler().save_pretrained(folder / "scheduler")
        (folder / "class_names.json").write_text('["a", "b"]')
        (folder / "run.json").write_text(json.dumps({"step": step, **record}))
    return tmp_path / "run"


def value(ckpt: Path, **choice: str) -> float:
    return float(load_pipeline(str(ckpt), **choice).transformer.head.weight.detach().mean())


def test_every_average_can_be_loaded_by_its_name(run):
    assert value(run) == value_of(20, "0.9999")
    for step, name in ((20, "power-0.05"), (20, "0.9999"), (10, "power-0.1")):
        assert value(run / f"checkpoint-{step:08d}", ema=name) == value_of(step, name)


def test_absent_averages_are_refused_with_those_that_exist(run):
    with pytest.raises(ValueError, match=r"holds no average '0.99'; it has 0.9999, power-0.05, power-0.1$"):
        load_pipeline(str(run), ema="0.99")
    load_pipeline(str(run)).save_pretrained(run / "saved")
    with pytest.raises(ValueError, match="saved is no training checkpoint: it holds one set of weights"):
        load_pipeline(str(run / "saved"), ema="0.9999")


def test_a_new_width_is_loaded_like_a_checkpoint(run, command, tmp_path, capsys):
    command("ema", "--ckpt", run, "--sigma-rel", 0.1, "--output", tmp_path / "same")
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'same'}: from 4 averages; the profile is matched to ")
    assert value(tmp_path / "same") == pytest.approx(value_of(20, "power-0.1"), rel=1e-6)
    command("ema", "--ckpt", run, "--sigma-rel", 0.07, "--output", tmp_path / "between")
    stored = [(step, name) for step in STEPS for name in AVERAGES[1:]]
    profiles = [Profile(step, gamma(float(name[6:]))) for step, name in stored]
    factors, _ = solve(profiles, Profile(20, gamma(0.07)))
    expected = sum(factor * value_of(*one) for factor, one in zip(factors, stored, strict=True))
    assert value(tmp_path / "between", ema="power-0.07") == pytest.approx(expected, rel=1e-6)
    command("ema", "--ckpt", run, "--sigma-rel", 0.05, "--step", 10, "--output", tmp_path / "early")
    assert value(tmp_path / "early") == pytest.approx(value_of(10, "power-0.05"), rel=1e-6)


def test_bad_requests_end_in_one_line(run, refused: Callable[..., str], tmp_path):
    assert "got power-0.4" in refused("ema", "--ckpt", run, "--sigma-rel", 0.4, "--output", tmp_path / "new")
    assert "exists already" in refused("ema", "--ckpt", run, "--sigma-rel", 0.1, "--output", tmp_path)
    assert "no complete checkpoint" in refused("ema", "--ckpt", tmp_path, "--sigma-rel", 0.1, "--output", run / "new")
    (run / "checkpoint-00000010" / "ema" / "power-0.1" / "diffusion_pytorch_model.safetensors").write_bytes(b"\0")
    assert "is damaged" in refused("ema", "--ckpt", run, "--sigma-rel", 0.1, "--output", tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_weights_are_known_by_what_was_saved(run: Path) -> None:
    """The products of fusing are rounded otherwise on another processor."""
    models = load_models(read_config(flags_of("--ckpt", run, "--guide-ema", "power-0.05")), torch.device("cpu"))
    assert models.digests["weights"] == digest(load_pipeline(str(run)).transformer)
    assert models.digests["guide_weights"] == digest(load_pipeline(str(run), ema="power-0.05").transformer)
    assert models.pipeline.transformer.config.fused
    assert models.guide.config.fused
