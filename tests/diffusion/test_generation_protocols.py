"""Named protocols: what they say, and how departures from them are named. Table 6 as the paper prints it."""

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from iptv2_diffusion.diffusion.latents import QUANTISE
from iptv2_diffusion.diffusion.protocols import PAPER_SCHEDULE, PROTOCOLS, differences, find_protocol
from iptv2_diffusion.diffusion.published import FIGURES, TABLE_6
from iptv2_diffusion.diffusion.schedule import SCHEDULERS, paper_scheduler
from iptv2_diffusion.diffusion.vae_files import SD_VAE

GUIDED = find_protocol("dit-paper-cfg1.5")


def as_written(**changes: Any) -> dict[str, Any]:
    """Through JSON, as a sampler leaves them."""
    return json.loads(json.dumps(asdict(GUIDED) | changes))


def test_the_protocols_of_table_6() -> None:
    assert list(PROTOCOLS) == ["dit-paper-cfg1.0", "dit-paper-cfg1.5"]
    assert (GUIDED.sampler, GUIDED.steps, GUIDED.cfg_scale, GUIDED.guidance_channels) == ("ddpm", 250, 1.5, 3)
    assert (GUIDED.quantise, GUIDED.class_draw, GUIDED.vae) == ("truncate", "random", SD_VAE)
    assert GUIDED.sampler in SCHEDULERS
    assert GUIDED.quantise in QUANTISE
    assert (GUIDED.precision, GUIDED.size, GUIDED.model) == ("fp32", 256, {"num_classes": 1000})
    assert GUIDED.scheduler_config == {name: paper_scheduler().config[name] for name in PAPER_SCHEDULE}
    assert find_protocol("dit-paper-cfg1.0") == replace(GUIDED, cfg_scale=1.0)
    with pytest.raises(ValueError, match=r"unknown protocol 'dit': expected one of dit-paper-cfg1\.0, dit-paper"):
        find_protocol("dit")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"seed": 3, "ema": "0.9999"}, []),
        ({"vae": "/data/vaes/sd-vae-ft-ema"}, []),
        ({"vae": "/hub/models--stabilityai--sd-vae-ft-ema/snapshots/1f"}, []),
        ({"vae": "/data/vaes/sd-vae-ft-mse"}, ["vae /data/vaes/sd-vae-ft-mse instead of stabilityai/sd-vae-ft-ema"]),
        ({"steps": 50, "sampler": "ddim"}, ["sampler ddim instead of ddpm", "steps 50 instead of 250"]),
        ({"guidance_channels": None}, ["guidance_channels None instead of 3"]),
        ({"guidance_interval": (0.1, 0.7)}, ["guidance_interval (0.1, 0.7) instead of None"]),
        ({"quantise": "round"}, ["quantise round instead of truncate"]),
        (
            {"cache_interval": 3, "classes": ["cat"]},
            ["cache_interval 3 instead of 1", "classes ('cat',) instead of ()"],
        ),
        ({"cache_interval": 1, "classes": [], "guide": None}, []),
        ({"guide_ema": "0.999"}, ["guide_ema 0.999 instead of None"]),
        ({"class_draw": "balanced"}, ["class_draw balanced instead of random"]),
        ({"precision": "fp16", "size": 128}, ["precision fp16 instead of fp32", "size 128 instead of 256"]),
        ({"model": {"num_classes": 9, "width": 88}}, ["model.num_classes 9 instead of 1000"]),
        ({"model": None}, ["model.num_classes unknown instead of 1000"]),
        (
            {"scheduler_config": PAPER_SCHEDULE | {"variance_type": "fixed_small", "num_train_timesteps": 100}},
            [
                "scheduler_config.num_train_timesteps 100 instead of 1000",
                "scheduler_config.variance_type fixed_small instead of learned_range",
            ],
        ),
        (
            {"scheduler_config": PAPER_SCHEDULE | {"beta_schedule": "scaled_linear", "beta_end": 0.012}},
            [
                "scheduler_config.beta_schedule scaled_linear instead of linear",
                "scheduler_config.beta_end 0.012 instead of 0.02",
            ],
        ),
    ],
)
def test_departures_are_named(changes: dict[str, Any], expected: list[str]) -> None:
    assert differences(GUIDED, as_written(**changes)) == expected


def test_settings_that_are_missing_depart() -> None:
    written = as_written()
    del written["steps"]
    assert differences(GUIDED, written) == ["steps unknown instead of 250"]
    assert len(differences(GUIDED, {})) == 21
    anything = replace(GUIDED, size=None, model={}, scheduler_config={})
    assert len(differences(anything, {})) == 9


def test_without_guidance_its_channels_do_not_matter() -> None:
    unguided = as_written(cfg_scale=1, guidance_channels=None, guidance_interval=(0, 1))
    assert differences(find_protocol("dit-paper-cfg1.0"), unguided) == []
    assert differences(GUIDED, as_written(cfg_scale=1)) == ["cfg_scale 1 instead of 1.5"]


def test_table_6() -> None:
    """The differences that Section 4.4 speaks of, and the shape of the table."""
    assert len(TABLE_6) == 16
    assert all(len(row.figures) == len(FIGURES) for row in TABLE_6)
    best = {(row.model, row.cfg_scale): row.figures for row in TABLE_6 if row.iterations == "800k"}
    assert best["IPTV2-S", 1.5] == (7.71, 147.47, 6.07, 0.7619, 0.5240)
    assert best["DiT-S/2", 1.0] == (57.76, 24.43, 10.77, 0.4102, 0.6056)
    for model, gflops in (("DiT-S/2", 6.06), ("IPTV2-S", 6.24)):
        rows = [row for row in TABLE_6 if row.model == model]
        assert {row.gflops for row in rows} == {gflops}
        assert [row.figures[0] for row in rows] == sorted((row.figures[0] for row in rows[:4]), reverse=True) + sorted(
            (row.figures[0] for row in rows[4:]), reverse=True
        )
