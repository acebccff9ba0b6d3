"""Averages of other widths from the stored ones."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toy import ToyNet, ToyTask, toy_config

from iptv2_diffusion.engine import fit, read_run
from iptv2_diffusion.engine.decay import gamma
from iptv2_diffusion.engine.posthoc import Profile, reconstruct, solve

AVERAGES = ("0.9", "power-0.05", "power-0.1", "power-0.07", "power-0.15")
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """120 steps with a checkpoint every tenth; two of the averages, 0.07 and 0.15, are hidden from the reconstruction."""
    output = tmp_path_factory.mktemp("run")
    quiet = {"validate_every": None, "preview_every": None, "tracker": None, "log_every": 100}
    fit(ToyTask(), toy_config(output, steps=120, checkpoint_every=10, ema=AVERAGES, **quiet))
    for file in output.glob("checkpoint-*/run.json"):
        record = json.loads(file.read_text())
        record["config"]["ema"] = list(AVERAGES[:3])
        file.write_text(json.dumps(record))
    return output


def flat(weights) -> torch.Tensor:
    return torch.cat([weights[name].flatten().double() for name in sorted(weights)])


@pytest.mark.parametrize(("a", "b"), [((10, 3.0), (10, 7.0)), ((6, 3.0), (10, 7.0)), ((10, 3.0), (6, 7.0))])
def test_products_of_profiles_equal_their_integral(a, b):
    time = (np.arange(200_000) + 0.5) / 200_000 * 10
    values = [np.where(time < t, (g + 1) * time**g / t ** (g + 1), 0) for t, g in (a, b)]
    assert Profile(*a).dot(Profile(*b)) == pytest.approx((values[0] * values[1]).mean() * 10, rel=1e-4)
    assert Profile(*a).dot(Profile(*b)) == Profile(*b).dot(Profile(*a))


def test_a_stored_profile_is_found_exactly():
    profiles = [Profile(step, gamma(sigma)) for step in (10, 20, 30) for sigma in (0.05, 0.1)]
    factors, error = solve(profiles, profiles[3])
    np.testing.assert_allclose(factors, [0, 0, 0, 1, 0, 0], atol=1e-9)
    assert error < 1e-6


def test_more_snapshots_bring_the_profile_nearer():
    errors = []
    for count in (2, 4, 8, 16):
        steps = [1000 * (i + 1) // count for i in range(count)]
        profiles = [Profile(step, gamma(sigma)) for step in steps for sigma in (0.05, 0.1)]
        errors.append(solve(profiles, Profile(1000, gamma(0.07)))[1])
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.04
    assert errors[-1] < 0.01


@pytest.mark.parametrize(("sigma", "step"), [(0.07, 120), (0.07, 80), (0.15, 120)])
def test_the_reconstruction_equals_the_average_that_was_trained(run, tmp_path, sigma, step):
    folder = run / f"checkpoint-{step:08d}"
    count, error = reconstruct(run, sigma, tmp_path / "new", step)
    assert count == 2 * step // 10
    assert error < 0.02
    truth = flat(load_file(folder / "ema" / f"power-{sigma}" / WEIGHTS))
    near = flat(load_file(folder / "ema" / "power-0.1" / WEIGHTS))
    found = flat(ToyNet.from_pretrained(tmp_path / "new" / "model").state_dict())
    assert (found - truth).norm() < 0.02 * (near - truth).norm()


def test_the_result_is_a_checkpoint_without_training_state(run, tmp_path):
    reconstruct(run, 0.2, tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["model", "names.json", "run.json"]
    record = read_run(tmp_path / "new")
    assert (record["step"], record["config"]["ema"]) == (120, ["power-0.2"])
    assert not list(tmp_path.glob(".new*"))


def test_impossible_reconstructions_are_refused(run, tmp_path):
    with pytest.raises(ValueError, match=r"got power-0.5"):
        reconstruct(run, 0.5, tmp_path / "new")
    with pytest.raises(ValueError, match=r"has no checkpoint of step 15; it has 10, 20, .*, 120$"):
        reconstruct(run, 0.1, tmp_path / "new", 15)
    with pytest.raises(FileExistsError, match="exists already"):
        reconstruct(run, 0.1, tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no complete checkpoint"):
        reconstruct(tmp_path, 0.1, tmp_path / "new")
    fit(ToyTask(), toy_config(tmp_path / "plain", steps=1))
    with pytest.raises(ValueError, match=r"holds no power-function averages: train with --ema power-0.05 power-0.1"):
        reconstruct(tmp_path / "plain", 0.1, tmp_path / "new")
