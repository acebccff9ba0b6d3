"""Which training configurations are refused."""

import argparse
from dataclasses import fields

import pytest
from toy import toy_config

from iptv2_diffusion.config import add_flags, from_flags, from_json, to_json
from iptv2_diffusion.engine import TrainConfig
from iptv2_diffusion.engine.settings import MAY_CHANGE


def test_the_defaults_are_the_recipe(tmp_path):
    config = TrainConfig(output=tmp_path)
    recipe = (config.lr, config.schedule, config.warmup_steps, config.betas, config.weight_decay, config.clip)
    assert recipe == (1e-4, "constant", 0, (0.9, 0.999), 0.0, None)
    assert (config.batch_size, config.ema, config.precision) == (256, ("0.9999",), "no")


def test_every_setting_is_explained_and_survives_json(tmp_path):
    assert all(field.metadata["help"] for field in fields(TrainConfig))
    assert {field.name for field in fields(TrainConfig)} > MAY_CHANGE
    config = toy_config(tmp_path, schedule="cosine", lr_final=1e-6, clip=1.0)
    assert from_json(TrainConfig, to_json(config)) == config


def test_settings_become_flags(tmp_path):
    parser = argparse.ArgumentParser()
    add_flags(parser, TrainConfig)
    flags = ["--output", str(tmp_path), "--betas", "0.9", "0.95", "--clip", "1", "--keep", "none", "--resume"]
    flags += ["--ema", "0.999", "power-0.05", "--tracker", "none"]
    averages = ("0.999", "power-0.05")
    expected = TrainConfig(output=tmp_path, betas=(0.9, 0.95), clip=1.0, resume=True, ema=averages, tracker=None)
    assert from_flags(TrainConfig, parser.parse_args(flags)) == expected
    assert "updates of linear warm-up (default: 0)" in parser.format_help()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps: expected more than 0, got 0"),
        ({"micro_batch": 0}, "micro_batch: expected more than 0, got 0"),
        ({"clip": -1.0}, "clip: expected more than 0, got -1.0"),
        ({"workers": -1}, "workers: expected 0 or more, got -1"),
        ({"ema": ("1.0",)}, r"ema: expected decays in \[0, 1\) such as 0.9999, or power-SIGMA .*, got 1.0"),
        ({"ema": ("power-0.3",)}, r"SIGMA in \(0, 0.28\], got power-0.3"),
        ({"ema": ("0.9", "power-x")}, "got power-x"),
        ({"ema": ()}, "ema: expected one or more averages, all different, got none"),
        ({"ema": ("0.9", "0.9")}, "ema: expected one or more averages, all different, got 0.9 0.9"),
        ({"betas": (0.9, 1.5)}, r"betas: expected in \[0, 1\), got 1.5"),
        ({"schedule": "linear"}, "schedule: expected constant or cosine, got linear"),
        ({"precision": "fp16"}, "precision: expected no or bf16, got fp16"),
        ({"optimizer": "sgd"}, "optimizer: expected adamw or muon, got sgd"),
        ({"lr_final": 0.1}, "lr_final belongs to schedule cosine"),
    ],
)
def test_impossible_settings_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        toy_config(tmp_path, **changes)
