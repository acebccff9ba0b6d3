"""Two processes compute what one computes."""

import json
import os
from pathlib import Path

import forked
import pytest
import torch
from denoising import DenoisingTask
from safetensors.torch import load_file
from toy import ToyTask, assert_same_checkpoint, losses, records, tensors, toy_config

from iptv2_diffusion.engine import fit

SCRIPT = Path(__file__).with_name("runs.py")
TEN = {
    "steps": 10,
    "micro_batch": 2,
    "clip": 1.0,
    "checkpoint_every": 10,
    "ema": ["0.9", "power-0.1"],
    "batch_size": 4,
}
SHARDED = {"micro_batch": 2, "clip": 0.5, "ema": ["0.9", "power-0.1"]}


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("two")
    runs = [
        {"output": output / "whole"},
        {"output": output / "parts", "steps": 3},
        {"output": output / "parts", "resume": True},
        {"output": output / "micro", "micro_batch": 3},
        {"output": output / "stopped", "steps": 50, "checkpoint_every": 100, "signal_at": 2 * 8 + 5},
        {"output": output / "broken", "breaks_at": 4 * 8 + 5},
        {"output": output / "denoiser", "task": "denoiser", **TEN},
        {"output": output / "sharded", "sharded": True, **SHARDED},
        {"output": output / "sharded-parts", "sharded": True, **SHARDED, "steps": 3},
        {"output": output / "sharded-parts", "sharded": True, **SHARDED, "resume": True},
        {"output": output / "sharded-denoiser", "sharded": True, "task": "denoiser", **TEN, "steps": 4},
    ]
    forked.run(output / "processes", SCRIPT, json.dumps(runs, default=str), ranks=2)
    return output


def test_six_steps_equal_three_and_three(two):
    for name in ("checkpoint-00000003", "checkpoint-00000006"):
        assert_same_checkpoint(two / "whole" / name, two / "parts" / name)
    assert records(two / "whole") == records(two / "parts")
    assert len(records(two / "parts")) == 6 + 3


@pytest.mark.parametrize("name", ["whole", "micro"])
def test_two_processes_equal_one(two, tmp_path, name):
    fit(ToyTask(), toy_config(tmp_path))
    torch.testing.assert_close(losses(two / name), losses(tmp_path), rtol=0, atol=1e-6)
    one = tensors(tmp_path / "checkpoint-00000006")
    torch.testing.assert_close(tensors(two / name / "checkpoint-00000006"), one, rtol=1e-4, atol=1e-5)


def test_one_process_continues_what_two_began(two, tmp_path):
    (tmp_path / "run").mkdir()
    os.symlink(two / "whole" / "checkpoint-00000003", tmp_path / "run" / "checkpoint-00000003")
    fit(ToyTask(), toy_config(tmp_path / "run", resume=True))
    torch.testing.assert_close(losses(tmp_path / "run"), losses(two / "whole")[3:], rtol=0, atol=1e-6)


def test_a_signal_to_one_process_stops_both_after_the_same_step(two):
    assert [record["step"] for record in records(two / "stopped") if "loss" in record] == [1, 2, 3]
    assert_same_checkpoint(two / "stopped" / "checkpoint-00000003", two / "whole" / "checkpoint-00000003")


def test_a_broken_loss_in_one_process_stops_both(two):
    messages = [(two / "broken" / f"error-{rank}.txt").read_text() for rank in range(2)]
    assert messages[0] == messages[1]
    assert messages[0].startswith("step 5: loss nan")


@pytest.fixture(scope="module")
def one_denoiser(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("one")
    fit(DenoisingTask(), toy_config(output, **TEN))
    return output


@pytest.mark.parametrize(("name", "steps"), [("denoiser", 10), ("sharded-denoiser", 4)])
def test_a_denoiser_logs_the_same_on_one_and_two_processes(two, one_denoiser, name, steps):
    """Also the loss of late timesteps, which most micro-batches and some steps have not at all."""
    both, alone = records(two / name), records(one_denoiser)[:steps]
    assert [record.keys() for record in both] == [record.keys() for record in alone]
    assert 0 < sum("loss_late" not in record for record in alone) < steps == len(alone)
    for key in ("loss", "loss_late", "grad_norm"):
        values = [torch.tensor([record[key] for record in run if key in record]) for run in (both, alone)]
        torch.testing.assert_close(*values, rtol=0, atol=1e-5)


def test_a_denoiser_learns_the_same_on_one_and_two_processes(two, one_denoiser):
    files = ("model", "ema/power-0.1")
    weights = [
        [load_file(run / "checkpoint-00000010" / name / "diffusion_pytorch_model.safetensors") for name in files]
        for run in (two / "denoiser", one_denoiser)
    ]
    torch.testing.assert_close(*weights, rtol=0, atol=1e-5)


def test_sharded_parameters_give_the_same_weights_and_averages(two, tmp_path):
    fit(ToyTask(), toy_config(tmp_path, **SHARDED))
    torch.testing.assert_close(losses(two / "sharded"), losses(tmp_path), rtol=0, atol=1e-6)
    found, alone = (tensors(run / "checkpoint-00000006") for run in (two / "sharded", tmp_path))
    for name, weights in alone.items():
        if name.startswith(("/model", "/ema")):
            torch.testing.assert_close(found[name], weights, rtol=1e-4, atol=1e-5)
        elif name.startswith("/state"):
            key = name.replace("/state/model.safetensors", "pytorch_model_fsdp.bin")
            torch.testing.assert_close(found[key], weights, rtol=1e-4, atol=1e-5)


def test_six_sharded_steps_equal_three_and_three(two):
    for name in ("checkpoint-00000003", "checkpoint-00000006"):
        assert_same_checkpoint(two / "sharded" / name, two / "sharded-parts" / name, averages=2)
    assert records(two / "sharded") == records(two / "sharded-parts")


def test_another_kind_of_parallelism_is_refused_on_resuming(two, tmp_path):
    os.symlink(two / "sharded" / "checkpoint-00000003", tmp_path / "checkpoint-00000003")
    with pytest.raises(
        ValueError, match=r"saved under another kind of parallelism: it has no state/model.safetensors$"
    ):
        fit(ToyTask(), toy_config(tmp_path, **SHARDED, resume=True))
